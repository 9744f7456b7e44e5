// SmallFiles: a few small files of one directory, each read and replaced as a whole: what a process keeps for its next
// start. Two kinds: of a directory of the system, and in memory.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "async/reactor.h"
#include "async/task.h"
#include "base/problem.h"
#include "io/worker.h"

namespace fairlead {

// One shard.
class SmallFiles {
 public:
  virtual ~SmallFiles() = default;
  // None: there is no such file. Blocks briefly: for start-up. Errors: kIo, kPermissionDenied, kOutOfRange (above
  // kSmallFileBytesMax).
  virtual Outcome<std::optional<std::string>> read(const std::string& name) = 0;
  // When it returns without an error the file has these bytes, on stable storage; after an error, or a loss of power,
  // these or those that it had. Errors: kNoSpace, kIo, kPermissionDenied. One call at a time.
  virtual Task<Outcome<void>> replace(std::string name, std::string bytes) = 0;
};
inline constexpr size_t kSmallFileBytesMax = 4 << 20;

// A directory of the system; made when it is not there, for its owner alone. A thread of its own does what blocks.
// Errors: kNotFound (the directory that is to have it), kPermissionDenied, kBusy (another process has it), kIo.
Outcome<std::unique_ptr<SmallFiles>> open_small_files(Reactor& home, const std::string& directory);

// Lost with the object.
class MemoryFiles final : public SmallFiles {
 public:
  Outcome<std::optional<std::string>> read(const std::string& name) override {
    const auto found = files_.find(name);
    return found == files_.end() ? std::nullopt : std::optional(found->second);
  }
  Task<Outcome<void>> replace(std::string name, std::string bytes) override {
    files_[std::move(name)] = std::move(bytes);
    co_return Outcome<void>();
  }

 private:
  std::map<std::string, std::string> files_;
};

}  // namespace fairlead
