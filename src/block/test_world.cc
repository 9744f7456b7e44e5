#include "block/test_world.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <gtest/gtest.h>
#include <iterator>
#include <list>

#include "base/check.h"

namespace fairlead::test {

void VectorDisk::submit(IoRequest& request) {
  const DiskGeometry& geometry = file_->options.geometry;
  ++file_->requests;
  FL_CHECK(is_aligned(request.offset.value | request.length, geometry.logical_block));
  FL_CHECK(request.length <= geometry.size_bytes && request.offset.value <= geometry.size_bytes - request.length);
  if (request.op == IoOp::kRead || request.op == IoOp::kWrite) {
    FL_CHECK(total_length(request.buffers) == request.length);
    for (const iovec& buffer : request.buffers) {
      const auto address = reinterpret_cast<uintptr_t>(buffer.iov_base);
      FL_CHECK(buffer.iov_len > 0 && is_aligned(address | buffer.iov_len, geometry.logical_block));
    }
  }
  FL_CHECK(!geometry.read_only || request.op == IoOp::kRead || request.op == IoOp::kFlush);
  queue_.push_back(&request);
  if (!worker_.is_linked()) reactor_.post(worker_);
}

void VectorDisk::complete_one() {
  const auto chosen = queue_.begin() + static_cast<ptrdiff_t>(random_() % queue_.size());
  IoRequest& request = **chosen;
  queue_.erase(chosen);
  if (!queue_.empty()) reactor_.post(worker_);
  request.complete(execute(request));
}

Result<void> VectorDisk::execute(const IoRequest& request) {
  using Options = VectorDiskOptions;
  const std::span range = std::span(file_->bytes).subspan(request.offset.value, request.length);
  const auto zeroes = file_->options.zeroes;
  const bool refuses_zeroes = zeroes == Options::Zeroes::kNone || (zeroes == Options::Zeroes::kKeepAllocatedOnly &&
                                                                   request.zero_mode == ZeroMode::kMayDeallocate);
  const bool refuses_discards = file_->options.discards == Options::Discards::kNotSupported;
  if ((request.op == IoOp::kWriteZeroes && refuses_zeroes) || (request.op == IoOp::kDiscard && refuses_discards)) {
    ++file_->refusals;
    return fail(Code::kNotSupported);
  }
  switch (request.op) {
    case IoOp::kRead:
      copy_to_buffers(request.buffers, 0, range);
      break;
    case IoOp::kWrite:
      copy_from_buffers(request.buffers, 0, range);
      break;
    case IoOp::kFlush:
      break;
    case IoOp::kDiscard:
    case IoOp::kWriteZeroes:
      std::ranges::fill(range, std::byte{0});
      break;
  }
  return {};
}

Result<std::shared_ptr<DiskFile>> VectorStorage::open(const OpenDisk& options) {
  if (options.path != "disk" || file == nullptr) return fail(Code::kNotFound);
  file->options.geometry.read_only = options.access == Access::kReadOnly;
  return file;
}

Result<std::unique_ptr<Disk>> VectorStorage::attach(std::shared_ptr<DiskFile> attached) {
  return std::make_unique<VectorDisk>(reactor_, std::static_pointer_cast<VectorDiskFile>(std::move(attached)));
}

void World::run_until(Instant end) {
  while (true) {
    run_ready();
    const std::optional<Instant> next = reactor.next_deadline();
    if (!next || *next > end) break;
    reactor.set_now(std::max(*next, reactor.now()));
    reactor.expire_timers();
  }
  reactor.set_now(std::max(reactor.now(), end));
}

void World::run() {
  run_ready();
  while (const std::optional<Instant> next = reactor.next_deadline()) {
    run_until(*next);
    run_ready();
  }
}

Result<void> World::perform(BlockDevice& device, const IoArguments& arguments) {
  struct Request : IoRequest {
    bool finished = false;
  } request;
  request.arguments() = arguments;
  request.done = [](IoRequest& self) { static_cast<Request&>(self).finished = true; };
  device.submit(request);
  run();
  FL_CHECK(request.finished);
  return request.result;
}

std::unique_ptr<BlockDevice> open_or_die(BlockSource& source, Shard& shard) {
  Result<std::unique_ptr<BlockDevice>> device = source.open(shard);
  FL_CHECK(device.has_value());
  return std::move(*device);
}

uint64_t draw_seed() {
  if (const char* const text = std::getenv("FAIRLEAD_TEST_SEED"); text != nullptr) {
    return std::strtoull(text, nullptr, 0);
  }
  return std::random_device{}();
}

namespace {

// One operation under way, with memory of its own cut into pieces of any size.
struct Operation : IoRequest {
  std::vector<std::byte> memory;
  std::vector<iovec> pieces;
  std::span<std::byte> data;
  int completions = 0;
};

class ModelRun {
 public:
  ModelRun(World& world, BlockDevice& device, const ModelOptions& options)
      : world_(world),
        device_(device),
        options_(options),
        random_(options.seed),
        block_(device.geometry().logical_block),
        zone_(align_down(device.geometry().size_bytes / kZones, block_)),
        model_(device.geometry().size_bytes) {}

