// Runs of a pool that crashes at all kinds of points. See scenario.h.
#include <fmt/format.h>
#include <memory>

#include "block/disk.h"
#include "pool/check.h"
#include "pool_plan.h"
#include "scenario.h"
#include "sim/world.h"

namespace fairlead::sim_test {
namespace {

using pool::CheckReport;
using pool::PoolDisk;
using pool::Severity;
using sim::CrashKind;
using sim::RunResult;
using sim::SimNode;
using sim::SimWorld;
using test::Phase;
using test::PoolLoad;
using test::PoolModel;

// Virtual time.
constexpr Duration kFormatMax = std::chrono::seconds(600);
constexpr Duration kLifeMax = std::chrono::hours(2);
constexpr Duration kCheckMax = std::chrono::seconds(600);
constexpr Duration kStopMax = std::chrono::seconds(60);

// Waits for the point of a crash.
class Trigger {
 public:
  Trigger(const CrashPlan& plan, const PoolLoad& load) : plan_(plan), load_(load) {}
  void saw(Point point, bool is_after) {
    if (point != plan_.point || is_after != plan_.is_after || plan_.count == seen_) return;
    if (plan_.during && *plan_.during != load_.phase()) return;
    if (plan_.while_doing && !load_.is_doing(*plan_.while_doing)) return;
    ++seen_;
  }
  bool has_come() const { return plan_.point != Point::kTime && seen_ == plan_.count; }

 private:
  const CrashPlan plan_;
  const PoolLoad& load_;
  uint32_t seen_ = 0;
};

class Watcher final : public sim::DiskObserver {
 public:
  explicit Watcher(Trigger*& trigger) : trigger_(trigger) {}
  void set_journal(uint64_t begin, uint64_t bytes) {
    journal_begin_ = begin;
    journal_end_ = begin + bytes;
  }
  void submitted(const IoRequest& request) override { look(request, false); }
  void performed(const IoRequest& request) override { look(request, true); }

 private:
  Point point_of(const IoRequest& request) const {
    if (request.op == IoOp::kFlush) return Point::kFlush;
    if (request.op == IoOp::kDiscard) return Point::kDiscard;
    if (request.offset.value < pool::kHeadBytes) return Point::kSuperblock;
    const bool is_journal = request.offset.value >= journal_begin_ && request.offset.value < journal_end_;
    return is_journal ? Point::kJournal : Point::kOther;
  }
  void look(const IoRequest& request, bool is_after) {
    if (trigger_ != nullptr && request.op != IoOp::kRead) trigger_->saw(point_of(request), is_after);
  }

  Trigger*& trigger_;
  uint64_t journal_begin_ = 0;
  uint64_t journal_end_ = 0;
};

class PoolRun {
 public:
  PoolRun(uint64_t seed, const RunOptions& options);
  Outcome run();
  void explain(const RunOptions& options) const;

 private:
  bool go_on() const { return model_->failure().empty(); }
  template <typename Predicate>
  void wait(Predicate predicate, Duration limit, const char* what);
  void format();
  void find_journal();
  void life(const CrashPlan* crash);
  void crash(const CrashPlan& crash);
  void check(bool must_be_clean);
  static Task<void> check_disks(PoolRun& run, uint64_t epoch);
  void judge(bool must_be_clean);
  void finish();

