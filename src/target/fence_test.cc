// Replication control and fences: namespaces that take I/O of one association only.
#include <gmock/gmock.h>

#include "block/faulty.h"
#include "nvme/validate.h"
#include "tests/support/target_bed.h"

namespace fairlead::testing {
namespace {

using nvme::AdminOpcode;
using nvme::StatusCode;
using std::chrono::milliseconds;
using std::chrono::seconds;
using target::CallerId;
using target::kNobody;

constexpr uint32_t kReplica = 7;  // namespace id

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// What it does is the first letter of a request: 'e' echoes; 'h' echoes when it is told to go on; 's' echoes after
// five seconds; 'f' lets the caller in, and nobody else; 'n' says nothing; 'b' says as much as possible.
class TestHandler final : public target::ControlHandler {
 public:
  TestHandler(TargetBed& bed, Reactor& home) : bed_(bed), home_(home), changed_(home) {}

  Task<std::vector<std::byte>> call(CallerId caller, std::vector<std::byte> request) override {
    callers.push_back(caller);
    ++running;
    std::vector<std::byte> answer = request;
    const char what = request.empty() ? ' ' : static_cast<char>(request[0]);
    if (what == 'h') {
      while (holds) co_await changed_.wait();
    } else if (what == 's') {
      (void)co_await sleep(home_, seconds(5));
    } else if (what == 'f') {
      const Result<void> fenced = co_await bed_.target().fence(kNqn, kReplica);
      const Result<void> admitted = co_await bed_.target().admit(kNqn, kReplica, caller);
      answer = bytes_of(fenced && admitted ? "done" : "failed");
    } else if (what == 'n') {
      answer.clear();
    } else if (what == 'b') {
      answer = pattern(nvme::kReplicationReceiveBytesMax, 3);
    }
    --running;
    co_return answer;
  }
  void gone(CallerId caller) override { left.push_back(caller); }

  Task<void> go_on() {
    holds = false;
    changed_.release_waiters();
    co_return;
  }

  bool holds = true;
  int running = 0;
  std::vector<CallerId> callers;  // of each call
  std::vector<CallerId> left;

 private:
  TargetBed& bed_;
  Reactor& home_;
  Event changed_;
};

// Keeps writes until it is told to go on. The worlds of these tests have one thread.
class HoldingSource final : public BlockSource {
 public:
  explicit HoldingSource(std::shared_ptr<BlockSource> inner) : inner_(std::move(inner)) {}
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override {
    FL_TRY(std::unique_ptr<BlockDevice> device, inner_->open(shard));
    shards_.push_back(std::make_shared<State>(&shard, device.get()));
    return std::make_unique<Device>(std::move(device), holds_, shards_.back());
  }
  size_t held(size_t shard) const { return shards_[shard]->requests.size(); }
  // Where any are held, on their own shard.
  Task<void> go_on(Reactor& from) {
    for (size_t i = 0; i < shards_.size(); ++i) co_await go_on(from, i);
  }
  Task<void> go_on(Reactor& from, size_t shard) {
    if (held(shard) > 0) co_await call_on(from, shards_[shard]->shard->reactor, submit_all(*shards_[shard]));
  }
  // What is held is answered, though the device has its buffers still, and ends it later.
  Task<void> leave_behind(Reactor& from) {
    for (const auto& state : shards_) co_await call_on(from, state->shard->reactor, leave_behind(*state));
  }
  void hold(bool on) { *holds_ = on; }

