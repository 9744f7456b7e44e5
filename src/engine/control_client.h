// ControlClient: the control plane, as an engine reaches it: several processes, of which one leads and answers. Lives
// on the home shard.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/shard.h"
#include "rpc/channel.h"

namespace fairlead::engine {

class ControlClient {
 public:
  // `home` is borrowed for life, `dialer` for this call. Requires: there is an address, "ADDR:PORT".
  ControlClient(Shard& home, rpc::Dialer& dialer, const std::vector<std::string>& addresses);
  ~ControlClient();  // Requires: no call is under way.
  ControlClient(const ControlClient&) = delete;
  ControlClient& operator=(const ControlClient&) = delete;

  // Asks the one that answered last, then the others in turn, until one answers or refuses; each has half of `limit`,
  // the only one all of it. Several calls may be under way. Errors: those of the service; kUnreachable (it was not
  // done), kTimedOut (it may have been).
  template <typename Reply, typename Request>
  Task<Outcome<Reply>> call(std::string method, Request request, Duration limit) {
    FL_CO_TRY(const std::string bytes, co_await send(std::move(method), request.SerializeAsString(), limit));
    Reply reply;
    if (!reply.ParseFromString(bytes)) co_return problem(Code::kProtocol, "the reply cannot be decoded");
    co_return reply;
  }

 private:
  Task<Outcome<std::string>> send(std::string method, std::string request, Duration limit);

  Shard& home_;
  std::vector<std::unique_ptr<rpc::Channel>> channels_;
  size_t first_ = 0;  // of channels_, to ask
};

}  // namespace fairlead::engine