  void run() {
    FL_CHECK(zone_ > 0);
    read_everything();
    for (int round = 0; round < options_.rounds && !testing::Test::HasFailure(); ++round) {
      std::array<Operation, kZones> operations;
      for (size_t zone = 0; zone < kZones; ++zone) {
        fill_in(operations[zone], zone);
        device_.submit(operations[zone]);
      }
      world_.run();
      for (Operation& operation : operations) verify(operation);
    }
    read_everything();
  }

 private:
  static constexpr size_t kZones = 6;

  size_t below(size_t bound) { return random_() % bound; }

  // Gives the operation memory of the alignment wanted, not better; pieces likewise.
  void make_buffers(Operation& operation) {
    const size_t alignment = options_.memory_alignment;
    operation.memory.resize(operation.length + 8192);
    void* start = operation.memory.data();
    size_t room = operation.memory.size();
    FL_CHECK(std::align(4096, operation.length, start, room) != nullptr);
    auto* const at = static_cast<std::byte*>(start) + (alignment < 4096 ? alignment : 0);
    operation.data = {at, operation.length};
    for (size_t done = 0; done < operation.length;) {
      const size_t left = operation.length - done;
      const size_t piece = std::min(left, (1 + below(8)) * std::max<size_t>(alignment, block_ / 4 + 1));
      const size_t length = alignment >= block_ ? align_up(piece, block_) : piece;
      operation.pieces.push_back({at + done, std::min(length, left)});
      done += operation.pieces.back().iov_len;
    }
    if (alignment < block_) operation.pieces.push_back({nullptr, 0});
    operation.buffers = operation.pieces;
  }

  void fill_in(Operation& operation, size_t zone) {
    operation.op = static_cast<IoOp>(below(5));
    operation.durability = below(2) == 0 ? Durability::kVolatile : Durability::kForced;
    operation.zero_mode = below(2) == 0 ? ZeroMode::kKeepAllocated : ZeroMode::kMayDeallocate;
    operation.done = [](IoRequest& self) { ++static_cast<Operation&>(self).completions; };
    if (operation.op == IoOp::kFlush) return;
    const size_t blocks = zone_ / block_;
    const size_t first = below(blocks);
    const size_t count = below(blocks - first + 1);
    operation.offset = ByteOffset(zone * zone_ + first * block_);
    operation.length = count * block_;
    if (operation.op != IoOp::kRead && operation.op != IoOp::kWrite) return;
    make_buffers(operation);
    const auto salt = static_cast<unsigned>(random_());
    for (size_t i = 0; i < operation.data.size(); ++i) {
      operation.data[i] = static_cast<std::byte>((salt + i * 31 + i / 509) & 0xff);
    }
  }

  void verify(const Operation& operation) {
    ASSERT_EQ(operation.completions, 1);
    ASSERT_TRUE(operation.result) << to_string(operation.result.error());
    const std::span range = std::span(model_).subspan(operation.offset.value, operation.length);
    switch (operation.op) {
      case IoOp::kRead:
        ASSERT_EQ(std::memcmp(operation.data.data(), range.data(), range.size()), 0)
            << "read at " << operation.offset.value << " of " << operation.length;
        break;
      case IoOp::kWrite:
        std::ranges::copy(operation.data, range.begin());
        break;
      case IoOp::kFlush:
        break;
      case IoOp::kDiscard:
        if (options_.after_discard == AfterDiscard::kZeroes) std::ranges::fill(range, std::byte{0});
        break;
      case IoOp::kWriteZeroes:
        std::ranges::fill(range, std::byte{0});
        break;
    }
  }

  void read_everything() {
    std::vector<std::byte> bytes(model_.size(), std::byte{0xaa});
    const iovec buffer = {bytes.data(), bytes.size()};
    const auto outcome =
        world_.perform(device_, {.op = IoOp::kRead, .length = bytes.size(), .buffers = std::span(&buffer, 1)});
    ASSERT_TRUE(outcome) << to_string(outcome.error());
    ASSERT_TRUE(bytes == model_);
  }

  World& world_;
  BlockDevice& device_;
  const ModelOptions options_;
  std::mt19937_64 random_;
  const size_t block_;
  const size_t zone_;
  std::vector<std::byte> model_;
};

}  // namespace

void hold_against_model(World& world, BlockDevice& device, const ModelOptions& options) {
  SCOPED_TRACE(testing::Message() << "FAIRLEAD_TEST_SEED=" << options.seed);
  ModelRun(world, device, options).run();
}

}  // namespace fairlead::test
