// One queue against a controller that breaks the protocol: each violation is found out, told, and ends the connection.
#include <gmock/gmock.h>

#include "host/queue.h"
#include "tests/support/controller_bed.h"

namespace fairlead::host {
namespace {

using nvme::FatalError;
using nvme::NvmOpcode;
using testing::ControllerBed;
using testing::GuardedCommand;
using testing::rough_settings;
using testing::ScriptedCommand;
using testing::ScriptedLink;
using Bytes = std::vector<std::byte>;

constexpr uint32_t kReadBytes = 8192;
constexpr uint32_t kWriteBytes = 16384;  // more than goes into a capsule

// ---- Violations: what the controller does with the first I/O command, and what it is told then.

using Answer = void (*)(ScriptedLink& link, const ScriptedCommand& command);
struct Lie {
  const char* name;
  NvmOpcode opcode;
  uint32_t length;
  Answer answer;
  FatalError told;
  bool succeeds = false;  // the command had ended well before
};

Bytes blank(size_t length) { return Bytes(length); }

// A C2HData whose builder would refuse it.
void send_data_with_flags(ScriptedLink& link, uint16_t cid, uint8_t flags) {
  nvme::C2hDataPdu pdu;
  pdu.header.type = static_cast<uint8_t>(nvme::PduType::kC2hData);
  pdu.header.hlen = pdu.header.pdo = sizeof pdu;
  pdu.header.flags = flags;
  pdu.header.plen = sizeof pdu + 4096;
  pdu.cccid = cid;
  pdu.datal = 4096;
  link.send_header(std::as_bytes(std::span(&pdu, 1)));
  link.send_raw(blank(4096));
}

void send_plain_header(ScriptedLink& link, nvme::PduType type, size_t length) {
  Bytes bytes(length);
  nvme::PduHeader header;
  header.type = static_cast<uint8_t>(type);
  header.hlen = static_cast<uint8_t>(length);
  header.plen = static_cast<uint32_t>(length);
  std::memcpy(bytes.data(), &header, sizeof header);
  link.send_header(bytes);
}

const Lie kLies[] = {
    {"CompletionOfAnotherSlot", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) { link.complete(c.cid() ^ 1); }, FatalError::kInvalidHeaderField},
    {"CompletionBeyondTheDepth", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) { link.complete(c.cid() | 0x3ff); },
     FatalError::kInvalidHeaderField},
    {"CompletionOfAnotherGeneration", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) { link.complete(c.cid() ^ 0x400); },
     FatalError::kInvalidHeaderField},
    {"CompletionTwice", NvmOpcode::kFlush, 0,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.complete(c.cid());
       link.complete(c.cid());
     },
     FatalError::kInvalidHeaderField, true},
    {"CompletionAfterSuccessInData", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_data({.cccid = c.cid(), .last = true, .success = true}, blank(kReadBytes));
       link.complete(c.cid());
     },
     FatalError::kInvalidHeaderField, true},
    {"DataAfterCompletion", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_data({.cccid = c.cid(), .last = true, .success = true}, blank(kReadBytes));
       link.send_data({.cccid = c.cid(), .last = true}, blank(kReadBytes));
     },
     FatalError::kInvalidHeaderField, true},
    {"DataOutOfOrder", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_data({.cccid = c.cid(), .offset = 4096, .last = true}, blank(4096));
     },
     FatalError::kDataOutOfRange},
    {"DataTwice", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_data({.cccid = c.cid()}, blank(4096));
       link.send_data({.cccid = c.cid()}, blank(4096));
     },
     FatalError::kDataOutOfRange},
    {"DataTooLong", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_data({.cccid = c.cid(), .last = true}, blank(kReadBytes + 4));
     },
     FatalError::kDataOutOfRange},
    {"DataBehindTheEnd", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_data({.cccid = c.cid(), .last = true}, blank(kReadBytes));
       link.send_data({.cccid = c.cid(), .offset = kReadBytes, .last = true}, blank(4));
     },
     FatalError::kDataOutOfRange},
    {"DataForNoCommand", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_data({.cccid = static_cast<uint16_t>(c.cid() + 1), .last = true}, blank(kReadBytes));
     },
     FatalError::kInvalidHeaderField},
    {"DataForAWrite", NvmOpcode::kWrite, kWriteBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_data({.cccid = c.cid(), .last = true}, blank(kWriteBytes));
     },
     FatalError::kDataOutOfRange},
    {"DataForACommandWithoutAny", NvmOpcode::kFlush, 0,
     [](ScriptedLink& link, const ScriptedCommand& c) { link.send_data({.cccid = c.cid(), .last = true}, blank(4)); },
     FatalError::kDataOutOfRange},
    {"LastTooEarly", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_data({.cccid = c.cid(), .last = true}, blank(4096));
     },
     FatalError::kInvalidHeaderField},
    {"NoLastAtTheEnd", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) { link.send_data({.cccid = c.cid()}, blank(kReadBytes)); },
     FatalError::kInvalidHeaderField},
    {"SuccessWithoutLast", NvmOpcode::kRead, 4096,
     [](ScriptedLink& link, const ScriptedCommand& c) { send_data_with_flags(link, c.cid(), nvme::kPduSuccess); },
     FatalError::kInvalidHeaderField},
    {"SuccessInDataTooEarly", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       send_data_with_flags(link, c.cid(), nvme::kPduSuccess | nvme::kPduLast);
     },
     FatalError::kInvalidHeaderField},
    {"SuccessWithoutData", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) { link.complete(c.cid()); }, FatalError::kInvalidHeaderField},
    {"SuccessWithHalfOfTheData", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_data({.cccid = c.cid()}, blank(4096));
       link.complete(c.cid());
     },
     FatalError::kInvalidHeaderField},
    {"SuccessBeforeAnyDataWasTaken", NvmOpcode::kWrite, kWriteBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) { link.complete(c.cid()); }, FatalError::kInvalidHeaderField},
    {"SuccessBeforeAllDataWasTaken", NvmOpcode::kWrite, kWriteBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_r2t({.cccid = c.cid(), .length = 8192});
       link.complete(c.cid());
     },
     FatalError::kInvalidHeaderField},
    {"SuccessInTheSameBreathAsTheR2t", NvmOpcode::kWrite, kWriteBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_r2t({.cccid = c.cid(), .length = kWriteBytes});
       link.complete(c.cid());
     },
     FatalError::kInvalidHeaderField},
    {"R2tPassesTheEnd", NvmOpcode::kWrite, kWriteBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) { link.send_r2t({.cccid = c.cid(), .length = kWriteBytes + 1}); },
     FatalError::kDataOutOfRange},
    {"R2tOverflows", NvmOpcode::kWrite, kWriteBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_r2t({.cccid = c.cid(), .offset = 0xffff'fff0, .length = 0x20});
     },
     FatalError::kDataOutOfRange},
    {"R2tNotInOrder", NvmOpcode::kWrite, kWriteBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_r2t({.cccid = c.cid(), .offset = 4096, .length = 4096});
     },
     FatalError::kDataOutOfRange},
    {"R2tForTheSameDataTwice", NvmOpcode::kWrite, kWriteBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_r2t({.cccid = c.cid(), .length = 4096});
       link.send_r2t({.cccid = c.cid(), .length = 4096});
     },
     FatalError::kDataOutOfRange},
    {"ThreeR2tsAtOnce", NvmOpcode::kWrite, kWriteBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_r2t({.cccid = c.cid(), .length = 8192});  // two PDUs: MAXH2CDATA is 4096
       link.send_r2t({.cccid = c.cid(), .offset = 8192, .length = 4096});
       link.send_r2t({.cccid = c.cid(), .offset = 12288, .length = 4096});
     },
     FatalError::kR2tLimitExceeded},
    {"R2tForNoCommand", NvmOpcode::kWrite, kWriteBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) {
       link.send_r2t({.cccid = static_cast<uint16_t>(c.cid() + 1), .length = 4096});
     },
     FatalError::kInvalidHeaderField},
    {"R2tForARead", NvmOpcode::kRead, kReadBytes,
     [](ScriptedLink& link, const ScriptedCommand& c) { link.send_r2t({.cccid = c.cid(), .length = 4096}); },
     FatalError::kDataOutOfRange},
    {"R2tForDataInTheCapsule", NvmOpcode::kWrite, 4096,
     [](ScriptedLink& link, const ScriptedCommand& c) { link.send_r2t({.cccid = c.cid(), .length = 4096}); },
     FatalError::kDataOutOfRange},
    {"R2tForACommandWithoutData", NvmOpcode::kFlush, 0,
     [](ScriptedLink& link, const ScriptedCommand& c) { link.send_r2t({.cccid = c.cid(), .length = 4}); },
     FatalError::kDataOutOfRange},
    {"GreetingTwice", NvmOpcode::kFlush, 0,
     [](ScriptedLink& link, const ScriptedCommand&) { link.greet({.max_h2c_data = 4096}); }, FatalError::kPduSequence},
    {"PduOfAHost", NvmOpcode::kFlush, 0,
     [](ScriptedLink& link, const ScriptedCommand&) { send_plain_header(link, nvme::PduType::kH2cData, 24); },
     FatalError::kInvalidHeaderField},
    {"UnknownPdu", NvmOpcode::kFlush, 0,
     [](ScriptedLink& link, const ScriptedCommand&) { send_plain_header(link, static_cast<nvme::PduType>(0x42), 24); },
     FatalError::kInvalidHeaderField},
    {"R2tOfNothing", NvmOpcode::kWrite, kWriteBytes,
     [](ScriptedLink& link, const ScriptedCommand&) { send_plain_header(link, nvme::PduType::kR2t, 24); },
     FatalError::kInvalidHeaderField},
};

