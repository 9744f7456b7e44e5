#include "io/runtime.h"

#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <fmt/format.h>
#include <mutex>
#include <pthread.h>
#include <sched.h>
#include <thread>

#include "async/scope.h"
#include "base/check.h"
#include "base/log.h"

namespace fairlead {
namespace {

constexpr int kAnyProcessor = -1;
constexpr size_t kShardsMax = 256;

std::vector<int> allowed_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> processors;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return processors;  // more than 1024: then without pinning
  for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
    if (CPU_ISSET(static_cast<size_t>(processor), &set)) processors.push_back(processor);
  }
  return processors;
}

void pin_this_thread(int processor) {
  if (processor == kAnyProcessor) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(processor), &set);
  if (const int error = ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set); error != 0) {
    log_warn("runtime.not_pinned",
             {{"processor", processor}, {"reason", to_string(error_from_errno(error, "pin a thread"))}});
  }
}

// Opens once. Whoever waited may destroy it at once.
class Gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
    opened_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [this] { return is_open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool is_open_ = false;
};

// Brings a task to a shard from outside and tells when it has ended.
class Visit : public Runnable {
 public:
  Visit(Reactor& reactor, Task<void> task) : Runnable(on_arrival), reactor_(reactor), task_(std::move(task)) {}

  void run_and_wait() {
    while (!reactor_.send(*this)) std::this_thread::yield();
    ended_.wait();
  }

 private:
  static void on_arrival(Runnable& self) {
    auto& visit = static_cast<Visit&>(self);
    visit.scope_.emplace(visit.reactor_);
    visit.scope_->spawn(follow(visit));
  }
  static Task<void> follow(Visit& visit) {
    co_await std::move(*visit.task_);
    visit.end_.emplace(visit);
    visit.reactor_.post(*visit.end_);
  }
  // Runs when follow() is gone. The task's frame, with what it owns, dies on its shard.
  struct End : Runnable {
    explicit End(Visit& owner) : Runnable(on_end), visit(owner) {}
    static void on_end(Runnable& self) {
      Visit& visit = static_cast<End&>(self).visit;
      visit.scope_.reset();
      visit.task_.reset();
      visit.ended_.open();
    }
    Visit& visit;
  };

  Reactor& reactor_;
  std::optional<Task<void>> task_;
  std::optional<Scope> scope_;
  std::optional<End> end_;
  Gate ended_;
};

Task<void> store_result(Task<int> task, int& result) { result = co_await std::move(task); }

}  // namespace

// One shard's thread. The shard lives inside it; the others see it between `ready` and `exits`.
struct Runtime::Thread {
  UringShard::Options options;
  int processor = kAnyProcessor;
  Result<UringShard*> shard = nullptr;
  Gate ready;      // `shard` is set
  Gate may_end;    // no shard can send to this one any more
  Gate loop_over;  // nothing of this shard sends any more
  std::thread thread;

  void main() {
    ::pthread_setname_np(::pthread_self(), fmt::format("shard-{}", options.id.value).c_str());
    pin_this_thread(processor);
    Result<std::unique_ptr<UringShard>> made = UringShard::create(options);
    if (!made) {
      shard = std::unexpected(made.error());
      ready.open();
      loop_over.open();
      return;
    }
    shard = made->get();
    ready.open();
    (*made)->run();
    loop_over.open();
    may_end.wait();
  }
};

Runtime::Runtime(RuntimeOptions options) : options_(std::move(options)) {}

Runtime::~Runtime() { stop(); }

Result<void> Runtime::check_options() const {
  if (options_.shards == 0 || options_.shards > kShardsMax) {
    return fail(Code::kInvalidArgument, "there are 1 to 256 shards");
  }
  if (options_.spin < Duration(0)) return fail(Code::kInvalidArgument, "the time to spin is not negative");
  if (options_.processors.empty()) return {};
  if (options_.processors.size() < options_.shards) {
    return fail(Code::kInvalidArgument, "each shard needs a processor of its own");
  }
  for (const int processor : options_.processors) {
    if (std::ranges::find(allowed_processors_, processor) == allowed_processors_.end()) {
      return fail(Code::kInvalidArgument, "a processor is not there, or not for this process");
    }
  }
  return {};
}

int Runtime::processor_of(size_t index) const {
  if (!options_.processors.empty()) return options_.processors[index];
  // Two shards pinned to one processor would disturb each other where the system could do better.
  if (options_.pinning == Pinning::kNone || allowed_processors_.size() < options_.shards) return kAnyProcessor;
  return allowed_processors_[index];
}

Result<void> Runtime::start() {
  FL_CHECK(threads_.empty());
  allowed_processors_ = allowed_processors();
  FL_TRY_VOID(check_options());
  if (options_.signals == RuntimeOptions::Signals::kWatched) {
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGTERM);
    FL_CHECK(::pthread_sigmask(SIG_BLOCK, &watched, nullptr) == 0);
  }
  for (uint16_t index = 0; index < options_.shards; ++index) {
    Thread& thread = *threads_.emplace_back(std::make_unique<Thread>());
    thread.options = {.id = ShardId(index),
                      .poll = options_.poll,
                      .spin = options_.spin,
                      .buffers_account_reserve = options_.buffers_account_reserve,
                      .buffers_shared_max = options_.buffers_shared_max,
                      .ring = {}};
    thread.processor = processor_of(index);
    thread.thread = std::thread(&Thread::main, &thread);
  }
  Result<void> outcome;
  for (const auto& thread : threads_) {
    thread->ready.wait();
    if (!thread->shard && outcome) outcome = std::unexpected(thread->shard.error());
    if (thread->shard) shards_.push_back(*thread->shard);
  }
  if (!outcome) stop();
  return outcome;
}

UringShard& Runtime::uring_shard(size_t index) {
  FL_CHECK(index < shards_.size());
  return *shards_[index];
}

void Runtime::run_on(size_t index, Task<void> task) { Visit(shard(index).reactor, std::move(task)).run_and_wait(); }

int Runtime::run(Task<int> main) {
  int result = 0;
  run_on(0, store_result(std::move(main), result));
  stop();
  return result;
}

void Runtime::stop() {
  for (UringShard* const shard : shards_) shard->request_stop();
  for (const auto& thread : threads_) thread->loop_over.wait();
  shards_.clear();
  for (const auto& thread : threads_) thread->may_end.open();
  for (const auto& thread : threads_) thread->thread.join();
  threads_.clear();
}

}  // namespace fairlead
