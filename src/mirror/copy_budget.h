// CopyBudget: how many extents all volumes of an engine copy at once, so that hosts of all get on while many replicas
// return. Lives on the home shard; the engine owns it, its volumes borrow it.
//
// Who waits is served in this order:
//   - what a take-over has to level before what returns: hosts wait for it, and it is never held back by returns, which
//     begin only while less than the limit is under way in all. So at most twice the limit is;
//   - of what is to be levelled, volumes in a hurry (a host waits for an extent now) first;
//   - volumes with the least under way first, and then in the order in which they came.
#pragma once

#include <optional>
#include <utility>

#include "async/cancel.h"
#include "async/event.h"
#include "async/task.h"

namespace fairlead::mirror {

class CopyBudget {
 public:
  enum class Kind : uint8_t { kReturn, kLevel };

  // Requires: copies_max is not 0.
  CopyBudget(Reactor& reactor, size_t copies_max) : reactor_(reactor), copies_max_(copies_max) {
    FL_CHECK(copies_max > 0);
  }
  ~CopyBudget() { FL_CHECK(under_way() == 0); }
  CopyBudget(const CopyBudget&) = delete;
  CopyBudget& operator=(const CopyBudget&) = delete;

  size_t under_way() const { return returning_ + levelling_; }

  class Share;
  // Leave to copy one extent, for as long as it lives.
  class [[nodiscard]] Place {
   public:
    Place(Place&& other) noexcept : of_(std::exchange(other.of_, nullptr)), kind_(other.kind_) {}
    Place& operator=(Place&&) = delete;
    ~Place() { give_back(); }
    void give_back();

   private:
    friend class Share;
    Place(Share& of, Kind kind) : of_(&of), kind_(kind) {}
    Share* of_;
    Kind kind_;
  };

  // What one volume has of it.
  class Share {
   public:
    // Borrowed for life.
    explicit Share(CopyBudget& of) : of_(of) {}
    ~Share() { FL_CHECK(under_way_ == 0); }
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;

    // None: `ending` was cancelled first.
    Task<std::optional<Place>> take(Kind kind, CancelSource& ending);
    bool is_copying() const { return under_way_ > 0; }
    // What waits, and what comes, to be levelled is in a hurry, or is not any more.
    void set_hurry(bool is_in_hurry);

   private:
    friend class CopyBudget;
    CopyBudget& of_;
    size_t under_way_ = 0;
    bool is_in_hurry_ = false;
  };

 private:
  struct Claim : ListNode<Claim> {
    Claim(Share& share, Kind its, Reactor& reactor) : of(share), kind(its), granted(reactor) {}
    Share& of;
    const Kind kind;
    Event granted;
  };
  bool has_room(Kind kind) const;
  static bool is_before(const Claim& one, const Claim& other);
  size_t& count(Kind kind) { return kind == Kind::kLevel ? levelling_ : returning_; }
  void grant();

  Reactor& reactor_;
  const size_t copies_max_;
  size_t returning_ = 0;
  size_t levelling_ = 0;
  IntrusiveList<Claim> waiting_;  // in the order in which they came
};

}  // namespace fairlead::mirror
