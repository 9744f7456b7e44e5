// LineInput: lines from a pipe, a terminal or a file, as something to wait for, on one shard: commands that a program
// reads while it serves.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "async/task.h"
#include "base/error.h"
#include "io/uring_shard.h"

namespace fairlead {

// Lives on the shard that made it.
class LineInput {
 public:
  static constexpr size_t kLineBytesMax = 64 * 1024;

  // `descriptor` is borrowed: 0 is standard input.
  LineInput(UringShard& shard, int descriptor) : shard_(shard), descriptor_(descriptor) {}
  ~LineInput();  // Requires: next() has returned.
  LineInput(const LineInput&) = delete;
  LineInput& operator=(const LineInput&) = delete;

  // The next line, without its newline; none at the end. A last line needs no newline. One call at a time. Errors:
  // kCancelled after close(), kResourceExhausted (a line is longer than kLineBytesMax; the rest is not read), kIo.
  Task<Result<std::optional<std::string>>> next();
  void close();

 private:
  std::optional<std::string> take_line();

  UringShard& shard_;
  const int descriptor_;
  std::string pending_;
  UringOp* waiting_ = nullptr;
  bool is_closed_ = false;
  bool is_at_end_ = false;
};

}  // namespace fairlead
