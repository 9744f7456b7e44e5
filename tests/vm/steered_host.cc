// A host that is told what to do by lines on its standard input, for what the command line cannot steer:
//
//   connect NQN ADDR[,ADDR…] [KEY=NUMBER…]   ok, as soon as one path is live
//   status                                   ok JSON: paths, and what the device counted
//   open NSID                                ok BYTES; what follows is about that namespace
//   write OFFSET LENGTH SEED [fua]           ok
//   verify OFFSET LENGTH SEED                ok: it reads as that write left it
//   zero OFFSET LENGTH [keep]                ok: by Write Zeroes, which may deallocate unless told to keep
//   verify-zero OFFSET LENGTH                ok
//   discard OFFSET LENGTH                    ok
//   compare OFFSET LENGTH SEED               ok
//   flush                                    ok
//   load WORKERS BLOCK SPAN [PAUSE]          ok: reads and writes at random go on in the first SPAN bytes, each worker
//                                            pausing for so many milliseconds after each
//   progress N                               ok, when each shard has done N more of them
//   finish                                   ok JSON: the load has ended and all that it wrote was read once more
//   close                                    ok: the namespace
//   disconnect                               ok
//
// Keys: header-digest, data-digest (0 or 1), depth, keep-alive-ms, connect-ms, admin-ms, command-ms, abort-ms,
// reconnect-max-ms, no-path-ms, quiesce-ms. Each line is answered by one, "ok …" or "error …". Whenever the paths or
// the namespaces are others than before "state JSON" is said between the answers. The end of the input ends the host.
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/call.h"
#include "host/remote_device.h"
#include "host/subsystem.h"
#include "io/runtime.h"

