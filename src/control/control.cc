#include "control/control.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace fairlead::control {
namespace {

using Severity = Events::Severity;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kLook = milliseconds(250);
constexpr Duration kProbeLimit = milliseconds(500);
constexpr Duration kAgain = seconds(1);
constexpr Duration kPoolLimit = std::chrono::minutes(2);  // of making one
constexpr std::string_view kMethods = "/fairlead.engine.v1.Control/";

std::string node_key(const std::string& name) { return key_of(Node::kKind, name); }
std::string pool_key(const std::string& name) { return key_of(Pool::kKind, name); }

}  // namespace

Control::Control(Shard& home, Store& store, rpc::Dialer& dialer, ControlSettings settings)
    : home_(home),
      store_(store),
      settings_(settings),
      events_(home),
      cluster_(home, store, settings_),
      engines_(cluster_, dialer),
      witness_(home, store),
      changed_(home.reactor),
      scope_(home.reactor),
      ended_(home.reactor),
      api_(*this) {
  const std::string methods(kMethods);
  service_.add(methods + "Report", *this, &Control::report);
  service_.add(methods + "NextTerm", *this, &Control::next_term);
  service_.add(methods + "Prepare", *this, &Control::prepare);
  service_.add(methods + "Keep", *this, &Control::keep);
}

Control::~Control() { FL_CHECK(!is_running_); }

// ---- Leading

Task<void> Control::run() {
  is_running_ = true;
  while (!stopping_.is_cancelled()) {
    const Outcome<void> done = co_await rule();
    if (stopping_.is_cancelled()) break;
    if (!done) log_warn("control.rule_ended", {{"error", to_string(done.error())}});
    (void)co_await sleep(home_.reactor, kLook, stopping_);
  }
  is_running_ = false;
  ended_.set();
}

Task<void> Control::stop() {
  if (stopping_.is_cancelled()) co_return;
  stopping_.cancel();
  if (ruling_ != nullptr) ruling_->cancel();
  co_await store_.stop();
  if (is_running_) co_await ended_.wait();
}

// From the beginning of its leadership to the end. What the store has is read anew when it is not known.
Task<Outcome<void>> Control::rule() {
  if (!store_.leads()) {
    FL_CO_TRY(const Leadership leadership, co_await store_.lead());
    leadership_ = leadership;
  }
  FL_CO_TRY_VOID(co_await witness_.load(leadership_.epoch));
  FL_CO_TRY_VOID(co_await cluster_.load(leadership_.epoch));
  engines_.open(leadership_.number);
  log_info("control.leads", {{"volumes", cluster_.volumes().size()}, {"nodes", cluster_.nodes().size()}});
  ruling_ = std::make_unique<CancelSource>();
  reconciler_ = std::make_unique<Reconciler>(home_, cluster_, engines_, events_, settings_);
  balancer_ = std::make_unique<Balancer>(home_, cluster_, *reconciler_, events_, settings_);
  group_cuts_ = std::make_unique<GroupCuts>(home_, cluster_, engines_, events_);
  is_leading_ = true;
  changed_.release_waiters();
  reconciler_->start();
  scope_.spawn(watch_nodes());
  scope_.spawn(watch_pools());
  scope_.spawn(collect_garbage());
  scope_.spawn(watch_conditions());
  scope_.spawn(balancer_->run(*ruling_));
  scope_.spawn(group_cuts_->run(*ruling_));
  co_await watch_leadership();
  is_leading_ = false;
  ruling_->cancel();
  engines_.close();
  group_cuts_->look();
  changed_.release_waiters();
  reconciler_->changed().release_waiters();
  co_await reconciler_->stop();
  co_await scope_.close();
  balancer_.reset();
  group_cuts_.reset();
  reconciler_.reset();
  co_return Outcome<void>();
}

