// What the cluster's commands print: pure functions of the documents that the REST API gives.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/time.h"
#include "cli/table.h"
#include "control/json.h"
#include "control/rest_client.h"

namespace fairlead::cli {

using control::Json;

enum class Output : uint8_t { kTable, kWide, kJson, kYaml, kName };

struct Look {
  Output output = Output::kTable;
  bool has_colours = false;
  uint64_t now_ms = 0;  // since 1970: ages count from here
};

inline constexpr size_t kScreenColumns = 100;  // of tables, but wide ones

// Kinds are as in the API: "volumes". "volume/db" as it is written for people.
std::string resource_name(std::string_view kind, const Json& document);

std::string render_list(std::string_view kind, const std::vector<Json>& documents, const Look& look);
// Rows without a head, for what follows a list: as wide as they are.
std::string render_rows(std::string_view kind, const std::vector<Json>& documents, const Look& look);
std::string render_one(std::string_view kind, const Json& document, const Look& look);

// Of /v1/overview. One screen.
std::string render_status(const Json& overview, const Look& look);
// Of /v1/volumes/db/why.
std::string render_why(const Json& why, const Look& look);
std::string render_events(const std::vector<Json>& events, const Look& look);

struct TopView {
  std::vector<Json> nodes;
  std::vector<Json> pools;
  std::vector<Json> volumes;
};
std::string render_top(const TopView& view, const Look& look);

// How the resyncs of a volume's replicas stand, all together.
struct Resync {
  size_t replicas = 0;  // that are under way; 0: the rest means nothing
  uint64_t copied_bytes = 0;
  uint64_t to_copy_bytes = 0;
  uint64_t bytes_per_second = 0;
  std::optional<uint64_t> eta_ms = {};
};
Resync resync_of(const Json& volume);

// What a command waits for, and how far it is.
struct Progress {
  std::string text;
  std::optional<double> share = {};     // 0 to 1
  std::optional<uint64_t> eta_ms = {};  // left
};
// One line of at most kScreenColumns, without a line feed: "volume/db  resyncing  [=====>    ] 52 %  1m20s left".
std::string render_bar(const Progress& progress);

// "5m", "3d": two figures at most. "1m20s" and the like for spans that are waited for.
std::string age_text(uint64_t span_ms);
std::string span_text(uint64_t span_ms);

// ---- A document's fields, for whoever looks at one. Missing ones, or of another type: empty, 0, false.
using control::field;
using control::number_of;
using control::text_of;
bool truth_of(const Json& json, std::string_view path);

}  // namespace fairlead::cli
