// Busy: what is under way now, by name, so that nothing is begun twice. Lives on one shard.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <utility>

namespace fairlead::csi {

//   const auto turn = busy.begin(name);
//   if (!turn) co_return try_again(…);
class Busy {
 public:
  // Ends with its life.
  class Turn {
   public:
    Turn(Busy& busy, std::string name) : busy_(&busy), name_(std::move(name)) {}
    Turn(Turn&& other) noexcept : busy_(std::exchange(other.busy_, nullptr)), name_(std::move(other.name_)) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (busy_ != nullptr) busy_->names_.erase(name_);
    }

   private:
    Busy* busy_;
    std::string name_;
  };
  // None: somebody else is at it.
  std::optional<Turn> begin(const std::string& name) {
    if (!names_.insert(name).second) return std::nullopt;
    return std::optional<Turn>(std::in_place, *this, name);
  }

 private:
  std::set<std::string> names_;
};

}  // namespace fairlead::csi