 private:
  struct State {
    Shard* shard;
    BlockDevice* inner;
    std::vector<IoRequest*> requests;
  };
  struct Device final : BlockDevice {
    Device(std::unique_ptr<BlockDevice> device, std::shared_ptr<bool> flag, std::shared_ptr<State> of_shard)
        : BlockDevice(device->geometry()),
          inner(std::move(device)),
          holds(std::move(flag)),
          state(std::move(of_shard)) {}
    void execute(IoRequest& request) override {
      if (!*holds || request.op != IoOp::kWrite) return inner->submit(request);
      state->requests.push_back(&request);
    }
    std::unique_ptr<BlockDevice> inner;
    // Devices and source outlive each other.
    std::shared_ptr<bool> holds;
    std::shared_ptr<State> state;
  };
  static Task<void> submit_all(State& state) {
    for (IoRequest* const request : std::exchange(state.requests, {})) state.inner->submit(*request);
    co_return;
  }
  static Task<void> leave_behind(State& state) {
    for (IoRequest* const request : state.requests) {
      request->result = {};
      request->left_behind(*request);
    }
    co_return;
  }
  std::shared_ptr<BlockSource> inner_;
  const std::shared_ptr<bool> holds_ = std::make_shared<bool>(false);
  std::vector<std::shared_ptr<State>> shards_;
};

std::shared_ptr<HoldingSource> holding_memory() {
  auto memory = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 4096});
  FL_CHECK(memory.has_value());
  return std::make_shared<HoldingSource>(std::move(*memory));
}

// A replica beside the plain namespace 1.
struct Replica {
  std::shared_ptr<TestHandler> handler;
  std::shared_ptr<HoldingSource> source;
};
Task<Replica> add_replica(TargetBed& bed) {
  Replica replica{std::make_shared<TestHandler>(bed, bed.server.shard(0).reactor), holding_memory()};
  target::NamespaceOptions wanted;
  wanted.nsid = kReplica;
  wanted.source = replica.source;
  wanted.control = replica.handler;
  const auto added = co_await bed.at_target(bed.target().add_namespace(kNqn, std::move(wanted)));
  FL_CHECK(added.has_value());
  co_return replica;
}

nvme::SubmissionEntry entry_of(AdminOpcode opcode, uint32_t nsid, uint32_t cdw10 = 0) {
  nvme::SubmissionEntry entry;
  entry.opcode = static_cast<uint8_t>(opcode);
  entry.nsid = nsid;
  entry.cdw10 = cdw10;
  return entry;
}

Task<Result<Completion>> send(NvmeConnection& admin, std::vector<std::byte> request, uint32_t nsid = kReplica) {
  const CommandData data{.out = request};
  co_return co_await admin.submit(entry_of(AdminOpcode::kReplicationSend, nsid), data);
}
Task<Result<Completion>> receive(NvmeConnection& admin, uint32_t call, std::span<std::byte> out,
                                 uint32_t nsid = kReplica) {
  const CommandData data{.in = out};
  co_return co_await admin.submit(entry_of(AdminOpcode::kReplicationReceive, nsid, call), data);
}

nvme::ReplicationSent sent_of(const Result<Completion>& completion) {
  EXPECT_TRUE(succeeded(completion));
  if (!succeeded(completion)) return {};
  const auto sent = nvme::decode_replication_sent(completion->result);
  EXPECT_TRUE(sent.has_value());
  return sent.value_or(nvme::ReplicationSent{});
}

// Both commands; "" when anything goes wrong.
Task<std::string> ask(NvmeConnection& admin, std::string request) {
  const nvme::ReplicationSent sent = sent_of(co_await send(admin, bytes_of(request)));
  std::vector<std::byte> answer(sent.bytes);
  if (sent.call == 0) co_return "";
  const auto received = co_await receive(admin, sent.call, answer);
  EXPECT_TRUE(succeeded(received) && received->result == answer.size());
  co_return std::string(reinterpret_cast<const char*>(answer.data()), answer.size());
}

// Calls.

