#include <gtest/gtest.h>
#include <set>

#include "sim/world.h"

namespace fairlead::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kSectors = 24;
constexpr size_t kSectorBytes = 512;

// ---- Content against a naive reference: per sector, all versions that may be found after a crash.

struct Reference {
  struct Write {
    uint64_t number;
    uint8_t value;
  };
  std::array<uint8_t, kSectors> stable{};
  std::array<std::vector<Write>, kSectors> cached;

  uint8_t newest(uint64_t sector) const {
    return cached[sector].empty() ? stable[sector] : cached[sector].back().value;
  }
  std::set<uint8_t> allowed(uint64_t sector) const {
    std::set<uint8_t> values = {stable[sector]};
    for (const Write& write : cached[sector]) values.insert(write.value);
    return values;
  }
};

uint8_t value_of(const DiskContent& content, uint64_t sector) {
  std::array<std::byte, kSectorBytes> bytes;
  content.read(sector, bytes);
  EXPECT_EQ(std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1), 0) << "a sector is never torn itself";
  return static_cast<uint8_t>(bytes[0]);
}

void write_some(DiskContent& content, Reference& reference, Prng& random) {
  const uint64_t begin = random.below(kSectors);
  const uint64_t end = random.between(begin + 1, std::min(kSectors, begin + 6));
  const auto value = static_cast<uint8_t>(random.below(256));
  const bool forced = random.one_in(5);
  std::array<std::byte, kSectorBytes> bytes;
  bytes.fill(static_cast<std::byte>(value));
  const uint64_t number = content.begin_write();
  for (uint64_t sector = begin; sector < end; ++sector) {
    content.write(number, sector, value == 0 ? nullptr : bytes.data(),
                  forced ? DiskContent::Reach::kStable : DiskContent::Reach::kCache);
    if (forced) {
      reference.stable[sector] = value;
      reference.cached[sector].clear();
    } else {
      reference.cached[sector].push_back({number, value});
    }
  }
}

void flush_some(DiskContent& content, Reference& reference, Prng& random) {
  const uint64_t number = content.newest() - random.below(std::min<uint64_t>(content.newest(), 4) + 1);
  content.flush(number);
  for (uint64_t sector = 0; sector < kSectors; ++sector) {
    auto& cached = reference.cached[sector];
    while (!cached.empty() && cached.front().number <= number) {
      reference.stable[sector] = cached.front().value;
      cached.erase(cached.begin());
    }
  }
}

TEST(DiskContentTest, AfterACrashEachSectorHoldsWhatTheReferenceAllows) {
  Prng random(21);
  uint64_t lost = 0;
  uint64_t torn = 0;
  for (int round = 0; round < 500; ++round) {
    DiskContent content(kSectorBytes, Cache::kVolatile);
    Reference reference;
    for (int crash = 0; crash < 4; ++crash) {
      for (uint64_t step = random.below(30); step > 0; --step) {
        if (random.one_in(6)) {
          flush_some(content, reference, random);
        } else {
          write_some(content, reference, random);
        }
        for (uint64_t sector = 0; sector < kSectors; ++sector) {
          ASSERT_EQ(value_of(content, sector), reference.newest(sector));
        }
      }
      const DiskContent::CrashOutcome outcome = content.crash(random);
      lost += outcome.lost;
      torn += outcome.torn;
      EXPECT_EQ(content.cached_sectors(), 0U);
      for (uint64_t sector = 0; sector < kSectors; ++sector) {
        const uint8_t found = value_of(content, sector);
        ASSERT_TRUE(reference.allowed(sector).contains(found)) << "sector " << sector;
        reference.stable[sector] = found;
        reference.cached[sector].clear();
      }
    }
  }
  EXPECT_GT(lost, 1000U);
  EXPECT_GT(torn, 100U);
}

TEST(DiskContentTest, WithoutACacheNothingIsLost) {
  Prng random(22);
  DiskContent content(kSectorBytes, Cache::kNone);
  Reference reference;
  for (int step = 0; step < 200; ++step) write_some(content, reference, random);
  content.crash(random);
  for (uint64_t sector = 0; sector < kSectors; ++sector) {
    EXPECT_EQ(value_of(content, sector), reference.newest(sector));
  }
}

