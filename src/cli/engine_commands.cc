#include "cli/engine_commands.h"

#include <array>

#include "base/units.h"
#include "cli/engine_report.h"
#include "cli/pool_report.h"
#include "cli/transport_url.h"

namespace fairlead::cli {
namespace {

template <typename T>
using Parsed = std::expected<T, Complaint>;

Parsed<Uuid> parse_id(std::string_view what, std::string_view text) {
  const Result<Uuid> id = parse_uuid(text);
  if (!id) return complain_about(fmt::format("{} {}", what, text), id.error());
  if (id->is_nil()) return std::unexpected(fmt::format("{} {}: is the id of nothing", what, text));
  return *id;
}

Parsed<uint64_t> parse_bytes(std::string_view text) {
  const Result<uint64_t> size = parse_size(text);
  if (!size) return complain_about(fmt::format("SIZE {}", text), size.error());
  if (*size == 0 || *size % 4096 != 0) {
    return std::unexpected(fmt::format("SIZE {}: must be a multiple of 4 KiB, and not 0", text));
  }
  return *size;
}

Parsed<mirror::MemberSet> parse_members(std::string_view text) {
  mirror::MemberSet members;
  while (true) {
    const size_t end = std::min(text.find(','), text.size());
    const auto id = parse_id("MEMBER", text.substr(0, end));
    if (!id) return std::unexpected(id.error());
    if (members.has(*id)) return std::unexpected(fmt::format("MEMBER {}: is named twice", to_string(*id)));
    if (members.is_full()) return std::unexpected(fmt::format("a volume has at most {} members", mirror::kMembersMax));
    members.add(*id);
    if (end == text.size()) return members;
    text.remove_prefix(end + 1);
  }
}

// REPLICA@local, REPLICA@ADDR[:PORT].
Parsed<engine::ReplicaPlace> parse_place(std::string_view text) {
  const size_t at = text.find('@');
  if (at == std::string_view::npos) {
    return std::unexpected(fmt::format("{}: expected REPLICA@local or REPLICA@ADDR[:PORT]", text));
  }
  const auto id = parse_id("REPLICA", text.substr(0, at));
  if (!id) return std::unexpected(id.error());
  const std::string_view where = text.substr(at + 1);
  if (where == "local") return engine::ReplicaPlace{.replica = *id, .address = std::nullopt};
  const Result<SocketAddress> address = parse_host_address(where, kNvmePort);
  if (!address) return complain_about(text, address.error());
  return engine::ReplicaPlace{.replica = *id, .address = *address};
}

// How long a command waits for a volume that cannot be served as it needs it now.
constexpr Duration kPatience = std::chrono::seconds(20);

struct SnapshotOf {
  Uuid volume;
  Uuid snapshot;
};
Parsed<SnapshotOf> parse_snapshot(const Words& words) {
  const auto volume = parse_id("VOLUME", words[1]);
  if (!volume) return std::unexpected(volume.error());
  const auto snapshot = parse_id("SNAPSHOT", words[2]);
  if (!snapshot) return std::unexpected(snapshot.error());
  return SnapshotOf{*volume, *snapshot};
}

// Of a command about one volume.
Answer answered(const Words& words, const Result<void>& done) {
  if (!done) return about(words[1], done.error());
  return words[1];
}

}  // namespace

std::span<const Verb<EngineCommands>> EngineCommands::verbs() {
  static constexpr std::array<Verb<EngineCommands>, 17> kVerbs = {{
      {"replica create", 4, 1, "replica create NAME SIZE VOLUME REPLICA [MEMBER,…]", &EngineCommands::create_replica},
      {"replica clone", 6, 0, "replica clone NAME REPLICA-HERE SNAPSHOT VOLUME REPLICA MEMBER,…",
       &EngineCommands::clone_replica},
      {"replica list", 0, 0, "replica list", &EngineCommands::list_replicas},
      {"replica delete", 1, 0, "replica delete NAME", &EngineCommands::delete_replica},
      {"volume open", 3, mirror::kMembersMax - 1, "volume open VOLUME SIZE REPLICA@local|REPLICA@ADDR[:PORT]…",
       &EngineCommands::open_volume},
      {"volume serve", 1, 0, "volume serve VOLUME", &EngineCommands::serve_volume},
      {"volume stand-by", 1, 0, "volume stand-by VOLUME", &EngineCommands::stand_by},
      {"volume force", 2, 0, "volume force VOLUME REPLICA", &EngineCommands::force},
      {"volume status", 1, 0, "volume status VOLUME", &EngineCommands::show_volume},
      {"volume list", 0, 0, "volume list", &EngineCommands::list_volumes},
      {"volume snapshot", 2, 0, "volume snapshot VOLUME SNAPSHOT", &EngineCommands::take_snapshot},
      {"volume delete-snapshot", 2, 0, "volume delete-snapshot VOLUME SNAPSHOT", &EngineCommands::delete_snapshot},
      {"volume grow", 2, 0, "volume grow VOLUME SIZE", &EngineCommands::grow_volume},
      {"volume close", 1, 0, "volume close VOLUME", &EngineCommands::close_volume},
      {"disk faults", 1, 0, "disk faults RULE[;RULE]…|none", &EngineCommands::set_faults},
      {"stats", 0, 0, "stats", &EngineCommands::show_statistics},
      {"help", 0, 0, "help", &EngineCommands::show_help},
  }};
  return kVerbs;
}

Task<std::string> EngineCommands::execute(std::string line) { return execute_line(*this, verbs(), std::move(line)); }

Task<Answer> EngineCommands::create_replica(Words words) {
  const auto size = parse_bytes(words[2]);
  if (!size) co_return std::unexpected(size.error());
  const auto volume = parse_id("VOLUME", words[3]);
  if (!volume) co_return std::unexpected(volume.error());
  const auto replica = parse_id("REPLICA", words[4]);
  if (!replica) co_return std::unexpected(replica.error());
  engine::NewReplica wanted{.name = words[1], .size_bytes = *size, .volume = *volume, .id = *replica, .members = {}};
  if (words.size() > 5) {
    const auto members = parse_members(words[5]);
    if (!members) co_return std::unexpected(members.error());
    wanted.members = *members;
  }
  const Result<void> created = co_await engine_.create_replica(std::move(wanted));
  co_return answered(words, created);
}

Task<Answer> EngineCommands::clone_replica(Words words) {
  const auto origin = parse_id("REPLICA", words[2]);
  if (!origin) co_return std::unexpected(origin.error());
  const auto snapshot = parse_id("SNAPSHOT", words[3]);
  if (!snapshot) co_return std::unexpected(snapshot.error());
  const auto volume = parse_id("VOLUME", words[4]);
  if (!volume) co_return std::unexpected(volume.error());
  const auto replica = parse_id("REPLICA", words[5]);
  if (!replica) co_return std::unexpected(replica.error());
  const auto members = parse_members(words[6]);
  if (!members) co_return std::unexpected(members.error());
  const Result<void> created =
      co_await engine_.create_replica({.name = words[1],
                                       .size_bytes = 0,
                                       .volume = *volume,
                                       .id = *replica,
                                       .members = *members,
                                       .clone_of = engine::SnapshotPlace{.replica = *origin, .snapshot = *snapshot}});
  co_return answered(words, created);
}

Task<Answer> EngineCommands::list_replicas(Words) { co_return replicas_to_json(engine_.replicas()); }

Task<Answer> EngineCommands::delete_replica(Words words) {
  const Result<void> removed = co_await engine_.delete_replica(words[1]);
  co_return answered(words, removed);
}

Task<Answer> EngineCommands::open_volume(Words words) {
  const auto id = parse_id("VOLUME", words[1]);
  if (!id) co_return std::unexpected(id.error());
  const auto size = parse_bytes(words[2]);
  if (!size) co_return std::unexpected(size.error());
  engine::NewVolume volume{.id = *id, .size_bytes = *size, .replicas = {}};
  for (size_t i = 3; i < words.size(); ++i) {
    const auto place = parse_place(words[i]);
    if (!place) co_return std::unexpected(place.error());
    volume.replicas.push_back(*place);
  }
  const Result<void> opened = co_await engine_.open_volume(std::move(volume));
  if (!opened) co_return about(words[1], opened.error());
  co_return engine::volume_nqn(*id);
}

Task<Answer> EngineCommands::serve_volume(Words words) {
  const auto id = parse_id("VOLUME", words[1]);
  if (!id) co_return std::unexpected(id.error());
  const Result<void> done = co_await engine_.serve_volume(*id);
  co_return answered(words, done);
}

Task<Answer> EngineCommands::stand_by(Words words) {
  const auto id = parse_id("VOLUME", words[1]);
  if (!id) co_return std::unexpected(id.error());
  const Result<void> done = co_await engine_.stand_by(*id);
  co_return answered(words, done);
}

Task<Answer> EngineCommands::force(Words words) {
  const auto id = parse_id("VOLUME", words[1]);
  if (!id) co_return std::unexpected(id.error());
  const auto trusted = parse_id("REPLICA", words[2]);
  if (!trusted) co_return std::unexpected(trusted.error());
  co_return answered(words, engine_.force(*id, *trusted));
}

Task<Answer> EngineCommands::show_volume(Words words) {
  const auto id = parse_id("VOLUME", words[1]);
  if (!id) co_return std::unexpected(id.error());
  const engine::Volume* const volume = engine_.find_volume(*id);
  if (volume == nullptr) co_return about(words[1], Error{.code = Code::kNotFound, .what = "no such volume is open"});
  co_return volume_to_json(*id, *volume);
}

Task<Answer> EngineCommands::list_volumes(Words) {
  std::string array = "[";
  for (const Uuid& id : engine_.volumes()) {
    array += fmt::format("{}{}", array.size() > 1 ? "," : "", volume_to_json(id, *engine_.find_volume(id)));
  }
  co_return array + "]";
}

Task<Answer> EngineCommands::take_snapshot(Words words) {
  const auto ids = parse_snapshot(words);
  if (!ids) co_return std::unexpected(ids.error());
  const Result<void> taken = co_await engine_.take_snapshot(ids->volume, ids->snapshot, kPatience);
  co_return answered(words, taken);
}

Task<Answer> EngineCommands::delete_snapshot(Words words) {
  const auto ids = parse_snapshot(words);
  if (!ids) co_return std::unexpected(ids.error());
  const Result<void> deleted = co_await engine_.delete_snapshot(ids->volume, ids->snapshot, kPatience);
  co_return answered(words, deleted);
}

Task<Answer> EngineCommands::grow_volume(Words words) {
  const auto id = parse_id("VOLUME", words[1]);
  if (!id) co_return std::unexpected(id.error());
  const auto size = parse_bytes(words[2]);
  if (!size) co_return std::unexpected(size.error());
  const Result<void> grown = co_await engine_.grow_volume(*id, *size, kPatience);
  co_return answered(words, grown);
}

Task<Answer> EngineCommands::close_volume(Words words) {
  const auto id = parse_id("VOLUME", words[1]);
  if (!id) co_return std::unexpected(id.error());
  const Result<void> done = co_await engine_.close_volume(*id);
  co_return answered(words, done);
}

// The answer: how many requests have failed, or were late, by earlier rules.
Task<Answer> EngineCommands::set_faults(Words words) {
  if (faulty_.empty()) co_return std::unexpected("the disks do not fail; --faulty lets them");
  const Result<std::vector<FaultRule>> rules = parse_fault_rules(words[1] == "none" ? "" : words[1]);
  if (!rules) co_return complain_about(words[1], rules.error());
  uint64_t fired = 0;
  for (const std::shared_ptr<FaultySource>& disk : faulty_) {
    fired += disk->fired();
    disk->set_rules(*rules);
  }
  co_return fmt::format("{}", fired);
}

Task<Answer> EngineCommands::show_statistics(Words) {
  if (engine_.pools().size() != 1) co_return std::unexpected("the engine has no pool, or several");
  co_return statistics_to_json(engine_.pools().front()->statistics());
}

Task<Answer> EngineCommands::show_help(Words) { co_return usage_of(verbs()); }

}  // namespace fairlead::cli