Task<void> calls_and_answers(TargetBed& bed) {
  const Replica replica = co_await add_replica(bed);
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  EXPECT_EQ(co_await ask(admin, "echo"), "echo");
  EXPECT_EQ(co_await ask(admin, "e" + std::string(nvme::kReplicationSendBytesMax - 1, 'x')),
            "e" + std::string(nvme::kReplicationSendBytesMax - 1, 'x'));
  EXPECT_EQ(sent_of(co_await send(admin, bytes_of("nothing"))), nvme::ReplicationSent{});

  const nvme::ReplicationSent large = sent_of(co_await send(admin, bytes_of("big")));
  EXPECT_EQ(large.bytes, nvme::kReplicationReceiveBytesMax);
  std::vector<std::byte> answer(large.bytes);
  EXPECT_EQ(code_of(co_await receive(admin, large.call, std::span(answer).first(large.bytes - 1))),
            StatusCode::kDataSglLengthInvalid);
  EXPECT_EQ(code_of(co_await receive(admin, large.call + 1, answer)), StatusCode::kInvalidField);
  EXPECT_TRUE(succeeded(co_await receive(admin, large.call, answer))) << "what was refused may be fetched yet";
  EXPECT_TRUE(answer == pattern(large.bytes, 3));
  EXPECT_EQ(code_of(co_await receive(admin, large.call, answer)), StatusCode::kInvalidField) << "but once";

  // More room than it needs: the rest is zeroes.
  const nvme::ReplicationSent small = sent_of(co_await send(admin, bytes_of("e")));
  std::ranges::fill(answer, std::byte{0x77});
  const auto received = co_await receive(admin, small.call, answer);
  CO_ASSERT_OK(received);
  EXPECT_EQ(received->result, 1U);
  EXPECT_EQ(answer[0], std::byte{'e'});
  EXPECT_EQ(std::ranges::count(answer, std::byte{0}), std::ssize(answer) - 1);

  // Of another association: neither the same number nor the same answers.
  const auto second = co_await bed.open_host();
  CO_ASSERT_TRUE(second.has_value());
  const nvme::ReplicationSent mine = sent_of(co_await send(admin, bytes_of("echo")));
  EXPECT_EQ(code_of(co_await receive((*second)->admin(), mine.call, answer)), StatusCode::kInvalidField);
  EXPECT_EQ(co_await ask((*second)->admin(), "else"), "else");
  const std::set<CallerId> callers(replica.handler->callers.begin(), replica.handler->callers.end());
  EXPECT_EQ(callers.size(), 2U);
  EXPECT_FALSE(callers.contains(kNobody));
}

TEST(Fence, CallsAreMadeAndAnswered) { run_in_worlds(calls_and_answers); }

Task<std::pair<bool, bool>> effects_of(NvmeConnection& admin) {
  nvme::CommandEffects effects;
  const auto page = std::as_writable_bytes(std::span(&effects, 1));
  EXPECT_TRUE(succeeded(co_await admin.get_log_page(nvme::LogPage::kCommandEffects, page)));
  co_return std::pair(effects.admin[0xc1] == nvme::kEffectSupported, effects.admin[0xc2] == nvme::kEffectSupported);
}

Task<void> only_where_there_is_a_handler(TargetBed& bed) {
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  std::vector<std::byte> answer(4096);
  EXPECT_EQ(co_await effects_of(admin), std::pair(false, false));
  for (const uint32_t nsid : {0U, 1U, kReplica, nvme::kBroadcastNamespace}) {
    EXPECT_EQ(code_of(co_await send(admin, bytes_of("echo"), nsid)), StatusCode::kInvalidOpcode);
    EXPECT_EQ(code_of(co_await receive(admin, 1, answer, nsid)), StatusCode::kInvalidOpcode);
  }
  const Replica replica = co_await add_replica(bed);
  EXPECT_EQ(co_await effects_of(admin), std::pair(true, true));
  EXPECT_EQ(code_of(co_await send(admin, bytes_of("echo"), 1)), StatusCode::kInvalidOpcode);
  for (const uint32_t nsid : {0U, 2U, nvme::kBroadcastNamespace}) {
    EXPECT_EQ(code_of(co_await send(admin, bytes_of("echo"), nsid)), StatusCode::kInvalidNamespaceOrFormat);
    EXPECT_EQ(code_of(co_await receive(admin, 1, answer, nsid)), StatusCode::kInvalidNamespaceOrFormat);
  }
  EXPECT_EQ(code_of(co_await send(admin, {})), StatusCode::kDataSglLengthInvalid);
  EXPECT_EQ(code_of(co_await send(admin, std::vector<std::byte>(nvme::kReplicationSendBytesMax + 1))),
            StatusCode::kDataSglLengthInvalid);
  EXPECT_EQ(code_of(co_await receive(admin, 1, {})), StatusCode::kDataSglLengthInvalid);
  EXPECT_EQ(code_of(co_await receive(admin, 0, answer)), StatusCode::kInvalidField);
  EXPECT_EQ(code_of(co_await receive(admin, 1, answer)), StatusCode::kInvalidField) << "no call was made";
  EXPECT_TRUE(replica.handler->callers.empty());

  CO_ASSERT_TRUE((co_await bed.at_target(bed.target().remove_namespace(kNqn, kReplica))).has_value());
  EXPECT_EQ(code_of(co_await send(admin, bytes_of("echo"))), StatusCode::kInvalidOpcode);
  EXPECT_EQ(co_await effects_of(admin), std::pair(false, false));

  NvmeConnection& discovery = bed.make_connection();
  CO_ASSERT_TRUE((co_await discovery.open_and_connect(bed.address, {})).has_value());
  CO_ASSERT_OK(co_await discovery.enable());
  EXPECT_EQ(code_of(co_await send(discovery, bytes_of("echo"))), StatusCode::kInvalidOpcode);
}

