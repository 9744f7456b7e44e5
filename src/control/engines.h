// Engines: calls to the engines of nodes, wherever these are now, with the number of the leader that makes them. One
// shard. Requires: no call is under way when it is destroyed.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "control/cluster.h"
#include "rpc/channel.h"

namespace fairlead::control {

class Engines {
 public:
  // Borrowed for life.
  Engines(const Cluster& cluster, rpc::Dialer& dialer) : cluster_(cluster), dialer_(dialer) {}
  // From now on calls are made, with this number.
  void open(uint64_t leader) {
    leader_ = leader;
    is_open_ = true;
  }
  // No more: those under way end soon.
  void close() {
    is_open_ = false;
    for (const auto& [node, way] : ways_) way.channel->cancel();
  }

  // `method` of service Engine. Errors: kUnreachable (nobody knows where the node's engine is), those of the call;
  // kCancelled (closed).
  template <typename Reply, typename Request>
  Task<Outcome<Reply>> call(std::string node, std::string method, Request request, Duration limit) {
    if (!is_open_) co_return problem(Code::kCancelled, "this process does not lead any more");
    if constexpr (requires { request.mutable_leader(); }) request.mutable_leader()->set_number(leader_);
    // shared_ptr: the engine may have another address when this ends.
    const std::shared_ptr<rpc::Channel> channel = channel_to(node);
    if (channel == nullptr)
      co_return problem(Code::kUnreachable, "nobody knows where the engine of node " + node + " is");
    co_return co_await rpc::call<Reply>(*channel, "/fairlead.engine.v1.Engine/" + method, std::move(request), limit);
  }

 private:
  struct Way {
    std::string address;
    std::shared_ptr<rpc::Channel> channel;  // shared with calls under way
  };
  std::shared_ptr<rpc::Channel> channel_to(const std::string& node) {
    const Kept<Node>* const found = cluster_.find<Node>(node);
    if (found == nullptr || found->value.management_address.empty()) return nullptr;
    Way& way = ways_[node];
    if (way.address != found->value.management_address) {
      if (way.channel != nullptr) way.channel->cancel();
      way = {.address = found->value.management_address, .channel = dialer_.dial(found->value.management_address)};
    }
    return way.channel;
  }

  const Cluster& cluster_;
  rpc::Dialer& dialer_;
  uint64_t leader_ = 0;
  bool is_open_ = false;
  std::map<std::string, Way> ways_;
};

}  // namespace fairlead::control
