#include "rpc/service.h"

namespace fairlead::rpc {

Task<Outcome<std::string>> Service::handle(std::string method, std::string request) const {
  const auto found = methods_.find(method);
  if (found == methods_.end()) co_return problem(Code::kNotSupported, "there is no method " + method);
  co_return co_await found->second->handle(std::move(request));
}

}  // namespace fairlead::rpc
