#include "cli/csi.h"

#include "cli/process.h"
#include "cli/version.h"
#include "csi/identity.h"
#include "csi/rest_cluster.h"
#include "rpc/grpc_server.h"

namespace fairlead::cli {
namespace {

// Serves until a signal comes. Returns the process's exit code.
Task<int> serve_until_told(const char* command, rpc::GrpcServer& server, const std::string& endpoint,
                           SignalWatch& signals) {
  if (const Outcome<uint16_t> started = server.start(); !started) {
    complain_of(command, "{}", to_string(started.error()));
    co_return 1;
  }
  say("listening on {}", endpoint);
  say("ready");
  tell_service_manager_that(command, "READY=1");
  (void)co_await signals.next();
  tell_service_manager_that(command, "STOPPING=1");
  co_await server.stop();
  say("stopped");
  co_return 0;
}

// One run of the command; lives on its shard.
class ControllerProcess {
 public:
  static constexpr const char* kCommand = "csi controller";

  ControllerProcess(Runtime& runtime, const CsiControllerPlan& plan)
      : plan_(plan),
        cluster_(csi::make_rest_cluster(runtime.shard(0).reactor, plan.servers)),
        identity_(csi::Identity::Role::kController, kVersion),
        controller_(runtime.shard(0).reactor, *cluster_, plan.options),
        server_(runtime.shard(0).reactor, service_, {.address = plan.endpoint, .name = "csi"}) {
    identity_.add_to(service_);
    controller_.add_to(service_);
  }

  Task<int> run(SignalWatch& signals) {
    co_return co_await serve_until_told(kCommand, server_, plan_.endpoint, signals);
  }

 private:
  const CsiControllerPlan& plan_;
  std::unique_ptr<csi::ClusterApi> cluster_;
  csi::Identity identity_;
  csi::Controller controller_;
  rpc::Service service_;
  rpc::GrpcServer server_;
};

}  // namespace

int run_csi_controller(const CsiControllerPlan& plan) { return start_process<ControllerProcess>(plan); }

}  // namespace fairlead::cli