Task<void> Control::watch_leadership() {
  while (store_.leads() && !stopping_.is_cancelled() && !cluster_.is_doubtful()) {
    (void)co_await sleep(home_.reactor, milliseconds(50), *ruling_);
  }
}

Task<void> Control::watch_conditions() {
  while (!ruling_->is_cancelled()) {
    co_await reconciler_->changed().wait();
    changed_.release_waiters();
  }
}

std::unexpected<Problem> Control::not_leading() const {
  return problem(Code::kUnreachable, "this control process does not lead the cluster; ask another");
}

// ---- Nodes

Task<void> Control::watch_nodes() {
  // Since when it has listened: a process that stood still itself heard nobody, and takes nobody's silence for an end.
  Instant last_look = home_.reactor.now();
  Instant listening_since = last_look;
  while (co_await sleep(home_.reactor, kLook, *ruling_)) {
    const Instant now = home_.reactor.now();
    if (now - std::exchange(last_look, now) > settings_.lost_after / 2) listening_since = now;
    for (const auto& [name, report] : cluster_.reports()) {
      const Duration silence = now - std::max(report.heard, listening_since);
      if (!report.is_ready || silence <= settings_.lost_after) continue;
      lose(name, fmt::format("it has given no sign of life for {} ms", (now - report.heard) / milliseconds(1)));
    }
  }
}

void Control::lose(const std::string& node, std::string why) {
  if (!cluster_.is_ready(node)) return;
  events_.add(Severity::kWarning, node_key(node), "Lost", why);
  cluster_.lose(node, std::move(why));
  if (reconciler_ == nullptr) return;
  for (const std::string& volume : cluster_.volumes_of(node)) reconciler_->mark(volume);
  changed_.release_waiters();
}

// Whether its process is there still: a connection that is refused says more than silence.
Task<void> Control::probe(std::string node) {
  if (!probed_.insert(node).second) co_return;
  const Outcome<api::NodeState> state =
      co_await engines_.call<api::NodeState>(node, "GetState", api::GetStateRequest{}, kProbeLimit);
  probed_.erase(node);
  if (state || ruling_->is_cancelled()) co_return;
  const Code code = state.error().error.code;
  if (code == Code::kUnreachable || code == Code::kConnectionLost) {
    lose(node, "its engine does not run: connections to it are refused");
  }
}

// A target that lost the session of a replica elsewhere may have died.
void Control::suspect(const std::string& reporter, const NodeReport& before, const api::NodeState& now) {
  for (const api::ReplicaState& replica : now.replicas()) {
    if (replica.has_session()) continue;
    const Uuid id = parse_uuid(replica.volume()).value_or(Uuid{});
    const auto replicas = before.replicas.find(id);
    if (replicas == before.replicas.end()) continue;
    const auto was = replicas->second.find(parse_uuid(replica.id()).value_or(Uuid{}));
    if (was == replicas->second.end() || !was->second->has_session()) continue;
    const std::string* const name = cluster_.volume_name(id);
    const Kept<Volume>* const volume = name == nullptr ? nullptr : cluster_.find<Volume>(*name);
    if (volume == nullptr) continue;
    const std::string& target = volume->value.decision.target;
    if (target.empty() || target == reporter || !cluster_.is_ready(target) || probed_.contains(target)) continue;
    scope_.spawn(probe(target));
  }
}

Task<Outcome<void>> Control::register_node(const api::NodeState& state) {
  const Mutex::Guard guard = co_await cluster_.lock();
  const Uuid id = parse_uuid(state.node_id()).value_or(Uuid{});
  const Kept<Node>* const kept = cluster_.find<Node>(state.node());
  Node node;
  if (kept != nullptr) {
    node = kept->value;
    if (node.metadata.id != id) {
      co_return problem(
          Code::kAlreadyExists,
          fmt::format("another engine is node {}: give this one another name, or delete that node", state.node()));
    }
    if (node.data_address == state.data_address() && node.management_address == state.management_address()) {
      co_return Outcome<void>();
    }
  } else {
    node.metadata = {.name = state.node(),
                     .id = id,
                     .created_ms = home_.clock.wall_ms(),
                     .labels = Labels(state.labels().begin(), state.labels().end()),
                     .deleting_since_ms = 0};
    events_.add(Severity::kNormal, node_key(state.node()), "Joined",
                fmt::format("its engine is at {}", state.data_address()));
  }
  node.data_address = state.data_address();
  node.management_address = state.management_address();
  Changes changes;
  changes.put(std::move(node));
  co_return co_await cluster_.commit(std::move(changes));
}