TEST(Fence, CommandsExistWhereThereIsAHandler) { run_in_worlds(only_where_there_is_a_handler); }

Task<void> limits(TargetBed& bed) {
  const Replica replica = co_await add_replica(bed);
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  Scope scope(bed.reactor());
  std::vector<std::optional<Result<Completion>>> sends(8);
  for (auto& each : sends) scope.spawn(keep(send(admin, bytes_of("hold")), each));
  co_await bed.sleep(milliseconds(50));
  EXPECT_EQ(replica.handler->running, 8);
  const auto ninth = co_await send(admin, bytes_of("echo"));
  CO_ASSERT_TRUE(ninth.has_value());
  EXPECT_EQ(ninth->status, nvme::transient(StatusCode::kNamespaceNotReady));
  const auto other = co_await bed.open_host();
  CO_ASSERT_TRUE(other.has_value());
  EXPECT_EQ(co_await ask((*other)->admin(), "echo"), "echo") << "the limit is the association's";

  // Four answers wait to be fetched, and four calls for room for theirs.
  co_await bed.at_target(replica.handler->go_on());
  co_await bed.sleep(milliseconds(50));
  EXPECT_EQ(replica.handler->running, 0);
  EXPECT_EQ(std::ranges::count_if(sends, [](const auto& each) { return each.has_value(); }), 4);
  const auto unfetched = co_await send(admin, bytes_of("echo"));
  CO_ASSERT_TRUE(unfetched.has_value());
  EXPECT_EQ(unfetched->status, nvme::transient(StatusCode::kNamespaceNotReady));
  std::set<uint32_t> calls;
  std::vector<std::byte> answer(4);
  for (size_t fetched = 0; fetched < sends.size(); ++fetched) {
    for (const auto& each : sends) {
      if (!each || !calls.insert(sent_of(*each).call).second) continue;
      EXPECT_TRUE(succeeded(co_await receive(admin, sent_of(*each).call, answer)));
      EXPECT_EQ(answer, bytes_of("hold"));
    }
    co_await bed.sleep(milliseconds(20));
  }
  co_await scope.close();
  EXPECT_EQ(calls.size(), 8U);
  EXPECT_EQ(co_await ask(admin, "echo"), "echo");
}

TEST(Fence, CallsAndAnswersAreLimited) { run_in_worlds(limits); }

// A command that is aborted ends; its call does not, and its answer takes no room.
Task<void> aborted_call(TargetBed& bed) {
  const Replica replica = co_await add_replica(bed);
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& admin = (*opened)->admin();
  for (int round = 0; round < 6; ++round) {
    replica.handler->holds = true;
    Scope scope(bed.reactor());
    std::optional<Result<Completion>> held;
    const uint16_t cid = admin.next_cid();
    scope.spawn(keep(send(admin, bytes_of("hold")), held));
    co_await bed.sleep(milliseconds(20));
    const auto aborted = co_await admin.abort(0, cid);
    EXPECT_TRUE(succeeded(aborted) && aborted->result == 0);
    co_await scope.close();
    CO_ASSERT_TRUE(held && *held);
    EXPECT_EQ((*held)->status.code, StatusCode::kAbortRequested);
    EXPECT_EQ(replica.handler->running, 1);
    co_await bed.at_target(replica.handler->go_on());
    co_await bed.sleep(milliseconds(20));
    EXPECT_EQ(replica.handler->running, 0);
  }
  EXPECT_EQ(co_await ask(admin, "echo"), "echo");
}

