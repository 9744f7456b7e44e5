// SignalWatch: SIGINT and SIGTERM as something to wait for, on one shard.
#pragma once

#include <memory>

#include "async/task.h"
#include "base/error.h"
#include "io/uring_shard.h"

namespace fairlead {

// Lives on the shard that made it. Requires: the signals are blocked in every thread (RuntimeOptions::signals).
class SignalWatch {
 public:
  static Result<std::unique_ptr<SignalWatch>> open(UringShard& shard);
  ~SignalWatch();  // Requires: next() has returned.
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  // The number of the next signal. One at a time. Errors: kCancelled after close().
  Task<Result<int>> next();
  void close();

 private:
  SignalWatch(UringShard& shard, int descriptor) : shard_(shard), descriptor_(descriptor) {}

  UringShard& shard_;
  const int descriptor_;
  UringOp* waiting_ = nullptr;
  bool closed_ = false;
};

}  // namespace fairlead