Task<Outcome<api::ReportReply>> Control::report(api::ReportRequest request) {
  if (!is_leading_) co_return not_leading();
  FL_CO_TRY_VOID(check_name("node", request.node()));
  const std::string node = request.node();
  api::ReportReply reply;
  reply.set_interval_ms(static_cast<uint64_t>(settings_.report_interval / milliseconds(1)));
  const bool was_ready = cluster_.is_ready(node);
  const auto known = cluster_.reports().find(node);
  const bool is_known = known != cluster_.reports().end() && to_string(known->second.run) == request.run_id();
  if (!request.has_state()) {
    if (!is_known || known->second.sequence != request.sequence()) {
      reply.set_wants_state(true);
      co_return reply;
    }
    cluster_.take_sign_of_life(node);
  } else {
    const api::NodeState& state = request.state();
    if (state.node() != node || state.run_id() != request.run_id() || !parse_uuid(state.node_id())) {
      co_return problem(Code::kInvalidArgument, fmt::format("the report of node {} is of another", node));
    }
    FL_CO_TRY_VOID(co_await register_node(state));
    if (!is_leading_) co_return not_leading();
    NodeReport& report = cluster_.reports()[node];
    // Of two that overtook each other the later one counts.
    const bool is_same_run = to_string(report.run) == request.run_id();
    if (is_same_run && request.sequence() < report.sequence) co_return reply;
    if (request.since() != 0 && !(is_same_run && request.since() == report.sequence)) {
      reply.set_wants_state(true);
      co_return reply;
    }
    suspect(node, report, state);
    for (const Uuid& id : cluster_.take_report(std::move(request))) {
      if (const std::string* const volume = cluster_.volume_name(id)) reconciler_->mark(*volume);
    }
    reconciler_->node_reported(node);
    changed_.release_waiters();
  }
  if (cluster_.is_ready(node) != was_ready) {
    if (!was_ready) events_.add(Severity::kNormal, node_key(node), "Ready", "its engine reports");
    if (was_ready) events_.add(Severity::kNormal, node_key(node), "Stopping", "its engine gives up its volumes");
    for (const std::string& volume : cluster_.volumes_of(node)) reconciler_->mark(volume);
    changed_.release_waiters();
  }
  co_return reply;
}

// ---- The witness

Task<Outcome<api::NextTermReply>> Control::next_term(api::NextTermRequest request) {
  if (!is_leading_) co_return not_leading();
  co_return co_await witness_.next_term(std::move(request));
}
Task<Outcome<api::WitnessReply>> Control::prepare(api::PrepareRequest request) {
  if (!is_leading_) co_return not_leading();
  co_return co_await witness_.prepare(std::move(request));
}
Task<Outcome<api::WitnessReply>> Control::keep(api::KeepRequest request) {
  if (!is_leading_) co_return not_leading();
  co_return co_await witness_.keep(std::move(request));
}

// ---- Pools

