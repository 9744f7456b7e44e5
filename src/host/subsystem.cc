#include "host/subsystem.h"

#include <algorithm>
#include <map>
#include <utility>

#include "async/call.h"
#include "base/check.h"
#include "host/remote_device.h"

namespace fairlead::host {
namespace {

class RemoteSource final : public BlockSource {
 public:
  RemoteSource(std::vector<ShardPaths*> sides, NamespaceInfo info, ControllerInfo controller)
      : sides_(std::move(sides)), info_(std::move(info)), controller_(std::move(controller)) {}

  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override {
    for (ShardPaths* const side : sides_) {
      if (&side->shard() != &shard) continue;
      // The path may have been lost before this shard had it.
      side->narrow_limits(controller_);
      return std::make_unique<RemoteDevice>(*side, info_);
    }
    return fail(Code::kInvalidArgument, "the subsystem has no queue on this shard");
  }

 private:
  const std::vector<ShardPaths*> sides_;
  const NamespaceInfo info_;
  const ControllerInfo controller_;  // one that shows it
};

Task<void> shut_down_on(ShardPaths& side) {
  side.shut_down();
  co_return;
}

}  // namespace

Subsystem::Subsystem(std::vector<Shard*> shards, SubsystemOptions options)
    : shards_(std::move(shards)),
      options_(std::move(options)),
      changed_(shards_.front()->reactor),
      scope_(shards_.front()->reactor) {
  FL_CHECK(check(options_).has_value());
  std::vector<ShardPaths*> sides;
  for (Shard* const shard : shards_) {
    sides_.push_back(std::make_unique<ShardPaths>(*shard, static_cast<uint16_t>(sides_.size()), options_));
    sides.push_back(sides_.back().get());
  }
  for (size_t path = 0; path < options_.addresses.size(); ++path) {
    controllers_.push_back(std::make_unique<Controller>(*shards_.front(), options_, path, sides, changed_));
  }
}

Subsystem::~Subsystem() { FL_CHECK(scope_.running() == 0); }

bool Subsystem::is_live() const {
  return std::ranges::any_of(controllers_,
                             [](const auto& each) { return each->status().state == ControllerState::kLive; });
}

Task<Result<void>> Subsystem::start() {
  if (is_stopped_) co_return fail(Code::kShuttingDown);
  for (const auto& controller : controllers_) scope_.spawn(controller->run());
  const auto has_failed = [](const auto& each) { return each->status().attempts > 0; };
  while (!is_live()) {
    if (is_stopped_) co_return fail(Code::kShuttingDown);
    if (std::ranges::all_of(controllers_, has_failed)) {
      const Error error = controllers_.front()->status().last_error;
      co_await stop();
      co_return std::unexpected(error);
    }
    co_await changed_.wait();
  }
  co_return Result<void>();
}

Task<void> Subsystem::stop() {
  if (std::exchange(is_stopped_, true)) co_return;
  for (const auto& controller : controllers_) controller->stop();
  co_await scope_.close();
  for (const auto& side : sides_) co_await call_on(reactor(), side->shard().reactor, shut_down_on(*side));
}

std::vector<NamespaceInfo> Subsystem::namespaces() const {
  std::map<uint32_t, const NamespaceView*> latest;
  for (const auto& controller : controllers_) {
    if (controller->status().state != ControllerState::kLive) continue;
    for (const NamespaceView& view : controller->status().namespaces) {
      const NamespaceView*& known = latest[view.info.identity.nsid];
      if (known == nullptr || known->asked < view.asked) known = &view;
    }
  }
  std::vector<NamespaceInfo> list;
  for (const auto& [nsid, view] : latest) list.push_back(view->info);
  return list;
}

Result<std::shared_ptr<BlockSource>> Subsystem::source(uint32_t nsid) const {
  for (const auto& controller : controllers_) {
    const ControllerStatus& status = controller->status();
    if (status.state != ControllerState::kLive) continue;
    const auto view =
        std::ranges::find(status.namespaces, nsid, [](const NamespaceView& each) { return each.info.identity.nsid; });
    if (view == status.namespaces.end()) continue;
    std::vector<ShardPaths*> sides;
    for (const auto& side : sides_) sides.push_back(side.get());
    return std::make_shared<RemoteSource>(std::move(sides), view->info, status.info);
  }
  return fail(Code::kNotFound, "the subsystem has no namespace of this id");
}

Task<Result<std::vector<std::byte>>> Subsystem::call(uint32_t nsid, std::vector<std::byte> request) {
  const auto live = std::ranges::find_if(controllers_, [](const auto& each) { return each->connection() != 0; });
  if (live == controllers_.end()) co_return fail(Code::kUnreachable, "no controller of the subsystem is connected");
  co_return co_await (*live)->call(nsid, std::move(request));
}

uint64_t Subsystem::connection(size_t path) const { return controllers_[path]->connection(); }

void Subsystem::drop(size_t path, const char* reason) { controllers_[path]->drop(reason); }

void Subsystem::retry() {
  for (const auto& controller : controllers_) controller->retry();
}

std::vector<ControllerStatus> Subsystem::controllers() const {
  std::vector<ControllerStatus> list;
  for (const auto& controller : controllers_) list.push_back(controller->status());
  return list;
}

}  // namespace fairlead::host
