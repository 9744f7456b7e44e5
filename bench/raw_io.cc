// What a disk does by bare io_uring, without a target or a network: one process on one processor, O_DIRECT, a
// registered file, registered buffers, a fixed number of operations in flight.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <liburing.h>
#include <memory>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "base/xoshiro.h"
#include "measure.h"

namespace fairlead::bench {
namespace {

struct Options {
  std::string path;
  std::string rw = "randread";
  size_t block = 4096;
  size_t depth = 32;
  uint64_t size = 0;
  double seconds = 3;
  double warm_up = 0.2;
  int cpu = 0;
  uint64_t seed = 1;
  bool json = false;
};

class RawIo {
 public:
  explicit RawIo(const Options& options)
      : options_(options),
        is_write_(options.rw.ends_with("write")),
        is_random_(options.rw.starts_with("rand")),
        generator_(options.seed) {
    open_file();
    io_uring_params parameters{};
    parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    const int result = io_uring_queue_init_params(static_cast<unsigned>(options.depth), &ring_, &parameters);
    if (result < 0) fail("set up io_uring", -result);
    (void)io_uring_register_ring_fd(&ring_);
    if (const int registered = io_uring_register_files(&ring_, &file_, 1); registered < 0)
      fail("register the file", -registered);
    register_buffers();
  }
  ~RawIo() {
    io_uring_queue_exit(&ring_);
    std::free(memory_);
    ::close(file_);
  }
  RawIo(const RawIo&) = delete;
  RawIo& operator=(const RawIo&) = delete;

  Report run() {
    Report report;
    begun_.resize(options_.depth);
    const uint64_t start = now_ns() + static_cast<uint64_t>(options_.warm_up * 1e9);
    const uint64_t end = start + static_cast<uint64_t>(options_.seconds * 1e9);
    uint64_t now = now_ns();
    for (size_t i = 0; i < options_.depth; ++i) prepare(i, now);
    size_t in_flight = options_.depth;
    uint64_t counting_since = 0;
    double cpu = 0;
    while (in_flight > 0) {
      if (const int result = io_uring_submit_and_wait(&ring_, 1); result < 0 && result != -EINTR)
        fail("submit", -result);
      now = now_ns();
      if (counting_since == 0 && now >= start) {
        counting_since = now;
        cpu = cpu_seconds(0);
      }
      in_flight -= reap(now, now < end, counting_since != 0 ? &report : nullptr);
    }
    report.seconds = static_cast<double>(now_ns() - counting_since) / 1e9;
    report.cpu_seconds = cpu_seconds(0) - cpu;
    report.bytes = report.operations * options_.block;
    return report;
  }

 private:
  void open_file() {
    file_ = ::open(options_.path.c_str(), (is_write_ ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
    if (file_ < 0 && errno == EINVAL) fail("open the file with O_DIRECT: its file system has none", EINVAL);
    if (file_ < 0) fail("open the file", errno);
    const off_t size = ::lseek(file_, 0, SEEK_END);
    blocks_ = static_cast<uint64_t>(size) / options_.block;
    if (options_.size != 0) blocks_ = std::min(blocks_, options_.size / options_.block);
    if (size < 0 || blocks_ == 0) fail("use a file smaller than one block", 0);
  }
  void register_buffers() {
    const size_t bytes = options_.depth * options_.block;
    memory_ = static_cast<std::byte*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096));
    if (memory_ == nullptr) fail("allocate buffers", ENOMEM);
    for (size_t i = 0; i < bytes; ++i) memory_[i] = static_cast<std::byte>(generator_.next() & 0xff);
    std::vector<iovec> ranges(options_.depth);
    for (size_t i = 0; i < ranges.size(); ++i) ranges[i] = {memory_ + i * options_.block, options_.block};
    const int result = io_uring_register_buffers(&ring_, ranges.data(), static_cast<unsigned>(ranges.size()));
    if (result < 0) fail("register buffers", -result);
  }

  uint64_t next_offset() {
    const uint64_t block = is_random_ ? generator_.next() % blocks_ : next_block_++ % blocks_;
    return block * options_.block;
  }
  void prepare(size_t slot, uint64_t now) {
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
    if (entry == nullptr) fail("prepare more than the ring holds", 0);
    std::byte* const buffer = memory_ + slot * options_.block;
    const auto length = static_cast<unsigned>(options_.block);
    if (is_write_) {
      io_uring_prep_write_fixed(entry, 0, buffer, length, next_offset(), static_cast<int>(slot));
    } else {
      io_uring_prep_read_fixed(entry, 0, buffer, length, next_offset(), static_cast<int>(slot));
    }
    entry->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(entry, slot);
    begun_[slot] = now;
  }

  // Takes what ended, and begins as much anew when `go_on`. Returns by how much there is less in flight.
  size_t reap(uint64_t now, bool go_on, Report* report) {
    unsigned head = 0;
    unsigned count = 0;
    io_uring_cqe* entry = nullptr;
    io_uring_for_each_cqe(&ring_, head, entry) {
      ++count;
      const size_t slot = io_uring_cqe_get_data64(entry);
      if (entry->res != static_cast<int>(options_.block)) fail("read or write", entry->res < 0 ? -entry->res : EIO);
      if (report != nullptr) {
        ++report->operations;
        report->latency_ns.record(now - begun_[slot]);
      }
      if (go_on) prepare(slot, now);
    }
    io_uring_cq_advance(&ring_, count);
    return go_on ? 0 : count;
  }

  const Options& options_;
  const bool is_write_;
  const bool is_random_;
  Xoshiro generator_;
  int file_ = -1;
  uint64_t blocks_ = 0;
  uint64_t next_block_ = 0;
  std::byte* memory_ = nullptr;
  std::vector<uint64_t> begun_;
  io_uring ring_{};
};

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  fairlead::bench::Options options;
  CLI::App app("Reads or writes a file or device by bare io_uring", "raw_io");
  app.add_option("PATH", options.path, "Must be there, and no smaller than a block; writes destroy what it holds")
      ->required();
  app.add_option("--rw", options.rw)->check(CLI::IsMember({"randread", "randwrite", "read", "write"}));
  app.add_option("--bs", options.block, "Bytes of each operation: 4096, 128k")->transform(CLI::AsSizeValue(false));
  app.add_option("--qd", options.depth, "Operations in flight")->check(CLI::Range(1, 1024));
  app.add_option("--size", options.size, "How much is used of it: 4GiB. Default: all")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--seconds", options.seconds)->check(CLI::PositiveNumber);
  app.add_option("--warm-up", options.warm_up, "Seconds before anything is counted")->capture_default_str();
  app.add_option("--cpu", options.cpu, "The processor to run on; -1: any")->capture_default_str();
  app.add_option("--seed", options.seed, "Of the random offsets")->capture_default_str();
  app.add_flag("--json", options.json);
  CLI11_PARSE(app, argc, argv);
  fairlead::bench::pin_to(options.cpu);
  const fairlead::bench::Report report = fairlead::bench::RawIo(options).run();
  fmt::print("{}\n", options.json ? fairlead::bench::to_json(report) : fairlead::bench::to_text(report));
  return 0;
}
