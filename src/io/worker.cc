#include "io/worker.h"

#include <condition_variable>
#include <csignal>
#include <mutex>
#include <pthread.h>
#include <thread>

#include "base/check.h"
#include "io/outside_thread.h"

namespace fairlead {

struct Worker::Thread {
  explicit Thread(Reactor& reactor) : home(reactor) {}

  void main() {
    // Libraries write to sockets whose other end has gone: an error to them, and not the end of the process.
    sigset_t pipe;
    ::sigemptyset(&pipe);
    ::sigaddset(&pipe, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
    while (Job* const job = next()) {
      job->work();
      deliver(home, job->resumption);
    }
  }

  // Null: it is to end.
  Job* next() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return ends || !jobs.empty(); });
    return jobs.empty() ? nullptr : &jobs.pop_front();
  }

  Reactor& home;
  std::mutex mutex;
  std::condition_variable changed;
  IntrusiveList<Job, Job> jobs;
  bool ends = false;
  std::thread thread;
};

Worker::Worker(Reactor& home, const std::string& name) : thread_(std::make_unique<Thread>(home)) {
  const SignalsBlocked blocked;
  thread_->thread = std::thread(&Thread::main, thread_.get());
  ::pthread_setname_np(thread_->thread.native_handle(), name.substr(0, 15).c_str());
}

Worker::~Worker() {
  FL_CHECK(under_way_ == 0);
  {
    const std::lock_guard lock(thread_->mutex);
    thread_->ends = true;
    thread_->changed.notify_one();
  }
  thread_->thread.join();
}

void Worker::enqueue(Job& job) {
  ++under_way_;
  const std::lock_guard lock(thread_->mutex);
  thread_->jobs.push_back(job);
  thread_->changed.notify_one();
}

}  // namespace fairlead