TEST(Fence, AbortedCallsRunToTheirEnd) { run_in_worlds(aborted_call); }

Task<void> lost_connection(TargetBed& bed) {
  const Replica replica = co_await add_replica(bed);
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  Scope scope(bed.reactor());
  std::optional<Result<Completion>> held;
  scope.spawn(keep(send((*opened)->admin(), bytes_of("hold")), held));
  co_await bed.sleep(milliseconds(20));
  CO_ASSERT_TRUE(replica.handler->running == 1);
  (*opened)->admin().cut();
  co_await scope.close();
  co_await (*opened)->io().wait_closed();
  co_await bed.sleep(milliseconds(20));
  EXPECT_EQ(replica.handler->left, replica.handler->callers) << "gone, though its call still runs";
  EXPECT_EQ(replica.handler->running, 1);
  EXPECT_EQ(bed.observed.disconnected.size(), 1U);

  const auto again = co_await bed.open_host();
  CO_ASSERT_TRUE(again.has_value());
  EXPECT_EQ(co_await ask((*again)->admin(), "echo"), "echo");
  EXPECT_NE(replica.handler->callers[0], replica.handler->callers[1]);
  co_await bed.at_target(replica.handler->go_on());
  co_await bed.sleep(milliseconds(20));
  EXPECT_EQ(replica.handler->running, 0);
  std::vector<std::byte> answer(64);
  EXPECT_EQ(code_of(co_await receive((*again)->admin(), 1, answer)), StatusCode::kInvalidField);
  // The bed stops the target meanwhile.
  scope.spawn(keep(send((*again)->admin(), bytes_of("slow")), held));
  co_await bed.sleep(milliseconds(20));
  (*again)->admin().cut();
  co_await scope.close();
  EXPECT_EQ(replica.handler->running, 1);
}

TEST(Fence, LostConnectionsLeaveTheirCalls) { run_in_worlds(lost_connection); }

// Fences.

// What each kind of I/O command says. Changes nothing.
Task<std::vector<StatusCode>> codes_of_all(NvmeConnection& io, uint32_t nsid) {
  std::vector<std::byte> block(4096);
  nvme::DsmRange range;
  range.blocks = 1;
  std::vector<StatusCode> codes;
  codes.push_back(code_of(co_await io.read(nsid, 0, 1, block)));
  std::ranges::fill(block, std::byte{0});
  codes.push_back(code_of(co_await io.write(nsid, 0, 1, block)));
  codes.push_back(code_of(co_await io.write_zeroes(nsid, 0, 1)));
  codes.push_back(code_of(co_await io.deallocate(nsid, {range})));
  codes.push_back(code_of(co_await io.compare(nsid, 0, 1, block)));
  codes.push_back(code_of(co_await io.verify(nsid, 0, 1)));
  codes.push_back(code_of(co_await io.flush(nsid)));
  codes.push_back(code_of(co_await io.flush(nvme::kBroadcastNamespace)));
  const auto both = co_await io.compare_and_write(nsid, 0, 1, block, block);
  codes.push_back(both ? both->compare.status.code : kLost);
  co_return codes;
}

