#include "io/uring_disk.h"

#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <random>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "async/scope.h"
#include "io/boot_id.h"
#include "io/disk_file.h"
#include "io/runtime.h"

namespace fairlead {
namespace {

namespace fs = std::filesystem;

// A directory that goes away with the test.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string form = (fs::temp_directory_path() / "fairlead-disk-XXXXXX").string();
    FL_CHECK(::mkdtemp(form.data()) != nullptr);
    path_ = form;
  }
  ~TemporaryDirectory() { fs::remove_all(path_); }
  std::string operator/(const char* name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

Code open_error(const OpenDisk& options) {
  const auto file = open_disk_file(options);
  EXPECT_FALSE(file) << options.path;
  return file ? Code::kInternal : file.error().code;
}

std::string open_reason(const OpenDisk& options) {
  const auto file = open_disk_file(options);
  EXPECT_FALSE(file) << options.path;
  return file ? "" : to_string(file.error());
}

TEST(BootIdTest, IsThatOfTheKernelAndRandomWhereThereIsNone) {
  const TemporaryDirectory directory;
  const std::string path = directory / "boot_id";
  std::ofstream(path) << "6f0d3b5e-5c1d-4c36-9a53-1a8e2774f109\n";
  EXPECT_EQ(read_boot_id(path.c_str()), kFairleadNamespace);
  EXPECT_EQ(kernel_boot_id(), kernel_boot_id());
  EXPECT_FALSE(kernel_boot_id().is_nil());
  for (const char* text : {"", "6f0d3b5e\n", "00000000-0000-0000-0000-000000000000\n"}) {
    std::ofstream(path) << text;
    const Uuid drawn = read_boot_id(path.c_str());
    EXPECT_FALSE(drawn.is_nil()) << text;
    EXPECT_NE(read_boot_id(path.c_str()), drawn) << text;
  }
  const std::string missing = directory / "missing";
  EXPECT_NE(read_boot_id(missing.c_str()), read_boot_id(missing.c_str()));
}

TEST(DiskFileTest, ErrorsSayWhatIsWrong) {
  const TemporaryDirectory directory;
  EXPECT_EQ(open_error({.path = directory / "missing"}), Code::kNotFound);
  EXPECT_EQ(open_error({.path = directory / "missing", .access = Access::kReadOnly, .size_bytes = kMiB}),
            Code::kNotFound);
  EXPECT_EQ(open_error({.path = directory / "no/such/directory", .size_bytes = kMiB}), Code::kNotFound);
  EXPECT_EQ(open_error({.path = directory / "."}), Code::kIsDirectory);
  ASSERT_EQ(::mkfifo((directory / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(open_error({.path = directory / "fifo"}), Code::kNotSupported);
  EXPECT_EQ(open_error({.path = "/dev/null"}), Code::kNotSupported);
  std::ofstream(directory / "empty").close();
  EXPECT_EQ(open_error({.path = directory / "empty"}), Code::kInvalidArgument);
  EXPECT_EQ(open_error({.path = directory / "odd", .size_bytes = 1000}), Code::kInvalidArgument);
  EXPECT_FALSE(fs::exists(directory / "odd"));  // what failed leaves nothing behind
  EXPECT_EQ(open_error({.path = directory / "vast", .size_bytes = uint64_t{1} << 62}), Code::kNoSpace);
  EXPECT_FALSE(fs::exists(directory / "vast"));
}

TEST(DiskFileTest, MakesAndGrowsButNeverShrinks) {
  const TemporaryDirectory directory;
  const std::string path = directory / "disk";
  {
    const auto made = open_disk_file({.path = path, .size_bytes = kGiB});
    ASSERT_TRUE(made) << to_string(made.error());
    EXPECT_EQ((*made)->geometry().size_bytes, kGiB);
    struct stat status{};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_LT(status.st_blocks, 1024);  // sparse
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
  }
  EXPECT_EQ(open_error({.path = path, .size_bytes = kMiB}), Code::kInvalidArgument);
  EXPECT_EQ(open_error({.path = path, .access = Access::kReadOnly, .size_bytes = 2 * kGiB}), Code::kReadOnly);
  const auto grown = open_disk_file({.path = path, .size_bytes = 2 * kGiB});
  ASSERT_TRUE(grown);
  EXPECT_EQ((*grown)->geometry().size_bytes, 2 * kGiB);
  fs::resize_file(path, 3 * kGiB + 100);
  EXPECT_EQ((*grown)->refresh_size(), 3 * kGiB);
  EXPECT_EQ((*grown)->geometry().size_bytes, 3 * kGiB);
}

TEST(DiskFileTest, AWriterKeepsOthersOutAndReadersShare) {
  const TemporaryDirectory directory;
  const std::string path = directory / "disk";
  {
    const auto writer = open_disk_file({.path = path, .size_bytes = kMiB});
    ASSERT_TRUE(writer);
    EXPECT_EQ(open_error({.path = path}), Code::kBusy);
    EXPECT_EQ(open_error({.path = path, .access = Access::kReadOnly}), Code::kBusy);
    EXPECT_NE(open_reason({.path = path}).find("by another process"), std::string::npos);
    // Another process as well.
    const pid_t child = ::fork();
    if (child == 0) ::_exit(open_error({.path = path}) == Code::kBusy ? 0 : 1);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  const auto reader = open_disk_file({.path = path, .access = Access::kReadOnly});
  ASSERT_TRUE(reader);
  EXPECT_TRUE((*reader)->geometry().read_only);
  EXPECT_TRUE(open_disk_file({.path = path, .access = Access::kReadOnly}));
  EXPECT_EQ(open_error({.path = path}), Code::kBusy);
}

// Needs the right to make loop devices and mounts; elsewhere it is skipped.
class LoopTest : public testing::Test {
 protected:
  void SetUp() override {
    backing_ = directory_ / "backing";
    std::ofstream(backing_).close();
    fs::resize_file(backing_, 64 * kMiB);
    const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0) GTEST_SKIP() << "no loop devices here";
    for (int attempt = 0; attempt < 10 && loop_ < 0; ++attempt) attach(control);
    ::close(control);
    if (loop_ < 0) GTEST_SKIP() << "no loop device could be had";
  }
  void TearDown() override {
    if (loop_ < 0) return;
    ::ioctl(loop_, LOOP_CLR_FD, 0);
    ::close(loop_);
  }
  void attach(int control) {
    const int number = ::ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0) return;
    device_ = "/dev/loop" + std::to_string(number);
    const int loop = ::open(device_.c_str(), O_RDWR | O_CLOEXEC);
    const int file = ::open(backing_.c_str(), O_RDWR | O_CLOEXEC);
    if (loop >= 0 && file >= 0 && ::ioctl(loop, LOOP_SET_FD, file) == 0) {
      loop_ = loop;
    } else if (loop >= 0) {
      ::close(loop);
    }
    if (file >= 0) ::close(file);
  }

  TemporaryDirectory directory_;
  std::string backing_;
  std::string device_;
  int loop_ = -1;
};

TEST_F(LoopTest, ADeviceIsMeasuredAndClaimed) {
  const auto disk = open_disk_file({.path = device_});
  ASSERT_TRUE(disk) << to_string(disk.error());
  EXPECT_EQ((*disk)->kind(), DiskKind::kBlockDevice);
  EXPECT_EQ((*disk)->geometry().size_bytes, 64 * kMiB);
  EXPECT_EQ((*disk)->geometry().logical_block, 512U);
  EXPECT_GT((*disk)->geometry().discard_granularity, 0U);
  EXPECT_FALSE((*disk)->geometry().discard_zeroes) << "a device does not say";
  EXPECT_NE(open_reason({.path = device_}).find("by another process"), std::string::npos);
  EXPECT_EQ(open_error({.path = device_, .access = Access::kReadOnly}), Code::kBusy);
}

TEST_F(LoopTest, ADeviceHasTheSizeThatItHas) {
  EXPECT_EQ(open_error({.path = device_, .size_bytes = 32 * kMiB}), Code::kInvalidArgument);
  EXPECT_TRUE(open_disk_file({.path = device_, .size_bytes = 64 * kMiB}));
}

TEST_F(LoopTest, AFileBehindALoopDeviceIsBusy) {
  EXPECT_NE(open_reason({.path = backing_}).find("loop device"), std::string::npos);
}

TEST_F(LoopTest, AWriteProtectedDeviceIsReadOnly) {
  const int on = 1;
  ASSERT_EQ(::ioctl(loop_, BLKROSET, &on), 0);
  EXPECT_EQ(open_error({.path = device_}), Code::kReadOnly);
  EXPECT_TRUE(open_disk_file({.path = device_, .access = Access::kReadOnly}));
  const int off = 0;
  ASSERT_EQ(::ioctl(loop_, BLKROSET, &off), 0);
}

TEST_F(LoopTest, AMountedDeviceSaysSoAndItsReadOnlyMountToo) {
  const std::string command = "mkfs.ext4 -q -F " + device_ + " >/dev/null 2>&1";
  if (std::system(command.c_str()) != 0) GTEST_SKIP() << "no mkfs.ext4";
  const std::string place = directory_ / "place";
  fs::create_directory(place);
  if (::mount(device_.c_str(), place.c_str(), "ext4", 0, nullptr) != 0) GTEST_SKIP() << "no right to mount";
  EXPECT_EQ(open_error({.path = device_}), Code::kBusy);
  EXPECT_NE(open_reason({.path = device_}).find("is mounted"), std::string::npos);
  EXPECT_TRUE(open_disk_file({.path = place + "/disk", .size_bytes = kMiB}));
  ASSERT_EQ(::mount(nullptr, place.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
  EXPECT_EQ(open_error({.path = place + "/disk"}), Code::kReadOnly);
  EXPECT_EQ(open_error({.path = place + "/new", .size_bytes = kMiB}), Code::kReadOnly);
  EXPECT_TRUE(open_disk_file({.path = place + "/disk", .access = Access::kReadOnly}));
  ASSERT_EQ(::umount(place.c_str()), 0);
}

// Random requests, several at once on ranges that do not overlap, against a plain array.
class Exerciser {
 public:
  Exerciser(Shard& shard, Disk& disk, const DiskGeometry& geometry, uint64_t seed)
      : shard_(shard), disk_(disk), block_(geometry.logical_block), model_(kBytes), random_(seed) {}

  // Requires: the disk reads as zeroes.
  Task<void> run(int rounds) {
    for (int round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
      Scope scope(shard_.reactor);
      const uint64_t part = kBytes / kLanes;
      for (uint64_t lane = 0; lane < kLanes; ++lane) scope.spawn(step(lane * part, part));
      co_await scope.close();
    }
    co_await check_all();
  }

 private:
  static constexpr uint64_t kBytes = 4 * kMiB;
  static constexpr uint64_t kLanes = 4;

  // Pieces of a buffer of the pool or of plain memory, in any order of addresses.
  struct Memory {
    Buffer pooled;
    std::unique_ptr<std::byte, decltype(&std::free)> plain{nullptr, &std::free};
    std::vector<iovec> list;
  };
  Memory memory_for(BufferAccount& account, uint64_t length) {
    Memory memory;
    std::byte* base = nullptr;
    if (random_() % 2 == 0) memory.pooled = shard_.buffers.try_allocate(account, length);
    if (memory.pooled) {
      base = memory.pooled.data();
    } else {
      memory.plain.reset(static_cast<std::byte*>(std::aligned_alloc(4096, align_up(length, 4096))));
      base = memory.plain.get();
    }
    const bool in_one = random_() % 2 == 0;
    for (uint64_t at = 0; at < length;) {
      const uint64_t piece = in_one ? length : std::min(length - at, block_ * (1 + random_() % 8));
      memory.list.push_back({base + at, piece});
      at += piece;
    }
    if (random_() % 2 == 0) std::ranges::shuffle(memory.list, random_);
    return memory;
  }

  Task<void> step(uint64_t start, uint64_t room) {
    const uint64_t length = std::min(block_ * (1 + random_() % (random_() % 4 == 0 ? 600 : 16)), room);
    const uint64_t offset = start + block_ * (random_() % ((room - length) / block_ + 1));
    switch (random_() % 8) {
      case 0:
      case 1:
      case 2:
        co_return co_await write(offset, length);
      case 3:
      case 4:
        co_return co_await check(offset, length);
      case 5:
        EXPECT_TRUE(co_await submit({.op = IoOp::kFlush}));
        co_return;
      case 6:
        co_return co_await zero(offset, length);
      default:
        co_return co_await discard(offset, length);
    }
  }

  IoAwaiter<Disk> submit(IoArguments arguments) { return {shard_.reactor, disk_, arguments}; }

  Task<void> write(uint64_t offset, uint64_t length) {
    BufferAccount account;
    const Memory memory = memory_for(account, length);
    for (uint64_t i = 0; i < length; ++i) model_[offset + i] = static_cast<std::byte>(random_());
    copy_to_buffers(memory.list, 0, std::span(model_).subspan(offset, length));
    const Durability durability = random_() % 4 == 0 ? Durability::kForced : Durability::kVolatile;
    const Result<void> result = co_await submit({.op = IoOp::kWrite,
                                                 .offset = ByteOffset(offset),
                                                 .length = length,
                                                 .buffers = memory.list,
                                                 .durability = durability});
    EXPECT_TRUE(result) << to_string(result.error());
  }

  Task<void> check(uint64_t offset, uint64_t length) {
    BufferAccount account;
    const Memory memory = memory_for(account, length);
    const Result<void> result =
        co_await submit({.op = IoOp::kRead, .offset = ByteOffset(offset), .length = length, .buffers = memory.list});
    EXPECT_TRUE(result) << to_string(result.error());
    std::vector<std::byte> seen(length);
    copy_from_buffers(memory.list, 0, seen);
    EXPECT_TRUE(std::ranges::equal(seen, std::span(model_).subspan(offset, length))) << offset << " " << length;
  }

  Task<void> zero(uint64_t offset, uint64_t length) {
    const Result<void> result =
        co_await submit({.op = IoOp::kWriteZeroes,
                         .offset = ByteOffset(offset),
                         .length = length,
                         .durability = random_() % 2 == 0 ? Durability::kForced : Durability::kVolatile,
                         .zero_mode = random_() % 2 == 0 ? ZeroMode::kKeepAllocated : ZeroMode::kMayDeallocate});
    if (!result && result.error().code == Code::kNotSupported) co_return;
    EXPECT_TRUE(result) << to_string(result.error());
    std::fill_n(model_.begin() + static_cast<ptrdiff_t>(offset), length, std::byte{0});
  }

  // What a discarded range holds is the medium's choice: written again at once.
  Task<void> discard(uint64_t offset, uint64_t length) {
    const Result<void> result = co_await submit({.op = IoOp::kDiscard, .offset = ByteOffset(offset), .length = length});
    EXPECT_TRUE(result || result.error().code == Code::kNotSupported) << to_string(result.error());
    co_await write(offset, length);
  }

  Task<void> check_all() {
    for (uint64_t at = 0; at < kBytes; at += kMiB) co_await check(at, kMiB);
  }

  Shard& shard_;
  Disk& disk_;
  const uint64_t block_;
  std::vector<std::byte> model_;
  std::mt19937_64 random_;
};

Task<void> exercise(Shard& shard, std::string path, std::optional<uint64_t> size, int rounds,
                    std::vector<DiskStep> without = {}) {
  const uint64_t seed = shard.random.next();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  const auto file = shard.storage.open({.path = path, .size_bytes = size});
  if (!file) {
    ADD_FAILURE() << to_string(file.error());
    co_return;
  }
  for (const DiskStep step : without) dynamic_cast<NativeDiskFile&>(**file).note_missing(step);
  const auto disk = shard.storage.attach(*file);
  Exerciser exerciser(shard, **disk, (*file)->geometry(), seed);
  co_await exerciser.run(rounds);
  if (testing::Test::HasFailure()) std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
}

TEST(UringDiskTest, AFileAgreesWithAnArray) {
  const TemporaryDirectory directory;
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  runtime.run_on(0, exercise(runtime.shard(0), directory / "disk", 16 * kMiB, 400));
}

// Where there is no direct I/O the requests go through the page cache.
TEST(UringDiskTest, AFileInMemoryAgreesWithAnArray) {
  if (::access("/dev/shm", W_OK) != 0) GTEST_SKIP() << "no /dev/shm";
  const std::string path = "/dev/shm/fairlead-disk-test-" + std::to_string(::getpid());
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  runtime.run_on(0, exercise(runtime.shard(0), path, 16 * kMiB, 400));
  ::unlink(path.c_str());
}

TEST_F(LoopTest, ADeviceAgreesWithAnArray) {
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  runtime.run_on(0, exercise(runtime.shard(0), device_, std::nullopt, 200));
}

// As on kernels and media that lack one or the other.
TEST_F(LoopTest, ADeviceWithoutTheBestWaysAgreesWithAnArray) {
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  for (const std::vector<DiskStep>& without : std::vector<std::vector<DiskStep>>{
           {DiskStep::kDiscardCommand},
           {DiskStep::kDiscardCommand, DiskStep::kDiscardRange},
           {DiskStep::kPunchHole},
           {DiskStep::kDiscardCommand, DiskStep::kDiscardRange, DiskStep::kPunchHole, DiskStep::kZeroRange}}) {
    ASSERT_EQ(::ioctl(loop_, BLKZEROOUT, std::array<uint64_t, 2>{0, 64 * kMiB}.data()), 0);
    runtime.run_on(0, exercise(runtime.shard(0), device_, std::nullopt, 40, without));
  }
}

Task<void> discard_frees_room(Shard& shard, std::string path, blkcnt_t& before, blkcnt_t& after) {
  const auto file = shard.storage.open({.path = path, .size_bytes = 4 * kMiB});
  EXPECT_TRUE((*file)->geometry().discard_zeroes) << "a hole reads as zeroes";
  const auto disk = shard.storage.attach(*file);
  BufferAccount account;
  const Buffer buffer = shard.buffers.try_allocate(account, 2 * kMiB);
  std::memset(buffer.data(), 1, buffer.capacity());
  const iovec list{buffer.data(), buffer.capacity()};
  const std::span<const iovec> buffers(&list, 1);
  struct stat status{};
  EXPECT_TRUE(co_await IoAwaiter<Disk>(shard.reactor, **disk,
                                       IoArguments{.op = IoOp::kWrite, .length = 2 * kMiB, .buffers = buffers}));
  EXPECT_TRUE(co_await IoAwaiter<Disk>(shard.reactor, **disk, IoArguments{.op = IoOp::kFlush}));
  ::stat(path.c_str(), &status);
  before = status.st_blocks;
  EXPECT_TRUE(co_await IoAwaiter<Disk>(shard.reactor, **disk, IoArguments{.op = IoOp::kDiscard, .length = 2 * kMiB}));
  ::stat(path.c_str(), &status);
  after = status.st_blocks;
}

TEST(UringDiskTest, DiscardGivesTheFilesRoomBack) {
  const TemporaryDirectory directory;
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  blkcnt_t before = 0;
  blkcnt_t after = 0;
  runtime.run_on(0, discard_frees_room(runtime.shard(0), directory / "disk", before, after));
  EXPECT_GE(before, 4096);
  EXPECT_LT(after, 100);
}

// More pieces than one system call takes.
Task<void> many_pieces(Shard& shard, std::string path) {
  const auto file = shard.storage.open({.path = path, .size_bytes = 4 * kMiB});
  EXPECT_TRUE((*file)->geometry().discard_zeroes) << "a hole reads as zeroes";
  const uint64_t block = (*file)->geometry().logical_block;
  const auto disk = shard.storage.attach(*file);
  BufferAccount account;
  const Buffer written = shard.buffers.try_allocate(account, 2 * kMiB);
  const Buffer read = shard.buffers.try_allocate(account, 2 * kMiB);
  const uint64_t length = std::min<uint64_t>(3000 * block, 2 * kMiB);
  std::mt19937 random(3);
  for (uint64_t i = 0; i < length; ++i) written.data()[i] = static_cast<std::byte>(random());
  std::vector<iovec> out;
  std::vector<iovec> in;
  for (uint64_t at = 0; at < length; at += block) {
    out.push_back({written.data() + at, block});
    in.push_back({read.data() + at, block});
  }
  EXPECT_TRUE(co_await IoAwaiter<Disk>(shard.reactor, **disk,
                                       IoArguments{.op = IoOp::kWrite, .length = length, .buffers = out}));
  EXPECT_TRUE(
      co_await IoAwaiter<Disk>(shard.reactor, **disk, IoArguments{.op = IoOp::kRead, .length = length, .buffers = in}));
  EXPECT_EQ(std::memcmp(written.data(), read.data(), length), 0);
}

TEST(UringDiskTest, TakesMorePiecesThanOneSystemCall) {
  const TemporaryDirectory directory;
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  runtime.run_on(0, many_pieces(runtime.shard(0), directory / "disk"));
}

// A file that somebody cut off under us is an error, not an endless loop.
Task<void> read_beyond_end(Shard& shard, std::string path, Result<void>& result) {
  const auto file = shard.storage.open({.path = path, .size_bytes = kMiB});
  const auto disk = shard.storage.attach(*file);
  fs::resize_file(path, 8192);
  BufferAccount account;
  const Buffer buffer = shard.buffers.try_allocate(account, 16384);
  const iovec list{buffer.data(), 16384};
  result = co_await IoAwaiter<Disk>(
      shard.reactor, **disk,
      IoArguments{.op = IoOp::kRead, .length = 16384, .buffers = std::span<const iovec>(&list, 1)});
}

TEST(UringDiskTest, AFileCutOffGivesAnError) {
  const TemporaryDirectory directory;
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  Result<void> result;
  runtime.run_on(0, read_beyond_end(runtime.shard(0), directory / "disk", result));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::kIo);
}

}  // namespace
}  // namespace fairlead
