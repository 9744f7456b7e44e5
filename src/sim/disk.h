// SimDevice: a disk of the simulated world, with a volatile cache, latency, reordering and faults. It belongs to the
// world and survives its node's crashes; a node reaches it through SimStorage, the Storage seam, by its path.
//
// An operation takes effect when it completes (a write may do so in two parts): so operations in flight together happen
// in any order, and of two overlapping writes either may win, by the sector. A flush covers what had completed when it
// was submitted, no more. All on the world's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/disk.h"
#include "sim/core.h"
#include "sim/disk_content.h"
#include "sim/disk_faults.h"

namespace fairlead::sim {

class SimDisk;

// What a discarded range reads as.
enum class DiscardReads : uint8_t { kZeroes, kOldBytes, kEither };

struct SimDiskOptions {
  uint32_t logical_block = 512;
  uint32_t physical_block = 512;
  uint32_t discard_granularity = 4096;  // 0: kNotSupported
  bool write_zeroes_supported = true;
  Cache cache = Cache::kVolatile;
  DiscardReads discard_reads = DiscardReads::kZeroes;
  bool read_only = false;
  bool is_file = true;                 // OpenDisk::size_bytes may grow it
  uint64_t room_bytes = ~uint64_t{0};  // what the medium can hold: beyond, writes to new places fail with kNoSpace
  // A liar: a flush and forced unit access say that they are done, and are not. To test oracles with.
  bool ignores_flushes = false;
  DiskFaults faults;

  // Another device for each seed: block sizes, cache, discards. No faults.
  static SimDiskOptions drawn(Prng& random);
};

// Is told of what reaches a device, to crash a node at a chosen point: it sets a flag for run_until() to see.
class DiskObserver {
 public:
  virtual ~DiskObserver() = default;
  virtual void submitted(const IoRequest& request) = 0;
  // It took effect, or failed. Its owner does not know yet.
  virtual void performed(const IoRequest& request) = 0;
};

// One request under way. The device owns it until it took effect, then the SimDisk until it is told.
struct DiskOp : Runnable {
  DiskOp();
  uint64_t id = 0;
  IoRequest* request = nullptr;
  SimDisk* disk = nullptr;
  std::vector<std::byte> data;   // of a write, as submitted
  uint64_t sectors_applied = 0;  // of a write in two parts
  uint64_t flush_to = 0;         // number of the newest write that a flush covers
  bool started = false;
  Result<void> outcome;
};

class SimDevice {
 public:
  SimDevice(SimCore& core, uint32_t index, uint32_t node, uint64_t size_bytes, SimDiskOptions options, Prng random);
  ~SimDevice();
  SimDevice(const SimDevice&) = delete;
  SimDevice& operator=(const SimDevice&) = delete;

  // For the test.
  uint64_t size_bytes() const { return size_bytes_; }
  void resize(uint64_t size_bytes);  // Requires: a multiple of the logical block. Seen on refresh_size().
  void set_faults(DiskFaults faults) { options_.faults = std::move(faults); }
  // Borrowed; null: none.
  void set_observer(DiskObserver* observer) { observer_ = observer; }
  void set_room(uint64_t room_bytes) { options_.room_bytes = room_bytes; }
  // For so long nothing takes effect, not even what is under way already. Until the world is healed at most.
  void hang(Duration span);
  void heal();
  // What it holds, and another disk of this size in its place. Requires: nothing is under way.
  DiskContent content() const { return content_; }
  void replace(DiskContent content);
  // Looks past all faults: the newest bytes, or what a crash now could not take away. Requires: whole sectors.
  void peek(uint64_t offset, std::span<std::byte> out) const;
  void peek_stable(uint64_t offset, std::span<std::byte> out) const;
  // Whether rot, a lost or a misdirected write spoilt a sector of it that was not rewritten since. A crash brings
  // damage back that only the cache had covered; it may also leave a sector counted as damaged that came out whole.
  bool is_damaged(uint64_t offset, uint64_t length) const;
  // Rot by hand: flips a bit of each sector. Makes the sectors unreadable until rewritten.
  void rot(uint64_t offset, uint64_t length);
  void make_unreadable(uint64_t offset, uint64_t length);
  // Takes all of that back, as if the sectors could be read again after all.
  void make_readable() { unreadable_.clear(); }
  bool has_unreadable() const { return !unreadable_.empty(); }
  uint64_t allocated_bytes() const { return content_.allocated_bytes(); }
  size_t in_flight() const { return ops_.size(); }
  const SimDiskOptions& options() const { return options_; }

  // For SimStorage.
  uint32_t node() const { return node_; }
  Result<uint64_t> claim();  // a token; kBusy
  void release(uint64_t token);
  void submit(std::unique_ptr<DiskOp> op);

  // For SimWorld: what is in flight ends with kCancelled, each of its sectors written or not; the claim is free.
  void crash(CrashKind kind);