Task<void> Control::watch_pools() {
  while (!ruling_->is_cancelled()) {
    std::vector<std::string> names;
    for (const auto& [name, pool] : cluster_.pools()) names.push_back(name);
    for (const std::string& name : names) {
      const Outcome<void> done = co_await see_to_pool(name);
      if (ruling_->is_cancelled()) co_return;
      if (done) {
        pool_failures_.erase(name);
      } else if (pool_failures_[name] != to_string(done.error())) {
        pool_failures_[name] = to_string(done.error());
        events_.add(Severity::kWarning, pool_key(name), "CallFailed", to_string(done.error()));
      }
    }
    std::vector<std::pair<std::string, api::PoolState>> found;
    for (const auto& [node, report] : cluster_.reports()) {
      if (!report.is_ready) continue;
      for (const api::PoolState& pool : report.state.pools()) {
        if (cluster_.find<Pool>(pool.name()) == nullptr && !pool.name().empty()) found.emplace_back(node, pool);
      }
    }
    for (auto& [node, pool] : found) (void)co_await adopt_pool(node, std::move(pool));
    (void)co_await sleep(home_.reactor, kLook, *ruling_);
  }
}

Task<Outcome<void>> Control::see_to_pool(std::string name) {
  const Kept<Pool>* const kept = cluster_.find<Pool>(name);
  if (kept == nullptr || !cluster_.is_ready(kept->value.spec.node)) co_return Outcome<void>();
  const Pool pool = kept->value;
  if (pool.metadata.deleting_since_ms != 0) co_return co_await destroy_pool(pool);
  const api::PoolState* const state = cluster_.pool_state(pool);
  if (state == nullptr) co_return co_await create_pool(pool);
  if (pool.is_created) co_return Outcome<void>();
  const Uuid id = parse_uuid(state->id()).value_or(pool.metadata.id);
  const Mutex::Guard guard = co_await cluster_.lock();
  const Kept<Pool>* const now = cluster_.find<Pool>(name);
  if (now == nullptr) co_return Outcome<void>();
  Changes changes;
  Pool next = now->value;
  next.is_created = true;
  next.metadata.id = id;  // as its disks say, which may tell another store one day
  changes.put(std::move(next));
  events_.add(Severity::kNormal, pool_key(name), "Ready", fmt::format("it is there, on node {}", pool.spec.node));
  co_return co_await cluster_.commit(std::move(changes));
}

// One that was there once is never made again: its disks are asked for what they hold.
Task<Outcome<void>> Control::create_pool(Pool pool) {
  if (pool.is_created) {
    api::ImportPoolRequest import;
    for (const std::string& disk : pool.spec.disks) import.add_disks(disk);
    FL_CO_TRY_VOID(co_await engines_.call<api::Done>(pool.spec.node, "ImportPool", std::move(import), kPoolLimit));
    co_return Outcome<void>();
  }
  api::CreatePoolRequest request;
  request.set_name(pool.metadata.name);
  for (const std::string& disk : pool.spec.disks) request.add_disks(disk);
  request.set_file_size_bytes(pool.spec.file_size_bytes);
  for (const auto& [key, value] : pool.metadata.labels) (*request.mutable_labels())[key] = value;
  FL_CO_TRY_VOID(co_await engines_.call<api::Done>(pool.spec.node, "CreatePool", std::move(request), kPoolLimit));
  co_return Outcome<void>();
}

Task<Outcome<void>> Control::destroy_pool(Pool pool) {
  api::DestroyPoolRequest request;
  request.set_name(pool.metadata.name);
  FL_CO_TRY_VOID(co_await engines_.call<api::Done>(pool.spec.node, "DestroyPool", std::move(request), kPoolLimit));
  // Not before its engine reports so: until then it would be found there, and kept anew.
  if (cluster_.pool_state(pool) != nullptr) co_return Outcome<void>();
  const Mutex::Guard guard = co_await cluster_.lock();
  Changes changes;
  changes.remove<Pool>(pool.metadata.name);
  events_.add(Severity::kNormal, pool_key(pool.metadata.name), "Deleted", "its disks are free");
  co_return co_await cluster_.commit(std::move(changes));
}

