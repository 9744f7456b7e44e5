// SimRpc: remote calls between simulated nodes: an rpc::Dialer for those who call, a server for those who are called.
// Messages take a while, may be lost, and don't cross what the world's network has cut. Everything lives on the one
// thread of the world; callers and servers on shard 0 of their nodes.
//
//   SimRpc rpc;
//   SimWorld world(seed);
//   rpc.join(world);
//   SimRpcServer server(rpc, node, "10.0.0.1:7420", service);     // in the node's program, at each boot
//   co_await server.close();                                      // before its end
//   std::unique_ptr<rpc::Dialer> dialer = rpc.dialer(other);      // for the node's program
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "async/scope.h"
#include "base/check.h"
#include "rpc/channel.h"
#include "rpc/service.h"
#include "sim/world.h"

namespace fairlead::test {

struct SimRpcOptions {
  Duration delay_min = std::chrono::microseconds(20);  // of a message, one way
  Duration delay_max = std::chrono::microseconds(400);
  // Of a hundred. Who calls learns nothing then but that its limit is over.
  uint32_t lost_requests = 0;
  uint32_t lost_replies = 0;
};

class SimRpcServer;

class SimRpc {
 public:
  // Outlives the world that it joins: programs of nodes that die with the world still refer to it.
  explicit SimRpc(SimRpcOptions options = {}) : options_(options) {}
  SimRpc(const SimRpc&) = delete;
  SimRpc& operator=(const SimRpc&) = delete;

  // Once, before all below.
  void join(sim::SimWorld& world) {
    FL_CHECK(world_ == nullptr);
    world_ = &world;
    random_ = sim::Prng(world.random().next());
  }

  void set(const SimRpcOptions& options) { options_ = options; }
  void heal() { options_.lost_requests = options_.lost_replies = 0; }
  // Calls that reached a service.
  uint64_t calls() const { return calls_; }

  // For programs of the node.
  std::unique_ptr<rpc::Dialer> dialer(sim::SimNode& from) { return std::make_unique<Dialer>(*this, from); }

 private:
  friend class SimRpcServer;
  struct Exchange {
    std::optional<Outcome<std::string>> answer;
    Event* arrived = nullptr;  // null: the caller has left
  };
  class Channel;
  class Dialer final : public rpc::Dialer {
   public:
    Dialer(SimRpc& rpc, sim::SimNode& from) : rpc_(rpc), from_(from) {}
    std::unique_ptr<rpc::Channel> dial(std::string address) override;

   private:
    SimRpc& rpc_;
    sim::SimNode& from_;
  };

  Duration draw_delay() { return random_.between(options_.delay_min, options_.delay_max); }
  bool draw_loss(uint32_t percent) { return random_.below(100) < percent; }
  void arrive(sim::SimNode& from, const std::string& address, std::string method, std::string request,
              std::shared_ptr<Exchange> exchange);
  void answer(const sim::SimNode& by, const sim::SimNode& to, Outcome<std::string> answer,
              std::shared_ptr<Exchange> exchange);

  sim::SimWorld* world_ = nullptr;
  SimRpcOptions options_;
  sim::Prng random_{0};
  std::map<std::string, SimRpcServer*> servers_;
  uint64_t calls_ = 0;
};

// A service that can be called at an address, for one life of the node.
class SimRpcServer {
 public:
  // All borrowed for life. Requires: nobody serves at the address.
  SimRpcServer(SimRpc& rpc, sim::SimNode& node, std::string address, const rpc::Service& service)
      : rpc_(rpc), node_(node), address_(std::move(address)), service_(service), scope_(node.shard(0).reactor) {
    FL_CHECK(rpc_.servers_.emplace(address_, this).second);
  }
  ~SimRpcServer() { FL_CHECK(is_closed_); }  // Requires: close() returned.
  SimRpcServer(const SimRpcServer&) = delete;
  SimRpcServer& operator=(const SimRpcServer&) = delete;

  // Takes no more calls; returns when those under way have ended.
  Task<void> close() {
    if (!std::exchange(is_closed_, true)) rpc_.servers_.erase(address_);
    co_await scope_.close();
  }

