// OnLoss::kFail: what a connection carries ends with it, against Fairlead's target in simulated worlds.
#include <gmock/gmock.h>

#include "block/faulty.h"
#include "host/remote_device.h"
#include "host/subsystem.h"
#include "tests/support/host_session.h"
#include "tests/support/target_bed.h"

namespace fairlead::host {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using target::CallerId;
using testing::BedOptions;
using testing::HostSession;
using testing::kNqn;
using testing::pattern;
using testing::TargetBed;

constexpr uint64_t kBlock = 4096;
constexpr uint32_t kReplica = 7;  // namespace id
constexpr Duration kSoon = milliseconds(60);

// Lets in whoever asks.
class Usher final : public target::ControlHandler {
 public:
  explicit Usher(TargetBed& bed) : bed_(bed) {}
  Task<std::vector<std::byte>> call(CallerId caller, std::vector<std::byte> request) override {
    const Result<void> fenced = co_await bed_.target().fence(kNqn, kReplica);
    const Result<void> admitted = co_await bed_.target().admit(kNqn, kReplica, caller);
    EXPECT_TRUE(fenced && admitted);
    co_return request;
  }
  void gone(CallerId caller) override { left.push_back(caller); }
  std::vector<CallerId> left;

 private:
  TargetBed& bed_;
};

// Memory in which every write takes 200 ms, or fails as told, and is counted.
std::shared_ptr<FaultySource> slow_memory() {
  auto memory = make_memory_source({.size_bytes = 4 * kMiB, .logical_block = kBlock});
  FL_CHECK(memory.has_value());
  return make_faulty_source(std::move(*memory), {});
}
FaultRule each_write(Duration delay, std::optional<Code> error = {}) {
  return {.operations = op_set(IoOp::kWrite), .error = error, .delay = delay};
}

struct Replica {
  std::shared_ptr<FaultySource> source = slow_memory();
  std::shared_ptr<Usher> usher;
};
Task<Replica> add_replica(TargetBed& bed) {
  Replica replica;
  replica.usher = std::make_shared<Usher>(bed);
  target::NamespaceOptions wanted;
  wanted.nsid = kReplica;
  wanted.source = replica.source;
  wanted.control = replica.usher;
  const auto added = co_await bed.at_target(bed.target().add_namespace(kNqn, std::move(wanted)));
  FL_CHECK(added.has_value());
  co_return replica;
}

SubsystemOptions failing(uint16_t depth = 128) {
  SubsystemOptions options;
  options.queue_depth = depth;
  options.on_loss = OnLoss::kFail;
  return options;
}

Task<bool> is_let_in(HostSession& session) {
  const std::vector<std::byte> request(5, std::byte{1});
  const auto answer = co_await session.subsystem().call(kReplica, request);
  co_return answer && *answer == request;
}

Task<void> becomes_live(HostSession& session) {
  while (session.subsystem().connection(0) == 0) co_await session.subsystem().changed().wait();
}

struct Outstanding {
  explicit Outstanding(uint64_t length = kBlock) : bytes(pattern(length, 9)), piece{bytes.data(), bytes.size()} {}
  std::vector<std::byte> bytes;
  iovec piece;
  std::optional<Result<void>> result;
};
Task<void> write_to(Reactor& reactor, BlockDevice& device, uint64_t block, Outstanding& out) {
  out.result = co_await block_write(reactor, device, ByteOffset{block * kBlock}, {&out.piece, 1});
}
Task<void> read_from(Reactor& reactor, BlockDevice& device, uint64_t block, Outstanding& out) {
  out.result = co_await block_read(reactor, device, ByteOffset{block * kBlock}, {&out.piece, 1});
}
Task<Code> code_of_write(TargetBed& bed, BlockDevice& device, uint64_t block) {
  Outstanding write;
  co_await write_to(bed.reactor(), device, block, write);
  co_return *write.result ? Code::kAlreadyExists : write.result->error().code;  // that no device says
}
constexpr Code kGood = Code::kAlreadyExists;

enum class Loss : uint8_t { kReset, kDropped, kDroppedInSilence };
const char* loss_name(Loss loss) {
  constexpr const char* kNames[] = {"Reset", "Dropped", "DroppedInSilence"};
  return kNames[static_cast<size_t>(loss)];
}

// Ends the connection; the target may have noticed or not.
void lose(TargetBed& bed, HostSession& session, Loss loss) {
  if (loss == Loss::kDroppedInSilence) bed.world.network().isolate(bed.server.index());
  if (loss == Loss::kReset) {
    EXPECT_GT(bed.world.network().reset_connections(bed.server.index()), 0U);
  } else {
    session.subsystem().drop(0, "for a test");
  }
}

// More than the queue takes at a time, in pieces, reads too.
Task<void> fails_at_once(TargetBed& bed, Loss loss) {
  const Replica replica = co_await add_replica(bed);
  HostSession session(bed, failing(4));
  CO_ASSERT_TRUE(co_await session.open(kReplica));
  EXPECT_EQ(co_await code_of_write(bed, session.device(), 0), Code::kFenced);
  CO_ASSERT_TRUE(co_await is_let_in(session));
  EXPECT_EQ(co_await code_of_write(bed, session.device(), 0), kGood);
  const uint64_t connection = session.subsystem().connection(0);
  EXPECT_NE(connection, 0U);

  replica.source->set_rules({{.operations = kEveryOp, .error = {}, .delay = milliseconds(200)}});
  const uint64_t before = replica.source->fired();
  std::vector<std::unique_ptr<Outstanding>> all;
  Scope scope(bed.reactor());
  for (uint64_t i = 0; i < 12; ++i) {
    all.push_back(std::make_unique<Outstanding>(i == 5 ? 64 * kKiB : kBlock));
    Outstanding& each = *all.back();
    scope.spawn(i % 3 == 2 ? read_from(bed.reactor(), session.device(), i, each)
                           : write_to(bed.reactor(), session.device(), i, each));
  }
  (void)co_await bed.sleep(milliseconds(100));
  const Instant begin = bed.reactor().now();
  lose(bed, session, loss);
  co_await scope.close();
  EXPECT_LE(bed.reactor().now() - begin, kSoon);
  for (const auto& each : all) {
    CO_ASSERT_TRUE(each->result.has_value());
    EXPECT_TRUE(!*each->result && each->result->error().code == Code::kConnectionLost);
  }
  EXPECT_EQ(session.subsystem().connection(0), 0U);
  EXPECT_EQ(co_await code_of_write(bed, session.device(), 1), Code::kUnreachable);
  EXPECT_LE(bed.reactor().now() - begin, kSoon) << "nothing is held";

  bed.world.network().heal_all();
  co_await becomes_live(session);
  EXPECT_NE(session.subsystem().connection(0), connection);
  EXPECT_EQ(co_await code_of_write(bed, session.device(), 1), Code::kFenced) << "until it is let in";
  EXPECT_LE(replica.source->fired(), before + 4) << "what the queue had at that time";
  EXPECT_TRUE(co_await is_let_in(session));
  const uint64_t executed = replica.source->fired();
  EXPECT_EQ(co_await code_of_write(bed, session.device(), 1), kGood);
  EXPECT_EQ(replica.source->fired(), executed + 1);
  const RemoteDevice::Statistics& statistics = session.device().statistics();
  EXPECT_EQ(statistics.resent + statistics.held + statistics.fenced + statistics.retried, 0U);
  (void)co_await bed.sleep(seconds(15));  // a target that was cut off notices by the keep-alive
  EXPECT_EQ(replica.usher->left.size(), 1U);
  co_await session.close();
}

class EachLossTest : public ::testing::TestWithParam<Loss> {};
TEST_P(EachLossTest, FailsAtOnce) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    BedOptions options;
    options.seed = seed;
    options.shards = 1 + seed % 2;
    options.client_shards = 1 + seed / 2 % 2;
    options.target.transfer_shift = 3;
    if (seed % 2 == 0) options.settings = testing::rough_settings(sim::Chop::kRandom);
    TargetBed bed(options);
    bed.run_task(fails_at_once(bed, GetParam()));
  }
}
INSTANTIATE_TEST_SUITE_P(Loss, EachLossTest, ::testing::Values(Loss::kReset, Loss::kDropped, Loss::kDroppedInSilence),
                         [](const auto& instance) { return std::string(loss_name(instance.param)); });

