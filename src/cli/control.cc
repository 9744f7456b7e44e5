#include "cli/control.h"

#include <fmt/format.h>

#include "async/scope.h"
#include "cli/process.h"
#include "cli/version.h"
#include "control/control.h"
#include "control/etcd_store.h"
#include "control/sqlite_store.h"
#include "gateway/http_server.h"
#include "gateway/rest.h"
#include "rpc/grpc_channel.h"
#include "rpc/grpc_server.h"

namespace fairlead::cli {
namespace {

constexpr const char* kCommandName = "control";

template <typename... Arguments>
void complain(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  complain_of(kCommandName, format, std::forward<Arguments>(arguments)...);
}

// Whoever asks before there is anything to ask.
class Door final : public gateway::HttpHandler {
 public:
  Task<gateway::HttpResponse> handle(gateway::HttpRequest request) override {
    if (rest != nullptr) co_return co_await rest->handle(std::move(request));
    co_return gateway::problem_response(503, Code::kBusy, "this control process is starting; ask again in a second");
  }
  gateway::Rest* rest = nullptr;
};

// One run of the command; lives on its shard.
class ControlProcess {
 public:
  static constexpr const char* kCommand = kCommandName;

  ControlProcess(Runtime& runtime, const ControlPlan& plan)
      : shard_(runtime.shard(0)),
        plan_(plan),
        dialer_(shard_.reactor, plan.management_tls),
        http_(shard_.reactor, door_,
              {.address = plan.listen, .certificate = plan.certificate, .access = gateway::Access(plan.tokens)}),
        scope_(shard_.reactor) {}

  Task<int> run(SignalWatch& signals) {
    const Outcome<void> started = co_await start();
    if (started) {
      say("ready");
      tell_service_manager_that(kCommand, "READY=1");
      (void)co_await signals.next();
      tell_service_manager_that(kCommand, "STOPPING=1");
      say("stopping: another process may lead now");
    } else {
      complain("{}", to_string(started.error()));
    }
    co_await stop();
    if (started) say("stopped");
    co_return started ? 0 : 1;
  }

 private:
  Task<Outcome<void>> start() {
    FL_CO_TRY(const uint16_t port, http_.start());
    SocketAddress at = parse_socket_address(plan_.listen, 0).value();
    at.port = port;
    std::string others = plan_.advertise.empty() ? to_string(at) : plan_.advertise;
    if (others.find(':') == std::string::npos || others.ends_with(']')) others += fmt::format(":{}", port);
    const std::string url = fmt::format("{}://{}", plan_.certificate ? "https" : "http", others);
    FL_CO_TRY(store_, co_await open_store(url));
    control_ = std::make_unique<control::Control>(shard_, *store_, dialer_, plan_.settings);
    rest_ = std::make_unique<gateway::Rest>(shard_, *control_, *store_,
                                            gateway::RestOptions{.version = kVersion, .address = url});
    management_ = std::make_unique<rpc::GrpcServer>(
        shard_.reactor, control_->service(),
        rpc::GrpcServer::Options{.address = plan_.management, .tls = plan_.management_tls, .name = "control"});
    FL_CO_TRY(at.port, management_->start());
    const std::string management = to_string(SocketAddress{
        .family = at.family, .ip = parse_socket_address(plan_.management, 0)->ip, .scope_id = 0, .port = at.port});
    scope_.spawn(control_->run());
    door_.rest = rest_.get();
    say("REST on {}", url);
    say("management on {}", management);
    co_return Outcome<void>();
  }

  Task<Outcome<std::unique_ptr<control::Store>>> open_store(std::string url) {
    const auto now = static_cast<uint32_t>(shard_.clock.wall_ms() / 1000);
    if (const auto* const etcd = std::get_if<control::EtcdClientOptions>(&plan_.store)) {
      FL_CO_TRY(std::unique_ptr<control::Store> store,
                control::EtcdStore::make(shard_, {.client = *etcd, .address = url, .now_seconds = now}));
      co_return store;
    }
    FL_CO_TRY(std::unique_ptr<control::Store> store,
              co_await control::SqliteStore::open(
                  shard_, {.path = std::get<std::string>(plan_.store), .address = url, .now_seconds = now}));
    co_return store;
  }

  // Leadership goes first: others wait for it.
  Task<void> stop() {
    if (control_ != nullptr) co_await control_->stop();
    if (rest_ != nullptr) co_await rest_->close();
    if (management_ != nullptr) co_await management_->stop();
    co_await http_.stop();
    co_await scope_.close();
    if (control_ == nullptr && store_ != nullptr) co_await store_->stop();
  }

  Shard& shard_;
  const ControlPlan& plan_;
  Door door_;
  rpc::GrpcDialer dialer_;
  gateway::HttpServer http_;
  std::unique_ptr<control::Store> store_;
  std::unique_ptr<control::Control> control_;
  std::unique_ptr<gateway::Rest> rest_;
  std::unique_ptr<rpc::GrpcServer> management_;
  Scope scope_;
};

}  // namespace

int run_control(const ControlPlan& plan) { return start_process<ControlProcess>(plan); }

}  // namespace fairlead::cli
