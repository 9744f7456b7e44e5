#include "cli/csi.h"

#include "async/scope.h"
#include "cli/process.h"
#include "cli/version.h"
#include "csi/identity.h"
#include "csi/linux_machine.h"
#include "csi/rest_cluster.h"
#include "io/small_files.h"
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

// Likewise.
class NodeProcess {
 public:
  static constexpr const char* kCommand = "csi node";

  NodeProcess(Runtime& runtime, const CsiNodePlan& plan)
      : home_(runtime.shard(0).reactor),
        plan_(plan),
        cluster_(csi::make_rest_cluster(home_, plan.servers)),
        machine_(csi::make_linux_machine(home_, plan.options.host_nqn)),
        identity_(csi::Identity::Role::kNode, kVersion),
        server_(home_, service_, {.address = plan.endpoint, .name = "csi"}),
        scope_(home_) {}

  Task<int> run(SignalWatch& signals) {
    if (const Outcome<void> opened = open(); !opened) {
      complain_of(kCommand, "{}", to_string(opened.error()));
      co_return 1;
    }
    scope_.spawn(node_->run());
    const int code = co_await serve_until_told(kCommand, server_, plan_.endpoint, signals);
    node_->stop();
    co_await scope_.close();
    co_return code;
  }

 private:
  Outcome<void> open() {
    FL_TRY(files_, open_small_files(home_, plan_.state_directory));
    records_ = std::make_unique<csi::NodeRecords>(home_, *files_);
    FL_TRY_VOID(records_->load());
    node_ = std::make_unique<csi::Node>(home_, *machine_, *cluster_, *records_, plan_.options);
    identity_.add_to(service_);
    node_->add_to(service_);
    return {};
  }

  Reactor& home_;
  const CsiNodePlan& plan_;
  std::unique_ptr<csi::ClusterApi> cluster_;
  std::unique_ptr<csi::Machine> machine_;
  std::unique_ptr<SmallFiles> files_;
  std::unique_ptr<csi::NodeRecords> records_;
  std::unique_ptr<csi::Node> node_;
  csi::Identity identity_;
  rpc::Service service_;
  rpc::GrpcServer server_;
  Scope scope_;
};

}  // namespace

int run_csi_controller(const CsiControllerPlan& plan) { return start_process<ControllerProcess>(plan); }
int run_csi_node(const CsiNodePlan& plan) { return start_process<NodeProcess>(plan); }

}  // namespace fairlead::cli