class LieTest : public ::testing::TestWithParam<std::tuple<Lie, sim::Chop>> {};

Task<void> is_found_out(ControllerBed& bed, const Lie& lie) {
  bed.controller.nature.greeting.max_h2c_data = 4096;
  bed.on_command([&lie, told = false](ScriptedLink& link, const ScriptedCommand& command) mutable {
    if (command.entry.is_fabrics()) return false;
    if (!std::exchange(told, true)) lie.answer(link, command);
    return true;
  });
  Queue queue(bed.shard(), bed.queue_options());
  CO_ASSERT_TRUE(co_await queue.connect());
  GuardedCommand command(bed.reactor(), lie.opcode, lie.length);
  GuardedCommand other(bed.reactor(), NvmOpcode::kRead, 4096);
  queue.submit(command);
  queue.submit(other);
  const Instant begin = bed.reactor().now();
  co_await command.ended.wait();
  co_await other.ended.wait();
  EXPECT_LE(bed.reactor().now() - begin, std::chrono::seconds(2));
  queue.close("the test is over");
  co_await queue.closed();
  EXPECT_TRUE(queue.is_lost());
  EXPECT_STREQ(queue.reason(), "the controller broke the protocol");
  EXPECT_EQ(command.is_ok(), lie.succeeds);
  EXPECT_EQ(other.outcome, Outcome::kLost);
  for (const GuardedCommand* each : {&command, &other}) {
    EXPECT_EQ(each->endings, 1);
    EXPECT_TRUE(each->guards_hold());
  }
  while (!bed.last_link().has_ended()) co_await bed.sleep(std::chrono::milliseconds(1));
  CO_ASSERT_TRUE(bed.last_link().termination().has_value());
  EXPECT_EQ(static_cast<FatalError>(bed.last_link().termination()->fes.get()), lie.told);
}

TEST_P(LieTest, IsFoundOut) {
  const auto& [lie, chop] = GetParam();
  const auto settings = chop == sim::Chop::kWhole ? sim::SimSettings::calm() : rough_settings(chop);
  ControllerBed(settings).run([&lie](ControllerBed& bed) { return is_found_out(bed, lie); });
}
std::string lie_name(const ::testing::TestParamInfo<LieTest::ParamType>& instance) {
  return std::string(std::get<0>(instance.param).name) +
         (std::get<1>(instance.param) == sim::Chop::kWhole ? "" : "InARoughWorld");
}
INSTANTIATE_TEST_SUITE_P(QueueTest, LieTest,
                         ::testing::Combine(::testing::ValuesIn(kLies),
                                            ::testing::Values(sim::Chop::kWhole, sim::Chop::kRandom)),
                         lie_name);

}  // namespace
}  // namespace fairlead::host