// Where no fence would stop it: nothing of a connection goes out on the next one, be it a piece of a request that has
// others behind it, or one that waits for its second try.
Task<void> nothing_outlives_it(TargetBed& bed) {
  const auto source = slow_memory();
  co_await bed.add_source(kNqn, source, 3);
  HostSession session(bed, failing());
  CO_ASSERT_TRUE(co_await session.open(3));
  for (const bool retries : {false, true}) {
    SCOPED_TRACE(retries);
    source->set_rules({each_write(milliseconds(5), retries ? std::optional(Code::kBusy) : std::nullopt)});
    // 32 KiB a piece, 32 pieces at a time: there is always more to send.
    Outstanding large(4 * kMiB);
    Scope scope(bed.reactor());
    scope.spawn(write_to(bed.reactor(), session.device(), 0, large));
    (void)co_await bed.sleep(milliseconds(12));
    EXPECT_FALSE(large.result.has_value());
    const Instant begin = bed.reactor().now();
    const uint64_t connection = session.subsystem().connection(0);
    bed.world.network().reset_connections(bed.server.index());
    co_await scope.close();
    EXPECT_LE(bed.reactor().now() - begin, milliseconds(5));
    CO_ASSERT_TRUE(large.result.has_value());
    EXPECT_TRUE(!*large.result && large.result->error().code == Code::kConnectionLost);
    co_await becomes_live(session);
    EXPECT_NE(session.subsystem().connection(0), connection);
    const uint64_t executed = source->fired();
    (void)co_await bed.sleep(seconds(1));
    EXPECT_EQ(source->fired(), executed);
  }
  source->set_rules({});
  EXPECT_EQ(co_await code_of_write(bed, session.device(), 0), kGood) << "no fence of the host's own";
  co_await session.close();
}
TEST(LossTest, NothingOutlivesIt) { TargetBed({.target = {.transfer_shift = 3}}).run(nothing_outlives_it); }

