#include "engine/local_access.h"

#include <algorithm>
#include <utility>

#include "async/call.h"
#include "base/check.h"
#include "block/slot_pool.h"

namespace fairlead::engine {

class LocalAccess::Device final : public BlockDevice {
 public:
  Device(Side& side, mirror::CallerId caller, std::unique_ptr<BlockDevice> inner)
      : BlockDevice(inner->geometry()), side_(side), caller_(caller), inner_(std::move(inner)) {
    takes_writes_at_once_ = inner_->takes_writes_at_once();
  }

  Result<uint64_t> refresh_size() override {
    Result<uint64_t> size = inner_->refresh_size();
    geometry_.size_bytes = inner_->geometry().size_bytes;
    return size;
  }

 private:
  struct Slot : IoRequest {
    Device* device = nullptr;
    IoRequest* original = nullptr;
  };

  void execute(IoRequest& request) override {
    if (side_.admitted != caller_) return request.complete(fail(Code::kFenced, "the replica obeys another target"));
    ++side_.under_way;
    Slot& slot = slots_.take();
    slot.device = this;
    slot.original = &request;
    slot.arguments() = request.arguments();
    slot.may_say_zeroes = request.may_say_zeroes;
    slot.says_zeroes = false;
    slot.done = [](IoRequest& done) { on_done(static_cast<Slot&>(done)); };
    inner_->submit(slot);
  }

  static void on_done(Slot& slot) {
    Device& device = *slot.device;
    IoRequest& original = *slot.original;
    const Result<void> result = slot.result;
    original.says_zeroes = slot.says_zeroes;
    Side& side = device.side_;
    device.slots_.give_back(slot);
    if (--side.under_way == 0) side.ended.release_waiters();
    original.complete(result);
  }

  Side& side_;
  const mirror::CallerId caller_;
  std::unique_ptr<BlockDevice> inner_;
  SlotPool<Slot> slots_;
};

LocalAccess::LocalAccess(std::vector<Shard*> shards, std::shared_ptr<BlockSource> source) : source_(std::move(source)) {
  for (Shard* const shard : shards) sides_.push_back(std::make_unique<Side>(*shard));
}

LocalAccess::~LocalAccess() {
  for (const auto& side : sides_) FL_CHECK(side->under_way == 0);
}

Task<void> LocalAccess::admit_on(Side& side, mirror::CallerId caller) {
  side.admitted = caller;
  co_return;
}

Task<void> LocalAccess::drain_on(Side& side) {
  while (side.under_way > 0) co_await side.ended.wait();
}

Task<void> LocalAccess::admit(mirror::CallerId caller) {
  for (const auto& side : sides_) co_await call_on(home(), side->shard.reactor, admit_on(*side, caller));
}

Task<void> LocalAccess::close() {
  // First nobody comes in anywhere, then who is in goes.
  co_await admit(0);
  for (const auto& side : sides_) co_await call_on(home(), side->shard.reactor, drain_on(*side));
}

Task<void> LocalAccess::open(mirror::CallerId caller) {
  FL_CHECK(caller != 0);
  return admit(caller);
}

Result<std::unique_ptr<BlockDevice>> LocalAccess::open_device(Shard& shard, mirror::CallerId caller) {
  const auto side = std::ranges::find(sides_, &shard, [](const auto& each) { return &each->shard; });
  if (side == sides_.end()) return fail(Code::kInvalidArgument, "the replica was not opened for this shard");
  FL_TRY(std::unique_ptr<BlockDevice> inner, source_->open(shard));
  return std::make_unique<Device>(**side, caller, std::move(inner));
}

}  // namespace fairlead::engine
