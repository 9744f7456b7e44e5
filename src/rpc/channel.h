// Remote calls, as those see them who make and serve them: a method's name, a request, a reply, each bytes of protobuf.
// gRPC carries them between processes (grpc_channel.h, grpc_server.h), the simulator between its nodes; what is called
// and who calls knows neither.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "async/task.h"
#include "async/time.h"
#include "base/problem.h"

namespace fairlead::rpc {

// A way to the services of another process, connected when it is needed, again and again. One shard.
class Channel {
 public:
  virtual ~Channel() = default;  // Requires: no call is under way.

  // `method`: "/package.Service/Method". Errors: kUnreachable (was not done), kConnectionLost, kTimedOut (may have been
  // done), kProtocol (what came back is no reply), kCancelled; those of the service, as they were there, with its words.
  virtual Task<Outcome<std::string>> call(std::string method, std::string request, Duration limit) = 0;
  // Calls under way end soon with kCancelled; what they ask for may have been done, or may yet be.
  virtual void cancel() = 0;
};

class Dialer {
 public:
  virtual ~Dialer() = default;
  // Connects later, when it is called. `address`: "ADDR:PORT".
  virtual std::unique_ptr<Channel> dial(std::string address) = 0;
};

// Calls `method` with a protobuf message, and gets one.
template <typename Reply, typename Request>
Task<Outcome<Reply>> call(Channel& channel, std::string method, Request request, Duration limit) {
  FL_CO_TRY(const std::string bytes, co_await channel.call(std::move(method), request.SerializeAsString(), limit));
  Reply reply;
  if (!reply.ParseFromString(bytes)) co_return problem(Code::kProtocol, "the reply cannot be decoded");
  co_return reply;
}

}  // namespace fairlead::rpc
