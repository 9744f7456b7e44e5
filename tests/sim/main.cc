// fairlead-sim: targets and hosts under a seed, with faulty disks and networks. See README.md.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fmt/format.h>
#include <fstream>
#include <string>
#include <thread>

#include "base/log.h"
#include "campaign.h"
#include "scenario.h"

namespace fairlead::sim_test {
namespace {

class Printer final : public sim::TraceListener {
 public:
  void line(std::string_view text) override { std::fputs(fmt::format("{}\n", text).c_str(), stdout); }
};

// Seeds that once found something, with the scenario that they did it in.
struct Regression {
  Scenario scenario = Scenario::kChaos;
  uint64_t seed = 0;
};

std::vector<Regression> read_regressions(const std::string& path) {
  std::vector<Regression> list;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    char name[32] = {};
    unsigned long long seed = 0;
    if (line.empty() || line.front() == '#' || std::sscanf(line.c_str(), "%31s %llu", name, &seed) != 2) continue;
    if (const std::optional<Scenario> scenario = parse_scenario(name)) list.push_back({*scenario, seed});
  }
  return list;
}

struct Arguments {
  std::optional<uint64_t> seed;
  uint64_t seeds = 200;
  uint64_t first = 1;
  unsigned jobs = std::thread::hardware_concurrency();
  std::string scenario = "chaos";
  bool verbose = false;
  bool trace = false;
};

int run_single(const Arguments& arguments, Scenario scenario) {
  if (!arguments.trace) {
    CampaignOptions options;
    options.seeds = {*arguments.seed};
    options.scenario = scenario;
    options.repeat_every = 1;
    options.verbose = true;
    return run_campaign(options) == 0 ? 0 : 1;
  }
  Printer printer;
  std::string message;
  const Outcome outcome =
      run_seed(*arguments.seed, {.scenario = scenario, .message = &message, .report = nullptr, .listener = &printer});
  std::fputs(
      fmt::format("seed {}: {}, trace {:016x}\n", *arguments.seed, outcome.passed ? "passed" : message, outcome.hash)
          .c_str(),
      stdout);
  return outcome.passed ? 0 : 1;
}

int run_many(const Arguments& arguments, Scenario scenario) {
  CampaignOptions options;
  options.scenario = scenario;
  options.jobs = std::max(1U, arguments.jobs);
  options.verbose = arguments.verbose;
  for (const Regression& regression : read_regressions(FAIRLEAD_SIM_REGRESSIONS)) {
    if (regression.scenario == scenario) options.seeds.push_back(regression.seed);
  }
  for (uint64_t i = 0; i < arguments.seeds; ++i) options.seeds.push_back(arguments.first + i);
  return run_campaign(options) == 0 ? 0 : 1;
}

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app{"Runs targets and hosts under seeds, with faulty disks and networks.", "fairlead-sim"};
  app.add_option("--seed", arguments.seed, "run one seed, twice; print the trace's tail if it fails");
  app.add_option("--seeds", arguments.seeds, "run so many seeds (200), after those of the regression list");
  app.add_option("--first", arguments.first, "from this one on (1)");
  app.add_option("--jobs", arguments.jobs, "processes (as many as cores)");
  app.add_option("--scenario", arguments.scenario, "chaos, calm, power, host, hasty, broken, pool, lying, mirror, engines or control");
  app.add_flag("--verbose", arguments.verbose, "a line for each seed, and the trace's tail of those that fail");
  app.add_flag("--trace", arguments.trace, "with --seed: print everything that happens, as it happens");
  CLI11_PARSE(app, argc, argv);
  const std::optional<Scenario> scenario = parse_scenario(arguments.scenario);
  if (!scenario) {
    std::fputs("there is no such scenario: chaos, calm, power, host, hasty, broken, pool, lying, mirror, engines or control\n", stderr);
    return 2;
  }
  set_log_level(LogLevel::kInfo);
  return arguments.seed ? run_single(arguments, *scenario) : run_many(arguments, *scenario);
}

}  // namespace
}  // namespace fairlead::sim_test

int main(int argc, char** argv) { return fairlead::sim_test::run(argc, argv); }
