#include "rpc/grpc_server.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <fmt/format.h>
#include <grpc/support/time.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <string_view>
#include <system_error>

#include "async/event.h"
#include "async/scope.h"
#include "base/log.h"
#include "io/address.h"
#include "io/outside_thread.h"
#include "io/worker.h"
#include "rpc/grpc_parts.h"

namespace fairlead::rpc {
namespace {

constexpr size_t kCallsOfAConnectionMax = 1000;
// Trailers travel in headers of 8 KiB, where a byte may take three.
constexpr size_t kWordsMax = 2000;
constexpr std::string_view kLocal = "unix:///";

grpc::Status to_status(const Problem& problem) {
  std::string words = to_string(problem);
  if (words.size() > kWordsMax) words = words.substr(0, kWordsMax) + "…";
  return {static_cast<grpc::StatusCode>(code_info(problem.error.code).grpc_code), words};
}

// gRPC tells why it cannot listen only to its log, in a tree of words.
Problem why_not_listening(const std::string& address, std::string_view words) {
  for (const int os_errno : {EADDRINUSE, EACCES, EADDRNOTAVAIL, ENOENT}) {
    if (words.find(std::generic_category().message(os_errno)) == std::string_view::npos) continue;
    Error error = error_from_errno(os_errno, "listen");
    if (os_errno == EADDRNOTAVAIL) error.code = Code::kInvalidArgument;
    return {.error = error, .detail = address};
  }
  if (words.empty()) words = "gRPC says no more";
  return {.error = {.code = Code::kInvalidArgument},
          .detail = fmt::format("cannot listen on {}: {}", address, words.substr(0, kWordsMax)),
          .is_sentence = true};
}

// As gRPC takes it.
Outcome<std::string> listening_address(const std::string& address) {
  if (address.starts_with(kLocal)) return address;
  const Result<SocketAddress> parsed = parse_socket_address(address, 0);
  if (!parsed) return problem_of(parsed.error(), address);
  return to_string(*parsed);
}

}  // namespace

// Lives on home; gRPC's threads make calls (CreateReactor).
class GrpcServer::State final : public grpc::CallbackGenericService {
 public:
  State(Reactor& home, const Service& service) : service_(service), scope_(home), call_ended_(home), inlet_(home) {}

  Outcome<uint16_t> start(const Options& options);
  Task<void> stop(Duration grace);

 private:
  // One call, from its arrival until gRPC is done with it. Deleted on home.
  class Call final : public grpc::ServerGenericBidiReactor {
   public:
    Call(State& state, grpc::GenericCallbackServerContext& context)
        : state_(state), context_(context), arrival_(*this), end_(*this) {
      StartRead(&request_);
    }

    // Runs the method, and answers.
    Task<void> serve();

    void OnReadDone(bool ok) override {
      if (ok) {
        state_.inlet_.deliver(arrival_);
      } else {
        Finish({grpc::StatusCode::INVALID_ARGUMENT, "there is no request"});
      }
    }
    void OnDone() override { state_.inlet_.deliver(end_); }

   private:
    struct Arrival : Runnable {
      explicit Arrival(Call& owner) : Runnable(on_arrival), call(owner) {}
      static void on_arrival(Runnable& self) {
        Call& call = static_cast<Arrival&>(self).call;
        call.state_.scope_.spawn(call.serve());
      }
      Call& call;
    };
    struct End : Runnable {
      explicit End(Call& owner) : Runnable(on_end), call(owner) {}
      static void on_end(Runnable& self) {
        const std::unique_ptr<Call> call(&static_cast<End&>(self).call);
        --call->state_.calls_;
        call->state_.call_ended_.release_waiters();
      }
      Call& call;
    };

    State& state_;
    grpc::GenericCallbackServerContext& context_;  // gRPC's, until OnDone()
    grpc::ByteBuffer request_;
    grpc::ByteBuffer reply_;
    Arrival arrival_;
    End end_;
  };

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override {
    ++calls_;
    return std::make_unique<Call>(*this, *context).release();
  }

  const Service& service_;
  std::unique_ptr<grpc::Server> server_;
  std::atomic<size_t> calls_ = 0;  // not deleted yet
  Scope scope_;
  Event call_ended_;
  Inlet inlet_;
};

Task<void> GrpcServer::State::Call::serve() {
  Outcome<std::string> request = to_bytes(request_);
  request_.Clear();
  Outcome<std::string> reply;
  if (!request) {
    reply = std::unexpected(std::move(request.error()));
  } else {
    reply = co_await state_.service_.handle(context_.method(), std::move(*request));
  }
  if (reply && reply->size() > kMessageBytesMax) {
    reply = problem(Code::kResourceExhausted, fmt::format("a reply of {} bytes is too long", reply->size()));
  }
  // After either nothing here may be touched: the call may be gone.
  if (reply) {
    reply_ = to_buffer(*reply);
    StartWriteAndFinish(&reply_, {}, grpc::Status::OK);
  } else {
    context_.AddTrailingMetadata(kCodeTrailer, std::string(code_info(reply.error().error.code).name));
    Finish(to_status(reply.error()));
  }
}

Outcome<uint16_t> GrpcServer::State::start(const Options& options) {
  FL_TRY(const std::string address, listening_address(options.address));
  const bool is_local = address.starts_with(kLocal);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.RegisterCallbackGenericService(this);
  builder.AddListeningPort(address, server_credentials(options.tls), &port);
  builder.SetMaxReceiveMessageSize(kMessageBytesMax);
  builder.SetMaxSendMessageSize(kMessageBytesMax);
  // Else two servers may have one address, and callers reach either.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kCallsOfAConnectionMax);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepAliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepAliveMs);
  // Callers ask every kKeepAliveMs whether we are there, busy or not.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kKeepAliveMs / 2);
  const SignalsBlocked blocked;
  const GrpcWords words;
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    server_.reset();
    return std::unexpected(why_not_listening(options.address, words.said()));
  }
  return static_cast<uint16_t>(is_local ? 0 : port);
}

Task<void> GrpcServer::State::stop(Duration grace) {
  // It waits for methods, which run here.
  Worker worker(scope_.reactor(), "rpc-stop");
  co_await worker.run([this, grace] {
    server_->Shutdown(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(grace.count(), GPR_TIMESPAN)));
  });
  while (calls_ != 0) co_await call_ended_.wait();
  co_await scope_.close();
  co_await worker.run([this] { server_.reset(); });
}

GrpcServer::GrpcServer(Reactor& home, const Service& service, Options options)
    : home_(home), service_(service), options_(std::move(options)) {
  take_grpc_log();
}

GrpcServer::~GrpcServer() { FL_CHECK(state_ == nullptr); }

Outcome<uint16_t> GrpcServer::start() {
  FL_CHECK(state_ == nullptr);
  if (options_.tls) FL_TRY_VOID(check_tls_files(*options_.tls));
  auto state = std::make_unique<State>(home_, service_);
  FL_TRY(const uint16_t port, state->start(options_));
  state_ = std::move(state);
  log_info("rpc.serves",
           {{"name", options_.name}, {"address", options_.address}, {"port", port}, {"tls", options_.tls.has_value()}});
  return port;
}

Task<void> GrpcServer::stop() {
  if (state_ == nullptr) co_return;
  co_await state_->stop(options_.grace);
  state_.reset();
  log_info("rpc.stopped", {{"name", options_.name}});
}

}  // namespace fairlead::rpc
