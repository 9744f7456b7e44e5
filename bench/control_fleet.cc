// What the control plane costs in a large cluster: the real one, in a simulated world, with engines that only answer.
// One JSON object on standard output. Times are those of this process: the world and the engines are in them too, so
// the control plane alone costs less.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <api/engine/v1/engine.pb.h>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include "base/log.h"
#include "base/units.h"
#include "control/control.h"
#include "measure.h"
#include "sim/world.h"
#include "tests/support/memory_store.h"
#include "tests/support/sim_rpc.h"

namespace fairlead::bench {
namespace {

namespace api = fairlead::engine::v1;
using control::Json;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr const char* kControlAddress = "10.1.0.1:7401";
constexpr Duration kReportGap = milliseconds(50);
constexpr Duration kLimit = seconds(5);

struct Options {
  size_t engines = 20;
  size_t volumes = 1000;
  uint32_t replicas = 3;
  uint32_t idle_seconds = 120;
};

// An engine as the control plane sees it: what it is told to have it has, and what it is told to serve it serves.
class LightEngine {
 public:
  LightEngine(sim::SimWorld& world, test::SimRpc& rpc, size_t index)
      : world_(world),
        rpc_(rpc),
        node_(world.add_node(fmt::format("10.0.{}.{}", index / 250, index % 250 + 1),
                             {.shards = 1, .more_addresses = {}})) {
    const std::string host = fmt::format("10.0.{}.{}", index / 250, index % 250 + 1);
    state_.set_node(fmt::format("n{:03}", index));
    state_.set_node_id(to_string(node_.shard(0).random.uuid()));
    state_.set_run_id(to_string(node_.shard(0).random.uuid()));
    state_.set_data_address(host + ":4420");
    state_.set_management_address(host + ":7420");
    const auto add = [this](const char* name, auto method) {
      service_.add(std::string("/fairlead.engine.v1.Engine/") + name, *this, method);
    };
    add("GetState", &LightEngine::get_state);
    add("CreatePool", &LightEngine::create_pool);
    add("CreateReplica", &LightEngine::create_replica);
    add("SetAnnotations", &LightEngine::set_annotations);
    add("OpenVolume", &LightEngine::open_volume);
    add("ServeVolume", &LightEngine::serve_volume);
  }
  void run() { world_.spawn(node_, 0, live()); }
  sim::SimNode& node() { return node_; }
  const std::string& name() const { return state_.node(); }

 private:
  Task<void> live();
  void change() { ++sequence_; }
  api::VolumeState* find_volume(const std::string& id) {
    const auto found = std::ranges::find(*state_.mutable_volumes(), id, &api::VolumeState::id);
    return found == state_.mutable_volumes()->end() ? nullptr : &*found;
  }

  Task<Outcome<api::NodeState>> get_state(api::GetStateRequest) { co_return state_; }
  Task<Outcome<api::Done>> create_pool(api::CreatePoolRequest request);
  Task<Outcome<api::Done>> create_replica(api::CreateReplicaRequest request);
  Task<Outcome<api::Done>> set_annotations(api::SetAnnotationsRequest request);
  Task<Outcome<api::Done>> open_volume(api::OpenVolumeRequest request);
  Task<Outcome<api::Done>> serve_volume(api::VolumeRequest request);

