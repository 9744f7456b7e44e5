#include "mirror/copy_budget.h"

namespace fairlead::mirror {

bool CopyBudget::has_room(Kind kind) const { return (kind == Kind::kLevel ? levelling_ : under_way()) < copies_max_; }

bool CopyBudget::is_before(const Claim& one, const Claim& other) {
  if (one.kind != other.kind) return one.kind == Kind::kLevel;
  if (one.kind == Kind::kLevel && one.of.is_in_hurry_ != other.of.is_in_hurry_) return one.of.is_in_hurry_;
  return one.of.under_way_ < other.of.under_way_;
}

void CopyBudget::grant() {
  while (true) {
    Claim* first = nullptr;
    for (Claim& claim : waiting_) {
      if (has_room(claim.kind) && (first == nullptr || is_before(claim, *first))) first = &claim;
    }
    if (first == nullptr) return;
    waiting_.remove(*first);
    ++count(first->kind);
    ++first->of.under_way_;
    first->granted.set();
  }
}

Task<std::optional<CopyBudget::Place>> CopyBudget::Share::take(Kind kind, CancelSource& ending) {
  if (ending.is_cancelled()) co_return std::nullopt;
  Claim claim(*this, kind, of_.reactor_);
  struct Hook : CancelHook {
    explicit Hook(Event& event)
        : CancelHook([](CancelHook& self) { static_cast<Hook&>(self).wakes.release_waiters(); }), wakes(event) {}
    Event& wakes;
  } hook(claim.granted);
  of_.waiting_.push_back(claim);
  of_.grant();
  if (!claim.granted.is_set()) {
    ending.add(hook);
    co_await claim.granted.wait();
    ending.remove(hook);
  }
  if (!claim.granted.is_set()) {
    of_.waiting_.remove(claim);
    co_return std::nullopt;
  }
  co_return Place(*this, kind);
}

void CopyBudget::Share::set_hurry(bool is_in_hurry) { is_in_hurry_ = is_in_hurry; }

void CopyBudget::Place::give_back() {
  Share* const of = std::exchange(of_, nullptr);
  if (of == nullptr) return;
  --of->of_.count(kind_);
  --of->under_way_;
  of->of_.grant();
}

}  // namespace fairlead::mirror
