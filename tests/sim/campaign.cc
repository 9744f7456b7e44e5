#include "campaign.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <map>
#include <sys/mman.h>
#include <sys/wait.h>
#include <type_traits>
#include <unistd.h>

#include "base/check.h"
#include "scenario.h"

namespace fairlead::sim_test {
namespace {

enum class State : uint8_t { kWaiting, kRunning, kDone };

// One seed's line in the memory that parent and workers share.
struct Entry {
  std::atomic<State> state{State::kWaiting};
  std::atomic<pid_t> worker{0};
  Outcome outcome;
  bool repeated = false;
};
static_assert(std::is_trivially_destructible_v<Entry>);

struct Board {
  std::atomic<uint64_t> next{0};
};

class Campaign {
 public:
  explicit Campaign(const CampaignOptions& options);
  ~Campaign();
  uint64_t run();

 private:
  size_t bytes() const { return sizeof(Board) + sizeof(Entry) * options_.seeds.size(); }
  void start_worker();
  [[noreturn]] void work();
  void run_one(size_t index);
  void on_worker_end(pid_t worker, int status);
  void print_progress();
  void print_repeat(uint64_t seed) const;
  void print_coverage() const;

  const CampaignOptions& options_;
  void* memory_ = nullptr;
  Board* board_ = nullptr;
  Entry* entries_ = nullptr;
  unsigned running_ = 0;
};

Campaign::Campaign(const CampaignOptions& options) : options_(options) {
  memory_ = mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  FL_CHECK(memory_ != MAP_FAILED);
  board_ = ::new (memory_) Board();
  auto* const place = static_cast<std::byte*>(memory_) + sizeof(Board);
  entries_ = reinterpret_cast<Entry*>(place);
  for (size_t i = 0; i < options_.seeds.size(); ++i) ::new (static_cast<void*>(&entries_[i])) Entry();
}

Campaign::~Campaign() { munmap(memory_, bytes()); }

void Campaign::print_repeat(uint64_t seed) const {
  std::fprintf(stderr, "  repeat it: ./dev sim --scenario %s --seed %llu\n",
               std::string(scenario_name(options_.scenario)).c_str(), static_cast<unsigned long long>(seed));
}

void Campaign::run_one(size_t index) {
  Entry& entry = entries_[index];
  const uint64_t seed = options_.seeds[index];
  entry.worker = getpid();
  entry.state = State::kRunning;
  alarm(options_.seconds_max);
  std::string message;
  std::string report;
  RunOptions run{.scenario = options_.scenario, .message = &message, .report = &report};
  entry.outcome = run_seed(seed, run);
  if (entry.outcome.passed && options_.repeat_every != 0 && seed % options_.repeat_every == 0) {
    alarm(options_.seconds_max);
    entry.repeated = true;
    const Outcome again = run_seed(seed, run);
    if (again.hash != entry.outcome.hash) {
      entry.outcome.passed = false;
      message = fmt::format("not deterministic: trace {:016x}, then {:016x}", entry.outcome.hash, again.hash);
    }
  }
  alarm(0);
  if (!entry.outcome.passed) {
    std::fputs(
        fmt::format("{}seed {}: {}\n", options_.verbose || options_.seeds.size() == 1 ? report : "", seed, message)
            .c_str(),
        stderr);
    print_repeat(seed);
  } else if (options_.verbose || options_.seeds.size() == 1) {
    std::fputs(fmt::format("seed {}: passed, trace {:016x}, {} turns, {:.3f} s of virtual time\n", seed,
                           entry.outcome.hash, entry.outcome.turns, static_cast<double>(entry.outcome.virtual_ms) / 1e3)
                   .c_str(),
               stdout);
  }
  entry.state = State::kDone;
}

void Campaign::work() {
  while (true) {
    const uint64_t index = board_->next.fetch_add(1);
    if (index >= options_.seeds.size()) break;
    run_one(index);
  }
  std::fflush(nullptr);
  _exit(0);
}

void Campaign::start_worker() {
  std::fflush(nullptr);
  const pid_t worker = ::fork();
  FL_CHECK(worker >= 0);
  if (worker == 0) work();
  ++running_;
}

// A worker that did not come to its end takes its seed with it, and another takes its place.
void Campaign::on_worker_end(pid_t worker, int status) {
  --running_;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  for (size_t i = 0; i < options_.seeds.size(); ++i) {
    Entry& entry = entries_[i];
    if (entry.worker != worker || entry.state != State::kRunning) continue;
    const bool hung = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    std::fputs(fmt::format("seed {}: {}\n", options_.seeds[i],
                           hung ? std::string("took too long") : fmt::format("aborted (status {:#x})", status))
                   .c_str(),
               stderr);
    print_repeat(options_.seeds[i]);
    entry.outcome.passed = false;
    entry.state = State::kDone;
  }
  if (board_->next < options_.seeds.size()) start_worker();
}

// Which faults and rare branches the campaign reached: a probe that it never reached is worth a look.
void Campaign::print_coverage() const {
  Outcome sum;
  std::array<uint64_t, sim::kSimFaultCount> injected{};
  for (size_t i = 0; i < options_.seeds.size(); ++i) {
    const Outcome& outcome = entries_[i].outcome;
    for (size_t p = 0; p < sum.probes.size(); ++p) sum.probes[p] += outcome.probes[p] > 0 ? 1 : 0;
    for (size_t p = 0; p < sum.fault_points.size(); ++p) sum.fault_points[p] += outcome.fault_points[p] > 0 ? 1 : 0;
    for (size_t p = 0; p < sum.faults.size(); ++p) {
      sum.faults[p] += outcome.faults[p] > 0 ? 1 : 0;
      injected[p] += outcome.faults[p];
    }
    sum.hosts.resent += outcome.hosts.resent > 0 ? 1 : 0;
    sum.hosts.held += outcome.hosts.held > 0 ? 1 : 0;
    sum.hosts.fenced += outcome.hosts.fenced > 0 ? 1 : 0;
    sum.hosts.retried += outcome.hosts.retried > 0 ? 1 : 0;
    sum.engines += outcome.engines;
    sum.turns += outcome.turns;
    sum.virtual_ms += outcome.virtual_ms;
  }
  std::string text = "probes, by seeds that reached them:";
  std::string missed;
  for (size_t p = 0; p < sum.probes.size(); ++p) {
    const std::string_view name = probe_name(static_cast<Probe>(p));
    text += fmt::format(" {}={}", name, sum.probes[p]);
    const bool is_of_pool = static_cast<Probe>(p) >= Probe::kJournalWrapped;
    if (sum.probes[p] == 0 && is_of_pool == (options_.scenario == Scenario::kPool)) missed += fmt::format(" {}", name);
  }
  text += "\nfault points:";
  for (size_t p = 0; p < sum.fault_points.size(); ++p) {
    text += fmt::format(" {}={}", fault_point_name(static_cast<FaultPoint>(p)), sum.fault_points[p]);
  }
  text += "\nfaults injected, and in how many seeds:";
  for (size_t p = 0; p < sum.faults.size(); ++p) {
    if (sum.faults[p] == 0) continue;
    text += fmt::format(" {}={}/{}", sim::sim_fault_name(static_cast<sim::SimFault>(p)), injected[p], sum.faults[p]);
  }
  text += fmt::format("\nhosts: resent={} held={} fenced={} retried={}", sum.hosts.resent, sum.hosts.held,
                      sum.hosts.fenced, sum.hosts.retried);
  if (options_.scenario == Scenario::kEngines) text += "\nengines: " + to_string(sum.engines);
  text += fmt::format("\n{} seeds, {:.1f} million turns, {:.2f} hours of virtual time\n", options_.seeds.size(),
                      static_cast<double>(sum.turns) / 1e6, static_cast<double>(sum.virtual_ms) / 3.6e6);
  // The other scenarios leave things out by intent, and a few seeds reach little.
  const bool is_full = options_.scenario == Scenario::kChaos || options_.scenario == Scenario::kPool;
  const bool should_reach_all = is_full && options_.seeds.size() >= 100;
  if (should_reach_all && !missed.empty()) text += "warning: probes never reached:" + missed + "\n";
  std::fputs(text.c_str(), stdout);
}

uint64_t Campaign::run() {
  const auto jobs = static_cast<unsigned>(std::min<size_t>(options_.jobs, options_.seeds.size()));
  for (unsigned i = 0; i < jobs; ++i) start_worker();
  while (running_ > 0) {
    int status = 0;
    const pid_t worker = waitpid(-1, &status, 0);
    if (worker > 0) on_worker_end(worker, status);
  }
  uint64_t failed = 0;
  for (size_t i = 0; i < options_.seeds.size(); ++i) {
    if (entries_[i].state != State::kDone || !entries_[i].outcome.passed) ++failed;
  }
  if (options_.seeds.size() > 1) print_coverage();
  std::fputs(fmt::format("sim: {} passed, {} failed\n", options_.seeds.size() - failed, failed).c_str(), stdout);
  return failed;
}

}  // namespace

uint64_t run_campaign(const CampaignOptions& options) {
  Campaign campaign(options);
  return campaign.run();
}

}  // namespace fairlead::sim_test
