// Replication control, seen from the host: calls of a controller that answers properly, badly, or not at all.
#include <gmock/gmock.h>

#include "host/subsystem.h"
#include "nvme/validate.h"
#include "tests/support/controller_bed.h"

namespace fairlead::host {
namespace {

using nvme::AdminOpcode;
using nvme::ReplicationSent;
using nvme::StatusCode;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ControllerBed;
using testing::ScriptedCommand;
using testing::ScriptedLink;

using Bytes = std::vector<std::byte>;
using Answered = std::optional<Result<Bytes>>;

Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

bool is_admin(const ScriptedLink& link, const ScriptedCommand& command, AdminOpcode opcode) {
  return link.is_admin() && !command.entry.is_fabrics() && command.is(opcode);
}

// What the controller says to a call, and how.
struct Script {
  ReplicationSent sent{7, 5};
  Bytes answer = bytes_of("hello");
  uint64_t received = 5;  // dword 0 of Receive
  nvme::Status send_status;
  nvme::Status receive_status;
  bool is_silent = false;  // to Send

  std::vector<ScriptedCommand> sends;
  std::vector<ScriptedCommand> receives;
};

void play(ControllerBed& bed, Script& script) {
  bed.on_command([&script](ScriptedLink& link, const ScriptedCommand& command) {
    if (is_admin(link, command, AdminOpcode::kReplicationSend)) {
      script.sends.push_back(command);
      const uint64_t result = script.send_status.ok() ? nvme::encode_replication_sent(script.sent) : 0;
      if (!script.is_silent) link.complete(command.cid(), script.send_status, result);
      return true;
    }
    if (is_admin(link, command, AdminOpcode::kReplicationReceive)) {
      script.receives.push_back(command);
      if (script.receive_status.ok()) link.send_data({.cccid = command.cid(), .last = true}, script.answer);
      link.complete(command.cid(), script.receive_status, script.received);
      return true;
    }
    return false;
  });
}

Task<void> keep_answer(Task<Result<Bytes>> call, Answered& out) { out = co_await std::move(call); }

Code code_of(const Result<Bytes>& answer) { return answer ? Code::kAlreadyExists : answer.error().code; }

Task<void> asks_and_fetches(ControllerBed& bed) {
  Script script;
  play(bed, script);
  Subsystem subsystem({&bed.shard()}, bed.subsystem_options());
  EXPECT_EQ(code_of(co_await subsystem.call(3, bytes_of("early"))), Code::kUnreachable);
  CO_ASSERT_TRUE(co_await subsystem.start());
  const auto answer = co_await subsystem.call(3, bytes_of("question"));
  CO_ASSERT_TRUE(answer);
  EXPECT_EQ(*answer, script.answer);
  CO_ASSERT_TRUE(script.sends.size() == 1 && script.receives.size() == 1);
  EXPECT_EQ(script.sends[0].entry.nsid, 3U);
  EXPECT_EQ(script.sends[0].capsule, bytes_of("question"));
  EXPECT_EQ(script.receives[0].entry.nsid, 3U);
  EXPECT_EQ(script.receives[0].entry.cdw10, 7U);
  EXPECT_EQ(script.receives[0].entry.sgl.length, 5U);
  EXPECT_TRUE(nvme::decode_replication_send(script.sends[0].entry, 8));
  EXPECT_TRUE(nvme::decode_replication_receive(script.receives[0].entry, 5));

  const Bytes longest(nvme::kReplicationSendBytesMax, std::byte{1});
  EXPECT_TRUE(co_await subsystem.call(3, longest));
  EXPECT_EQ(script.sends[1].capsule, longest);
  // Nothing to fetch.
  script.sent = {};
  const auto nothing = co_await subsystem.call(3, bytes_of("question"));
  EXPECT_TRUE(nothing && nothing->empty());
  EXPECT_EQ(script.receives.size(), 2U);
  co_await subsystem.stop();
  EXPECT_EQ(code_of(co_await subsystem.call(3, bytes_of("late"))), Code::kUnreachable);
}
TEST(CallsTest, AsksAndFetches) { ControllerBed().run(asks_and_fetches); }

Task<void> errors(ControllerBed& bed) {
  Script script;
  play(bed, script);
  Subsystem subsystem({&bed.shard()}, bed.subsystem_options());
  CO_ASSERT_TRUE(co_await subsystem.start());
  const std::pair<nvme::Status, Code> table[] = {
      {nvme::permanent(StatusCode::kInvalidOpcode), Code::kNotSupported},
      {nvme::permanent(StatusCode::kInvalidNamespaceOrFormat), Code::kNotFound},
      {nvme::transient(StatusCode::kNamespaceNotReady), Code::kBusy},
      {nvme::permanent(StatusCode::kFenced), Code::kFenced},
  };
  for (const auto& [status, code] : table) {
    script.send_status = status;
    EXPECT_EQ(code_of(co_await subsystem.call(1, bytes_of("question"))), code);
  }
  EXPECT_EQ(script.sends.size(), std::size(table)) << "each is asked once";
  EXPECT_TRUE(script.receives.empty());
  script.send_status = {};
  script.receive_status = nvme::permanent(StatusCode::kInvalidField);
  EXPECT_EQ(code_of(co_await subsystem.call(1, bytes_of("question"))), Code::kInvalidArgument);
  script.receive_status = {};
  script.received = 4;
  EXPECT_EQ(code_of(co_await subsystem.call(1, bytes_of("question"))), Code::kProtocol);
  for (const ReplicationSent lie : {ReplicationSent{0, 5}, {7, 0}, {7, 65537}, {7, 0xffff'ffff}}) {
    script.sent = lie;
    EXPECT_EQ(code_of(co_await subsystem.call(1, bytes_of("question"))), Code::kProtocol);
  }
  EXPECT_EQ(script.receives.size(), 2U);
  EXPECT_EQ(subsystem.controllers()[0].connects, 1U);
  co_await subsystem.stop();
}
TEST(CallsTest, SaysWhatIsWrong) { ControllerBed().run(errors); }

// Four are with the controller, the others wait in line; with the connection all of them end.
Task<void> ends_with_its_connection(ControllerBed& bed) {
  Script script;
  script.is_silent = true;
  play(bed, script);
  Subsystem subsystem({&bed.shard()}, bed.subsystem_options());
  CO_ASSERT_TRUE(co_await subsystem.start());
  for (const bool drops : {false, true}) {
    SCOPED_TRACE(drops);
    script.sends.clear();
    const uint64_t connection = subsystem.connection(0);
    EXPECT_NE(connection, 0U);
    std::vector<Answered> answers(7);
    Scope scope(bed.reactor());
    for (Answered& each : answers) scope.spawn(keep_answer(subsystem.call(1, bytes_of("question")), each));
    (void)co_await bed.sleep(seconds(1));
    EXPECT_EQ(script.sends.size(), 4U);
    const Instant begin = bed.reactor().now();
    if (drops) {
      bed.world.network().isolate(bed.server.index());
      subsystem.drop(0, "for a test");
      EXPECT_EQ(subsystem.connection(0), 0U);
    } else {
      bed.controller.links().front()->cut();
    }
    co_await scope.close();
    EXPECT_LE(bed.reactor().now() - begin, milliseconds(50));
    for (const Answered& each : answers) EXPECT_TRUE(each && code_of(*each) == Code::kConnectionLost);
    EXPECT_EQ(code_of(co_await subsystem.call(1, bytes_of("question"))), Code::kUnreachable);
    bed.world.network().heal_all();
    while (subsystem.connection(0) == 0) co_await subsystem.changed().wait();
    EXPECT_NE(subsystem.connection(0), connection);
  }
  // One by one as the controller answers.
  script.is_silent = false;
  std::vector<Answered> answers(20);
  Scope scope(bed.reactor());
  for (Answered& each : answers) scope.spawn(keep_answer(subsystem.call(1, bytes_of("question")), each));
  co_await scope.close();
  for (const Answered& each : answers) EXPECT_TRUE(each && *each && **each == script.answer);
  // One that is never answered.
  script.is_silent = true;
  const Instant begin = bed.reactor().now();
  EXPECT_EQ(code_of(co_await subsystem.call(1, bytes_of("question"))), Code::kConnectionLost);
  EXPECT_LE(bed.reactor().now() - begin, seconds(16));
  // Those that are under way when it stops.
  while (subsystem.connection(0) == 0) co_await subsystem.changed().wait();
  for (Answered& each : answers) scope.spawn(keep_answer(subsystem.call(1, bytes_of("question")), each));
  (void)co_await bed.sleep(milliseconds(10));
  co_await subsystem.stop();
  co_await scope.close();
  for (const Answered& each : answers) EXPECT_TRUE(each && code_of(*each) == Code::kConnectionLost);
}
TEST(CallsTest, EndsWithItsConnection) {
  ControllerBed().run(ends_with_its_connection);
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    ControllerBed(testing::rough_settings(sim::Chop::kRandom), seed).run(ends_with_its_connection);
  }
}

}  // namespace
}  // namespace fairlead::host