Task<void> one_association(TargetBed& bed) {
  const Replica replica = co_await add_replica(bed);
  const auto opened = co_await bed.open_host(TargetBed::io_options(2));
  const auto opened_too = co_await bed.open_host(TargetBed::io_options(2));
  CO_ASSERT_TRUE(opened.has_value() && opened_too.has_value());
  NvmeHost& one = **opened;
  NvmeHost& two = **opened_too;
  const auto all_say = [](StatusCode code) { return ::testing::AllOf(::testing::SizeIs(9), ::testing::Each(code)); };
  for (int round = 0; round < 2; ++round) {
    for (NvmeHost* const host : {&one, &two}) {
      for (size_t i = 0; i < 2; ++i)
        EXPECT_THAT(co_await codes_of_all(host->io(i), kReplica), all_say(StatusCode::kFenced));
    }
    EXPECT_EQ(co_await ask(one.admin(), "for me"), "done");
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_THAT(co_await codes_of_all(one.io(i), kReplica), all_say(StatusCode::kSuccess));
      EXPECT_THAT(co_await codes_of_all(two.io(i), kReplica), all_say(StatusCode::kFenced));
    }
    const auto busy = co_await bed.at_target(bed.target().admit(kNqn, kReplica, replica.handler->callers.back() + 1));
    EXPECT_TRUE(!busy && busy.error().code == Code::kBusy);
    EXPECT_EQ(co_await ask(two.admin(), "for me"), "done");
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_THAT(co_await codes_of_all(one.io(i), kReplica), all_say(StatusCode::kFenced));
      EXPECT_THAT(co_await codes_of_all(two.io(i), kReplica), all_say(StatusCode::kSuccess));
    }
    EXPECT_TRUE(co_await bed.at_target(bed.target().fence(kNqn, kReplica)));
  }
  std::vector<std::byte> block(4096);
  const auto refused = co_await one.io().read(kReplica, 0, 1, block);
  EXPECT_TRUE(refused && refused->status == nvme::permanent(StatusCode::kFenced));
  EXPECT_TRUE(succeeded(co_await one.io().read(1, 0, 1, block))) << "other namespaces know nothing of it";
  for (const uint32_t nsid : {1U, 9U}) {
    const auto unknown = co_await bed.at_target(bed.target().fence(kNqn, nsid));
    EXPECT_TRUE(!unknown && unknown.error().code == Code::kNotFound);
    const auto nobody = co_await bed.at_target(bed.target().admit(kNqn, nsid, 1));
    EXPECT_TRUE(!nobody && nobody.error().code == Code::kNotFound);
  }
  EXPECT_NE(bed.target().new_caller(), bed.target().new_caller());
}

TEST(Fence, OneAssociationIsLetIn) { run_in_worlds(one_association, {.shards = 2}); }

Task<void> note_fence(TargetBed& bed, std::optional<Result<void>>& out) {
  out = co_await bed.at_target(bed.target().fence(kNqn, kReplica));
}

Task<void> note_admission(TargetBed& bed, CallerId caller, std::optional<Result<void>>& out) {
  out = co_await bed.at_target(bed.target().admit(kNqn, kReplica, caller));
}

// A fence stands at once, and is done when the last of what it let through has ended, wherever that is.
Task<void> waits_for_io(TargetBed& bed) {
  const Replica replica = co_await add_replica(bed);
  const auto opened = co_await bed.open_host(TargetBed::io_options(2));
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  CO_ASSERT_TRUE(co_await ask(host.admin(), "for me") == "done");
  replica.source->hold(true);
  const auto data = pattern(4096, 1);
  Scope scope(bed.reactor());
  std::array<std::optional<Result<Completion>>, 2> writes;
  for (size_t i = 0; i < 2; ++i) scope.spawn(keep(host.io(i).write(kReplica, i, 1, data), writes[i]));
  co_await bed.sleep(milliseconds(20));
  EXPECT_EQ(replica.source->held(0), 1U);
  EXPECT_EQ(replica.source->held(1), 1U);
  std::optional<Result<void>> fenced;
  scope.spawn(note_fence(bed, fenced));
  co_await bed.sleep(milliseconds(20));
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(code_of(co_await host.io(i).write(kReplica, 4, 1, data)), StatusCode::kFenced);
  }
  // Who wants to be let in meanwhile stands in line.
  std::optional<Result<void>> admitted;
  scope.spawn(note_admission(bed, replica.handler->callers.back(), admitted));
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_FALSE(fenced.has_value());
    EXPECT_FALSE(admitted.has_value());
    EXPECT_FALSE(writes[i].has_value());
    co_await replica.source->go_on(bed.reactor(), 1 - i);
    co_await bed.sleep(milliseconds(20));
  }
  replica.source->hold(false);
  co_await scope.close();
  EXPECT_TRUE(fenced && *fenced);
  for (const auto& write : writes) EXPECT_TRUE(write && succeeded(*write));
  EXPECT_TRUE(admitted && *admitted);
  std::vector<std::byte> back(4096);
  EXPECT_TRUE(succeeded(co_await host.io().read(kReplica, 4, 1, back)));
  EXPECT_THAT(back, ::testing::Each(std::byte{0}));
}

