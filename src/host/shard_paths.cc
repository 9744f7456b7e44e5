#include "host/shard_paths.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "host/remote_device.h"

namespace fairlead::host {

ShardPaths::ShardPaths(Shard& shard, uint16_t index, const SubsystemOptions& options)
    : shard_(shard), index_(index), options_(options), paths_(options.addresses.size()) {}

ShardPaths::~ShardPaths() { FL_CHECK(devices_.empty() && (is_shut_down_ || fences_.empty())); }

Task<Result<void>> ShardPaths::connect(size_t path, QueueOptions options, ControllerInfo controller) {
  Path& here = paths_[path];
  FL_CHECK(here.queue == nullptr);
  here.controller = std::move(controller);
  here.suspect = false;
  ++here.connects;
  here.queue = std::make_unique<Queue>(shard_, std::move(options));
  const Result<void> connected = co_await here.queue->connect();
  if (!connected) here.queue.reset();
  co_return connected;
}

void ShardPaths::publish(size_t path, const std::vector<NamespaceView>& namespaces) {
  Path& here = paths_[path];
  if (here.queue == nullptr || here.queue->is_lost()) return;
  here.namespaces = namespaces;
  here.published = true;
  narrow_limits(here.controller);
  tell_devices();
}

void ShardPaths::narrow_limits(const ControllerInfo& controller) {
  if (!std::exchange(has_limits_, true)) {
    limits_ = controller;
  } else {
    limits_.transfer_max = std::min(limits_.transfer_max, controller.transfer_max);
    limits_.zeroes_max = std::min(limits_.zeroes_max, controller.zeroes_max);
    limits_.deallocate_max = std::min(limits_.deallocate_max, controller.deallocate_max);
    limits_.has_compare = limits_.has_compare && controller.has_compare;
  }
}

Task<ShardPaths::Event> ShardPaths::next_event(size_t path) {
  Path& here = paths_[path];
  Queue& queue = *here.queue;
  while (true) {
    if (queue.is_lost()) co_return Event{Event::Kind::kLost, 0, queue.reason()};
    uint16_t cid = 0;
    if (queue.take_expired(cid)) co_return Event{Event::Kind::kExpired, cid, ""};
    if (std::exchange(here.suspect, false)) co_return Event{Event::Kind::kSuspect, 0, ""};
    queue.attention().reset();
    co_await queue.attention().wait();
  }
}

Task<std::vector<Fence>> ShardPaths::disconnect(size_t path, const char* reason) {
  Path& here = paths_[path];
  here.published = false;
  here.namespaces.clear();
  if (here.queue == nullptr) co_return std::vector<Fence>();
  here.queue->close(reason);
  co_await here.queue->closed();
  std::vector<Fence> open;
  for (RemoteDevice* const device : devices_) device->list_open(path, open);
  tell_devices();
  co_return open;
}

void ShardPaths::fence(const std::vector<Fence>& fences) {
  if (fences.empty()) return;
  fences_.insert(fences_.end(), fences.begin(), fences.end());
  if (!alarm_.is_armed() && !alarm_.is_linked()) on_alarm();
}

void ShardPaths::on_alarm() {
  const Instant now = shard_.reactor.now();
  const size_t fallen = std::erase_if(fences_, [now](const Fence& each) { return each.until <= now; });
  if (!fences_.empty()) shard_.reactor.arm(alarm_, std::ranges::min(fences_, {}, &Fence::until).until);
  if (fallen > 0) tell_devices();
}

void ShardPaths::resume(size_t path) {
  paths_[path].queue.reset();
  for (RemoteDevice* const device : devices_) device->resume(path);
}

void ShardPaths::shut_down() {
  is_shut_down_ = true;
  fences_.clear();
  shard_.reactor.disarm(alarm_);
  tell_devices();
}

void ShardPaths::suspect(size_t path) {
  Path& here = paths_[path];
  here.suspect = true;
  if (here.queue != nullptr) here.queue->attention().set();
}

void ShardPaths::join(RemoteDevice& device) { devices_.push_back(&device); }
void ShardPaths::leave(RemoteDevice& device) { std::erase(devices_, &device); }

bool ShardPaths::is_fenced(uint32_t nsid, uint64_t operation, uint64_t offset, uint64_t length) const {
  return std::ranges::any_of(fences_, [&](const Fence& fence) {
    return fence.nsid == nsid && fence.operation != operation && offset < fence.offset + fence.length &&
           fence.offset < offset + length;
  });
}

const NamespaceView* ShardPaths::find(size_t path, uint32_t nsid) const {
  const Path& here = paths_[path];
  if (!here.published) return nullptr;
  const auto found =
      std::ranges::find(here.namespaces, nsid, [](const NamespaceView& v) { return v.info.identity.nsid; });
  return found == here.namespaces.end() ? nullptr : &*found;
}

const NamespaceView* ShardPaths::find(uint32_t nsid) const {
  for (size_t path = 0; path < paths_.size(); ++path) {
    if (const NamespaceView* const view = find(path, nsid)) return view;
  }
  return nullptr;
}

// A device may end its user's requests here, whose `done` may open or close others: by a copy.
void ShardPaths::tell_devices() {
  const std::vector<RemoteDevice*> devices = devices_;
  for (RemoteDevice* const device : devices) {
    if (std::ranges::find(devices_, device) != devices_.end()) device->paths_changed();
  }
}

}  // namespace fairlead::host
