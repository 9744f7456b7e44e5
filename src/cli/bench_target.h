// BenchSources: the target of a benchmark, opened once for each queue. Lives on shard 0.
#pragma once

#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "block/block_device.h"
#include "cli/bench.h"
#include "host/subsystem.h"
#include "io/runtime.h"
#include "pool/pool.h"

namespace fairlead::cli {

class BenchSources {
 public:
  // Borrowed for life.
  BenchSources(Runtime& runtime, const BenchPlan& plan);
  ~BenchSources();  // Requires: close() has returned, or open() was never called.
  BenchSources(const BenchSources&) = delete;
  BenchSources& operator=(const BenchSources&) = delete;

  // A source for each queue; queue i is to be opened on shard i modulo their number. A disk is opened once, a pool
  // imported once. A remote namespace is connected for each queue by itself, as if by several hosts of one name.
  // close() is due in any case.
  Task<std::expected<std::vector<std::shared_ptr<BlockSource>>, Complaint>> open();
  // What is worth saying though open() went well, for people.
  const std::vector<std::string>& remarks() const { return remarks_; }
  // Disconnects, or closes the pool. Requires: no device is open any more. A complaint: what the pool still had to
  // write could not be written.
  Task<std::expected<void, Complaint>> close();

 private:
  // Belongs to its shard.
  struct Remote {
    Shard* shard = nullptr;
    std::unique_ptr<host::Subsystem> subsystem;
    std::vector<host::ControllerStatus> paths;
  };
  using Sources = std::vector<std::shared_ptr<BlockSource>>;
  Result<std::shared_ptr<BlockSource>> open_local() const;
  Task<std::expected<Sources, Complaint>> open_pool(const PoolTarget& target);
  Task<std::expected<Sources, Complaint>> open_remote(const FabricTarget& target);
  static Task<Result<std::shared_ptr<BlockSource>>> connect(Remote& remote, host::SubsystemOptions options,
                                                            uint32_t nsid);
  static Task<void> disconnect(Remote& remote);

  Runtime& runtime_;
  Shard& home_;
  const BenchPlan& plan_;
  std::vector<Remote> remotes_;  // by queue
  std::unique_ptr<pool::Pool> pool_;
  std::vector<std::string> remarks_;
};

}  // namespace fairlead::cli