  sim::SimWorld& world_;
  test::SimRpc& rpc_;
  sim::SimNode& node_;
  rpc::Service service_;
  api::NodeState state_;
  uint64_t sequence_ = 1;
};

Task<Outcome<api::Done>> LightEngine::create_pool(api::CreatePoolRequest request) {
  api::PoolState& pool = *state_.add_pools();
  pool.set_name(request.name());
  pool.set_id(to_string(node_.shard(0).random.uuid()));
  *pool.mutable_disks() = request.disks();
  pool.set_capacity_bytes(kTiB);
  pool.set_free_bytes(kTiB);
  change();
  co_return api::Done();
}

Task<Outcome<api::Done>> LightEngine::create_replica(api::CreateReplicaRequest request) {
  api::ReplicaState& replica = *state_.add_replicas();
  replica.set_id(request.id());
  replica.set_volume(request.volume());
  replica.set_pool(request.pool());
  replica.set_size_bytes(request.size_bytes());
  *replica.mutable_annotations() = request.annotations();
  *replica.mutable_record()->mutable_members() = request.members();
  *replica.mutable_record()->mutable_prior() = request.members();
  api::PoolState& pool = *state_.mutable_pools(0);
  pool.set_promised_bytes(pool.promised_bytes() + request.size_bytes());
  change();
  co_return api::Done();
}

Task<Outcome<api::Done>> LightEngine::set_annotations(api::SetAnnotationsRequest request) {
  const auto found = std::ranges::find(*state_.mutable_replicas(), request.replica(), &api::ReplicaState::id);
  if (found == state_.mutable_replicas()->end()) co_return problem(Code::kNotFound, "there is no such replica");
  *found->mutable_annotations() = request.annotations();
  change();
  co_return api::Done();
}

Task<Outcome<api::Done>> LightEngine::open_volume(api::OpenVolumeRequest request) {
  api::VolumeState* volume = find_volume(request.id());
  if (volume == nullptr) volume = state_.add_volumes();
  volume->set_id(request.id());
  volume->set_size_bytes(request.size_bytes());
  *volume->mutable_places() = request.places();
  *volume->mutable_allowed_hosts() = request.allowed_hosts();
  change();
  co_return api::Done();
}

Task<Outcome<api::Done>> LightEngine::serve_volume(api::VolumeRequest request) {
  api::VolumeState* const volume = find_volume(request.id());
  if (volume == nullptr) co_return problem(Code::kNotFound, "the volume is not open");
  volume->set_role(api::VolumeState::SERVING);
  volume->mutable_term()->set_number(volume->term().number() + 1);
  api::Record& record = *volume->mutable_record();
  record.clear_members();
  volume->clear_replicas();
  for (const api::ReplicaPlace& place : volume->places()) {
    record.add_members(place.replica());
    api::VolumeState::Replica& replica = *volume->add_replicas();
    replica.set_id(place.replica());
    replica.set_standing(api::VolumeState::Replica::MEMBER);
  }
  *record.mutable_prior() = record.members();
  change();
  co_return api::Done();
}

// Reports as engine::Reporter does.
Task<void> LightEngine::live() {
  Shard& home = node_.shard(0);
  test::SimRpcServer server(rpc_, node_, state_.management_address(), service_);
  const std::unique_ptr<rpc::Dialer> dialer = rpc_.dialer(node_);
  const std::unique_ptr<rpc::Channel> control = dialer->dial(kControlAddress);
  uint64_t known = 0;
  while (!node_.stopping(0).is_set()) {
    api::ReportRequest request;
    request.set_node(state_.node());
    request.set_run_id(state_.run_id());
    request.set_sequence(sequence_);
    if (known != sequence_) *request.mutable_state() = state_;
    const uint64_t told = sequence_;
    const auto reply =
        co_await rpc::call<api::ReportReply>(*control, "/fairlead.engine.v1.Control/Report", request, kLimit);
    known = reply && !reply->wants_state() ? told : 0;
    (void)co_await sleep(home.reactor, kReportGap, node_.cancel(0));
    const Instant next = home.reactor.now() + milliseconds(reply ? reply->interval_ms() : 100) - kReportGap;
    while (known == sequence_ && home.reactor.now() < next && !node_.stopping(0).is_set()) {
      (void)co_await sleep(home.reactor, std::min<Duration>(kReportGap, next - home.reactor.now()), node_.cancel(0));
    }
  }
  co_await server.close();
}

class Fleet {
 public:
  explicit Fleet(const Options& options) : options_(options), world_(1, sim::SimSettings::calm()), state_(world_) {
    rpc_.join(world_);
    control_node_ = &world_.add_node("10.1.0.1", {.shards = 1, .more_addresses = {}});
    for (size_t i = 0; i < options.engines; ++i) engines_.push_back(std::make_unique<LightEngine>(world_, rpc_, i));
    world_.spawn(*control_node_, 0, live());
    for (const auto& engine : engines_) engine->run();
  }

  void make();
  // Processor time for each second of the world's, of a cluster in which nothing happens.
  double rest();
  void stop();

 private:
  Task<void> live();
  Task<void> create(std::string kind, Json document, size_t& done);
  template <typename Predicate>
  void wait(Predicate predicate, Duration limit, const char* what) {
    if (world_.run_until(predicate, limit) != sim::RunResult::kDone) fail(what, 0);
  }
  size_t settled() const;

