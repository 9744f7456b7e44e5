#include "gateway/metrics.h"

#include <gtest/gtest.h>
#include <map>
#include <set>

namespace fairlead::gateway {
namespace {

using control::Json;

struct Sample {
  std::string name;
  std::map<std::string, std::string> labels;
  double value = 0;
};

bool is_name(std::string_view text) {
  return !text.empty() && text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string_view::npos;
}

// One line as the text format has it; what comes out of order fails the test.
Sample parse_sample(std::string_view line) {
  Sample sample;
  const size_t name_end = line.find_first_of("{ ");
  sample.name = line.substr(0, name_end);
  EXPECT_TRUE(is_name(sample.name)) << line;
  line.remove_prefix(std::min(name_end, line.size()));
  if (line.starts_with('{')) {
    do {
      line.remove_prefix(1);
      const size_t equals = line.find("=\"");
      const std::string label(line.substr(0, equals));
      EXPECT_TRUE(is_name(label)) << line;
      line.remove_prefix(std::min(equals + 2, line.size()));
      std::string value;
      while (!line.empty() && line.front() != '"') {
        if (line.front() == '\\') {
          line.remove_prefix(1);
          value += line.front() == 'n' ? '\n' : line.front();
        } else {
          value += line.front();
        }
        line.remove_prefix(1);
      }
      EXPECT_TRUE(sample.labels.emplace(label, value).second) << label;
      line.remove_prefix(std::min<size_t>(1, line.size()));
    } while (line.starts_with(','));
    EXPECT_TRUE(line.starts_with("} ")) << line;
    line.remove_prefix(std::min<size_t>(1, line.size()));
  }
  EXPECT_TRUE(line.starts_with(' '));
  size_t used = 0;
  sample.value = std::stod(std::string(line), &used);
  EXPECT_EQ(used, line.size()) << line;
  return sample;
}

std::vector<Sample> parse(std::string_view text) {
  std::vector<Sample> samples;
  std::map<std::string, std::string> types;
  std::set<std::string> seen;
  std::string family;
  EXPECT_TRUE(text.ends_with('\n'));
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (line.starts_with("# HELP ")) continue;
    if (line.starts_with("# TYPE ")) {
      const std::string_view rest = line.substr(7);
      family = rest.substr(0, rest.find(' '));
      EXPECT_TRUE(types.emplace(family, rest.substr(rest.find(' ') + 1)).second) << family << " stands in two places";
      EXPECT_EQ(family.ends_with("_total"), types[family] == "counter");
      continue;
    }
    samples.push_back(parse_sample(line));
    EXPECT_EQ(samples.back().name, family);
    EXPECT_TRUE(samples.back().name.starts_with("fairlead_"));
    EXPECT_TRUE(seen.insert(std::string(line.substr(0, line.rfind(' ')))).second) << line << " is there twice";
  }
  return samples;
}

const Sample* find(const std::vector<Sample>& samples, std::string_view name,
                   std::map<std::string, std::string> labels) {
  for (const Sample& sample : samples) {
    if (sample.name == name && sample.labels == labels) return &sample;
  }
  ADD_FAILURE() << "there is no " << name;
  static const Sample kNone{.name = "none", .labels = {}, .value = -1};
  return &kNone;
}

Json a_volume() {
  return Json::parse(R"({"kind":"volume","name":"db","labels":{},"spec":{"size_bytes":1048576,"replicas":2},
    "status":{"state":"degraded","snapshots":3,
      "conditions":[{"type":"Available","met":true},{"type":"Redundant","met":false}],
      "paths":[{"node":"a","address":"10.0.0.1:4420","state":"serving","controllers":2},
               {"node":"b","address":"10.0.0.2:4420","state":"standby","controllers":0}],
      "replicas":[{"id":"r1","volume":"db","pool":"p1","node":"a","state":"member","allocated_bytes":4096},
                  {"id":"r2","volume":"db","pool":"p2","node":"b","state":"resyncing","copied_bytes":10,
                   "to_copy_bytes":100,"copy_bytes_per_second":5,"eta_ms":18500}]}})");
}

