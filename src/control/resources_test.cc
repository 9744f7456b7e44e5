#include "control/resources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/units.h"
#include "control/json.h"

namespace fairlead::control {
namespace {

using ::testing::HasSubstr;

VolumeSpec good_spec() {
  VolumeSpec spec;
  spec.size_bytes = kGiB;
  return spec;
}

Volume sample() {
  Volume volume;
  volume.metadata = {.name = "db",
                     .id = uuid_from_random(1, 2),
                     .created_ms = 1'700'000'000'000,
                     .labels = {{"app", "pg"}},
                     .deleting_since_ms = 0};
  volume.spec = good_spec();
  volume.spec.replicas = 3;
  volume.spec.topology.spread_over = {"zone"};
  volume.spec.topology.affinity = {{"disk", "nvme"}};
  volume.spec.allowed_hosts = {"nqn.2014-08.org.nvmexpress:uuid:a"};
  volume.decision.is_formed = true;
  volume.decision.replicas.push_back({.id = uuid_from_random(3, 4),
                                      .pool = "tank",
                                      .stage = PlacedReplica::Stage::kLeaving,
                                      .since_ms = 7,
                                      .origin = {},
                                      .move_to = {}});
  volume.decision.target = "a";
  volume.decision.standbys = {"b", "c"};
  return volume;
}

std::string refusal(std::string_view text, auto value) {
  const Outcome<Json> json = parse_json(text);
  const Outcome<void> done = json ? read_json(*json, value) : std::unexpected(json.error());
  EXPECT_FALSE(done.has_value());
  return done ? "" : to_string(done.error());
}

TEST(JsonTest, WhatIsWrittenIsReadAsItWas) {
  const Json json = to_json(sample());
  Volume read;
  ASSERT_TRUE(read_json(parse_json(to_text(json)).value(), read).has_value());
  EXPECT_EQ(to_json(read), json);
  EXPECT_EQ(json["decision"]["replicas"][0]["stage"], "leaving");
  EXPECT_EQ(json["spec"]["size_bytes"], kGiB);
}

TEST(JsonTest, WhatIsMissingKeepsItsDefault) {
  VolumeSpec spec;
  ASSERT_TRUE(read_json(parse_json(R"({"size_bytes": 4096})").value(), spec).has_value());
  EXPECT_EQ(spec.size_bytes, 4096);
  EXPECT_EQ(spec.replicas, 1);
  EXPECT_TRUE(spec.is_thin);
}

TEST(JsonTest, ErrorsNameTheField) {
  EXPECT_THAT(refusal(R"({"spec": {"topology": {"spread_over": ["a", 7]}}})", Volume{}),
              HasSubstr("spec.topology.spread_over[1]: must be a string"));
  EXPECT_THAT(refusal(R"({"size": 1})", VolumeSpec{}), HasSubstr("size: there is no such field; there are size_bytes"));
  EXPECT_THAT(refusal(R"({"replicas": 4294967296})", VolumeSpec{}),
              HasSubstr("replicas: must be a whole number from 0 to"));
  EXPECT_THAT(refusal(R"({"replicas": -1})", VolumeSpec{}), HasSubstr("replicas"));
  EXPECT_THAT(refusal(R"({"thin": "yes"})", VolumeSpec{}), HasSubstr("thin: must be true or false"));
  EXPECT_THAT(refusal(R"({"metadata": {"id": "x"}})", Volume{}), HasSubstr("metadata.id: must be a UUID"));
  EXPECT_THAT(refusal(R"({"decision": {"replicas": [{"stage": "gone"}]}})", Volume{}),
              HasSubstr("decision.replicas[0].stage: must be one of creating, present, leaving"));
  EXPECT_THAT(refusal(R"({"topology": []})", VolumeSpec{}), HasSubstr("topology: must be an object"));
  EXPECT_THAT(refusal("[", VolumeSpec{}), HasSubstr("this is not JSON"));
  EXPECT_THAT(refusal("7", VolumeSpec{}), HasSubstr("the document: must be an object"));
}

TEST(ResourcesTest, Names) {
  for (const char* good :
       {"a", "db", "db-1", "a.b", "0", "x23456789012345678901234567890123456789012345678901234567890123"}) {
    EXPECT_TRUE(check_name("name", good).has_value()) << good;
  }
  for (const char* bad : {"", "-a", "a-", "A", "a_b", "a/b", ".a", "a b", "ä",
                          "x234567890123456789012345678901234567890123456789012345678901234"}) {
    EXPECT_FALSE(check_name("name", bad).has_value()) << bad;
  }
}

TEST(ResourcesTest, SpecsAreChecked) {
  struct Case {
    const char* what;
    void (*spoil)(VolumeSpec&);
  };
  constexpr Case kCases[] = {
      {"size_bytes", [](VolumeSpec& spec) { spec.size_bytes = 0; }},
      {"size_bytes", [](VolumeSpec& spec) { spec.size_bytes = kGiB + 512; }},
      {"replicas", [](VolumeSpec& spec) { spec.replicas = 0; }},
      {"replicas", [](VolumeSpec& spec) { spec.replicas = 8; }},
      {"snapshot_limit", [](VolumeSpec& spec) { spec.snapshot_limit = 501; }},
      {"resync_share", [](VolumeSpec& spec) { spec.resync_share = 101; }},
      {"preferred_node", [](VolumeSpec& spec) { spec.preferred_node = "A"; }},
      {"allowed_hosts", [](VolumeSpec& spec) { spec.allowed_hosts = {"host"}; }},
      {"topology.spread_over", [](VolumeSpec& spec) { spec.topology.spread_over = {""}; }},
      {"topology.group", [](VolumeSpec& spec) { spec.topology.group = "/"; }},
      {"topology", [](VolumeSpec& spec) { spec.topology.affinity = spec.topology.anti_affinity = {{"a", "b"}}; }},
      {"label", [](VolumeSpec& spec) { spec.topology.affinity = {{"a", "b c"}}; }},
  };
  EXPECT_TRUE(check(good_spec()).has_value());
  for (const Case& each : kCases) {
    VolumeSpec spec = good_spec();
    each.spoil(spec);
    const Outcome<void> done = check(spec);
    ASSERT_FALSE(done.has_value()) << each.what;
    EXPECT_THAT(to_string(done.error()), HasSubstr(each.what));
  }
}

TEST(ResourcesTest, SomeOfAVolumeDoesNotChange) {
  VolumeSpec next = good_spec();
  next.size_bytes = 2 * kGiB;
  next.replicas = 3;
  EXPECT_TRUE(check_change(good_spec(), next).has_value());
  EXPECT_THAT(to_string(check_change(next, good_spec()).error()), HasSubstr("does not shrink; it has 2 GiB"));
  next.source = "s";
  EXPECT_FALSE(check_change(good_spec(), next).has_value());
}

}  // namespace
}  // namespace fairlead::control