TEST(Fence, WaitsForWhatItLetThrough) {
  TargetBed({.shards = 2}).run(waits_for_io);
  TargetBed({.seed = 2, .settings = rough_settings(sim::Chop::kRandom), .shards = 2}).run(waits_for_io);
}

Task<void> note_removal(TargetBed& bed, std::string nqn, uint32_t nsid, bool& ended) {
  EXPECT_TRUE(co_await bed.at_target(bed.target().remove_namespace(std::move(nqn), nsid)));
  ended = true;
}

// A removal that takes its time has the target's turn; fences do not wait for it.
Task<void> waits_for_no_turn(TargetBed& bed) {
  const Replica replica = co_await add_replica(bed);
  const auto slow = holding_memory();
  co_await bed.add_source(kNqn, slow, 3);
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeHost& host = **opened;
  slow->hold(true);
  Scope scope(bed.reactor());
  std::optional<Result<Completion>> write;
  const auto data = pattern(4096, 1);
  scope.spawn(keep(host.io().write(3, 0, 1, data), write));
  co_await bed.sleep(milliseconds(20));
  bool removed = false;
  scope.spawn(note_removal(bed, kNqn, 3, removed));
  co_await bed.sleep(milliseconds(20));
  EXPECT_EQ(co_await ask(host.admin(), "for me"), "done");
  EXPECT_FALSE(removed);
  co_await slow->go_on(bed.reactor());
  co_await scope.close();

  // Who removes a namespace waits for its calls, which may still fence it, without effect.
  std::optional<Result<Completion>> held;
  scope.spawn(keep(send(host.admin(), bytes_of("hold")), held));
  co_await bed.sleep(milliseconds(20));
  removed = false;
  scope.spawn(note_removal(bed, kNqn, kReplica, removed));
  co_await bed.sleep(milliseconds(20));
  EXPECT_FALSE(removed);
  EXPECT_EQ(code_of(co_await send(host.admin(), bytes_of("echo"))), StatusCode::kInvalidNamespaceOrFormat);
  const auto fenced = co_await bed.at_target(bed.target().fence(kNqn, kReplica));
  EXPECT_TRUE(!fenced && fenced.error().code == Code::kNotFound);
  co_await bed.at_target(replica.handler->go_on());
  co_await scope.close();
  EXPECT_TRUE(removed);
  EXPECT_TRUE(held && succeeded(*held));
  EXPECT_EQ(replica.handler.use_count(), 1);
}

TEST(Fence, WaitsForNoOtherChange) { run_in_worlds(waits_for_no_turn); }

// Hosts have their answers, entries of the queue and ways to leave; the memory and the namespace wait for the medium.
Task<void> leaves_writes_behind(TargetBed& bed) {
  const auto hung = holding_memory();
  co_await bed.add_source(kNqn, hung, 3);
  HostOptions options = TargetBed::io_options(1);
  options.io_entries = 8;
  const auto opened = co_await bed.open_host(options);
  const auto other = co_await bed.open_host(options);
  CO_ASSERT_TRUE(opened.has_value() && other.has_value());
  NvmeConnection& io = (*opened)->io();
  hung->hold(true);
  const auto data = pattern(4096, 1);
  std::array<std::optional<Result<Completion>>, 7> done;
  Scope scope(bed.reactor());
  for (size_t i = 0; i < done.size(); ++i) {
    const bool is_here = i < done.size() - 1;
    scope.spawn(keep(is_here ? io.write(3, i, 1, data) : io.write_zeroes(3, i, 1), done[i]));
  }
  co_await bed.sleep(milliseconds(100));
  for (const auto& each : done) CO_ASSERT_TRUE(each.has_value() == (&each == &done.back()));
  co_await hung->leave_behind(bed.reactor());
  co_await scope.close();
  for (const auto& each : done) EXPECT_TRUE(succeeded(*each));

  hung->hold(false);
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 0; i < done.size(); ++i) {
      done[i].reset();
      scope.spawn(keep(io.write(3, i, 1, data), done[i]));
    }
    co_await scope.close();
    for (const auto& each : done) EXPECT_TRUE(succeeded(*each)) << "as many as the queue has entries";
  }
  const std::vector<std::byte> newer(4096, std::byte{9});
  const auto fused = co_await io.compare_and_write(3, 0, 1, data, newer);
  EXPECT_TRUE(fused && fused->write.ok()) << "nobody waits for what was left behind";

  co_await (*opened)->close();
  EXPECT_TRUE(succeeded(co_await (*other)->io().write(3, 0, 1, data)));
  bool removed = false;
  scope.spawn(note_removal(bed, kNqn, 3, removed));
  co_await bed.sleep(milliseconds(100));
  EXPECT_FALSE(removed) << "the device has buffers of ours";
  co_await hung->go_on(bed.reactor());
  co_await scope.close();
  EXPECT_TRUE(removed);
  for (size_t i = 0; i < bed.server.shard_count(); ++i) {
    EXPECT_EQ(bed.server.shard(i).buffers.statistics().held_bytes, 0U);
  }
}

