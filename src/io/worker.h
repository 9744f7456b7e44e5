// Worker: a thread beside a shard for what blocks: SQLite, DNS, HTTP. Functions run on it in the order of their calls,
// one at a time; meanwhile the shard does other things.
//
//   Worker worker(shard.reactor, "sqlite");
//   const Outcome<Row> row = co_await worker.run([&] { return database.read(key); });
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "async/reactor.h"
#include "async/task.h"
#include "base/intrusive_list.h"

namespace fairlead {

// Made, used and destroyed on the shard of `home`. SIGINT, SIGTERM and SIGPIPE never reach its thread.
class Worker {
 public:
  // `name` is the thread's, for people: 15 characters count.
  Worker(Reactor& home, const std::string& name);
  ~Worker();  // Requires: nothing is under way. Waits for the thread's end.
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Runs `function()` on the thread and gives its result here. It cannot be cancelled: it has its own time limits. What
  // it borrows must live until then; what it returns must be free to die here. Requires: it throws nothing, and is no
  // coroutine. It is destroyed here.
  template <typename F>
  Task<std::invoke_result_t<F>> run(F function) {
    Call<F> call(std::move(function));
    co_await Turn(*this, call);
    if constexpr (!std::is_void_v<std::invoke_result_t<F>>) co_return std::move(*call.result);
  }

 private:
  class Job : public ListNode<Job> {
   public:
    virtual ~Job() = default;
    virtual void work() = 0;
    Resumption resumption;
  };
  template <typename F>
  class Call final : public Job {
   public:
    using Value = std::invoke_result_t<F>;
    explicit Call(F f) : function(std::move(f)) {}
    void work() override {
      if constexpr (std::is_void_v<Value>) {
        function();
      } else {
        result.emplace(function());
      }
    }
    F function;
    std::optional<std::conditional_t<std::is_void_v<Value>, char, Value>> result;
  };
  class Turn {
   public:
    Turn(Worker& worker, Job& job) : worker_(worker), job_(job) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) {
      job_.resumption.handle = handle;
      worker_.enqueue(job_);
    }
    void await_resume() const noexcept { --worker_.under_way_; }

   private:
    Worker& worker_;
    Job& job_;
  };
  struct Thread;

  void enqueue(Job& job);

  size_t under_way_ = 0;
  std::unique_ptr<Thread> thread_;
};

}  // namespace fairlead
