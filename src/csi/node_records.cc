#include "csi/node_records.h"

#include <algorithm>

#include "control/json.h"

namespace fairlead::csi {
namespace {

constexpr const char* kFile = "volumes.json";

using control::Json;

}  // namespace

Outcome<void> NodeRecords::load() {
  FL_TRY(const auto bytes, files_.read(kFile));
  if (!bytes) return {};
  const Outcome<Json> all = control::parse_json(*bytes);
  if (!all || !all->is_object()) return problem(Code::kCorrupt, "volumes.json in the state directory cannot be read");
  for (const auto& [volume, json] : all->items()) {
    FL_TRY_VOID(control::read_json(json, records_[volume]));
  }
  return {};
}

const NodeRecord* NodeRecords::find(const std::string& volume) const {
  const auto found = records_.find(volume);
  return found == records_.end() ? nullptr : &found->second;
}

std::vector<std::string> NodeRecords::volumes() const {
  std::vector<std::string> names;
  for (const auto& [volume, record] : records_) names.push_back(volume);
  return names;
}

std::string NodeRecords::other_at(const std::string& path, const std::string& volume) const {
  const auto other = std::ranges::find_if(records_, [&](const auto& each) {
    return each.first != volume && (each.second.staging_path == path || each.second.targets.contains(path));
  });
  return other == records_.end() ? std::string() : other->first;
}

Task<Outcome<void>> NodeRecords::put(std::string volume, NodeRecord record) {
  const auto found = records_.find(volume);
  if (found != records_.end() && found->second == record) co_return Outcome<void>();
  std::optional<NodeRecord> before;
  if (found != records_.end()) before = found->second;
  records_[volume] = std::move(record);
  Outcome<void> written = co_await write();
  // Whoever reads on must not see what a restart would not.
  if (!written && before) records_[volume] = std::move(*before);
  if (!written && !before) records_.erase(volume);
  co_return written;
}

Task<Outcome<void>> NodeRecords::drop(std::string volume) {
  const auto found = records_.find(volume);
  if (found == records_.end()) co_return Outcome<void>();
  NodeRecord before = std::move(found->second);
  records_.erase(found);
  Outcome<void> written = co_await write();
  if (!written) records_[volume] = std::move(before);
  co_return written;
}

Task<Outcome<void>> NodeRecords::write() {
  const Mutex::Guard guard = co_await writing_.lock();
  Json all = Json::object();
  for (const auto& [volume, record] : records_) all[volume] = control::to_json(record);
  co_return co_await files_.replace(kFile, control::to_text(all));
}

}  // namespace fairlead::csi
