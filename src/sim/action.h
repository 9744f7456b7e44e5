// Action: an owned callable for later, such as an event of the simulated world. Move-only.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

#include "base/check.h"

namespace fairlead::sim {

template <typename... Arguments>
class Action {
 public:
  Action() = default;
  template <typename Function>
    requires(!std::is_same_v<std::remove_cvref_t<Function>, Action>)
  Action(Function function) : body_(std::make_unique<Holder<Function>>(std::move(function))) {}  // NOLINT: by intent

  explicit operator bool() const { return body_ != nullptr; }
  void operator()(Arguments... arguments) {
    FL_CHECK(body_ != nullptr);
    body_->call(arguments...);
  }

 private:
  struct Body {
    virtual ~Body() = default;
    virtual void call(Arguments... arguments) = 0;
  };
  template <typename Function>
  struct Holder final : Body {
    explicit Holder(Function f) : function(std::move(f)) {}
    void call(Arguments... arguments) override { function(arguments...); }
    Function function;
  };
  std::unique_ptr<Body> body_;
};

}  // namespace fairlead::sim