// One that its engine had before it knew of a control plane, or that the store forgot.
Task<Outcome<void>> Control::adopt_pool(std::string node, api::PoolState state) {
  FL_CO_TRY_VOID(check_name("pool", state.name()));
  const Mutex::Guard guard = co_await cluster_.lock();
  if (cluster_.find<Pool>(state.name()) != nullptr) co_return Outcome<void>();
  Pool pool;
  pool.metadata = {.name = state.name(),
                   .id = parse_uuid(state.id()).value_or(home_.random.uuid()),
                   .created_ms = home_.clock.wall_ms(),
                   .labels = Labels(state.labels().begin(), state.labels().end()),
                   .deleting_since_ms = 0};
  pool.spec.node = node;
  pool.spec.disks.assign(state.disks().begin(), state.disks().end());
  pool.is_created = true;
  Changes changes;
  changes.put(std::move(pool));
  events_.add(Severity::kNormal, pool_key(state.name()), "Found", fmt::format("node {} has it", node));
  co_return co_await cluster_.commit(std::move(changes));
}

// ---- What was left behind

Task<void> Control::collect_garbage() {
  while (co_await sleep(home_.reactor, kAgain, *ruling_)) {
    report_orphans();
    std::vector<std::string> names;
    for (const auto& [name, garbage] : cluster_.garbage()) {
      if (cluster_.is_ready(garbage.value.node)) names.push_back(name);
    }
    for (const std::string& name : names) {
      if (ruling_->is_cancelled()) break;
      const Outcome<void> done = co_await collect(name);
      if (!done) log_warn("control.garbage", {{"replica", name}, {"error", to_string(done.error())}});
    }
  }
}

Task<Outcome<void>> Control::collect(std::string name) {
  const Kept<Garbage>* const kept = cluster_.find<Garbage>(name);
  if (kept == nullptr) co_return Outcome<void>();
  const auto report = cluster_.reports().find(kept->value.node);
  const auto& replicas = report->second.state.replicas();
  if (std::ranges::find(replicas, name, &api::ReplicaState::id) != replicas.end()) {
    api::DeleteReplicaRequest request;
    request.set_id(name);
    FL_CO_TRY_VOID(
        co_await engines_.call<api::Done>(kept->value.node, "DeleteReplica", std::move(request), kPoolLimit));
    co_return Outcome<void>();
  }
  const uint64_t age_ms = home_.clock.wall_ms() - std::min(home_.clock.wall_ms(), kept->value.metadata.created_ms);
  if (age_ms < static_cast<uint64_t>(settings_.garbage_after / milliseconds(1))) co_return Outcome<void>();
  const Mutex::Guard guard = co_await cluster_.lock();
  Changes changes;
  changes.remove<Garbage>(name);
  co_return co_await cluster_.commit(std::move(changes));
}

// Replicas that this store knows nothing of are left alone: it may be the store that has forgotten.
void Control::report_orphans() {
  const auto is_known = [this](const Uuid& id, const std::string* volume) {
    if (volume == nullptr) return false;
    const auto& replicas = cluster_.find<Volume>(*volume)->value.decision.replicas;
    return std::ranges::find(replicas, id, &PlacedReplica::id) != replicas.end();
  };
  for (const auto& [node, report] : cluster_.reports()) {
    if (!report.is_ready) continue;
    for (const auto& [volume, replicas] : report.replicas) {
      const std::string* const name = cluster_.volume_name(volume);
      for (const auto& [id, replica] : replicas) {
        if (is_known(id, name) || cluster_.find<Garbage>(replica->id()) != nullptr) continue;
        if (!orphans_.insert(replica->id()).second) continue;
        events_.add(Severity::kWarning, key_of("replicas", replica->id()), "Orphan",
                    fmt::format("node {} has it in pool {}, and volume {} does not need it: it is kept", node,
                                replica->pool(), name == nullptr ? replica->volume() + ", unknown here," : *name));
      }
    }
  }
}

}  // namespace fairlead::control
