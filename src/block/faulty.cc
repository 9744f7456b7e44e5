#include "block/faulty.h"

#include <algorithm>
#include <array>
#include <utility>

#include "block/slot_pool.h"
#include "block/spec.h"

namespace fairlead {
namespace {

// A small generator of its own for each rule, so that what fires depends on the rule and the order of requests alone.
// (SplitMix64 of Steele, Lea and Flood.)
uint64_t next_random(uint64_t& state) {
  uint64_t mixed = state += 0x9e3779b97f4a7c15;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

// In [0, 1).
double next_fraction(uint64_t& state) { return static_cast<double>(next_random(state) >> 11) * 0x1p-53; }

bool matches(const FaultRule& rule, const IoRequest& request) {
  if ((rule.operations & op_set(request.op)) == 0) return false;
  if (request.op == IoOp::kFlush) return rule.from.value == 0 && rule.to == FaultRule{}.to;
  return request.offset < rule.to && request.offset.value + request.length > rule.from.value;
}

}  // namespace

class FaultyDevice final : public BlockDevice {
 public:
  FaultyDevice(Shard& shard, std::unique_ptr<BlockDevice> inner, std::shared_ptr<FaultySource::Shared> shared)
      : BlockDevice(inner->geometry()), reactor_(shard.reactor), inner_(std::move(inner)), shared_(std::move(shared)) {}

  Result<uint64_t> refresh_size() override {
    Result<uint64_t> size = inner_->refresh_size();
    geometry_.size_bytes = inner_->geometry().size_bytes;
    return size;
  }

 private:
  struct Armed {
    FaultRule rule;
    uint64_t matched = 0;
    uint64_t fired = 0;
    uint64_t random = 0;
  };
  struct Delayed : Timer {
    Delayed() : Timer([](Runnable& self) { static_cast<Delayed&>(self).expire(); }) {}
    void expire() {
      FaultyDevice& owner = *device;
      IoRequest& due = *request;
      const std::optional<Code> outcome = error;
      owner.delayed_.give_back(*this);
      owner.go_on(due, outcome);
    }
    FaultyDevice* device = nullptr;
    IoRequest* request = nullptr;
    std::optional<Code> error;
  };

  void execute(IoRequest& request) override {
    if (shared_->version.load(std::memory_order_acquire) != version_) load_rules();
    const FaultRule* const rule = find(request);
    if (rule == nullptr) {
      inner_->submit(request);
      return;
    }
    shared_->fired.fetch_add(1, std::memory_order_relaxed);
    if (rule->delay == Duration::zero()) {
      go_on(request, rule->error);
      return;
    }
    Delayed& delayed = delayed_.take();
    delayed.device = this;
    delayed.request = &request;
    delayed.error = rule->error;
    reactor_.arm(delayed, rule->delay);
  }

  void load_rules() {
    // lint: allow(lock) taken only after a change of rules, which tests make
    const std::lock_guard lock(shared_->mutex);
    version_ = shared_->version.load(std::memory_order_relaxed);
    rules_.clear();
    for (const FaultRule& rule : shared_->rules) rules_.push_back({.rule = rule, .random = rule.seed});
  }

  const FaultRule* find(const IoRequest& request) {
    for (Armed& armed : rules_) {
      const FaultRule& rule = armed.rule;
      if (armed.fired == rule.count || !matches(rule, request)) continue;
      if (++armed.matched % rule.every != 0) continue;
      if (rule.probability < 1 && next_fraction(armed.random) >= rule.probability) continue;
      ++armed.fired;
      return &rule;
    }
    return nullptr;
  }

  void go_on(IoRequest& request, std::optional<Code> error) {
    if (error) {
      request.complete(fail(*error, "injected fault"));
    } else {
      inner_->submit(request);
    }
  }

