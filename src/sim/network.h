// SimFabric: the network between simulated nodes: addresses, listeners, connections, partitions. SimNetwork: the
// Network seam of one shard on it. All on the world's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "async/event.h"
#include "io/network.h"
#include "sim/connection.h"
#include "sim/core.h"

namespace fairlead::sim {

class SimListener;

// A connect() under way. shared_ptr: the caller and the events of its handshake hold it.
struct PendingConnect {
  PendingConnect(Reactor& reactor, std::shared_ptr<const Boot> b) : boot(std::move(b)), done(reactor) {}
  std::shared_ptr<const Boot> boot;
  SocketAddress to;
  Event done;
  Result<std::shared_ptr<Connection>> result = fail(Code::kTimedOut, "connect");
};

class SimFabric final : public Reachability {
 public:
  SimFabric(SimCore& core, Prng random) : core_(core), random_(random) {}
  ~SimFabric() override;
  SimFabric(const SimFabric&) = delete;
  SimFabric& operator=(const SimFabric&) = delete;

  // For the test. Bytes across a partition are held until it heals, and connects to its other side time out.
  void partition(uint32_t a, uint32_t b);  // both ways
  void partition_one_way(uint32_t from, uint32_t to);
  void isolate(uint32_t node);  // from all others, both ways
  void heal(uint32_t a, uint32_t b);
  // The same for one endpoint, such as that of one listener of several: a machine with several links. Bytes to it,
  // bytes from it, or both.
  enum class Way : uint8_t { kTo, kFrom, kBoth };
  void cut_endpoint(const SocketAddress& endpoint, Way way);
  void heal_endpoint(const SocketAddress& endpoint);
  void heal_all();
  // Resets the connections between the two, or all of one node's. Returns how many there were.
  size_t reset_connections(uint32_t a, uint32_t b);
  size_t reset_connections(uint32_t node);
  size_t reset_connections(const SocketAddress& endpoint);
  size_t connection_count() const { return connections_.size(); }

  bool is_cut(uint32_t from, uint32_t to) const override { return cuts_.contains({from, to}); }
  bool is_cut(const SocketAddress& from, const SocketAddress& to) const override {
    return cut_from_.contains(from) || cut_to_.contains(to);
  }

  // For SimWorld.
  void add_host(uint32_t node, std::vector<SocketAddress> addresses);
  void booted(uint32_t node);
  void crash(const Boot& boot, CrashKind kind);

  // For SimNetwork and what it makes.
  Result<SocketAddress> add_listener(uint32_t node, const SocketAddress& address, SimListener& listener);
  void remove_listener(uint32_t node, const SocketAddress& address);
  std::shared_ptr<PendingConnect> begin_connect(Reactor& reactor, std::shared_ptr<const Boot> boot,
                                                const SocketAddress& to, Duration timeout);
  void closed(const std::shared_ptr<Connection>& connection);
  SimCore& core() { return core_; }
  Prng& random() { return random_; }

 private:
  using ListenerKey = std::pair<uint32_t, SocketAddress>;
  struct Host {
    std::vector<SocketAddress> addresses;  // port 0
    uint16_t next_port = 32768;
  };
  std::optional<uint32_t> node_of(const SocketAddress& address, uint32_t asking) const;
  SimListener* find_listener(uint32_t node, const SocketAddress& address);
  SocketAddress local_for(uint32_t node, const SocketAddress& to);
  void arrive(const std::shared_ptr<PendingConnect>& pending);
  void answer(const std::shared_ptr<PendingConnect>& pending, uint32_t from_node,
              Result<std::shared_ptr<Connection>> result);
  void finish(const std::shared_ptr<PendingConnect>& pending, Result<std::shared_ptr<Connection>> result);
  Duration draw_latency();
  void lift(uint32_t from, uint32_t to);

  SimCore& core_;
  Prng random_;
  uint64_t next_id_ = 1;
  std::map<uint32_t, Host> hosts_;
  std::map<ListenerKey, SimListener*> listeners_;
  std::map<uint64_t, std::shared_ptr<Connection>> connections_;
  std::vector<std::shared_ptr<PendingConnect>> pending_;
  std::set<std::pair<uint32_t, uint32_t>> cuts_;
  std::set<SocketAddress> cut_from_;
  std::set<SocketAddress> cut_to_;
  std::set<uint32_t> silent_;  // nodes without power
};

class SimStream final : public Stream {
 public:
  SimStream(SimFabric& fabric, std::shared_ptr<Connection> connection, Side side, Reactor& reactor);
  ~SimStream() override;
  void start_receive(StreamOp& op) override { connection_->start_receive(side_, op); }
  void start_send(StreamOp& op) override { connection_->start_send(side_, op); }
  void shutdown() override { connection_->shutdown(side_); }
  SocketAddress peer() const override { return connection_->party(other(side_)).address; }
  SocketAddress local() const override { return connection_->party(side_).address; }

 private:
  SimFabric& fabric_;
  std::shared_ptr<Connection> connection_;
  const Side side_;
};

class SimAccepted final : public Accepted {
 public:
  SimAccepted(SimFabric& fabric, std::shared_ptr<Connection> connection)
      : fabric_(fabric), connection_(std::move(connection)) {}
  ~SimAccepted() override;
  bool is_lost() const { return connection_->is_lost(Side::kServer); }
  std::shared_ptr<Connection> release() { return std::move(connection_); }

 private:
  SimFabric& fabric_;
  std::shared_ptr<Connection> connection_;
};

class SimListener final : public Listener {
 public:
  static constexpr size_t kBacklog = 128;

  SimListener(SimFabric& fabric, Reactor& reactor, std::shared_ptr<const Boot> boot)
      : fabric_(fabric), boot_(std::move(boot)), arrived_(reactor) {}
  ~SimListener() override;
  Task<Result<std::unique_ptr<Accepted>>> accept() override;
  void close() override;
  SocketAddress address() const override { return address_; }

 private:
  friend class SimFabric;
  friend class SimNetwork;
  bool offer(std::shared_ptr<Connection> connection);  // false: the backlog is full

  SimFabric& fabric_;
  std::shared_ptr<const Boot> boot_;
  SocketAddress address_;
  Event arrived_;
  std::deque<std::shared_ptr<Connection>> backlog_;
  bool closed_ = false;
  bool accepting_ = false;
};

class SimNetwork final : public Network {
 public:
  SimNetwork(SimFabric& fabric, Reactor& reactor, std::shared_ptr<const Boot> boot)
      : fabric_(fabric), reactor_(reactor), boot_(std::move(boot)) {}
  Result<std::unique_ptr<Listener>> listen(const SocketAddress& address) override;
  Result<std::unique_ptr<Stream>> adopt(std::unique_ptr<Accepted> accepted) override;
  Task<Result<std::unique_ptr<Stream>>> connect(SocketAddress address, Duration timeout) override;

 private:
  SimFabric& fabric_;
  Reactor& reactor_;
  std::shared_ptr<const Boot> boot_;
};

}  // namespace fairlead::sim