 private:
  // The part of an operation that one fault may hit.
  struct Victim {
    DiskZone zone;
    uint64_t begin = 0;  // sectors, inside the operation and the zone
    uint64_t end = 0;
  };
  uint64_t first_sector(const DiskOp& op) const;
  uint64_t sector_count(const DiskOp& op) const;
  Victim pick_victim(uint64_t begin, uint64_t end);
  Duration draw_latency(const DiskOp& op);
  void start_waiting();
  void start(DiskOp& op);
  void apply_first_part(uint64_t id);
  void end_hang();
  void finish(uint64_t id);
  Result<void> perform(DiskOp& op);
  Result<void> perform_read(DiskOp& op);
  Result<void> perform_write(DiskOp& op);
  Result<void> perform_flush(DiskOp& op);
  Result<void> perform_discard(DiskOp& op);
  DiskContent::Reach reach_of(const DiskOp& op) const;
  // Applies sectors [begin, end) of the disk, which lie in the operation.
  void apply(const DiskOp& op, uint64_t begin, uint64_t end);
  void apply_at(const DiskOp& op, uint64_t number, uint64_t from_sector, uint64_t to_sector, DiskContent::Reach reach);
  void apply_some(const DiskOp& op, DiskContent::Reach reach);
  void apply_misdirected(const DiskOp& op, const Victim& victim);
  void damage(uint64_t begin, uint64_t end);
  void mend(uint64_t sector, uint64_t number, DiskContent::Reach reach);
  void injected(SimFault fault) { core_.injected(fault, node_); }
  bool has_room(uint64_t begin, uint64_t end) const;
  void trace(TraceKind kind, const DiskOp& op, uint64_t b, uint64_t digest);

  SimCore& core_;
  const uint32_t index_;
  const uint32_t node_;
  uint64_t size_bytes_;
  SimDiskOptions options_;
  Prng random_;
  DiskObserver* observer_ = nullptr;
  DiskContent content_;
  uint64_t next_op_ = 1;
  uint64_t next_token_ = 1;
  uint64_t claimed_by_ = 0;
  uint32_t in_service_ = 0;
  Instant hangs_until_;
  std::vector<uint64_t> hung_;                       // operations that were due since it hangs
  std::map<uint64_t, std::unique_ptr<DiskOp>> ops_;  // by id: oldest first
  std::deque<uint64_t> waiting_;
  std::set<uint64_t> damaged_;                    // sectors
  std::map<uint64_t, uint64_t> mended_in_cache_;  // sectors damaged below the cache: number of the write over it
  std::set<uint64_t> unreadable_;                 // sectors
};

// Finds a node's devices by path; the world's table.
class DeviceTable {
 public:
  virtual ~DeviceTable() = default;
  virtual SimDevice* find_device(uint32_t node, std::string_view path) = 0;
  virtual SimDevice& make_file(uint32_t node, std::string_view path, uint64_t size_bytes) = 0;
};

// The Storage seam of one shard.
class SimStorage final : public Storage {
 public:
  SimStorage(DeviceTable& devices, Reactor& reactor, std::shared_ptr<const Boot> boot)
      : devices_(devices), reactor_(reactor), boot_(std::move(boot)) {}
  Result<std::shared_ptr<DiskFile>> open(const OpenDisk& options) override;
  Result<std::unique_ptr<Disk>> attach(std::shared_ptr<DiskFile> file) override;
  Uuid boot_id() const override { return boot_->kernel; }

 private:
  DeviceTable& devices_;
  Reactor& reactor_;
  std::shared_ptr<const Boot> boot_;
};

class SimDiskFile final : public DiskFile {
 public:
  SimDiskFile(SimDevice& device, uint64_t token, Access access, std::shared_ptr<const Boot> boot);
  ~SimDiskFile() override;
  DiskGeometry geometry() const override { return geometry_; }
  Result<uint64_t> refresh_size() override;
  SimDevice& device() const { return device_; }

 private:
  SimDevice& device_;
  const uint64_t token_;
  DiskGeometry geometry_;
  std::shared_ptr<const Boot> boot_;
};

class SimDisk final : public Disk {
 public:
  SimDisk(std::shared_ptr<SimDiskFile> file, Reactor& reactor, std::shared_ptr<const Boot> boot);
  ~SimDisk() override;  // Requires: nothing under way.
  void submit(IoRequest& request) override;

 private:
  friend class SimDevice;
  friend struct DiskOp;
  void check_request(const IoRequest& request) const;
  void finished(std::unique_ptr<DiskOp> op);  // tells the owner on a turn of the reactor
  static void deliver(DiskOp& op);

  std::shared_ptr<SimDiskFile> file_;
  Reactor& reactor_;
  std::shared_ptr<const Boot> boot_;
  size_t under_way_ = 0;
  std::map<const DiskOp*, std::unique_ptr<DiskOp>> finished_;  // looked up, never walked
};

}  // namespace fairlead::sim