TEST(DiskContentTest, RoomIsGivenBackWhenAPageIsAllZeroes) {
  DiskContent content(kSectorBytes, Cache::kNone);
  std::array<std::byte, kSectorBytes> bytes;
  bytes.fill(std::byte{1});
  for (uint64_t sector = 0; sector < 16; ++sector) {
    content.write(content.begin_write(), sector, bytes.data(), DiskContent::Reach::kCache);
  }
  EXPECT_EQ(content.allocated_bytes(), 8192U);
  for (uint64_t sector = 0; sector < 8; ++sector) {
    content.write(content.begin_write(), sector, nullptr, DiskContent::Reach::kCache);
  }
  EXPECT_EQ(content.allocated_bytes(), 4096U);
}

// ---- Devices

// A sector-aligned piece of memory, filled with one value.
struct alignas(512) Block {
  std::array<std::byte, kSectorBytes> bytes{};
  std::array<iovec, 1> list = {iovec{bytes.data(), bytes.size()}};
  explicit Block(uint8_t value = 0) { bytes.fill(static_cast<std::byte>(value)); }
  Block(const Block&) = delete;
  uint8_t value() const { return static_cast<uint8_t>(bytes[0]); }
};

class SimDiskTest : public testing::Test {
 protected:
  explicit SimDiskTest(SimSettings settings = SimSettings::calm())
      : world(31, settings), node(world.add_node("10.0.0.1")) {}

  Result<std::shared_ptr<DiskFile>> open(const OpenDisk& options) { return node.shard(0).storage.open(options); }
  void attach(std::string_view path = "/disk") {
    file = *open({.path = std::string(path), .size_bytes = {}});
    disk = *node.shard(0).storage.attach(file);
  }
  static Task<void> perform(Shard& shard, Disk& disk, IoArguments arguments, std::optional<Result<void>>& out) {
    out = co_await IoAwaiter<Disk>(shard.reactor, disk, arguments);
  }
  Result<void> run(IoArguments arguments) {
    std::optional<Result<void>> out;
    world.spawn(node, 0, perform(node.shard(0), *disk, arguments, out));
    EXPECT_EQ(world.run_until([&] { return out.has_value(); }, seconds(30)), RunResult::kDone);
    return *out;
  }
  Result<void> write(uint64_t sector, uint8_t value, Durability durability = Durability::kVolatile) {
    Block block(value);
    return run({.op = IoOp::kWrite,
                .offset = ByteOffset(sector * kSectorBytes),
                .length = kSectorBytes,
                .buffers = block.list,
                .durability = durability});
  }
  Result<uint8_t> read(uint64_t sector) {
    Block block;
    FL_TRY_VOID(run({.op = IoOp::kRead,
                     .offset = ByteOffset(sector * kSectorBytes),
                     .length = kSectorBytes,
                     .buffers = block.list}));
    return block.value();
  }
  Result<void> flush() { return run({.op = IoOp::kFlush, .offset = {}}); }
  void crash_and_return() {
    disk.reset();
    world.crash(node);
    world.restart(node);
    file.reset();
    attach();
  }

  SimWorld world;
  SimNode& node;
  std::shared_ptr<DiskFile> file;
  std::unique_ptr<Disk> disk;
};

TEST_F(SimDiskTest, FlushedAndForcedBytesSurvivePowerLossAndOthersMay) {
  world.create_disk(node, "/disk", kMiB);
  attach();
  std::set<uint8_t> found;
  for (int round = 0; round < 40; ++round) {
    ASSERT_TRUE(write(0, 1));
    ASSERT_TRUE(flush());
    ASSERT_TRUE(write(1, 2, Durability::kForced));
    ASSERT_TRUE(write(2, 3, Durability::kForced));
    ASSERT_TRUE(write(2, 4));
    crash_and_return();
    ASSERT_EQ(*read(0), 1);
    ASSERT_EQ(*read(1), 2);
    found.insert(*read(2));
    ASSERT_TRUE(write(2, 0, Durability::kForced));
  }
  EXPECT_EQ(found, (std::set<uint8_t>{3, 4}));
  EXPECT_GT(world.probe_count(Probe::kCrashDroppedWrite), 0U);
}