TEST(MetricsTest, SayWhatTheDocumentsSay) {
  MetricsSource source{.is_leading = true, .events = 12};
  source.nodes.push_back(Json::parse(R"({"name":"a","status":{"state":"ready","replicas":4,"targets":1}})"));
  source.pools.push_back(Json::parse(R"({"name":"p1","spec":{"node":"a"},"status":{"state":"online","replicas":4,
    "capacity_bytes":1000,"used_bytes":400,"free_bytes":600,"promised_bytes":18446744073709551615}})"));
  source.pools.push_back(
      Json::parse(R"({"name":"p2","spec":{"node":"b"},"status":{"state":"unknown","replicas":0,"why":"lost"}})"));
  source.volumes.push_back(a_volume());
  const auto samples = parse(metrics_of(source));
  EXPECT_EQ(find(samples, "fairlead_control_leading", {})->value, 1);
  EXPECT_EQ(find(samples, "fairlead_control_events_total", {})->value, 12);
  EXPECT_EQ(find(samples, "fairlead_node_state", {{"node", "a"}, {"state", "ready"}})->value, 1);
  EXPECT_EQ(find(samples, "fairlead_node_targets", {{"node", "a"}})->value, 1);
  EXPECT_EQ(find(samples, "fairlead_pool_used_bytes", {{"pool", "p1"}, {"node", "a"}})->value, 400);
  EXPECT_EQ(find(samples, "fairlead_pool_promised_bytes", {{"pool", "p1"}, {"node", "a"}})->value,
            18446744073709551615.0);
  EXPECT_EQ(find(samples, "fairlead_pool_state", {{"pool", "p2"}, {"node", "b"}, {"state", "unknown"}})->value, 1);
  EXPECT_EQ(find(samples, "fairlead_volume_state", {{"volume", "db"}, {"state", "degraded"}})->value, 1);
  EXPECT_EQ(find(samples, "fairlead_volume_condition", {{"volume", "db"}, {"condition", "Redundant"}})->value, 0);
  EXPECT_EQ(find(samples, "fairlead_target_controllers", {{"volume", "db"}, {"node", "a"}})->value, 2);
  const std::map<std::string, std::string> second = {
      {"replica", "r2"}, {"volume", "db"}, {"pool", "p2"}, {"node", "b"}};
  EXPECT_EQ(find(samples, "fairlead_resync_to_copy_bytes", second)->value, 100);
  EXPECT_EQ(find(samples, "fairlead_resync_eta_seconds", second)->value, 18.5);
  // What is not known is not there.
  for (const Sample& sample : samples) {
    EXPECT_FALSE(sample.name == "fairlead_pool_capacity_bytes" && sample.labels.at("pool") == "p2");
    EXPECT_FALSE(sample.name.starts_with("fairlead_resync_") && sample.labels.at("replica") == "r1");
  }
}

TEST(MetricsTest, VolumesSayWhoseTheyAre) {
  Json volume = a_volume();
  volume["labels"] = {{"fairlead.dev/pvc", "data"}, {"fairlead.dev/pvc-namespace", "shop"}, {"app", "db"}};
  MetricsSource source{.is_leading = true};
  source.volumes.push_back(std::move(volume));
  const auto samples = parse(metrics_of(source));
  const std::map<std::string, std::string> whose = {{"volume", "db"}, {"pvc", "data"}, {"pvc_namespace", "shop"}};
  const auto with = [&](const char* label, const char* text) {
    auto labels = whose;
    labels[label] = text;
    return labels;
  };
  EXPECT_EQ(find(samples, "fairlead_volume_size_bytes", whose)->value, 1048576);
  EXPECT_EQ(find(samples, "fairlead_volume_state", with("state", "degraded"))->value, 1);
  EXPECT_EQ(find(samples, "fairlead_volume_condition", with("condition", "Available"))->value, 1);
}

TEST(MetricsTest, LabelsAreEscaped) {
  MetricsSource source{.is_leading = true};
  source.nodes.push_back({{"name", "a\"b\\c\nd"}, {"status", {{"state", "ready"}, {"replicas", 1}, {"targets", 0}}}});
  const std::string text = metrics_of(source);
  EXPECT_NE(text.find(R"(node="a\"b\\c\nd")"), std::string::npos) << text;
  EXPECT_EQ(find(parse(text), "fairlead_node_replicas", {{"node", "a\"b\\c\nd"}})->value, 1);
}

TEST(MetricsTest, WhoDoesNotLeadSaysNoMore) {
  const auto samples = parse(metrics_of({}));
  ASSERT_EQ(samples.size(), 1U);
  EXPECT_EQ(find(samples, "fairlead_control_leading", {})->value, 0);
}

}  // namespace
}  // namespace fairlead::gateway