TEST(Fence, AnswersAreNotHeldByAMediumThatHangs) { run_in_worlds(leaves_writes_behind); }

Task<void> subsystem_goes(TargetBed& bed) {
  const Replica replica = co_await add_replica(bed);
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  Scope scope(bed.reactor());
  std::optional<Result<Completion>> slow;
  scope.spawn(keep(send((*opened)->admin(), bytes_of("slow")), slow));
  co_await bed.sleep(milliseconds(20));
  EXPECT_TRUE(co_await bed.at_target(bed.target().remove_subsystem(kNqn)));
  EXPECT_EQ(replica.handler->running, 0);
  EXPECT_EQ(replica.handler.use_count(), 1);
  co_await scope.close();
}

TEST(Fence, SubsystemsGoWithTheirCalls) { run_in_worlds(subsystem_goes); }

// Whoever is in charge of the namespace changes again and again under load: never do two of them write at a time.
struct Turns {
  NvmeHost* host = nullptr;
  uint64_t written = 0;
  uint64_t refused = 0;
};
Task<void> write_on(NvmeConnection& io, Turns& turns, uint8_t mark, const bool& stop) {
  const std::vector<std::byte> data(4096, std::byte{mark});
  while (!stop) {
    const auto done = co_await io.write(kReplica, 0, 1, data);
    if (succeeded(done)) {
      ++turns.written;
    } else {
      EXPECT_EQ(code_of(done), StatusCode::kFenced);
      ++turns.refused;
      co_await yield(io.shard().reactor);
    }
  }
}

Task<void> changes_under_load(TargetBed& bed) {
  const Replica replica = co_await add_replica(bed);
  const auto opened = co_await bed.open_host(TargetBed::io_options(3));
  const auto opened_too = co_await bed.open_host(TargetBed::io_options(3));
  CO_ASSERT_TRUE(opened.has_value() && opened_too.has_value());
  std::array<Turns, 2> turns{Turns{*opened}, Turns{*opened_too}};
  bool stop = false;
  Scope scope(bed.reactor());
  for (size_t i = 0; i < 6; ++i) {
    Turns& each = turns[i % 2];
    scope.spawn(write_on(each.host->io(i / 2), each, static_cast<uint8_t>(i % 2 + 1), stop));
  }
  std::vector<std::byte> block(4096);
  for (size_t round = 0; round < 20; ++round) {
    Turns& in_charge = turns[round % 2];
    const Turns& other = turns[1 - round % 2];
    CO_ASSERT_TRUE(co_await ask(in_charge.host->admin(), "for me") == "done");
    const uint64_t others = other.written;
    co_await bed.sleep(milliseconds(2));
    // Answers of the other's may have been on their way, not more: they were executed before.
    EXPECT_LE(other.written, others + 3);
  }
  stop = true;
  co_await scope.close();
  for (const Turns& each : turns) {
    EXPECT_GT(each.written, 0U);
    EXPECT_GT(each.refused, 0U);
  }
}

TEST(Fence, ChangesHandsUnderLoad) { run_in_worlds(changes_under_load); }

}  // namespace
}  // namespace fairlead::testing
