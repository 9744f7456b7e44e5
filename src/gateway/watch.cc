#include "gateway/watch.h"

#include <algorithm>
#include <fmt/format.h>

#include "async/alarm.h"
#include "base/check.h"

namespace fairlead::gateway {
namespace {

using control::Json;

constexpr Duration kRefreshInterval = std::chrono::milliseconds(100);
constexpr int kRefreshShare = 9;  // of large clusters a refresh takes its time: a tenth of it all at most
constexpr Duration kTurn = std::chrono::seconds(1);
constexpr Duration kHeartbeat = std::chrono::seconds(15);
constexpr size_t kPieceBytes = 256 * 1024;

std::string server_event(std::string_view name, const Json& data) {
  return fmt::format("event: {}\ndata: {}\n\n", name, control::to_text(data));
}

bool has_labels(const Json& document, const control::Labels& wanted) {
  return std::ranges::all_of(wanted, [&](const auto& label) {
    return document.contains("labels") && document["labels"].value(label.first, Json()) == Json(label.second);
  });
}

// As Api::list() selects.
bool is_selected(std::string_view kind, const Json& document, const control::Selection& selection) {
  if (!has_labels(document, selection.labels)) return false;
  const Json& of = document.contains("spec") ? document["spec"] : document;
  const bool has_volume = kind == "replicas" || kind == "snapshots";
  if (has_volume && !selection.volume.empty() && of.value("volume", "") != selection.volume) return false;
  if (kind == control::SnapshotGroup::kKind && !selection.volume.empty()) {
    const Json& volumes = of.at("volumes");
    return std::any_of(volumes.begin(), volumes.end(), [&](const Json& each) { return each == selection.volume; });
  }
  const bool has_node = kind == "replicas" || kind == "pools";
  return !has_node || selection.node.empty() || of.value("node", "") == selection.node;
}

}  // namespace

Json with_name(std::string_view kind, Json document) {
  if (kind != "replicas") return document;
  Json named = {{"kind", "replica"}, {"name", document["id"]}};
  named.update(document);
  return named;
}

// ---- One who watches

class Watches::Feed final : public HttpFeed {
 public:
  Feed(Watches& watches, WatchOptions options) : watches_(watches), options_(std::move(options)) {
    ++watches_.feeds_;
    const auto& events = watches_.control_.events().list();
    event_ = options_.after_event.value_or(events.empty() ? 0 : events.back().number);
    spoke_ = watches_.home_.reactor.now();
  }
  ~Feed() override { --watches_.feeds_; }

  Task<std::optional<std::string>> next() override {
    Reactor& reactor = watches_.home_.reactor;
    const Instant until = reactor.now() + kTurn;
    std::string piece;
    while (true) {
      if (watches_.is_over()) co_return std::nullopt;
      if (!watches_.is_fresh_) watches_.refresh();
      collect(piece);
      if (!piece.empty() || reactor.now() >= until) break;
      const Alarm alarm(reactor, watches_.refreshed_, until);
      co_await watches_.refreshed_.wait();
    }
    if (piece.empty() && reactor.now() - spoke_ >= kHeartbeat) piece = ": still here\n\n";
    if (!piece.empty()) spoke_ = reactor.now();
    co_return piece;
  }

 private:
  bool wants(std::string_view kind) const {
    return options_.kinds.empty() || options_.kinds.contains(std::string(kind));
  }
  void collect(std::string& piece);
  bool collect_resources(std::string& piece);

