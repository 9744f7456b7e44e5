#include "sim/network.h"

#include <algorithm>

namespace fairlead::sim {
namespace {

bool is_loopback(const SocketAddress& address) {
  if (address.family == AddressFamily::kIpv4) return address.ip[0] == 127;
  std::array<uint8_t, 16> one{};
  one[15] = 1;
  return address.ip == one;
}

bool is_wildcard(const SocketAddress& address) { return address.ip == std::array<uint8_t, 16>{}; }

SocketAddress with_port(SocketAddress address, uint16_t port) {
  address.port = port;
  return address;
}

}  // namespace

SimFabric::~SimFabric() { FL_CHECK(listeners_.empty() && pending_.empty()); }

// ---- Partitions and resets

void SimFabric::partition_one_way(uint32_t from, uint32_t to) {
  FL_CHECK(from != to);
  if (!cuts_.emplace(from, to).second) return;
  core_.injected(SimFault::kPartition, from);
  core_.record({.kind = TraceKind::kPartition, .a = from, .b = to});
}

void SimFabric::partition(uint32_t a, uint32_t b) {
  partition_one_way(a, b);
  partition_one_way(b, a);
}

void SimFabric::isolate(uint32_t node) {
  for (const auto& [each, host] : hosts_) {
    if (each != node) partition(node, each);
  }
}

void SimFabric::lift(uint32_t from, uint32_t to) {
  if (cuts_.erase({from, to}) == 0) return;
  core_.record({.kind = TraceKind::kPartition, .a = from, .b = (uint64_t{to} + 1) << 32});
  for (const auto& [id, connection] : connections_) {
    if (connection->touches(from) && connection->touches(to)) connection->heal();
  }
}

void SimFabric::heal(uint32_t a, uint32_t b) {
  lift(a, b);
  lift(b, a);
}

void SimFabric::cut_endpoint(const SocketAddress& endpoint, Way way) {
  const uint32_t node = node_of(endpoint, 0).value_or(0);
  const bool to = way != Way::kFrom && cut_to_.insert(endpoint).second;
  const bool from = way != Way::kTo && cut_from_.insert(endpoint).second;
  if (!to && !from) return;
  core_.injected(SimFault::kPartition, node);
  core_.record({.kind = TraceKind::kPartition, .a = node, .b = endpoint.port + (uint64_t{to} << 16)});
}

void SimFabric::heal_endpoint(const SocketAddress& endpoint) {
  const bool was_cut = cut_to_.erase(endpoint) + cut_from_.erase(endpoint) > 0;
  if (!was_cut) return;
  core_.record({.kind = TraceKind::kPartition, .a = node_of(endpoint, 0).value_or(0), .b = endpoint.port});
  for (const auto& [id, connection] : connections_) {
    if (connection->touches(endpoint)) connection->heal();
  }
}

void SimFabric::heal_all() {
  while (!cuts_.empty()) lift(cuts_.begin()->first, cuts_.begin()->second);
  while (!cut_to_.empty()) heal_endpoint(SocketAddress(*cut_to_.begin()));
  while (!cut_from_.empty()) heal_endpoint(SocketAddress(*cut_from_.begin()));
}

size_t SimFabric::reset_connections(uint32_t a, uint32_t b) {
  size_t count = 0;
  for (const auto& [id, connection] : connections_) {
    if (!connection->touches(a) || !connection->touches(b)) continue;
    core_.injected(SimFault::kReset, a);
    connection->reset();
    ++count;
  }
  return count;
}

size_t SimFabric::reset_connections(uint32_t node) { return reset_connections(node, node); }

size_t SimFabric::reset_connections(const SocketAddress& endpoint) {
  size_t count = 0;
  for (const auto& [id, connection] : connections_) {
    if (!connection->touches(endpoint)) continue;
    core_.injected(SimFault::kReset, connection->party(Side::kServer).boot->node);
    connection->reset();
    ++count;
  }
  return count;
}

// ---- Hosts

void SimFabric::add_host(uint32_t node, std::vector<SocketAddress> addresses) {
  for (const SocketAddress& address : addresses) FL_CHECK(!node_of(address, node) || is_loopback(address));
  hosts_[node].addresses = std::move(addresses);
}

void SimFabric::booted(uint32_t node) {
  silent_.erase(node);
  for (const auto& [id, connection] : connections_) {
    for (const Side side : {Side::kClient, Side::kServer}) {
      if (connection->party(side).boot->node == node) connection->revived(side);
    }
  }
}

void SimFabric::crash(const Boot& boot, CrashKind kind) {
  if (kind == CrashKind::kPowerLost) silent_.insert(boot.node);
  std::erase_if(listeners_, [&](const auto& entry) {
    if (entry.first.first != boot.node) return false;
    entry.second->arrived_.release_waiters();
    return true;
  });
  // finish() takes itself out of the list.
  for (const std::shared_ptr<PendingConnect>& pending : std::vector(pending_)) {
    if (pending->boot.get() == &boot) finish(pending, fail(Code::kUnreachable, "the node crashed"));
  }
  for (const auto& [id, connection] : connections_) {
    for (const Side side : {Side::kClient, Side::kServer}) {
      if (connection->party(side).boot.get() == &boot) connection->crash(side, kind);
    }
  }
}

std::optional<uint32_t> SimFabric::node_of(const SocketAddress& address, uint32_t asking) const {
  if (is_loopback(address)) return asking;
  for (const auto& [node, host] : hosts_) {
    for (const SocketAddress& each : host.addresses) {
      if (each.family == address.family && each.ip == address.ip) return node;
    }
  }
  return std::nullopt;
}

// ---- Listeners

Result<SocketAddress> SimFabric::add_listener(uint32_t node, const SocketAddress& address, SimListener& listener) {
  if (!is_wildcard(address) && node_of(address, node) != node) {
    return fail(Code::kUnreachable, "not an address of this machine");
  }
  SocketAddress chosen = address;
  while (chosen.port == 0 || (address.port == 0 && find_listener(node, chosen) != nullptr)) {
    chosen.port = hosts_.at(node).next_port++;
    if (hosts_.at(node).next_port == 0) hosts_.at(node).next_port = 32768;
  }
  for (const auto& [key, other_listener] : listeners_) {
    const SocketAddress& other = key.second;
    if (key.first != node || other.family != chosen.family || other.port != chosen.port) continue;
    if (other.ip == chosen.ip || is_wildcard(other) || is_wildcard(chosen)) return fail(Code::kBusy, "listen");
  }
  listeners_.emplace(ListenerKey(node, chosen), &listener);
  return chosen;
}

void SimFabric::remove_listener(uint32_t node, const SocketAddress& address) {
  listeners_.erase(ListenerKey(node, address));
}

SimListener* SimFabric::find_listener(uint32_t node, const SocketAddress& address) {
  auto found = listeners_.find({node, address});
  if (found == listeners_.end()) {
    SocketAddress wildcard;
    wildcard.family = address.family;
    wildcard.port = address.port;
    found = listeners_.find({node, wildcard});
  }
  return found == listeners_.end() ? nullptr : found->second;
}

bool SimListener::offer(std::shared_ptr<Connection> connection) {
  if (backlog_.size() >= kBacklog) return false;
  backlog_.push_back(std::move(connection));
  arrived_.release_waiters();
  return true;
}

SimListener::~SimListener() {
  FL_CHECK(!accepting_);
  close();
}

void SimListener::close() {
  if (closed_) return;
  closed_ = true;
  if (boot_->alive) fabric_.remove_listener(boot_->node, address_);
  arrived_.release_waiters();
  while (!backlog_.empty()) {
    const std::shared_ptr<Connection> connection = std::move(backlog_.front());
    backlog_.pop_front();
    connection->refuse(Side::kServer);
    fabric_.closed(connection);
  }
}

Task<Result<std::unique_ptr<Accepted>>> SimListener::accept() {
  FL_CHECK(!accepting_);
  accepting_ = true;
  while (!closed_ && boot_->alive && backlog_.empty()) co_await arrived_.wait();
  accepting_ = false;
  if (closed_ || !boot_->alive) co_return fail(Code::kCancelled, "accept");
  if (fabric_.random().chance(fabric_.core().settings().network.accept_exhausted_ppm)) {
    co_return fail(Code::kResourceExhausted, "accept");
  }
  std::unique_ptr<Accepted> accepted = std::make_unique<SimAccepted>(fabric_, std::move(backlog_.front()));
  backlog_.pop_front();
  co_return accepted;
}

SimAccepted::~SimAccepted() {
  if (connection_ == nullptr) return;
  connection_->close(Side::kServer);
  fabric_.closed(connection_);
}

// ---- Connecting

Duration SimFabric::draw_latency() {
  const NetworkSettings& settings = core_.settings().network;
  return random_.between(settings.latency_min, settings.latency_max);
}

SocketAddress SimFabric::local_for(uint32_t node, const SocketAddress& to) {
  Host& host = hosts_.at(node);
  const uint16_t port = host.next_port++;
  if (host.next_port == 0) host.next_port = 32768;
  if (is_loopback(to)) return with_port(to, port);
  for (const SocketAddress& each : host.addresses) {
    if (each.family == to.family) return with_port(each, port);
  }
  return with_port(to, port);
}

std::shared_ptr<PendingConnect> SimFabric::begin_connect(Reactor& reactor, std::shared_ptr<const Boot> boot,
                                                         const SocketAddress& to, Duration timeout) {
  auto pending = std::make_shared<PendingConnect>(reactor, std::move(boot));
  pending->to = to;
  pending_.push_back(pending);
  if (!pending->boot->alive) {
    finish(pending, fail(Code::kUnreachable, "the node crashed"));
    return pending;
  }
  core_.after(draw_latency(), [this, pending] { arrive(pending); });
  core_.after(std::min(timeout, core_.settings().network.connect_timeout),
              [this, pending] { finish(pending, fail(Code::kTimedOut, "connect")); });
  return pending;
}

void SimFabric::arrive(const std::shared_ptr<PendingConnect>& pending) {
  const uint32_t from = pending->boot->node;
  const std::optional<uint32_t> to = node_of(pending->to, from);
  if (!pending->boot->alive) return;
  if (!to) return finish(pending, fail(Code::kUnreachable, "connect: no route"));
  if (is_cut(from, *to) || cut_to_.contains(pending->to) || silent_.contains(*to)) return;  // it times out
  SimListener* const listener = find_listener(*to, pending->to);
  if (listener == nullptr) return answer(pending, *to, fail(Code::kUnreachable, "connect: refused"));
  if (listener->backlog_.size() >= SimListener::kBacklog) return;
  const SocketAddress local = local_for(from, pending->to);
  auto connection = std::make_shared<Connection>(core_, *this, next_id_++, Connection::Party{pending->boot, local},
                                                 Connection::Party{listener->boot_, pending->to}, random_.fork());
  connections_.emplace(connection->id(), connection);
  FL_CHECK(listener->offer(connection));
  answer(pending, *to, connection);
}

void SimFabric::answer(const std::shared_ptr<PendingConnect>& pending, uint32_t from_node,
                       Result<std::shared_ptr<Connection>> result) {
  core_.after(draw_latency(), [this, pending, from_node, result] {
    const uint32_t to_node = pending->boot->node;
    // It was lost on its way: connect times out, and the half-made connection is dropped then.
    const bool lost = is_cut(from_node, to_node) || cut_from_.contains(pending->to) || pending->done.is_set();
    if (!lost) return finish(pending, result);
    if (result) {
      (*result)->close(Side::kClient);
      closed(*result);
    }
  });
}

void SimFabric::finish(const std::shared_ptr<PendingConnect>& pending, Result<std::shared_ptr<Connection>> result) {
  if (pending->done.is_set()) return;
  std::erase(pending_, pending);
  core_.record({.kind = TraceKind::kConnect,
                .place = {.node = pending->boot->node},
                .a = result ? (*result)->id() : 0,
                .b = result ? 0 : static_cast<uint64_t>(result.error().code) + 1});
  pending->result = std::move(result);
  pending->done.set();
}

void SimFabric::closed(const std::shared_ptr<Connection>& connection) {
  if (connection->is_finished()) connections_.erase(connection->id());
}

// ---- The seam

SimStream::SimStream(SimFabric& fabric, std::shared_ptr<Connection> connection, Side side, Reactor& reactor)
    : fabric_(fabric), connection_(std::move(connection)), side_(side) {
  connection_->adopt(side, reactor);
}

SimStream::~SimStream() {
  connection_->close(side_);
  fabric_.closed(connection_);
}

Result<std::unique_ptr<Listener>> SimNetwork::listen(const SocketAddress& address) {
  if (!boot_->alive) return fail(Code::kUnreachable, "the node is down");
  auto listener = std::make_unique<SimListener>(fabric_, reactor_, boot_);
  const Result<SocketAddress> chosen = fabric_.add_listener(boot_->node, address, *listener);
  if (!chosen) {
    listener->closed_ = true;
    return std::unexpected(chosen.error());
  }
  listener->address_ = *chosen;
  return listener;
}

Result<std::unique_ptr<Stream>> SimNetwork::adopt(std::unique_ptr<Accepted> accepted) {
  auto& mine = static_cast<SimAccepted&>(*accepted);
  if (mine.is_lost()) return fail(Code::kConnectionLost, "the peer left before it was served");
  return std::make_unique<SimStream>(fabric_, mine.release(), Side::kServer, reactor_);
}

Task<Result<std::unique_ptr<Stream>>> SimNetwork::connect(SocketAddress address, Duration timeout) {
  const std::shared_ptr<PendingConnect> pending = fabric_.begin_connect(reactor_, boot_, address, timeout);
  co_await pending->done.wait();
  FL_CO_TRY(std::shared_ptr<Connection> connection, std::move(pending->result));
  std::unique_ptr<Stream> stream = std::make_unique<SimStream>(fabric_, std::move(connection), Side::kClient, reactor_);
  co_return stream;
}

}  // namespace fairlead::sim
