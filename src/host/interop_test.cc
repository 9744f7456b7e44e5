// What other targets and real networks have taught src/host, in simulated worlds. Found by the cases of tests/vm.
#include <gmock/gmock.h>

#include "block/faulty.h"
#include "host/subsystem.h"
#include "tests/support/host_session.h"
#include "tests/support/target_bed.h"

namespace fairlead::host {
namespace {

using std::chrono::seconds;
using testing::HostSession;
using testing::TargetBed;

Task<void> read_block(TargetBed& bed, BlockDevice& device, std::optional<Result<void>>& result) {
  std::vector<std::byte> bytes(4096);
  const iovec whole{bytes.data(), bytes.size()};
  result = co_await block_read(bed.reactor(), device, ByteOffset{0}, {&whole, 1});
}

// Virtual time until the only path is lost, the target having fallen silent with a read under way.
Task<Duration> time_to_loss(TargetBed& bed, HostSession& session) {
  Scope scope(bed.reactor());
  std::optional<Result<void>> read;
  const Instant begin = bed.reactor().now();
  bed.world.network().isolate(bed.server.index());
  scope.spawn(read_block(bed, session.device(), read));
  while (session.subsystem().controllers()[0].state == ControllerState::kLive) {
    co_await session.subsystem().changed().wait();
  }
  const Duration taken = bed.reactor().now() - begin;
  bed.world.network().heal_all();
  co_await scope.close();
  EXPECT_TRUE(read && *read);
  co_return taken;
}

// An Abort that is not answered either must not keep the host from leaving a path that is lost.
Task<void> leaves_a_path_whose_abort_is_not_answered(TargetBed& bed) {
  SubsystemOptions options;
  options.keep_alive = seconds(60);
  options.command_timeout = seconds(2);
  options.abort_timeout = seconds(1);
  HostSession session(bed, options);
  CO_ASSERT_TRUE(co_await session.open());
  EXPECT_THAT(co_await time_to_loss(bed, session),
              ::testing::AllOf(::testing::Ge(seconds(3)), ::testing::Lt(seconds(4))));
  co_await session.close();
}
TEST(InteropTest, LeavesAPathWhoseAbortIsNotAnswered) { TargetBed().run(leaves_a_path_whose_abort_is_not_answered); }

// Nor from noticing that no keep-alive is answered.
Task<void> notices_silence_during_an_abort(TargetBed& bed) {
  SubsystemOptions options;
  options.keep_alive = seconds(4);
  options.command_timeout = seconds(1);
  options.abort_timeout = seconds(60);
  HostSession session(bed, options);
  CO_ASSERT_TRUE(co_await session.open());
  EXPECT_THAT(co_await time_to_loss(bed, session),
              ::testing::AllOf(::testing::Ge(seconds(4)), ::testing::Lt(seconds(7))));
  co_await session.close();
}
TEST(InteropTest, NoticesSilenceDuringAnAbort) { TargetBed().run(notices_silence_during_an_abort); }

// A controller may have Write Zeroes and refuse it for a medium that does not.
Task<void> writes_zeroes_as_data(TargetBed& bed) {
  const auto memory = make_memory_source({.size_bytes = 64 * kMiB, .logical_block = 4096});
  CO_ASSERT_TRUE(memory);
  FaultRule rule;
  rule.operations = op_set(IoOp::kWriteZeroes) | op_set(IoOp::kDiscard);
  rule.error = Code::kNotSupported;
  const auto faulty = std::make_shared<FaultySource>(*memory, std::vector{rule});
  co_await bed.add_source(testing::kNqn, faulty, 7);
  HostSession session(bed);
  CO_ASSERT_TRUE(co_await session.open(7));
  BlockDevice& device = session.device();
  Reactor& reactor = bed.reactor();
  // More than one Write Zeroes takes, and each of those more than one Write; the last is of another size.
  const uint64_t length = 33 * kMiB + 12 * kKiB;
  std::vector<std::byte> data = testing::pattern(length + 8192, 5);
  for (int round = 0; round < 2; ++round) {
    const iovec whole{data.data(), data.size()};
    CO_ASSERT_TRUE(co_await block_write(reactor, device, ByteOffset{kMiB}, {&whole, 1}));
    EXPECT_TRUE(co_await block_write_zeroes(reactor, device, ByteOffset{kMiB + 4096}, length));
    std::vector<std::byte> back(data.size());
    const iovec all{back.data(), back.size()};
    CO_ASSERT_TRUE(co_await block_read(reactor, device, ByteOffset{kMiB}, {&all, 1}));
    std::ranges::fill(data.begin() + 4096, data.end() - 4096, std::byte{0});
    EXPECT_TRUE(back == data);
    data = testing::pattern(length + 8192, 6);
  }
  const uint64_t refused = faulty->fired();
  EXPECT_GE(refused, 1U);
  EXPECT_LE(refused, 2U) << "a refusal is remembered";
  EXPECT_TRUE(co_await block_discard(reactor, device, ByteOffset{0}, kMiB));
  EXPECT_GT(faulty->fired(), refused);
  co_await session.close();
}
TEST(InteropTest, WritesZeroesAsData) { TargetBed({.target = {.transfer_shift = 6}}).run(writes_zeroes_as_data); }

Task<void> says_why_connect_was_refused(TargetBed& bed) {
  SubsystemOptions options;
  options.nqn = "nqn.2024-01.example.fairlead:another";
  HostSession stranger(bed, options);
  const Result<void> unknown = co_await stranger.open();
  CO_ASSERT_TRUE(!unknown);
  EXPECT_EQ(unknown.error().code, Code::kNotFound);
  EXPECT_STREQ(unknown.error().what, "Connect: no such subsystem there");
  co_await stranger.close();

  target::SubsystemOptions closed;
  closed.nqn = options.nqn;
  closed.allowed_hosts = {"nqn.2024-01.example.fairlead:somebody-else"};
  co_await bed.add_subsystem(closed);
  HostSession unwanted(bed, options);
  const Result<void> refused = co_await unwanted.open();
  CO_ASSERT_TRUE(!refused);
  EXPECT_EQ(refused.error().code, Code::kPermissionDenied);
  EXPECT_STREQ(refused.error().what, "Connect: the subsystem does not allow this host");
  co_await unwanted.close();
}
TEST(InteropTest, SaysWhyConnectWasRefused) { TargetBed().run(says_why_connect_was_refused); }

}  // namespace
}  // namespace fairlead::host
