#include "kube/operator.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/log.h"

namespace fairlead::kube {
namespace {

constexpr Duration kBackOffMin = std::chrono::milliseconds(500);
constexpr Duration kSilenceMax = std::chrono::seconds(30);

// Rings `event` after a while.
struct Alarm : Timer {
  Alarm(Reactor& home, Event& event, Duration span)
      : Timer([](Runnable& self) { static_cast<Alarm&>(self).rings.release_waiters(); }), reactor(home), rings(event) {
    reactor.arm(*this, span);
  }
  ~Alarm() { reactor.disarm(*this); }
  Reactor& reactor;
  Event& rings;
};

}  // namespace

Operator::Operator(Shard& home, Apis apis, OperatorOptions options)
    : home_(home),
      watch_(apis.watch),
      options_(std::move(options)),
      election_(home, apis.lease, options_.election),
      kube_(election_, apis.kube),
      control_(election_, apis.control),
      pools_(home, apis.watch, kube_, control_, options_.pools),
      events_(home, kube_, control_, options_.events),
      scope_(home.reactor) {}

Task<Outcome<Json>> Operator::Fence::call(RestRequest request) {
  if (!election_.leads()) co_return problem(Code::kFenced, "another operator leads");
  co_return co_await api_.call(std::move(request));
}

Task<void> Operator::run() {
  scope_.spawn(election_.run());
  scope_.spawn(follow());
  scope_.spawn(act());
  co_await scope_.close();
  co_await election_.release();
}

void Operator::stop() {
  stopping_.cancel();
  election_.stop();
  election_.began().release_waiters();
  pools_.changed().release_waiters();
  watch_.interrupt();
}

Duration Operator::next_back_off(Duration now) const {
  const Duration twice = std::clamp(now * 2, kBackOffMin, options_.back_off_max);
  // Operators that lost the same server do not come back to it together.
  return twice - Duration(static_cast<int64_t>(home_.random.below(static_cast<uint64_t>(twice.count() / 4))));
}

Task<void> Operator::pause(Event& news, Duration span) {
  if (stopping_.is_cancelled()) co_return;
  const Alarm alarm(home_.reactor, news, span);
  co_await news.wait();
}

Task<bool> Operator::lead() {
  while (!stopping_.is_cancelled() && !election_.leads()) co_await pause(election_.began(), options_.interval);
  if (stopping_.is_cancelled()) co_return false;
  if (std::exchange(term_, election_.terms()) != election_.terms()) {
    pools_.forget();
    events_.forget();
  }
  co_return true;
}

Task<void> Operator::follow() {
  Duration back_off{};
  while (co_await lead()) {
    const Outcome<void> done = co_await pools_.follow();
    if (done) {
      back_off = {};
      continue;
    }
    back_off = next_back_off(back_off);
    if (done.error().error.code == Code::kFenced) continue;
    ++failures_;
    log_warn("operator.disk_pools_not_listed", {{"error", to_string(done.error())}});
    (void)co_await sleep(home_.reactor, back_off, stopping_);
  }
}

Task<void> Operator::act() {
  Duration back_off{};
  while (co_await lead()) {
    Outcome<void> done;
    if (pools_.is_synced()) {
      done = co_await pools_.act();
    } else {
      pools_.changed().reset();  // there is nothing to look at until it rings again
    }
    if (done) done = co_await events_.act();
    if (done || done.error().error.code == Code::kFenced) {
      back_off = {};
      co_await pause(pools_.changed(), options_.interval);
      continue;
    }
    back_off = next_back_off(back_off);
    ++failures_;
    log_warn("operator.control_plane_away", {{"error", to_string(done.error())}});
    (void)co_await sleep(home_.reactor, back_off, stopping_);
  }
}

bool Operator::is_ready() const {
  const std::optional<Instant>& answered = election_.answered();
  if (!answered || home_.clock.now() - *answered > kSilenceMax) return false;
  return !election_.leads() || pools_.is_synced();
}

std::string Operator::metrics() const {
  std::string text;
  const auto add = [&](const char* name, const char* type, const char* help, uint64_t value) {
    text +=
        fmt::format("# HELP fairlead_operator_{0} {2}\n# TYPE fairlead_operator_{0} {1}\nfairlead_operator_{0} {3}\n",
                    name, type, help, value);
  };
  add("leader", "gauge", "1: this process acts.", election_.leads() ? 1 : 0);
  add("disk_pools", "gauge", "DiskPools that it keeps.", pools_.disk_pools().size());
  add("status_writes_total", "counter", "Statuses of DiskPools that it wrote.", pools_.status_writes());
  add("events_written_total", "counter", "Kubernetes Events that it wrote or counted up.", events_.written());
  add("events_dropped_total", "counter", "Events of the cluster that were too many for one object.", events_.dropped());
  add("failures_total", "counter", "Looks that came to nothing: somebody did not answer.", failures_);
  return text;
}

}  // namespace fairlead::kube