  Reactor& reactor_;
  std::unique_ptr<BlockDevice> inner_;
  std::shared_ptr<FaultySource::Shared> shared_;  // the rules, which come from any thread
  uint64_t version_ = 0;                          // of the rules below
  std::vector<Armed> rules_;
  SlotPool<Delayed> delayed_;
};

FaultySource::FaultySource(std::shared_ptr<BlockSource> inner, std::vector<FaultRule> rules)
    : inner_(std::move(inner)), shared_(std::make_shared<Shared>()) {
  set_rules(std::move(rules));
}

void FaultySource::set_rules(std::vector<FaultRule> rules) {
  for (const FaultRule& rule : rules) FL_CHECK(rule.every > 0 && rule.probability >= 0 && rule.probability <= 1);
  // lint: allow(lock) see load_rules()
  const std::lock_guard lock(shared_->mutex);
  shared_->rules = std::move(rules);
  shared_->version.fetch_add(1, std::memory_order_release);
}

Result<std::unique_ptr<BlockDevice>> FaultySource::open(Shard& shard) {
  FL_TRY(std::unique_ptr<BlockDevice> inner, inner_->open(shard));
  return std::make_unique<FaultyDevice>(shard, std::move(inner), shared_);
}

std::shared_ptr<FaultySource> make_faulty_source(std::shared_ptr<BlockSource> inner, std::vector<FaultRule> rules) {
  return std::make_shared<FaultySource>(std::move(inner), std::move(rules));
}

namespace {

Result<IoOpSet> parse_operations(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, IoOpSet>, 6> kNames = {{{"read", op_set(IoOp::kRead)},
                                                                           {"write", op_set(IoOp::kWrite)},
                                                                           {"flush", op_set(IoOp::kFlush)},
                                                                           {"discard", op_set(IoOp::kDiscard)},
                                                                           {"zeroes", op_set(IoOp::kWriteZeroes)},
                                                                           {"any", kEveryOp}}};
  IoOpSet set = 0;
  while (true) {
    const size_t plus = text.find('+');
    const auto* const named = std::ranges::find(kNames, text.substr(0, plus), &decltype(kNames)::value_type::first);
    if (named == kNames.end()) {
      return fail(Code::kInvalidArgument, "operations are read, write, flush, discard, zeroes, any");
    }
    set |= named->second;
    if (plus == std::string_view::npos) return set;
    text.remove_prefix(plus + 1);
  }
}

Result<Code> parse_code(std::string_view name) {
  for (int i = 0; i < kCodeCount; ++i) {
    if (code_info(static_cast<Code>(i)).name == name) return static_cast<Code>(i);
  }
  return fail(Code::kInvalidArgument, "no error has this name: try io, no_space, corrupt or timed_out");
}

Result<void> parse_range(std::string_view text, FaultRule& rule) {
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos) return fail(Code::kInvalidArgument, "a range is FROM-TO, such as 1MiB-2MiB");
  if (const std::string_view from = text.substr(0, dash); !from.empty()) {
    FL_TRY(rule.from.value, parse_size(from));
  }
  if (const std::string_view to = text.substr(dash + 1); !to.empty()) {
    FL_TRY(rule.to.value, parse_size(to));
  }
  if (rule.from >= rule.to) return fail(Code::kInvalidArgument, "a range ends behind its start");
  return {};
}

Result<void> parse_rule_option(const SpecOption& option, FaultRule& rule) {
  const auto& [key, value] = option;
  if (key == "error") {
    FL_TRY(rule.error, parse_code(value));
  } else if (key == "delay") {
    FL_TRY(rule.delay, parse_duration(value));
  } else if (key == "range") {
    return parse_range(value, rule);
  } else if (key == "every") {
    FL_TRY(rule.every, parse_count(value));
    if (rule.every == 0) return fail(Code::kInvalidArgument, "every is at least 1");
  } else if (key == "probability") {
    FL_TRY(rule.probability, parse_fraction(value));
  } else if (key == "seed") {
    FL_TRY(rule.seed, parse_count(value));
  } else if (key == "count") {
    FL_TRY(rule.count, parse_count(value));
  } else {
    return fail(Code::kInvalidArgument, "options are error, delay, range, every, probability, seed, count");
  }
  return {};
}

Result<FaultRule> parse_rule(std::string_view text) {
  FaultRule rule;
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) {
    return fail(Code::kInvalidArgument, "a rule is OPERATIONS:OPTIONS, such as write:error=io,every=3");
  }
  FL_TRY(rule.operations, parse_operations(text.substr(0, colon)));
  FL_TRY(const std::vector<SpecOption> options, split_options(text.substr(colon + 1)));
  for (const SpecOption& option : options) FL_TRY_VOID(parse_rule_option(option, rule));
  if (!rule.error && rule.delay == Duration::zero()) {
    return fail(Code::kInvalidArgument, "a rule needs an error or a delay");
  }
  return rule;
}

}  // namespace

Result<std::vector<FaultRule>> parse_fault_rules(std::string_view text) {
  std::vector<FaultRule> rules;
  while (!text.empty()) {
    const size_t end = text.find(';');
    FL_TRY(rules.emplace_back(), parse_rule(text.substr(0, end)));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return rules;
}

}  // namespace fairlead