 private:
  friend class SimRpc;
  Task<void> handle(const sim::SimNode& from, std::string method, std::string request,
                    std::shared_ptr<SimRpc::Exchange> exchange) {
    ++rpc_.calls_;
    Outcome<std::string> reply = co_await service_.handle(std::move(method), std::move(request));
    // The dying say nothing.
    if (node_.is_up()) rpc_.answer(node_, from, std::move(reply), std::move(exchange));
  }

  SimRpc& rpc_;
  sim::SimNode& node_;
  const std::string address_;
  const rpc::Service& service_;
  bool is_closed_ = false;
  Scope scope_;
};

class SimRpc::Channel final : public rpc::Channel {
 public:
  Channel(SimRpc& rpc, sim::SimNode& from, std::string address)
      : rpc_(rpc), from_(from), address_(std::move(address)) {}
  ~Channel() override { FL_CHECK(under_way_.empty()); }

  Task<Outcome<std::string>> call(std::string method, std::string request, Duration limit) override {
    if (!from_.is_up()) co_return problem(Code::kCancelled, "the node is dying");
    Reactor& reactor = from_.shard(0).reactor;
    Event arrived(reactor);
    const auto exchange = std::make_shared<Exchange>();  // shared_ptr: with messages, who waits may leave before
    exchange->arrived = &arrived;
    under_way_.insert(exchange);
    if (!rpc_.draw_loss(rpc_.options_.lost_requests)) {
      rpc_.world_->after(rpc_.draw_delay(), [&rpc = rpc_, &from = from_, address = address_, method = std::move(method),
                                             request = std::move(request),
                                             exchange] { rpc.arrive(from, address, method, request, exchange); });
    }
    Alarm alarm(arrived);
    const Instant until = reactor.now() + limit;
    reactor.arm(alarm, until);
    while (!exchange->answer && reactor.now() < until) co_await arrived.wait();
    reactor.disarm(alarm);
    exchange->arrived = nullptr;
    under_way_.erase(exchange);
    if (!exchange->answer) co_return problem(Code::kTimedOut, address_ + " does not answer");
    co_return *std::move(exchange->answer);
  }
  void cancel() override {
    for (const std::shared_ptr<Exchange>& exchange : under_way_) {
      if (exchange->answer) continue;
      exchange->answer = problem(Code::kCancelled, "the call to " + address_ + " was given up");
      exchange->arrived->release_waiters();
    }
  }

 private:
  struct Alarm : Timer {
    explicit Alarm(Event& event)
        : Timer([](Runnable& self) { static_cast<Alarm&>(self).rings.release_waiters(); }), rings(event) {}
    Event& rings;
  };
  SimRpc& rpc_;
  sim::SimNode& from_;
  const std::string address_;
  std::set<std::shared_ptr<Exchange>> under_way_;  // in no order that matters
};

inline std::unique_ptr<rpc::Channel> SimRpc::Dialer::dial(std::string address) {
  return std::make_unique<Channel>(rpc_, from_, std::move(address));
}

inline void SimRpc::arrive(sim::SimNode& from, const std::string& address, std::string method, std::string request,
                           std::shared_ptr<Exchange> exchange) {
  const auto found = servers_.find(address);
  if (found == servers_.end() || !found->second->node_.is_up()) {
    if (exchange->arrived == nullptr) return;
    exchange->answer = problem(Code::kUnreachable, "nobody listens at " + address);
    return exchange->arrived->release_waiters();
  }
  SimRpcServer& server = *found->second;
  if (world_->network().is_cut(from.index(), server.node_.index())) return;
  server.scope_.spawn(server.handle(from, std::move(method), std::move(request), std::move(exchange)));
}

inline void SimRpc::answer(const sim::SimNode& by, const sim::SimNode& to, Outcome<std::string> answer,
                           std::shared_ptr<Exchange> exchange) {
  if (draw_loss(options_.lost_replies)) return;
  world_->after(draw_delay(), [this, &by, &to, answer = std::move(answer), exchange = std::move(exchange)] {
    if (exchange->arrived == nullptr || world_->network().is_cut(by.index(), to.index())) return;
    exchange->answer = answer;
    exchange->arrived->release_waiters();
  });
}

}  // namespace fairlead::test