namespace fairlead {
namespace {

using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;
using Bytes = std::vector<std::byte>;

constexpr size_t kShards = 2;  // an I/O queue each, so that what shards tell each other is at work
constexpr size_t kTransferMax = 64 * kMiB;
constexpr size_t kWorkersMax = 256;

void say(std::string_view line) {
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

// From a number in decimal; nothing from anything else.
std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

Words split(std::string_view line, char separator) {
  Words words;
  while (!line.empty()) {
    const size_t end = std::min(line.find(separator), line.size());
    if (end > 0) words.emplace_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return words;
}

// What a write of `seed` leaves at a place: bytes of another place or seed differ in nearly all of them.
void fill(std::span<std::byte> bytes, uint64_t offset, uint64_t seed) {
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    uint64_t word = (offset + at) * 0x9E3779B97F4A7C15U + seed * 0xD1B54A32D192ED03U;
    word = (word ^ (word >> 29)) * 0xBF58476D1CE4E5B9U;
    word ^= word >> 32;
    std::memcpy(bytes.data() + at, &word, sizeof word);
  }
}

bool is_filled(std::span<const std::byte> bytes, uint64_t offset, uint64_t seed) {
  Bytes expected(bytes.size());
  fill(expected, offset, seed);
  return std::ranges::equal(bytes, expected);
}

std::string_view path_state_name(host::PathState state) {
  using enum host::PathState;
  switch (state) {
    case kNone:
      return "none";
    case kOptimized:
      return "optimized";
    case kNonOptimized:
      return "non-optimized";
    case kUnusable:
      return "unusable";
    case kSuspect:
      return "suspect";
  }
  return "?";
}

Result<void> set_option(host::SubsystemOptions& options, std::string_view key, uint64_t number) {
  const std::map<std::string_view, Duration*> durations = {
      {"keep-alive-ms", &options.keep_alive},   {"connect-ms", &options.connect_timeout},
      {"admin-ms", &options.admin_timeout},     {"command-ms", &options.command_timeout},
      {"abort-ms", &options.abort_timeout},     {"reconnect-max-ms", &options.reconnect_max},
      {"no-path-ms", &options.no_path_timeout},
  };
  const auto duration = std::chrono::milliseconds(number);
  if (const auto found = durations.find(key); found != durations.end()) {
    *found->second = duration;
  } else if (key == "quiesce-ms") {
    options.quiesce = duration;
  } else if (key == "depth") {
    options.queue_depth = static_cast<uint16_t>(number);
  } else if (key == "header-digest") {
    options.header_digest = number != 0;
  } else if (key == "data-digest") {
    options.data_digest = number != 0;
  } else {
    return fail(Code::kInvalidArgument, "no such key");
  }
  return {};
}

// The words of "connect".
Result<host::SubsystemOptions> parse_connect(const Words& words) {
  host::SubsystemOptions options;
  options.nqn = words[1];
  for (const std::string& text : split(words[2], ',')) {
    FL_TRY(const SocketAddress address, parse_socket_address(text, 0));
    options.addresses.push_back(address);
  }
  for (size_t i = 3; i < words.size(); ++i) {
    const size_t equals = words[i].find('=');
    if (equals == std::string::npos) return fail(Code::kInvalidArgument, "KEY=NUMBER is missing its =");
    const std::optional<uint64_t> number = parse_number(std::string_view(words[i]).substr(equals + 1));
    if (!number) return fail(Code::kInvalidArgument, "KEY=NUMBER has no number");
    FL_TRY_VOID(set_option(options, std::string_view(words[i]).substr(0, equals), *number));
  }
  return options;
}

// Reads and writes at random through one shard's device: each worker has blocks of its own, so knows what they hold.
// Made, started, finished and destroyed on that shard.
class Load {
 public:
  struct Plan {
    uint32_t workers = 1;
    uint32_t block = 4096;
    uint64_t offset = 0;
    uint64_t blocks_each = 1;
    Duration pause = {};
  };
  struct Outcome {
    uint64_t done = 0;
    uint64_t errors = 0;
    uint64_t wrong = 0;  // blocks that did not read as they were written
    Error first_error;
  };

  Load(Shard& shard, BlockDevice& device, const Plan& plan)
      : shard_(shard), device_(device), plan_(plan), scope_(shard.reactor), advanced_(shard.reactor) {
    for (uint32_t worker = 0; worker < plan.workers; ++worker) scope_.spawn(work(worker));
  }

  Task<void> progress(uint64_t count) {
    const uint64_t goal = outcome_.done + count;
    while (outcome_.done < goal) co_await advanced_.wait();
  }

  Task<Outcome> finish() {
    is_ending_ = true;
    co_await scope_.close();
    co_return outcome_;
  }

 private:
  Task<void> work(uint32_t worker) {
    std::vector<uint64_t> seeds(plan_.blocks_each);  // of the last write; 0: not known
    Bytes buffer(plan_.block);
    uint64_t writes = 0;
    while (!is_ending_) {
      const uint64_t index = shard_.random.below(seeds.size());
      const uint64_t offset = place(worker, index);
      if (seeds[index] != 0 && shard_.random.below(3) == 0) {
        co_await verify(buffer, offset, seeds[index]);
      } else {
        const uint64_t seed = (uint64_t{worker} << 40) + ++writes;
        fill(buffer, offset, seed);
        const iovec piece{buffer.data(), buffer.size()};
        const Result<void> written = co_await block_write(shard_.reactor, device_, ByteOffset{offset}, {&piece, 1});
        seeds[index] = written ? seed : 0;
        count(written);
      }
      if (plan_.pause > Duration::zero()) (void)co_await sleep(shard_.reactor, plan_.pause);
    }
    for (uint64_t index = 0; index < seeds.size(); ++index) {
      if (seeds[index] != 0) co_await verify(buffer, place(worker, index), seeds[index]);
    }
  }

  Task<void> verify(std::span<std::byte> buffer, uint64_t offset, uint64_t seed) {
    std::ranges::fill(buffer, std::byte{0x5a});
    const iovec piece{buffer.data(), buffer.size()};
    const Result<void> read = co_await block_read(shard_.reactor, device_, ByteOffset{offset}, {&piece, 1});
    if (read && !is_filled(buffer, offset, seed)) ++outcome_.wrong;
    count(read);
  }

  void count(const Result<void>& result) {
    ++outcome_.done;
    if (!result && outcome_.errors++ == 0) outcome_.first_error = result.error();
    advanced_.release_waiters();
  }

  uint64_t place(uint32_t worker, uint64_t index) const {
    return plan_.offset + (worker * plan_.blocks_each + index) * plan_.block;
  }

  Shard& shard_;
  BlockDevice& device_;
  const Plan plan_;
  Outcome outcome_;
  bool is_ending_ = false;
  Scope scope_;
  Event advanced_;
};

// What one shard has of the namespace. Touched on that shard alone.
struct Side {
  Shard* shard = nullptr;
  std::unique_ptr<BlockDevice> device;
  std::unique_ptr<Load> load;

  host::RemoteDevice& remote() const { return static_cast<host::RemoteDevice&>(*device); }
};

Task<Result<void>> open_on(Side& side, std::shared_ptr<BlockSource> source) {
  FL_CO_TRY(side.device, source->open(*side.shard));
  co_return Result<void>();
}
Task<void> close_on(Side& side) {
  side.device.reset();
  co_return;
}
Task<host::RemoteDevice::Statistics> statistics_on(Side& side) { co_return side.remote().statistics(); }
Task<void> load_on(Side& side, Load::Plan plan) {
  side.load = std::make_unique<Load>(*side.shard, *side.device, plan);
  co_return;
}
Task<void> progress_on(Side& side, uint64_t count) { co_await side.load->progress(count); }
Task<Load::Outcome> finish_on(Side& side) {
  const Load::Outcome outcome = co_await side.load->finish();
  side.load.reset();
  co_return outcome;
}

// Lives on the first shard.
class SteeredHost {
 public:
  explicit SteeredHost(Runtime& runtime) : shard_(runtime.shard(0)), scope_(shard_.reactor) {
    for (size_t i = 0; i < runtime.shard_count(); ++i) sides_.push_back({&runtime.shard(i), nullptr, nullptr});
  }

  // Does what the words say; returns what to add to "ok".
  Task<Result<std::string>> obey(Words words) {
    const std::string& verb = words.front();
    if (verb == "connect" && words.size() >= 3) co_return co_await connect(words);
    if (!subsystem_) co_return fail(Code::kInvalidArgument, "not connected, or no such command");
    if (verb == "status" && words.size() == 1) co_return co_await status();
    if (verb == "disconnect" && words.size() == 1) co_return co_await disconnect();
    std::optional<std::string> mode;
    if (words.size() > 1 && (words.back() == "fua" || words.back() == "keep")) {
      mode = words.back();
      words.pop_back();
    }
    std::vector<uint64_t> numbers;
    for (size_t i = 1; i < words.size(); ++i) {
      const std::optional<uint64_t> number = parse_number(words[i]);
      if (!number) co_return fail(Code::kInvalidArgument, "not a number");
      numbers.push_back(*number);
    }
    if (verb == "open" && numbers.size() == 1) co_return co_await open(numbers[0]);
    if (!is_open()) co_return fail(Code::kInvalidArgument, "no namespace is open, or no such command");
    if (verb == "close" && numbers.empty()) co_return co_await close();
    if (verb == "load" && (numbers.size() == 3 || numbers.size() == 4)) co_return co_await load(std::move(numbers));
    if (verb == "progress" && numbers.size() == 1) co_return co_await progress(numbers[0]);
    if (verb == "finish" && numbers.empty()) co_return co_await finish();
    FL_CO_TRY_VOID(co_await transfer(verb, std::move(numbers), mode.has_value()));
    co_return std::string();
  }

  // Ends whatever goes on.
  Task<void> stop() {
    if (!subsystem_) co_return;
    if (is_open() && is_loaded_) (void)co_await finish();
    if (is_open()) (void)co_await close();
    (void)co_await disconnect();
  }

 private:
  Reactor& reactor() const { return shard_.reactor; }
  bool is_open() const { return is_open_; }
  BlockDevice& device() const { return *sides_.front().device; }

  Task<Result<std::string>> connect(Words words) {
    if (subsystem_) co_return fail(Code::kInvalidArgument, "already connected");
    FL_CO_TRY(host::SubsystemOptions options, parse_connect(words));
    options.identity = host::identity_from_id(uuid_from_random(shard_.random.next(), shard_.random.next()));
    FL_CO_TRY_VOID(check(options));
    std::vector<Shard*> shards;
    for (const Side& side : sides_) shards.push_back(side.shard);
    subsystem_ = std::make_unique<host::Subsystem>(std::move(shards), std::move(options));
    is_ending_ = false;
    scope_.spawn(tell_states());
    const Result<void> started = co_await subsystem_->start();
    if (!started) {
      (void)co_await disconnect();
      co_return std::unexpected(started.error());
    }
    co_return std::string();
  }

  Task<Result<std::string>> disconnect() {
    if (is_open()) co_return fail(Code::kInvalidArgument, "a namespace is open");
    is_ending_ = true;
    co_await subsystem_->stop();
    subsystem_->changed().release_waiters();
    co_await scope_.close();
    subsystem_.reset();
    co_return std::string();
  }

  Task<void> tell_states() {
    std::string last;
    while (!is_ending_) {
      if (std::string now = paths().dump(); now != last) {
        say(fmt::format("state {}", now));
        last = std::move(now);
      }
      co_await subsystem_->changed().wait();
    }
  }

  Json paths() const {
    Json list = Json::array();
    for (const host::ControllerStatus& path : subsystem_->controllers()) {
      Json namespaces = Json::object();
      for (const host::NamespaceView& view : path.namespaces) {
        namespaces[fmt::to_string(view.info.identity.nsid)] = {{"size", view.info.geometry.size_bytes},
                                                               {"block", view.info.geometry.logical_block},
                                                               {"uuid", to_string(view.info.identity.uuid)},
                                                               {"state", path_state_name(view.state)}};
      }
      list.push_back({{"address", to_string(path.address)},
                      {"state", host::state_name(path.state)},
                      {"connects", path.connects},
                      {"error", *path.last_error.what == '\0' ? "" : to_string(path.last_error)},
                      {"model", path.info.model},
                      {"transfer_max", path.info.transfer_max},
                      {"in_capsule_max", path.info.in_capsule_max},
                      {"io_queues", path.info.io_queues},
                      {"compare", path.info.has_compare},
                      {"ana", path.info.has_ana},
                      {"namespaces", std::move(namespaces)}});
    }
    return list;
  }

  Task<Result<std::string>> status() {
    Json all = {{"paths", paths()}};
    if (is_open()) {
      host::RemoteDevice::Statistics sum;
      for (Side& side : sides_) {
        const auto each = co_await call_on(reactor(), side.shard->reactor, statistics_on(side));
        sum.resent += each.resent;
        sum.held += each.held;
        sum.fenced += each.fenced;
        sum.retried += each.retried;
      }
      all["device"] = {{"size", device().geometry().size_bytes},
                       {"resent", sum.resent},
                       {"held", sum.held},
                       {"fenced", sum.fenced},
                       {"retried", sum.retried}};
    }
    co_return all.dump();
  }

  Task<Result<std::string>> open(uint64_t nsid) {
    if (is_open()) co_return fail(Code::kInvalidArgument, "a namespace is open already");
    FL_CO_TRY(const std::shared_ptr<BlockSource> source, subsystem_->source(static_cast<uint32_t>(nsid)));
    is_open_ = true;
    for (Side& side : sides_) {
      const Result<void> opened = co_await call_on(reactor(), side.shard->reactor, open_on(side, source));
      if (!opened) {
        (void)co_await close();
        co_return std::unexpected(opened.error());
      }
    }
    co_return fmt::to_string(device().geometry().size_bytes);
  }

  Task<Result<std::string>> close() {
    if (is_loaded_) co_return fail(Code::kInvalidArgument, "a load is running");
    for (Side& side : sides_) co_await call_on(reactor(), side.shard->reactor, close_on(side));
    is_open_ = false;
    co_return std::string();
  }

  Task<Result<void>> transfer(std::string verb, std::vector<uint64_t> numbers, bool has_mode) {
    if (verb == "flush" && numbers.empty()) co_return co_await block_flush(reactor(), device());
    if (numbers.size() < 2 || numbers[1] > kTransferMax) co_return fail(Code::kInvalidArgument, "OFFSET LENGTH");
    const ByteOffset offset{numbers[0]};
    const uint64_t length = numbers[1];
    if (verb == "discard") co_return co_await block_discard(reactor(), device(), offset, length);
    if (verb == "zero") {
      const ZeroMode mode = has_mode ? ZeroMode::kKeepAllocated : ZeroMode::kMayDeallocate;
      co_return co_await block_write_zeroes(reactor(), device(), offset, length, mode);
    }
    Bytes bytes(length);
    const iovec whole{bytes.data(), bytes.size()};
    if (verb == "verify-zero" || verb == "verify") {
      std::ranges::fill(bytes, std::byte{0x5a});
      FL_CO_TRY_VOID(co_await block_read(reactor(), device(), offset, {&whole, 1}));
      const bool fits = verb == "verify-zero"
                            ? std::ranges::all_of(bytes, [](std::byte each) { return each == std::byte{0}; })
                            : numbers.size() == 3 && is_filled(bytes, offset.value, numbers[2]);
      if (!fits) co_return fail(Code::kCorrupt, "it reads otherwise");
      co_return Result<void>();
    }
    if (numbers.size() != 3) co_return fail(Code::kInvalidArgument, "no such command, or not its arguments");
    fill(bytes, offset.value, numbers[2]);
    if (verb == "compare") co_return co_await sides_.front().remote().compare(offset, {&whole, 1});
    if (verb != "write") co_return fail(Code::kInvalidArgument, "no such command");
    co_return co_await block_write(reactor(), device(), offset, {&whole, 1},
                                   has_mode ? Durability::kForced : Durability::kVolatile);
  }

  Task<Result<std::string>> load(std::vector<uint64_t> numbers) {
    numbers.resize(4);
    const uint64_t workers = numbers[0];
    const uint64_t block = numbers[1];
    const uint64_t span = numbers[2];
    const uint64_t each_side = workers / sides_.size();
    if (is_loaded_ || each_side == 0 || each_side > kWorkersMax || block == 0 || span / workers < block) {
      co_return fail(Code::kInvalidArgument, "a load that runs already, or cannot");
    }
    Load::Plan plan{.workers = static_cast<uint32_t>(each_side),
                    .block = static_cast<uint32_t>(block),
                    .offset = 0,
                    .blocks_each = span / workers / block,
                    .pause = std::chrono::milliseconds(numbers[3])};
    for (Side& side : sides_) {
      co_await call_on(reactor(), side.shard->reactor, load_on(side, plan));
      plan.offset += plan.workers * plan.blocks_each * plan.block;
    }
    is_loaded_ = true;
    co_return std::string();
  }

  Task<Result<std::string>> progress(uint64_t count) {
    if (!is_loaded_) co_return fail(Code::kInvalidArgument, "no load is running");
    for (Side& side : sides_) co_await call_on(reactor(), side.shard->reactor, progress_on(side, count));
    co_return std::string();
  }

  Task<Result<std::string>> finish() {
    if (!is_loaded_) co_return fail(Code::kInvalidArgument, "no load is running");
    Load::Outcome sum;
    for (Side& side : sides_) {
      const Load::Outcome each = co_await call_on(reactor(), side.shard->reactor, finish_on(side));
      sum.done += each.done;
      sum.wrong += each.wrong;
      if (sum.errors == 0) sum.first_error = each.first_error;
      sum.errors += each.errors;
    }
    is_loaded_ = false;
    co_return Json{{"done", sum.done},
                   {"errors", sum.errors},
                   {"wrong", sum.wrong},
                   {"first_error", sum.errors == 0 ? "" : to_string(sum.first_error)}}
        .dump();
  }

  Shard& shard_;
  std::vector<Side> sides_;  // by shard
  std::unique_ptr<host::Subsystem> subsystem_;
  bool is_ending_ = false;
  bool is_open_ = false;
  bool is_loaded_ = false;
  Scope scope_;
};

Task<void> start(Runtime& runtime, std::optional<SteeredHost>& host) {
  host.emplace(runtime);
  co_return;
}

Task<void> obey_and_answer(SteeredHost& host, Words words) {
  const Result<std::string> answer = co_await host.obey(std::move(words));
  say(answer ? fmt::format("ok {}", *answer) : fmt::format("error {}", to_string(answer.error())));
}

Task<void> stop(std::optional<SteeredHost>& host) {
  co_await host->stop();
  host.reset();
  say("stopped");
}

int run() {
  Runtime runtime({.shards = kShards, .signals = RuntimeOptions::Signals::kDefault});
  if (const Result<void> started = runtime.start(); !started) {
    say(fmt::format("error {}", to_string(started.error())));
    return 1;
  }
  std::optional<SteeredHost> host;  // made and destroyed on its shard
  runtime.run_on(0, start(runtime, host));
  say("ready");
  int character = 0;
  std::string line;
  while ((character = std::getchar()) != EOF) {
    if (character != '\n') {
      line.push_back(static_cast<char>(character));
      continue;
    }
    if (Words words = split(line, ' '); !words.empty()) runtime.run_on(0, obey_and_answer(*host, std::move(words)));
    line.clear();
  }
  runtime.run_on(0, stop(host));
  runtime.stop();
  return 0;
}

}  // namespace
}  // namespace fairlead

int main() { return fairlead::run(); }
