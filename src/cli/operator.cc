#include "cli/operator.h"

#include <fmt/format.h>

#include "async/scope.h"
#include "cli/process.h"
#include "gateway/http_server.h"

namespace fairlead::cli {
namespace {

// /livez, /readyz and /metrics.
class OperatorDoor final : public gateway::HttpHandler {
 public:
  explicit OperatorDoor(const kube::Operator& of) : of_(of) {}
  Task<gateway::HttpResponse> handle(gateway::HttpRequest request) override {
    gateway::HttpResponse response;
    response.content_type = "text/plain; charset=utf-8";
    if (request.method != "GET") {
      co_return gateway::problem_response(405, Code::kNotSupported, "ask by GET");
    }
    if (request.path == "/livez") {
      response.body = "alive\n";
    } else if (request.path == "/readyz") {
      if (!of_.is_ready()) {
        co_return gateway::problem_response(503, Code::kUnreachable, "the API server of Kubernetes does not answer");
      }
      response.body = of_.leads() ? "leads\n" : "stands by\n";
    } else if (request.path == "/metrics") {
      response.content_type = "text/plain; version=0.0.4; charset=utf-8";
      response.body = of_.metrics();
    } else {
      co_return gateway::problem_response(404, Code::kNotFound, "there are /livez, /readyz and /metrics");
    }
    co_return response;
  }

 private:
  const kube::Operator& of_;
};

// One run of the command; lives on its shard.
class OperatorProcess {
 public:
  static constexpr const char* kCommand = "operator";

  OperatorProcess(Runtime& runtime, const OperatorPlan& plan)
      : shard_(runtime.shard(0)),
        lease_(kube::make_kube_api(shard_.reactor, lease_server(plan.kube), "kube-lease")),
        kube_(kube::make_kube_api(shard_.reactor, plan.kube, "kube-api")),
        watch_(kube::make_watch_api(shard_.reactor, plan.kube)),
        control_(kube::make_control_api(shard_.reactor, plan.servers)),
        operator_(shard_, {.lease = *lease_, .kube = *kube_, .watch = *watch_, .control = *control_},
                  options_of(plan, shard_.random)),
        door_(operator_),
        http_(shard_.reactor, door_, {.address = plan.listen, .threads = 4}),
        scope_(shard_.reactor) {}

  Task<int> run(SignalWatch& signals) {
    const Outcome<uint16_t> started = http_.start();
    if (!started) {
      complain_of(kCommand, "{}", to_string(started.error()));
      co_return 1;
    }
    say("listening on port {}", *started);
    scope_.spawn(operator_.run());
    say("ready");
    tell_service_manager_that(kCommand, "READY=1");
    (void)co_await signals.next();
    tell_service_manager_that(kCommand, "STOPPING=1");
    operator_.stop();
    co_await scope_.close();
    co_await http_.stop();
    say("stopped");
    co_return 0;
  }

 private:
  // A renewal that is late is asked for again while the lease is still held.
  static kube::KubeServer lease_server(kube::KubeServer server) {
    server.connect_limit = std::chrono::seconds(2);
    server.answer_limit = std::chrono::seconds(2);
    return server;
  }
  static kube::OperatorOptions options_of(const OperatorPlan& plan, Random& random) {
    const std::string identity = fmt::format("{}_{}", plan.identity, to_string(random.uuid()));
    kube::OperatorOptions options;
    options.election = {.name_space = plan.name_space, .name = plan.lease, .identity = identity};
    options.events = {.identity = identity};
    return options;
  }

  Shard& shard_;
  std::unique_ptr<kube::Api> lease_;
  std::unique_ptr<kube::Api> kube_;
  std::unique_ptr<kube::WatchApi> watch_;
  std::unique_ptr<kube::Api> control_;
  kube::Operator operator_;
  OperatorDoor door_;
  gateway::HttpServer http_;
  Scope scope_;
};

}  // namespace

int run_operator(const OperatorPlan& plan) { return start_process<OperatorProcess>(plan); }

}  // namespace fairlead::cli