  const Options& options_;
  test::SimRpc rpc_;
  sim::SimWorld world_;
  test::MemoryStoreState state_;
  sim::SimNode* control_node_ = nullptr;
  control::Control* control_ = nullptr;
  std::vector<std::unique_ptr<LightEngine>> engines_;
};

Task<void> Fleet::live() {
  Shard& home = control_node_->shard(0);
  test::MemoryStore store(home, state_, kControlAddress);
  const std::unique_ptr<rpc::Dialer> dialer = rpc_.dialer(*control_node_);
  control::Control control(home, store, *dialer, {});
  test::SimRpcServer server(rpc_, *control_node_, kControlAddress, control.service());
  Scope scope(home.reactor);
  scope.spawn(control.run());
  control_ = &control;
  co_await control_node_->stopping(0).wait();
  control_ = nullptr;
  co_await control.stop();
  co_await server.close();
  co_await scope.close();
}

Task<void> Fleet::create(std::string kind, Json document, size_t& done) {
  const auto made = co_await control_->api().create(std::move(kind), std::move(document));
  if (!made) fail(to_string(made.error()).c_str(), 0);
  ++done;
}

size_t Fleet::settled() const {
  size_t count = 0;
  for (const auto& [name, volume] : control_->cluster().volumes()) {
    const std::vector<control::Condition> conditions = control_->conditions(name);
    if (!conditions.empty() && std::ranges::all_of(conditions, &control::Condition::is_met)) ++count;
  }
  return count;
}

void Fleet::make() {
  wait([&] { return control_ != nullptr && control_->cluster().nodes().size() == engines_.size(); }, minutes(1),
       "the engines do not join");
  size_t done = 0;
  for (const auto& engine : engines_) {
    world_.spawn(
        *control_node_, 0,
        create("pools",
               {{"name", "pool-" + engine->name()}, {"spec", {{"node", engine->name()}, {"disks", {"/disk"}}}}}, done));
  }
  wait([&] { return done == engines_.size(); }, minutes(1), "the pools are not made");
  world_.run_for(seconds(2));
  done = 0;
  for (size_t i = 0; i < options_.volumes; ++i) {
    world_.spawn(
        *control_node_, 0,
        create("volumes",
               {{"name", fmt::format("v{:05}", i)}, {"spec", {{"size_bytes", kGiB}, {"replicas", options_.replicas}}}},
               done));
  }
  for (int i = 0; i < 600 && settled() < options_.volumes; ++i) world_.run_for(seconds(1));
  if (settled() < options_.volumes) fail("the volumes are not as they were asked for", 0);
}

double Fleet::rest() {
  world_.run_for(seconds(10));
  const double before = cpu_seconds(0);
  world_.run_for(seconds(options_.idle_seconds));
  return (cpu_seconds(0) - before) / options_.idle_seconds;
}

void Fleet::stop() {
  for (const auto& engine : engines_) (void)world_.stop(engine->node(), minutes(1));
  (void)world_.stop(*control_node_, minutes(1));
}

double resident_mib() {
  std::ifstream file("/proc/self/statm");
  uint64_t pages = 0;
  file >> pages >> pages;
  return static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE)) / static_cast<double>(kMiB);
}

int run(const Options& options) {
  set_log_level(LogLevel::kError);
  Fleet fleet(options);
  const double before = cpu_seconds(0);
  fleet.make();
  const double made = cpu_seconds(0) - before;
  const double idle = fleet.rest();
  fmt::print("{{\"make_seconds\":{:.3f},\"idle_percent\":{:.3f},\"resident_mib\":{:.1f}}}\n", made, idle * 100,
             resident_mib());
  fleet.stop();
  return 0;
}

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  fairlead::bench::Options options;
  CLI::App app("What the control plane costs in a large cluster, in a simulated world", "control_fleet");
  app.add_option("--engines", options.engines, "Engines, each with a pool")->capture_default_str();
  app.add_option("--volumes", options.volumes, "Volumes")->capture_default_str();
  app.add_option("--replicas", options.replicas, "Of each")->capture_default_str();
  app.add_option("--idle-seconds", options.idle_seconds, "How long nothing happens, in the world's time")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return fairlead::bench::run(options);
}