TEST_F(SimDiskTest, ADiskThatIgnoresFlushesLosesWhatItPromisedToKeep) {
  SimDiskOptions options;
  options.ignores_flushes = true;
  world.create_disk(node, "/disk", kMiB, options);
  attach();
  std::set<uint8_t> flushed;
  std::set<uint8_t> forced;
  for (uint64_t round = 0; round < 40; ++round) {
    ASSERT_TRUE(write(2 * round, 1));
    ASSERT_TRUE(write(2 * round + 1, 2, Durability::kForced));
    ASSERT_TRUE(flush());
    crash_and_return();
    flushed.insert(*read(2 * round));
    forced.insert(*read(2 * round + 1));
  }
  EXPECT_TRUE(flushed.contains(0));
  EXPECT_TRUE(forced.contains(0));
}

struct CountingObserver final : DiskObserver {
  void submitted(const IoRequest& request) override { asked.push_back(request.op); }
  void performed(const IoRequest& request) override { done.push_back(request.op); }
  std::vector<IoOp> asked;
  std::vector<IoOp> done;
};

TEST_F(SimDiskTest, AnObserverSeesWhatIsAskedAndWhatTookEffect) {
  CountingObserver observer;
  SimDevice& device = world.create_disk(node, "/disk", kMiB);
  device.set_observer(&observer);
  attach();
  ASSERT_TRUE(write(0, 1));
  ASSERT_TRUE(flush());
  std::optional<Result<void>> out;
  Block block(2);
  world.spawn(node, 0,
              perform(node.shard(0), *disk,
                      {.op = IoOp::kWrite, .offset = {}, .length = kSectorBytes, .buffers = block.list}, out));
  while (observer.asked.size() < 3) ASSERT_TRUE(world.step());
  EXPECT_EQ(observer.done, (std::vector{IoOp::kWrite, IoOp::kFlush}));
  ASSERT_EQ(world.run_until([&] { return out.has_value(); }, seconds(1)), RunResult::kDone);
  device.set_observer(nullptr);
  ASSERT_TRUE(flush());
  EXPECT_EQ(observer.done, (std::vector{IoOp::kWrite, IoOp::kFlush, IoOp::kWrite}));
}

TEST_F(SimDiskTest, AKilledProcessLosesNothingThatWasAcknowledged) {
  world.create_disk(node, "/disk", kMiB);
  attach();
  for (uint64_t sector = 0; sector < 20; ++sector) ASSERT_TRUE(write(sector, 7));
  disk.reset();
  world.crash(node, CrashKind::kProcessKilled);
  world.restart(node);
  file.reset();
  attach();
  for (uint64_t sector = 0; sector < 20; ++sector) ASSERT_EQ(*read(sector), 7);
}

// Writes without end; counts how often a write under way was ended by a crash.
Task<void> write_on(SimNode& at, Disk& to, int& cancelled) {
  std::vector<std::byte> memory(16 * kSectorBytes + 512, std::byte{9});
  void* start = memory.data();
  size_t room = memory.size();
  std::align(512, 16 * kSectorBytes, start, room);
  const std::array<iovec, 1> list = {iovec{start, 16 * kSectorBytes}};
  while (!at.stopping(0).is_set()) {
    const IoArguments arguments = {.op = IoOp::kWrite, .offset = {}, .length = 16 * kSectorBytes, .buffers = list};
    const Result<void> result = co_await IoAwaiter<Disk>(at.shard(0).reactor, to, arguments);
    if (!result) cancelled += result.error().code == Code::kCancelled ? 1 : 0;
  }
}

TEST_F(SimDiskTest, AHungDiskEndsNothingUntilItGoesOn) {
  SimDevice& device = world.create_disk(node, "/disk", kMiB);
  attach();
  int cancelled = 0;
  world.spawn(node, 0, write_on(node, *disk, cancelled));
  device.hang(seconds(5));
  const auto is_written = [&] {
    std::vector<std::byte> bytes(kSectorBytes);
    device.peek(0, bytes);
    return bytes.front() == std::byte{9};
  };
  world.run_for(seconds(5) - milliseconds(1));
  EXPECT_FALSE(is_written());
  EXPECT_EQ(device.in_flight(), 1U);
  world.run_for(milliseconds(2));
  EXPECT_TRUE(is_written());
  EXPECT_EQ(world.injected_count(SimFault::kHungDisk), 1U);
  // Healing ends it early.
  device.hang(seconds(5));
  world.heal();
  world.run_for(milliseconds(10));
  EXPECT_TRUE(world.stop(node, seconds(1)));
}