  const PoolRunPlan plan_;
  // Programs of the world refer to these: they go after it.
  std::unique_ptr<PoolModel> model_;
  std::vector<std::unique_ptr<Watcher>> watchers_;
  Trigger* trigger_ = nullptr;
  std::unique_ptr<PoolLoad> load_;
  std::optional<Result<CheckReport>> report_;
  std::vector<std::string> paths_;
  std::unique_ptr<SimWorld> world_;
  SimNode* node_ = nullptr;
};

PoolRun::PoolRun(uint64_t seed, const RunOptions& options)
    : plan_(draw_pool_plan(seed, options.scenario)), world_(std::make_unique<SimWorld>(seed, plan_.settings)) {
  world_->trace().set_listener(options.listener);
  node_ = &world_->add_node("10.0.0.1", {.shards = plan_.shards, .more_addresses = {}});
  uint32_t smallest = 4096;
  paths_ = plan_.load.disks;
  paths_.push_back(plan_.load.spare.front());
  for (size_t i = 0; i < plan_.disks.size(); ++i) {
    smallest = std::min(smallest, plan_.disks[i].logical_block);
    watchers_.push_back(std::make_unique<Watcher>(trigger_));
    world_->create_disk(*node_, paths_[i], plan_.disk_bytes, plan_.disks[i]).set_observer(watchers_.back().get());
  }
  model_ = std::make_unique<PoolModel>(smallest, plan_.load.extent_bytes);
  load_ = std::make_unique<PoolLoad>(*world_, *node_, *model_, plan_.load, world_->random().next());
}

template <typename Predicate>
void PoolRun::wait(Predicate predicate, Duration limit, const char* what) {
  if (!go_on()) return;
  const RunResult result = world_->run_until([&] { return !go_on() || predicate(); }, limit);
  if (result != RunResult::kDone) {
    model_->fail(
        fmt::format("{}: {} in phase {}", what, sim::run_result_name(result), static_cast<int>(load_->phase())));
  }
}

void PoolRun::format() {
  bool is_done = false;
  world_->spawn(*node_, 0, load_->format(&is_done));
  wait([&] { return is_done; }, kFormatMax, "create");
  if (!go_on()) return;
  find_journal();
}

// Where the journal lies on each disk.
void PoolRun::find_journal() {
  for (size_t i = 0; i < paths_.size(); ++i) {
    pool::Page page;
    world_->find_disk(*node_, paths_[i])->peek(0, page);
    const Result<pool::Superblock> superblock = pool::decode_superblock(page);
    if (!superblock) continue;
    for (const pool::JournalArea& area : superblock->journal) {
      if (area.disk == superblock->disk_index) watchers_[i]->set_journal(area.offset, superblock->journal_bytes);
    }
  }
}

Task<void> PoolRun::check_disks(PoolRun& run, uint64_t epoch) {
  Shard& shard = run.node_->shard(0);
  std::vector<PoolDisk> disks;
  for (const std::string& path : run.paths_) {
    auto source = open_disk_source(shard, {.path = path});
    if (!source) co_return;
    auto page = co_await pool::read_superblocks(shard, {path, *source});
    if (pool::newest_superblock(page) != nullptr) disks.push_back({path, std::move(*source)});
  }
  Result<CheckReport> report = co_await pool::check_pool(shard, std::move(disks), shard.storage.boot_id());
  if (run.model_->epoch() == epoch) run.report_ = std::move(report);
}

void PoolRun::check(bool must_be_clean) {
  if (!go_on()) return;
  report_.reset();
  world_->spawn(*node_, 0, check_disks(*this, model_->epoch()));
  wait([&] { return report_.has_value(); }, kCheckMax, "the checker");
  if (go_on()) judge(must_be_clean);
}

// A crash may leave copies behind that import mends; no damage.
void PoolRun::judge(bool must_be_clean) {
  if (!*report_) return model_->fail(fmt::format("check: {}", to_string(report_->error())));
  for (const pool::Finding& finding : (*report_)->findings) {
    if (finding.severity == Severity::kDamage || must_be_clean) {
      return model_->fail(fmt::format("check after {}: {}: {}", must_be_clean ? "a close" : "a crash",
                                      pool::severity_name(finding.severity), finding.text));
    }
  }
}

void PoolRun::crash(const CrashPlan& crash) {
  const bool is_power_lost = crash.kind == CrashKind::kPowerLost;
  world_->mark("crash", static_cast<uint64_t>(load_->phase()));
  model_->crashed(is_power_lost);
  world_->crash(*node_, crash.kind);
  world_->run_for(crash.down);
  world_->restart(*node_);
  if (!is_power_lost && crash.is_double) {
    model_->crashed(true);
    world_->crash(*node_, CrashKind::kPowerLost);
    world_->restart(*node_);
  }
  check(false);
}

void PoolRun::life(const CrashPlan* crash_plan) {
  if (!go_on()) return;
  std::optional<Trigger> trigger;
  if (crash_plan != nullptr) trigger_ = &trigger.emplace(*crash_plan, *load_);
  const Instant end = world_->now() + (crash_plan != nullptr ? crash_plan->time : kLifeMax);
  const bool by_time = crash_plan != nullptr && crash_plan->point == Point::kTime;
  load_->announce();
  world_->spawn(*node_, 0,
                load_->live(crash_plan == nullptr ? PoolLoad::Ends::kDeletesAll : PoolLoad::Ends::kKeepsAll));
  wait(
      [&] {
        return load_->phase() == Phase::kEnded || (trigger && trigger->has_come()) || (by_time && world_->now() >= end);
      },
      kLifeMax, "a life");
  trigger_ = nullptr;
  if (!go_on()) return;
  if (load_->phase() == Phase::kEnded) {
    check(true);
  } else {
    crash(*crash_plan);
  }
}

void PoolRun::finish() {
  if (go_on() && !world_->stop(*node_, kStopMax)) model_->fail("the node did not stop at the end");
  if (world_->violations() != 0) model_->fail("a contract of the seams was broken");
  if (world_->unexplained_errors() != 0) model_->fail("an ERROR was logged that no fault explains");
}

Outcome PoolRun::run() {
  format();
  for (const CrashPlan& crash : plan_.crashes) life(&crash);
  world_->mark("heal");
  world_->heal();
  life(nullptr);
  finish();
  return outcome_of(*world_, go_on());
}

void PoolRun::explain(const RunOptions& options) const {
  if (options.message != nullptr) *options.message = model_->failure();
  if (options.report != nullptr) *options.report = world_->report() + "plan: " + to_string(plan_) + "\n";
}

}  // namespace

Outcome run_pool_seed(uint64_t seed, const RunOptions& options) {
  PoolRun run(seed, options);
  Outcome outcome = run.run();
  run.explain(options);
  return outcome;
}

}  // namespace fairlead::sim_test