  Watches& watches_;
  const WatchOptions options_;
  struct Seen {
    uint64_t version = 0;
    std::string_view kind;
    std::string name;
  };
  std::map<std::string, Seen> seen_;
  uint64_t version_ = 0;  // of Watches, of which everything was sent
  uint64_t event_ = 0;
  bool is_synced_ = false;
  Instant spoke_;
};

// False: there is more.
bool Watches::Feed::collect_resources(std::string& piece) {
  if (version_ == watches_.version_ && is_synced_) return true;
  for (const auto& [key, kept] : watches_.kept_) {
    if (!wants(kept.kind) || !is_selected(kept.kind, kept.document, options_.selection)) continue;
    Seen& seen = seen_[key];
    if (seen.version == kept.version) continue;
    if (piece.size() >= kPieceBytes) return false;
    seen = {.version = kept.version, .kind = kept.kind, .name = kept.name};
    piece += server_event("resource", kept.document);
  }
  std::erase_if(seen_, [&](const auto& each) {
    const auto kept = watches_.kept_.find(each.first);
    if (kept != watches_.kept_.end() && is_selected(each.second.kind, kept->second.document, options_.selection)) {
      return false;
    }
    if (each.second.version == 0) return true;
    const std::string_view kind = each.second.kind;
    piece += server_event("gone", {{"kind", kind.substr(0, kind.size() - 1)}, {"name", each.second.name}});
    return true;
  });
  version_ = watches_.version_;
  return true;
}

void Watches::Feed::collect(std::string& piece) {
  if (!collect_resources(piece)) return;
  if (!is_synced_) piece += server_event("synced", Json::object());
  is_synced_ = true;
  if (!wants("events")) return;
  const auto& events = watches_.control_.events().list();
  auto event = std::ranges::upper_bound(events, event_, {}, &control::EventRecord::number);
  for (; event != events.end() && piece.size() < kPieceBytes; ++event) {
    event_ = event->number;
    piece += fmt::format("id: {}\n{}", event_, server_event("event", control::to_json(*event)));
  }
}

// ---- All of them

Watches::Watches(Shard& home, control::Control& control)
    : home_(home), control_(control), dirty_(home.reactor), refreshed_(home.reactor), scope_(home.reactor) {}

Watches::~Watches() { FL_CHECK(feeds_ == 0); }

std::unique_ptr<HttpFeed> Watches::open(WatchOptions options) {
  if (!std::exchange(is_watching_, true)) {
    scope_.spawn(take_note(control_.changed()));
    scope_.spawn(take_note(control_.events().changed()));
    scope_.spawn(keep_fresh());
  }
  return std::make_unique<Feed>(*this, std::move(options));
}

Task<void> Watches::close() {
  stopping_.cancel();
  control_.changed().release_waiters();
  control_.events().changed().release_waiters();
  dirty_.set();
  refreshed_.release_waiters();
  co_await scope_.close();
}

Task<void> Watches::take_note(Event& of) {
  while (!stopping_.is_cancelled()) {
    co_await of.wait();
    dirty_.set();
  }
}

Task<void> Watches::keep_fresh() {
  while (!stopping_.is_cancelled()) {
    co_await dirty_.wait();
    dirty_.reset();
    is_fresh_ = false;
    if (feeds_ == 0 || stopping_.is_cancelled()) continue;
    const Instant begun = home_.clock.now();
    refresh();
    refreshed_.release_waiters();
    const Duration took = home_.clock.now() - begun;
    (void)co_await sleep(home_.reactor, std::max(kRefreshInterval, took * kRefreshShare), stopping_);
  }
}

void Watches::refresh() {
  is_fresh_ = true;
  if (!control_.is_leading()) return;
  std::map<std::string, Kept> now;
  for (const std::string_view kind : kKinds) {
    const auto all = control_.api().list(kind, {});
    if (!all) return;
    for (const Json& each : *all) {
      Kept kept;
      kept.kind = kind;
      kept.document = with_name(kind, each);
      kept.name = kept.document["name"].get<std::string>();
      std::string key = control::key_of(kind, kept.name);
      const auto before = kept_.find(key);
      const bool is_same = before != kept_.end() && before->second.document == kept.document;
      kept.version = is_same ? before->second.version : ++version_;
      now.emplace(std::move(key), std::move(kept));
    }
  }
  // What is gone makes a version too.
  if (now.size() < kept_.size() ||
      !std::ranges::includes(
          now, kept_, {}, [](const auto& each) { return each.first; }, [](const auto& each) { return each.first; })) {
    ++version_;
  }
  kept_ = std::move(now);
}

}  // namespace fairlead::gateway