// What may pass is tried again as ever, as long as the connection lives.
Task<void> retries_meanwhile(TargetBed& bed) {
  const auto source = slow_memory();
  co_await bed.add_source(kNqn, source, 3);
  HostSession session(bed, failing());
  CO_ASSERT_TRUE(co_await session.open(3));
  FaultRule twice = each_write({}, Code::kBusy);
  twice.count = 2;
  source->set_rules({twice});
  EXPECT_EQ(co_await code_of_write(bed, session.device(), 0), kGood);
  EXPECT_EQ(source->fired(), 2U);
  // A path that is closed to the namespace is not waited for.
  for (const auto state : {target::AnaState::kInaccessible, target::AnaState::kChange}) {
    EXPECT_TRUE(co_await bed.at_target(bed.target().set_ana_state(kNqn, 0, 1, state)));
    const Instant begin = bed.reactor().now();
    EXPECT_EQ(co_await code_of_write(bed, session.device(), 0), Code::kUnreachable);
    (void)co_await bed.sleep(milliseconds(10));  // the host has read the log
    EXPECT_EQ(co_await code_of_write(bed, session.device(), 0), Code::kUnreachable);
    EXPECT_LE(bed.reactor().now() - begin, milliseconds(20));
  }
  EXPECT_TRUE(co_await bed.at_target(bed.target().set_ana_state(kNqn, 0, 1, target::AnaState::kOptimized)));
  (void)co_await bed.sleep(milliseconds(10));
  EXPECT_EQ(co_await code_of_write(bed, session.device(), 0), kGood);
  co_await session.close();
}
TEST(LossTest, RetriesWhileItLives) { TargetBed().run(retries_meanwhile); }

// A fence is no loss of a path: one answer, no second try, in the other mode too.
Task<void> fenced_is_final(TargetBed& bed) {
  const Replica replica = co_await add_replica(bed);
  HostSession session(bed);
  CO_ASSERT_TRUE(co_await session.open(kReplica));
  const Instant begin = bed.reactor().now();
  EXPECT_EQ(co_await code_of_write(bed, session.device(), 0), Code::kFenced);
  const Result<void> flushed = co_await block_flush(bed.reactor(), session.device());
  EXPECT_TRUE(!flushed && flushed.error().code == Code::kFenced);
  EXPECT_LE(bed.reactor().now() - begin, milliseconds(10));
  EXPECT_EQ(session.device().statistics().resent + session.device().statistics().retried, 0U);
  EXPECT_EQ(session.subsystem().controllers()[0].connects, 1U);
  EXPECT_TRUE(co_await is_let_in(session));
  EXPECT_EQ(co_await code_of_write(bed, session.device(), 0), kGood);
  co_await session.close();
}
TEST(LossTest, FencedIsFinal) { TargetBed().run(fenced_is_final); }

TEST(LossTest, TakesOnePathOnly) {
  SubsystemOptions options = failing();
  options.nqn = kNqn;
  options.identity = identity_from_id(uuid_from_random(1, 2));
  options.addresses = {SocketAddress(), SocketAddress()};
  EXPECT_FALSE(check(options));
  options.on_loss = OnLoss::kResend;
  EXPECT_TRUE(check(options));
}

}  // namespace
}  // namespace fairlead::host
