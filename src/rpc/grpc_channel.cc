#include "rpc/grpc_channel.h"

#include <fmt/format.h>
#include <grpc/support/time.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <set>
#include <string_view>

#include "io/outside_thread.h"
#include "rpc/grpc_parts.h"

namespace fairlead::rpc {
namespace {

grpc::ChannelArguments channel_arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // Despite its name this is how long one try may take.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepAliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepAliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Whoever calls knows what may be done twice.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // Else channels to one address share a connection, and its back-off.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return arguments;
}

// Borrowed by gRPC from the call until its completion.
struct Exchange {
  grpc::ClientContext context;
  grpc::ByteBuffer request;
  grpc::ByteBuffer reply;
  grpc::Status status;
  bool is_cancelled = false;  // by us
};

// The peer's address is known as soon as the call was given to a connection; before that it is the dialled one.
bool was_given_to_a_connection(const grpc::ClientContext& context) {
  const std::string peer = context.peer();
  return peer.starts_with("ipv4:") || peer.starts_with("ipv6:");
}

// gRPC says "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:7420: Connection refused": the end.
std::string_view cause_in(std::string_view words, const std::string& address) {
  const size_t at = words.rfind(address + ": ");
  return at == std::string_view::npos ? words : words.substr(at + address.size() + 2);
}

std::unexpected<Problem> problem_of_status(const Exchange& exchange, const std::string& address, Duration limit) {
  const std::string words = exchange.status.error_message();
  const auto& trailers = exchange.context.GetServerTrailingMetadata();
  if (const auto trailer = trailers.find(kCodeTrailer); trailer != trailers.end()) {
    if (const auto code = code_from_name({trailer->second.data(), trailer->second.size()}))
      return problem(*code, words);
  }
  switch (exchange.status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      if (!was_given_to_a_connection(exchange.context)) {
        return problem(Code::kUnreachable, fmt::format("{} cannot be reached: {}", address, cause_in(words, address)));
      }
      [[fallthrough]];
    case grpc::StatusCode::CANCELLED:  // by the other side
      return problem(Code::kConnectionLost, fmt::format("the connection to {} was lost: {}", address, words));
    case grpc::StatusCode::DEADLINE_EXCEEDED: {
      const auto limit_ms = std::chrono::ceil<std::chrono::milliseconds>(limit).count();
      return problem(Code::kTimedOut, fmt::format("{} gave no answer within {} ms", address, limit_ms));
    }
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return problem(Code::kResourceExhausted, fmt::format("{}: {}", address, words));
    case grpc::StatusCode::UNIMPLEMENTED:
      return problem(Code::kNotSupported, fmt::format("{}: {}", address, words));
    default:
      return problem(Code::kProtocol, fmt::format("{} gave no proper answer: {}", address, words));
  }
}

class GrpcChannel final : public Channel {
 public:
  GrpcChannel(Reactor& home, std::string address, std::shared_ptr<grpc::Channel> channel)
      : address_(std::move(address)), stub_(std::move(channel)), inlet_(home) {}
  ~GrpcChannel() override { FL_CHECK(under_way_.empty()); }

  Task<Outcome<std::string>> call(std::string method, std::string request, Duration limit) override {
    Exchange exchange;
    exchange.request = to_buffer(request);
    exchange.context.set_deadline(
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(limit.count(), GPR_TIMESPAN)));
    under_way_.insert(&exchange);
    co_await Completion(*this, exchange, method);
    under_way_.erase(&exchange);
    if (exchange.is_cancelled)
      co_return problem(Code::kCancelled, fmt::format("the call to {} was given up", address_));
    if (!exchange.status.ok()) co_return problem_of_status(exchange, address_, limit);
    co_return to_bytes(exchange.reply);
  }
  void cancel() override {
    for (Exchange* const exchange : under_way_) {
      exchange->is_cancelled = true;
      exchange->context.TryCancel();
    }
  }

 private:
  class Completion {
   public:
    Completion(GrpcChannel& channel, Exchange& exchange, const std::string& method)
        : channel_(channel), exchange_(exchange), method_(method) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) {
      resumption_.handle = handle;
      const SignalsBlocked blocked;  // the first call makes threads
      channel_.stub_.UnaryCall(&exchange_.context, method_, {}, &exchange_.request, &exchange_.reply,
                               [this](grpc::Status status) {
                                 exchange_.status = std::move(status);
                                 channel_.inlet_.deliver(resumption_);
                               });
    }
    void await_resume() const noexcept {}

   private:
    GrpcChannel& channel_;
    Exchange& exchange_;
    const std::string& method_;
    Resumption resumption_;
  };

  const std::string address_;
  grpc::GenericStub stub_;
  std::set<Exchange*> under_way_;
  Inlet inlet_;  // last: gRPC's threads leave before the rest goes
};

}  // namespace

struct GrpcDialer::Credentials {
  std::shared_ptr<grpc::ChannelCredentials> value;
};

GrpcDialer::GrpcDialer(Reactor& home, const std::optional<TlsFiles>& tls) : home_(home) {
  take_grpc_log();
  credentials_ = std::make_unique<Credentials>(channel_credentials(tls));
}

GrpcDialer::~GrpcDialer() = default;

std::unique_ptr<Channel> GrpcDialer::dial(std::string address) {
  const SignalsBlocked blocked;
  auto channel = grpc::CreateCustomChannel(address, credentials_->value, channel_arguments());
  return std::make_unique<GrpcChannel>(home_, std::move(address), std::move(channel));
}

}  // namespace fairlead::rpc