TEST_F(SimDiskTest, AWriteUnderWayAtACrashIsTornBySector) {
  SimDevice& device = world.create_disk(node, "/disk", kMiB);
  int cancelled = 0;
  int torn = 0;
  for (int round = 0; round < 60; ++round) {
    attach();
    std::vector<std::byte> zero(16 * kSectorBytes);
    for (uint64_t sector = 0; sector < 16; ++sector) ASSERT_TRUE(write(sector, 0, Durability::kForced));
    world.spawn(node, 0, write_on(node, *disk, cancelled));
    world.run_for(Duration(20'000));
    ASSERT_EQ(device.in_flight(), 1U) << "slower than the run";
    world.crash(node);
    disk.reset();
    file.reset();
    world.restart(node);
    std::vector<std::byte> found(16 * kSectorBytes);
    device.peek(0, found);
    int written = 0;
    for (uint64_t sector = 0; sector < 16; ++sector) {
      const std::byte value = found[sector * kSectorBytes];
      ASSERT_TRUE(value == std::byte{0} || value == std::byte{9});
      written += value == std::byte{9} ? 1 : 0;
    }
    torn += written > 0 && written < 16 ? 1 : 0;
  }
  EXPECT_EQ(cancelled, 60);
  EXPECT_GT(torn, 5);
}

TEST_F(SimDiskTest, OneClaimsItAndACrashFreesIt) {
  world.create_disk(node, "/disk", kMiB);
  attach();
  EXPECT_EQ(open({.path = "/disk", .size_bytes = {}}).error().code, Code::kBusy);
  EXPECT_EQ(open({.path = "/none", .size_bytes = {}}).error().code, Code::kNotFound);
  disk.reset();
  world.crash(node);
  world.restart(node);
  std::shared_ptr<DiskFile> ghost = std::move(file);  // of the dead
  attach();
  ghost.reset();
  EXPECT_EQ(open({.path = "/disk", .size_bytes = {}}).error().code, Code::kBusy);
  disk.reset();
  file.reset();
  EXPECT_TRUE(open({.path = "/disk", .size_bytes = {}}));
}

TEST_F(SimDiskTest, FilesAreMadeAndGrow) {
  file = *open({.path = "/new", .size_bytes = kMiB});
  EXPECT_EQ(file->geometry().size_bytes, kMiB);
  world.find_disk(node, "/new")->resize(2 * kMiB);
  EXPECT_EQ(file->geometry().size_bytes, kMiB);
  EXPECT_EQ(*file->refresh_size(), 2 * kMiB);
  file.reset();
  EXPECT_EQ(open({.path = "/new", .size_bytes = kMiB}).error().code, Code::kInvalidArgument);
  file = *open({.path = "/new", .size_bytes = 3 * kMiB});
  EXPECT_EQ(file->geometry().size_bytes, 3 * kMiB);
}

TEST_F(SimDiskTest, AReadOnlyDiskRefuses) {
  SimDiskOptions options;
  options.read_only = true;
  world.create_disk(node, "/ro", kMiB, options);
  EXPECT_EQ(open({.path = "/ro", .size_bytes = {}}).error().code, Code::kReadOnly);
  file = *open({.path = "/ro", .access = Access::kReadOnly, .size_bytes = {}});
  disk = *node.shard(0).storage.attach(file);
  EXPECT_TRUE(file->geometry().read_only);
  EXPECT_EQ(write(0, 1).error().code, Code::kReadOnly);
  EXPECT_EQ(*read(0), 0);
}

TEST_F(SimDiskTest, ZeroesAndDiscard) {
  SimDevice& device = world.create_disk(node, "/disk", kMiB);
  attach();
  for (uint64_t sector = 0; sector < 16; ++sector) ASSERT_TRUE(write(sector, 5, Durability::kForced));
  const uint64_t before = device.allocated_bytes();
  ASSERT_TRUE(run({.op = IoOp::kWriteZeroes, .offset = ByteOffset(0), .length = 8 * kSectorBytes}));
  ASSERT_TRUE(run({.op = IoOp::kDiscard, .offset = ByteOffset(8 * kSectorBytes), .length = 4 * kSectorBytes}));
  ASSERT_TRUE(flush());
  for (uint64_t sector = 0; sector < 16; ++sector) EXPECT_EQ(*read(sector), sector < 12 ? 0 : 5);
  EXPECT_LT(device.allocated_bytes(), before);
}

TEST_F(SimDiskTest, AFullDiskSaysSoForNewPlacesOnly) {
  SimDiskOptions options;
  options.room_bytes = 8192;
  options.cache = Cache::kNone;
  world.create_disk(node, "/disk", kMiB, options);
  attach();
  ASSERT_TRUE(write(0, 1));
  ASSERT_TRUE(write(100, 1));
  EXPECT_EQ(write(200, 1).error().code, Code::kNoSpace) << "8 KiB are two pages";
  EXPECT_TRUE(write(1, 1));
  EXPECT_GT(world.injected_count(SimFault::kNoSpace), 0U);
}

// ---- Faults: each does what it says, and only in its zone.

struct FaultCase {
  const char* name;
  DiskRates rates;
  SimFault fault;
};

class DiskFaultTest : public SimDiskTest, public testing::WithParamInterface<FaultCase> {};

TEST_P(DiskFaultTest, HitsItsZoneAndNoOtherPlace) {
  SimDiskOptions options;
  options.faults.zones = {{.begin = 16 * kSectorBytes, .end = 32 * kSectorBytes, .rates = GetParam().rates}};
  SimDevice& device = world.create_disk(node, "/disk", 48 * kSectorBytes, options);
  attach();
  int wrong_in_zone = 0;
  for (int round = 0; round < 6; ++round) {
    for (uint64_t sector = 0; sector < 48; ++sector) {
      const bool in_zone = sector >= 16 && sector < 32;
      const auto value = static_cast<uint8_t>(1 + sector + static_cast<uint64_t>(round) * 40);
      const Result<void> wrote = write(sector, value);
      const Result<uint8_t> got = read(sector);
      std::array<std::byte, kSectorBytes> seen{};
      device.peek(sector * kSectorBytes, seen);
      const bool spoilt = std::ranges::any_of(seen, [&](std::byte b) { return b != static_cast<std::byte>(value); });
      const bool right = wrote && got && *got == value && !spoilt;
      wrong_in_zone += right ? 0 : 1;
      ASSERT_TRUE(right || in_zone) << sector;
      if (spoilt && wrote) {
        EXPECT_TRUE(device.is_damaged(sector * kSectorBytes, kSectorBytes));
      }
    }
    // Nor do later faults in the zone spoil what stands outside it.
    for (const uint64_t sector : {0U, 15U, 32U, 47U}) {
      ASSERT_EQ(*read(sector), static_cast<uint8_t>(1 + sector + static_cast<uint64_t>(round) * 40));
    }
  }
  EXPECT_GT(world.injected_count(GetParam().fault), 0U);
  if (GetParam().fault != SimFault::kSlowDisk) {
    EXPECT_GT(wrong_in_zone, 0);
  }
  world.heal();
  for (uint64_t sector = 0; sector < 48; ++sector) {
    ASSERT_TRUE(write(sector, 77));
    ASSERT_EQ(*read(sector), 77) << "a rewritten sector is whole again";
    ASSERT_FALSE(device.is_damaged(sector * kSectorBytes, kSectorBytes));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, DiskFaultTest,
    testing::Values(FaultCase{"ReadError", {.read_error_ppm = 300'000}, SimFault::kReadError},
                    FaultCase{"TransientReadError", {.transient_read_error_ppm = 300'000}, SimFault::kReadError},
                    FaultCase{"WriteError", {.write_error_ppm = 300'000}, SimFault::kWriteError},
                    FaultCase{"Rot", {.rot_ppm = 300'000}, SimFault::kRot},
                    FaultCase{"MisdirectedRead", {.misdirected_read_ppm = 300'000}, SimFault::kMisdirectedRead},
                    FaultCase{"MisdirectedWrite", {.misdirected_write_ppm = 300'000}, SimFault::kMisdirectedWrite},
                    FaultCase{"LostWrite", {.lost_write_ppm = 300'000}, SimFault::kLostWrite},
                    FaultCase{"Slow", {.slow_ppm = 300'000}, SimFault::kSlowDisk}),
    [](const auto& info) { return info.param.name; });

TEST_F(SimDiskTest, DamageUnderACachedWriteMayComeBackWithACrash) {
  SimDevice& device = world.create_disk(node, "/disk", kMiB);
  attach();
  int rotten = 0;
  for (int round = 0; round < 30; ++round) {
    ASSERT_TRUE(write(0, 1, Durability::kForced));
    ASSERT_FALSE(device.is_damaged(0, kSectorBytes));
    device.rot(0, kSectorBytes);
    ASSERT_TRUE(device.is_damaged(0, kSectorBytes));
    ASSERT_TRUE(write(0, 2));
    ASSERT_FALSE(device.is_damaged(0, kSectorBytes));
    const bool flushed = world.random().coin();
    if (flushed) ASSERT_TRUE(flush());
    crash_and_return();
    std::array<std::byte, kSectorBytes> seen{};
    device.peek(0, seen);
    const bool whole = std::ranges::all_of(seen, [](std::byte b) { return b == std::byte{2}; });
    ASSERT_TRUE(whole || device.is_damaged(0, kSectorBytes));
    ASSERT_TRUE(!flushed || (whole && !device.is_damaged(0, kSectorBytes)));
    rotten += whole ? 0 : 1;
  }
  EXPECT_GT(rotten, 0);
}

TEST_F(SimDiskTest, AFailedFlushKeepsNothingSafe) {
  SimDiskOptions options;
  options.faults.elsewhere.flush_error_ppm = 1'000'000;
  SimDevice& device = world.create_disk(node, "/disk", kMiB, options);
  attach();
  ASSERT_TRUE(write(0, 1));
  EXPECT_EQ(flush().error().code, Code::kIo);
  std::array<std::byte, kSectorBytes> stable{};
  device.peek_stable(0, stable);
  EXPECT_EQ(stable[0], std::byte{0});
  EXPECT_EQ(*read(0), 1);
}

class ReorderTest : public SimDiskTest {
 protected:
  static SimSettings settings() {
    SimSettings settings = SimSettings::calm();
    settings.disk.split_ppm = 500'000;
    settings.fault_point_ppm[static_cast<size_t>(FaultPoint::kDelayCompletion)] = 500'000;
    return settings;
  }
  ReorderTest() : SimDiskTest(settings()) {}
};

TEST_F(ReorderTest, OfOverlappingWritesEitherWinsBySector) {
  SimDevice& device = world.create_disk(node, "/disk", kMiB);
  attach();
  std::set<std::pair<int, int>> outcomes;
  alignas(512) std::array<std::array<std::byte, 2 * kSectorBytes>, 2> memory;
  for (size_t i = 0; i < 2; ++i) memory[i].fill(static_cast<std::byte>(i + 1));
  for (int round = 0; round < 200; ++round) {
    std::array<std::optional<Result<void>>, 2> done;
    std::array<std::array<iovec, 1>, 2> lists;
    for (size_t i = 0; i < 2; ++i) {
      lists[i][0] = {memory[i].data(), memory[i].size()};
      world.spawn(
          node, 0,
          perform(node.shard(0), *disk,
                  {.op = IoOp::kWrite, .offset = {}, .length = 2 * kSectorBytes, .buffers = lists[i]}, done[i]));
    }
    ASSERT_EQ(world.run_until([&] { return done[0] && done[1]; }, seconds(1)), RunResult::kDone);
    std::array<std::byte, 2 * kSectorBytes> seen{};
    device.peek(0, seen);
    outcomes.emplace(static_cast<int>(seen[0]), static_cast<int>(seen[kSectorBytes]));
  }
  EXPECT_EQ(outcomes.size(), 4U);
  EXPECT_GT(world.fault_point_count(FaultPoint::kDelayCompletion), 0U);
}

TEST_F(SimDiskTest, ABufferChangedWhileItIsWrittenIsAViolation) {
  world.create_disk(node, "/disk", kMiB);
  attach();
  Block block(1);
  std::optional<Result<void>> out;
  world.spawn(node, 0,
              perform(node.shard(0), *disk,
                      {.op = IoOp::kWrite, .offset = {}, .length = kSectorBytes, .buffers = block.list}, out));
  world.run_for(Duration(5'000));
  block.bytes[3] = std::byte{2};
  ASSERT_EQ(world.run_until([&] { return out.has_value(); }, seconds(1)), RunResult::kDone);
  EXPECT_EQ(world.violations(), 1U);
}

}  // namespace
}  // namespace fairlead::sim
