// I/O commands against a naive model, and each way to get one wrong: NVM command set 1.0 section 3.
#include "block/disk.h"
#include "block/faulty.h"
#include "block/null.h"
#include "sim/prng.h"
#include "tests/support/target_bed.h"

namespace fairlead::testing {
namespace {

using nvme::StatusCode;

// One host's share of a namespace, and what it should hold.
struct Region {
  NvmeConnection* queue = nullptr;
  uint32_t nsid = 1;
  uint32_t block = 4096;
  uint64_t first = 0;  // lba
  uint64_t blocks = 0;
  std::vector<std::byte> model;
  uint64_t seed = 0;
  int rounds = 0;
  uint32_t blocks_max = 256;
};

std::span<std::byte> model_at(Region& region, uint64_t at, uint32_t count) {
  return std::span(region.model).subspan(at * region.block, uint64_t{count} * region.block);
}

// A write under way in a region: in which the model has both states.
Task<void> one_operation(Region& region, sim::Prng& random) {
  NvmeConnection& queue = *region.queue;
  const uint64_t count64 = std::min<uint64_t>(random.skewed(1, region.blocks_max), region.blocks);
  const auto count = static_cast<uint32_t>(count64);
  const uint64_t at = random.below(region.blocks - count + 1);
  const uint64_t lba = region.first + at;
  const std::span<std::byte> model = model_at(region, at, count);
  switch (random.below(8)) {
    case 0:
    case 1: {
      const auto data = pattern(model.size(), random.next());
      CO_ASSERT_OK(co_await queue.write(region.nsid, lba, count, data, {.fua = random.coin()}));
      std::ranges::copy(data, model.begin());
      break;
    }
    case 2: {
      CO_ASSERT_OK(
          co_await queue.write_zeroes(region.nsid, lba, count, {.fua = random.coin(), .deallocate = random.coin()}));
      std::ranges::fill(model, std::byte{0});
      break;
    }
    case 3: {
      nvme::DsmRange range;
      range.slba = lba;
      range.blocks = count;
      nvme::DsmRange empty;
      empty.slba = region.first;
      CO_ASSERT_OK(co_await queue.deallocate(region.nsid, {empty, range}));
      std::ranges::fill(model, std::byte{0});
      break;
    }
    case 4: {
      std::vector<std::byte> data(model.begin(), model.end());
      EXPECT_TRUE(succeeded(co_await queue.compare(region.nsid, lba, count, data)));
      data[random.below(data.size())] ^= std::byte{1};
      const auto compared = co_await queue.compare(region.nsid, lba, count, data);
      EXPECT_EQ(code_of(compared), StatusCode::kCompareFailure);
      break;
    }
    case 5: {
      const uint32_t fused = std::min(count, 65536 / region.block);
      const std::span<std::byte> part = model.first(uint64_t{fused} * region.block);
      std::vector<std::byte> expected(part.begin(), part.end());
      const bool differs = random.coin();
      if (differs) expected[random.below(expected.size())] ^= std::byte{1};
      const auto data = pattern(part.size(), random.next());
      const auto both = co_await queue.compare_and_write(region.nsid, lba, fused, expected, data);
      CO_ASSERT_TRUE(both.has_value());
      EXPECT_EQ(both->compare.status.code, differs ? StatusCode::kCompareFailure : StatusCode::kSuccess);
      EXPECT_EQ(both->write.status.code, differs ? StatusCode::kAbortedFailedFused : StatusCode::kSuccess);
      if (!differs) std::ranges::copy(data, part.begin());
      break;
    }
    case 6:
      CO_ASSERT_OK(co_await queue.flush(region.nsid));
      CO_ASSERT_OK(co_await queue.verify(region.nsid, lba, count));
      break;
    default: {
      std::vector<std::byte> data(model.size());
      CO_ASSERT_OK(co_await queue.read(region.nsid, lba, count, data));
      EXPECT_TRUE(std::ranges::equal(data, model)) << "lba " << lba << " blocks " << count;
    }
  }
}

Task<void> work(Region& region) {
  sim::Prng random(region.seed);
  for (int i = 0; i < region.rounds && !::testing::Test::HasFailure(); ++i) co_await one_operation(region, random);
  // At the end all of it.
  for (uint64_t at = 0; at < region.blocks; at += region.blocks_max) {
    const auto count = static_cast<uint32_t>(std::min<uint64_t>(region.blocks_max, region.blocks - at));
    std::vector<std::byte> data(uint64_t{count} * region.block);
    CO_ASSERT_OK(co_await region.queue->read(region.nsid, region.first + at, count, data));
    EXPECT_TRUE(std::ranges::equal(data, model_at(region, at, count))) << "at the end, block " << at;
  }
}

struct ModelCase {
  uint32_t block = 4096;
  bool disk = false;
  uint64_t bytes = 4 * kMiB;
  uint32_t transfer_max = 1 * kMiB;
  int rounds = 25;
  bool digests = false;
  bool no_flow_control = false;
};
ModelCase current;  // a test body is a plain function

Task<void> against_model(TargetBed& bed) {
  uint32_t nsid = 0;
  if (current.disk) {
    sim::SimDiskOptions disk;
    disk.logical_block = current.block;
    disk.physical_block = 4096;
    bed.world.create_disk(bed.server, "/disk", current.bytes, disk);
    auto source = open_disk_source(bed.server.shard(0), {.path = "/disk"});
    CO_ASSERT_TRUE(source.has_value());
    nsid = co_await bed.add_source(kNqn, std::move(*source));
  } else {
    nsid = co_await bed.add_memory(kNqn, current.bytes, current.block);
  }
  HostOptions host_options = TargetBed::io_options(4);
  host_options.queue.header_digest = current.digests;
  host_options.queue.data_digest = current.digests;
  host_options.queue.data_alignment = current.digests ? 5 : 0;
  host_options.queue.disable_sq_flow_control = current.no_flow_control;
  const auto opened = co_await bed.open_host(host_options);
  CO_ASSERT_TRUE(opened.has_value());
  std::vector<Region> regions(8);
  Scope scope(bed.reactor());
  for (size_t i = 0; i < regions.size(); ++i) {
    Region& region = regions[i];
    region.queue = &(*opened)->io(i % 4);
    region.nsid = nsid;
    region.block = current.block;
    region.blocks = current.bytes / current.block / regions.size();
    region.first = i * region.blocks;
    region.model.resize(region.blocks * region.block);
    region.seed = bed.options.seed * 100 + i;
    region.rounds = current.rounds;
    region.blocks_max = current.transfer_max / current.block;
    scope.spawn(work(region));
  }
  co_await scope.close();
}

class ModelTest : public ::testing::TestWithParam<ModelCase> {};

TEST_P(ModelTest, EveryReadIsWhatWasWritten) {
  current = GetParam();
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    BedOptions options;
    options.seed = seed;
    options.shards = 1 + seed % 3;
    if (seed >= 3) {
      options.settings = rough_settings(seed == 3 ? sim::Chop::kRandom : sim::Chop::kWhole);
      options.settings.network.window_min = 16 * kKiB;
      current.transfer_max = 64 * kKiB;
      current.rounds = 15;
    }
    TargetBed(options).run(against_model, std::chrono::seconds(36'000));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ModelTest,
                         ::testing::Values(ModelCase{.block = 512}, ModelCase{.block = 4096},
                                           ModelCase{.block = 512, .disk = true},
                                           ModelCase{.block = 4096, .disk = true, .digests = true},
                                           ModelCase{.block = 4096, .no_flow_control = true}),
                         [](const auto& each) {
                           return std::string(each.param.disk ? "disk" : "memory") + std::to_string(each.param.block) +
                                  (each.param.digests ? "digests" : "") +
                                  (each.param.no_flow_control ? "no_flow_control" : "");
                         });

TEST(Io, SmallTransfersByteByByte) {
  current = {.block = 512, .disk = true, .bytes = 64 * kKiB, .transfer_max = 8 * kKiB, .rounds = 8, .digests = true};
  BedOptions options;
  options.shards = 3;
  options.settings = rough_settings(sim::Chop::kSingleBytes);
  options.settings.network.window_min = 16;
  TargetBed(options).run(against_model, std::chrono::seconds(36'000));
}

TEST(Io, AnotherWorldForEachSeed) {
  current = {.block = 512, .disk = true, .bytes = 512 * kKiB, .transfer_max = 32 * kKiB, .rounds = 15};
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    BedOptions options;
    options.seed = seed;
    options.shards = 1 + seed % 3;
    options.settings = sim::SimSettings::drawn(seed);
    options.settings.network.reset_ppm = 0;
    options.settings.network.window_min = std::max(options.settings.network.window_min, 1024U);
    options.settings.network.window_max = std::max(options.settings.network.window_max, 1024U);
    if (options.settings.network.chop == sim::Chop::kSingleBytes) options.settings.network.chop = sim::Chop::kRandom;
    current.digests = seed % 2 == 0;
    TargetBed(options).run(against_model, std::chrono::seconds(360'000));
  }
}

Task<void> out_of_range(TargetBed& bed) {
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  const uint64_t blocks = 16 * kMiB / 4096;
  std::vector<std::byte> two(8192);
  EXPECT_TRUE(succeeded(co_await io.read(1, blocks - 2, 2, two)));
  for (const uint64_t lba : {blocks - 1, blocks, ~uint64_t{0}, ~uint64_t{0} - 1, uint64_t{1} << 52}) {
    EXPECT_EQ(code_of(co_await io.read(1, lba, 2, two)), StatusCode::kLbaOutOfRange);
    EXPECT_EQ(code_of(co_await io.write(1, lba, 2, two)), StatusCode::kLbaOutOfRange);
    EXPECT_EQ(code_of(co_await io.compare(1, lba, 2, two)), StatusCode::kLbaOutOfRange);
    EXPECT_EQ(code_of(co_await io.verify(1, lba, 2)), StatusCode::kLbaOutOfRange);
    EXPECT_EQ(code_of(co_await io.write_zeroes(1, lba, 2)), StatusCode::kLbaOutOfRange);
    nvme::DsmRange good;
    good.blocks = 1;
    nvme::DsmRange bad;
    bad.slba = lba;
    bad.blocks = 2;
    std::vector<std::byte> data = pattern(4096, 1);
    CO_ASSERT_OK(co_await io.write(1, 0, 1, data));
    EXPECT_EQ(code_of(co_await io.deallocate(1, {good, bad})), StatusCode::kLbaOutOfRange);
    CO_ASSERT_OK(co_await io.compare(1, 0, 1, data));
  }
  for (const uint32_t nsid : {0U, 2U, 1024U, 1025U, 0xfffffffeU, 0xffffffffU}) {
    EXPECT_EQ(code_of(co_await io.read(nsid, 0, 2, two)), StatusCode::kInvalidNamespaceOrFormat) << nsid;
  }
  EXPECT_EQ(code_of(co_await io.flush(2)), StatusCode::kInvalidNamespaceOrFormat);
  EXPECT_TRUE(succeeded(co_await io.flush(nvme::kBroadcastNamespace)));
}

TEST(Io, RangesAndNamespacesAreChecked) { run_in_worlds(out_of_range); }

Task<void> wrong_lengths(TargetBed& bed) {
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  std::vector<std::byte> data(8192);
  const std::span<std::byte> all(data);
  EXPECT_EQ(code_of(co_await io.read(1, 0, 1, all)), StatusCode::kDataSglLengthInvalid);
  EXPECT_EQ(code_of(co_await io.read(1, 0, 3, all)), StatusCode::kDataSglLengthInvalid);
  EXPECT_EQ(code_of(co_await io.write(1, 0, 3, all)), StatusCode::kDataSglLengthInvalid);
  EXPECT_EQ(code_of(co_await io.write(1, 0, 2, all.first(4096))), StatusCode::kDataSglLengthInvalid);
  EXPECT_EQ(code_of(co_await io.write(1, 0, 1, {})), StatusCode::kDataSglLengthInvalid);
  EXPECT_EQ(code_of(co_await io.read(1, 0, 1, {})), StatusCode::kDataSglLengthInvalid);
  std::vector<std::byte> huge(1 * kMiB + 4096);
  EXPECT_EQ(code_of(co_await io.read(1, 0, 257, huge)), StatusCode::kInvalidField);
  EXPECT_EQ(code_of(co_await io.verify(1, 0, 257)), StatusCode::kInvalidField);
  EXPECT_TRUE(succeeded(co_await io.write_zeroes(1, 0, 4096))) << "moves no data: MDTS does not hold";
  nvme::SubmissionEntry unknown;
  unknown.nsid = 1;
  for (const int opcode : {0x04, 0x0d, 0x0e, 0x11, 0x15, 0x19, 0x80, 0xff}) {
    unknown.opcode = static_cast<uint8_t>(opcode);
    EXPECT_EQ(code_of(co_await io.submit(unknown, {})), StatusCode::kInvalidOpcode) << opcode;
  }
  EXPECT_EQ(code_of(co_await io.property_get(nvme::Property::kStatus)), StatusCode::kInvalidOpcode);
  EXPECT_TRUE(succeeded(co_await io.read(1, 0, 2, all)));
}

TEST(Io, LengthsAndOpcodesAreChecked) { run_in_worlds(wrong_lengths); }

Task<void> write_protected(TargetBed& bed) {
  sim::SimDiskOptions disk;
  disk.read_only = true;
  bed.world.create_disk(bed.server, "/read-only", 1 * kMiB, disk);
  auto source = open_disk_source(bed.server.shard(0), {.path = "/read-only", .access = Access::kReadOnly});
  CO_ASSERT_TRUE(source.has_value());
  const uint32_t nsid = co_await bed.add_source(kNqn, std::move(*source));
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  std::vector<std::byte> data(512);
  EXPECT_TRUE(succeeded(co_await io.read(nsid, 0, 1, data)));
  EXPECT_TRUE(succeeded(co_await io.compare(nsid, 0, 1, data)));
  const auto refused = co_await io.write(nsid, 0, 1, data);
  EXPECT_EQ(code_of(refused), StatusCode::kNamespaceWriteProtected);
  EXPECT_EQ(code_of(co_await io.write_zeroes(nsid, 0, 1)), StatusCode::kNamespaceWriteProtected);
  nvme::DsmRange range;
  range.blocks = 1;
  EXPECT_EQ(code_of(co_await io.deallocate(nsid, {range})), StatusCode::kNamespaceWriteProtected);
  const auto fused = co_await io.compare_and_write(nsid, 0, 1, data, data);
  CO_ASSERT_TRUE(fused.has_value());
  EXPECT_EQ(fused->write.status.code, StatusCode::kNamespaceWriteProtected);
  EXPECT_EQ(fused->compare.status.code, StatusCode::kAbortedFailedFused);
  nvme::IdentifyNamespace id;
  CO_ASSERT_OK(
      co_await (*opened)->admin().identify(nvme::Cns::kNamespace, nsid, std::as_writable_bytes(std::span(&id, 1))));
  EXPECT_EQ(id.nsattr, nvme::kNsattrWriteProtected);
}

TEST(Io, AReadOnlyDeviceIsWriteProtected) { run_in_worlds(write_protected); }

Task<void> device_errors(TargetBed& bed) {
  struct Case {
    Code code;
    StatusCode status;
  };
  const Case cases[] = {{Code::kIo, StatusCode::kInternalError},
                        {Code::kCorrupt, static_cast<StatusCode>(code_info(Code::kCorrupt).nvme_status)},
                        {Code::kNoSpace, static_cast<StatusCode>(code_info(Code::kNoSpace).nvme_status)}};
  auto memory = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = 512});
  auto faulty = make_faulty_source(std::move(*memory), {});
  const uint32_t nsid = co_await bed.add_source(kNqn, faulty);
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  std::vector<std::byte> data(512);
  std::vector<std::byte> other(4096);
  for (const Case& each : cases) {
    FaultRule rule;
    rule.error = each.code;
    faulty->set_rules({rule});
    EXPECT_EQ(code_of(co_await io.read(nsid, 0, 1, data)), each.status);
    EXPECT_EQ(code_of(co_await io.write(nsid, 0, 1, data)), each.status);
    EXPECT_EQ(code_of(co_await io.write_zeroes(nsid, 0, 1)), each.status);
    EXPECT_EQ(code_of(co_await io.flush(nsid)), each.status);
    EXPECT_EQ(code_of(co_await io.flush(nvme::kBroadcastNamespace)), each.status);
    EXPECT_EQ(code_of(co_await io.compare(nsid, 0, 1, data)), each.status);
    EXPECT_EQ(code_of(co_await io.verify(nsid, 0, 1)), each.status);
    nvme::DsmRange range;
    range.blocks = 1;
    EXPECT_EQ(code_of(co_await io.deallocate(nsid, {range})), each.status);
    const auto fused = co_await io.compare_and_write(nsid, 0, 1, data, data);
    CO_ASSERT_TRUE(fused.has_value());
    EXPECT_EQ(fused->compare.status.code, each.status);
    EXPECT_EQ(fused->write.status.code, StatusCode::kAbortedFailedFused);
    EXPECT_TRUE(succeeded(co_await io.read(1, 0, 1, other))) << "the other namespace works";
  }
  faulty->set_rules({});
  EXPECT_TRUE(succeeded(co_await io.write(nsid, 0, 1, data)));
}

TEST(Io, ErrorsOfTheDeviceReachTheHost) { run_in_worlds(device_errors); }

// What a device says to be zeroes comes from elsewhere than the buffer, which holds what went through it before.
Task<void> expect_said_zeroes(TargetBed& bed, std::vector<uint32_t> lengths) {
  auto source = make_null_source({.size_bytes = kGiB});
  CO_ASSERT_TRUE(source.has_value());
  const uint32_t nsid = co_await bed.add_source(kNqn, std::move(*source));
  HostOptions options = TargetBed::io_options();
  options.queue.data_digest = true;
  const auto opened = co_await bed.open_host(options);
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  for (const uint32_t blocks : lengths) {
    const auto data = pattern(size_t{blocks} * 4096, blocks);
    CO_ASSERT_OK(co_await io.write(1, 0, blocks, data));
    std::vector<std::byte> got(data.size());
    CO_ASSERT_OK(co_await io.read(1, 0, blocks, got));
    EXPECT_EQ(got, data);
    CO_ASSERT_OK(co_await io.read(nsid, 0, blocks, got));
    EXPECT_EQ(got, std::vector<std::byte>(data.size()));
    CO_ASSERT_OK(co_await io.read(1, 0, blocks, got));
    EXPECT_EQ(got, data);
  }
}

Task<void> said_zeroes(TargetBed& bed) { return expect_said_zeroes(bed, {1, 5}); }
Task<void> said_many_zeroes(TargetBed& bed) { return expect_said_zeroes(bed, {32, 256}); }

TEST(Io, ADeviceMaySayThatItIsAllZeroes) { run_in_worlds(said_zeroes); }
TEST(Io, ADeviceMaySayThatAMebibyteIsZeroes) { TargetBed().run(said_many_zeroes); }

Task<void> durability(TargetBed& bed) {
  sim::SimDevice& disk = bed.world.create_disk(bed.server, "/disk", 1 * kMiB);
  auto source = open_disk_source(bed.server.shard(0), {.path = "/disk"});
  CO_ASSERT_TRUE(source.has_value());
  const uint32_t nsid = co_await bed.add_source(kNqn, std::move(*source));
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  std::vector<std::byte> stable(512);
  const auto is_stable = [&](uint64_t lba, const std::vector<std::byte>& data) {
    disk.peek_stable(lba * 512, stable);
    return stable == data;
  };
  const auto data = pattern(512, 5);
  CO_ASSERT_OK(co_await io.write(nsid, 0, 1, data, {.fua = true}));
  EXPECT_TRUE(is_stable(0, data));
  CO_ASSERT_OK(co_await io.write(nsid, 1, 1, data));
  EXPECT_FALSE(is_stable(1, data)) << "in the cache, so that what follows shows something";
  CO_ASSERT_OK(co_await io.flush(nsid));
  EXPECT_TRUE(is_stable(1, data));
  CO_ASSERT_OK(co_await io.write_zeroes(nsid, 1, 1, {.fua = true}));
  EXPECT_TRUE(is_stable(1, std::vector<std::byte>(512)));
  // With the volatile write cache switched off every write is forced.
  CO_ASSERT_OK(co_await (*opened)->admin().set_features(nvme::Feature::kVolatileWriteCache, 0));
  CO_ASSERT_OK(co_await io.write(nsid, 2, 1, data));
  EXPECT_TRUE(is_stable(2, data));
  const auto fused = co_await io.compare_and_write(nsid, 2, 1, data, std::vector<std::byte>(512));
  EXPECT_TRUE(fused && fused->write.ok());
  EXPECT_TRUE(is_stable(2, std::vector<std::byte>(512)));
}

TEST(Io, ForcedWritesAndFlushesAreStable) { run_in_worlds(durability); }

Task<void> full_queue(TargetBed& bed) {
  HostOptions options = TargetBed::io_options(1);
  options.io_entries = 1024;
  const auto opened = co_await bed.open_host(options);
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  const size_t depth = 1023;
  std::vector<std::vector<std::byte>> data(depth);
  std::vector<std::optional<Result<Completion>>> done(depth);
  Scope scope(bed.reactor());
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < depth; ++i) {
      data[i] = round == 0 ? pattern(4096, i) : std::vector<std::byte>(4096);
      scope.spawn(keep(round == 0 ? io.write(1, i, 1, data[i]) : io.read(1, i, 1, data[i]), done[i]));
    }
    co_await scope.close();
    for (const auto& each : done) EXPECT_TRUE(succeeded(*each));
  }
  for (size_t i = 0; i < depth; ++i) EXPECT_EQ(data[i], pattern(4096, i));
}

TEST(Io, AQueueOf1024Entries) {
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    BedOptions options;
    options.seed = seed;
    options.shards = seed;
    if (seed == 2) options.settings = rough_settings(sim::Chop::kRandom);
    TargetBed(options).run(full_queue);
  }
}

Task<void> write_behind_capsules(TargetBed& bed) {
  // Writes by R2T take all the memory that the connection has; their data stands behind in-capsule commands in the
  // stream. Those must get memory all the same.
  const auto opened = co_await bed.open_host();
  CO_ASSERT_TRUE(opened.has_value());
  NvmeConnection& io = (*opened)->io();
  const auto big = pattern(1 * kMiB, 3);
  const auto small = pattern(4096, 4);
  std::array<std::optional<Result<Completion>>, 100> done;
  Scope scope(bed.reactor());
  for (size_t i = 0; i < done.size(); ++i) {
    scope.spawn(keep(i < 4 ? io.write(1, i * 256, 256, big) : io.write(1, 2000 + i, 1, small), done[i]));
  }
  co_await scope.close();
  for (const auto& each : done) EXPECT_TRUE(succeeded(*each));
}

TEST(Io, InCapsuleWritesDoNotWaitForR2tWrites) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    BedOptions options;
    options.seed = seed;
    options.settings.buffers_shared_max = 0;
    TargetBed(options).run(write_behind_capsules);
  }
}

}  // namespace
}  // namespace fairlead::testing
