#include "cli/cluster_report.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/attach.h"
#include "cli/cluster_wait.h"
#include "cli/yaml.h"

namespace fairlead::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

Json volume() {
  return Json::parse(R"({
    "kind": "volume", "name": "db", "id": "11111111-0000-4000-8000-000000000001", "revision": 9, "created_ms": 40000,
    "labels": {"app": "shop"},
    "spec": {"size_bytes": 10737418240, "replicas": 3, "thin": true, "snapshot_limit": 64, "source": "",
             "topology": {"spread_over": ["zone"], "affinity": {}, "anti_affinity": {}, "group": ""}},
    "status": {"state": "degraded", "target": "a", "nqn": "nqn.2026-01.io.fairlead:volume:1", "snapshots": 2,
      "conditions": [{"type": "Redundant", "met": false, "reason": "Resyncing", "message": "c is brought back",
                      "since_ms": 90000}],
      "paths": [{"node": "a", "address": "10.0.0.1:4420", "state": "serving", "controllers": 1}],
      "replicas": [
        {"id": "00000000-0000-4000-8000-0000000000a1", "pool": "fast", "node": "a", "state": "member",
         "allocated_bytes": 1073741824},
        {"id": "00000000-0000-4000-8000-0000000000a2", "pool": "fast-b", "node": "b", "state": "member"},
        {"id": "00000000-0000-4000-8000-0000000000a3", "pool": "fast-c", "node": "c", "state": "resyncing",
         "copied_bytes": 430, "to_copy_bytes": 1000, "copy_bytes_per_second": 1048576, "eta_ms": 80000}]}})");
}

constexpr Look kLook = {.now_ms = 100'000};

TEST(TableTest, IsCutWhereItWouldPassItsWidth) {
  const std::vector<Row> rows = {{{"NAME"}, {"WHAT"}}, {{"a"}, {"a long sentence that goes on"}}, {{"bb"}, {""}}};
  EXPECT_EQ(to_table(rows, {.width_max = 0}), "NAME  WHAT\na     a long sentence that goes on\nbb    -\n");
  EXPECT_EQ(to_table(rows, {.width_max = 16}), "NAME  WHAT\na     a long se…\nbb    -\n");
  EXPECT_EQ(to_table({{{"H"}}, {{"x\x1b[31m\n"}}}, {}), "H\nx?[31m?\n");
  EXPECT_EQ(to_table({{{"H"}}, {{"x", Colour::kBad}}}, {.has_colours = true, .has_head = false}), "\x1b[31mx\x1b[0m\n");
}

TEST(ReportTest, AListOfVolumes) {
  EXPECT_EQ(render_list("volumes", {volume()}, kLook),
            "NAME  STATE                  SIZE    REPLICAS  TARGET  SNAPSHOTS  AGE\n"
            "db    degraded, resync 43 %  10 GiB  2/3       a       2          60s\n");
  EXPECT_EQ(render_list("volumes", {}, kLook), "there are no volumes\n");
}

TEST(ReportTest, TablesFitAScreenAndWideOnesDoNot) {
  Json long_one = volume();
  long_one["name"] = std::string(63, 'x');
  long_one["status"]["target"] = std::string(63, 'y');
  const auto widest = [](const std::string& text) {
    size_t width = 0;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = text.find('\n', begin);
      const std::string line = text.substr(begin, end - begin);
      width = std::max(width, static_cast<size_t>(std::ranges::count_if(
                                  line, [](char c) { return (static_cast<uint8_t>(c) & 0xc0U) != 0x80U; })));
      begin = end + 1;
    }
    return width;
  };
  EXPECT_LE(widest(render_list("volumes", {long_one}, kLook)), kScreenColumns);
  EXPECT_GT(widest(render_list("volumes", {long_one}, {.output = Output::kWide, .now_ms = 1})), kScreenColumns);
  EXPECT_LE(widest(render_one("volumes", volume(), kLook)), kScreenColumns);
}

TEST(ReportTest, NodesPoolsSnapshotsAndReplicas) {
  const Json node = Json::parse(
      R"({"name":"a","created_ms":1,"labels":{},"spec":{},"status":{"state":"lost","why":"no heartbeat","targets":1,)"
      R"("replicas":2,"data_address":"10.0.0.1:4420","version":"0.1.0"}})");
  EXPECT_EQ(render_list("nodes", {node}, kLook),
            "NAME  STATE  TARGETS  REPLICAS  ADDRESS        VERSION  AGE\n"
            "a     lost   1        2         10.0.0.1:4420  0.1.0    99s\n");
  EXPECT_THAT(render_one("nodes", node, kLook), HasSubstr("why           no heartbeat\n"));
  const Json pool =
      Json::parse(R"({"name":"fast","labels":{},"spec":{"node":"a","disks":["/dev/sdb"]},"status":{"state":"online",)"
                  R"("capacity_bytes":4096,"used_bytes":1024,"free_bytes":3072,"replicas":1}})");
  EXPECT_EQ(render_list("pools", {pool}, kLook),
            "NAME  NODE  STATE   CAPACITY  USED          FREE   REPLICAS  AGE\n"
            "fast  a     online  4 KiB     1 KiB (25 %)  3 KiB  1         -\n");
  const Json snapshot = Json::parse(
      R"({"name":"m","labels":{},"spec":{"volume":"db"},"status":{"state":"ready","size_bytes":4096,"taken_ms":70000}})");
  EXPECT_EQ(render_list("snapshots", {snapshot}, kLook),
            "NAME  VOLUME  STATE  SIZE   TAKEN\n"
            "m     db      ready  4 KiB  30s\n");
  const Json replica = volume()["status"]["replicas"][2];
  EXPECT_EQ(render_list("replicas", {replica}, kLook),
            "VOLUME  NODE  POOL    STATE           ALLOCATED  ID\n"
            "-       c     fast-c  resyncing 43 %  -          00000000-0000-4000-8000-0000000000a3\n");
}

TEST(ReportTest, AllAboutAVolume) {
  EXPECT_EQ(render_one("volumes", volume(), kLook),
            "name          db\n"
            "state         degraded, resync 43 %\n"
            "id            11111111-0000-4000-8000-000000000001\n"
            "revision      9\n"
            "age           60s\n"
            "labels        app=shop\n"
            "size          10 GiB, thin\n"
            "replicas      2/3 in step\n"
            "target        a\n"
            "spread over   zone\n"
            "snapshots     2 of at most 64\n"
            "NQN           nqn.2026-01.io.fairlead:volume:1\n"
            "\nConditions\n"
            "CONDITION  MET  SINCE  REASON     MESSAGE\n"
            "Redundant  no   10s    Resyncing  c is brought back\n"
            "\nReplicas\n"
            "NODE  POOL    STATE           ALLOCATED  ID\n"
            "a     fast    member          1 GiB      00000000-0000-4000-8000-0000000000a1\n"
            "b     fast-b  member          -          00000000-0000-4000-8000-0000000000a2\n"
            "c     fast-c  resyncing 43 %  -          00000000-0000-4000-8000-0000000000a3\n"
            "\nPaths\n"
            "NODE  ADDRESS        STATE    CONTROLLERS\n"
            "a     10.0.0.1:4420  serving  1\n");
}

TEST(ReportTest, StatusIsOneScreen) {
  const Json bad = Json::parse(
      R"({"well":false,"nodes":{"total":3,"ready":2},"pools":{"total":3,"online":3},"volumes":{"total":1,"online":0},)"
      R"("snapshots":{"total":0,"ready":0},"problems":[{"resource":"volumes/db","state":"degraded",)"
      R"("why":"Resyncing: c is brought back, about 80 s left"}]
})");
  EXPECT_EQ(render_status(bad, kLook),
            "1 thing is not well.\n\n"
            "WHAT       TOTAL  WELL\n"
            "nodes      3      2\n"
            "pools      3      3\n"
            "volumes    1      0\n"
            "snapshots  0      0\n"
            "\nvolumes/db is degraded\n"
            "    Resyncing: c is brought back, about 80 s left\n"
            "\n'fairlead why RESOURCE' tells more.\n");
  const std::string good = render_status(Json::parse(R"({"well":true})"), kLook);
  EXPECT_THAT(good, HasSubstr("All is well.\n"));
  EXPECT_THAT(good, Not(HasSubstr("why")));
  EXPECT_THAT(render_status(bad, {.has_colours = true}), HasSubstr("\x1b[33mdegraded\x1b[0m"));
}

TEST(ReportTest, TopAddsUpPoolsAndResyncs) {
  TopView view;
  view.nodes = {Json::parse(R"({"name":"a","status":{"state":"ready","targets":1,"replicas":1}})")};
  const Json pool = Json::parse(R"({"spec":{"node":"a"},"status":{"used_bytes":1024,"capacity_bytes":4096}})");
  view.pools = {pool, pool, Json::parse(R"({"spec":{"node":"b"},"status":{"used_bytes":9}})")};
  view.volumes = {volume()};
  EXPECT_EQ(render_top(view, kLook),
            "NODE  STATE  TARGETS  REPLICAS  POOLS  USED          CAPACITY\n"
            "a     ready  1        1         2      2 KiB (25 %)  8 KiB\n"
            "\n"
            "VOLUME  STATE                  SIZE    REPLICAS  TARGET  COPYING  LEFT\n"
            "db      degraded, resync 43 %  10 GiB  2/3       a       1 MiB/s  1m20s\n");
}

TEST(ReportTest, ProgressOfAResyncAndOfADrain) {
  const Progress resync = progress_of("volume/db", {.kind = Goal::Kind::kOnline}, volume(), 0, {});
  EXPECT_EQ(render_bar(resync), "volume/db: resync of 1 replica  [==========              ]  43 %  1m20s left");
  const Json node = Json::parse(R"({"status":{"targets":1,"replicas":1}})");
  const Progress drain = progress_of("node/a", {.kind = Goal::Kind::kEmpty}, node, 8, std::chrono::seconds(30));
  EXPECT_EQ(render_bar(drain), "node/a: 2 of 8 still to move  [==================      ]  75 %  10s left");
  const Json stuck = Json::parse(R"({"status":{"replicas":2,"why":"volume db keeps its replica: there is no room"}})");
  EXPECT_EQ(progress_of("pool/a", {.kind = Goal::Kind::kEmpty}, stuck, 2, {}).text,
            "pool/a: 2 of 2 still to move; volume db keeps its replica: there is no room");
  Progress talk;
  talk.text = std::string(300, 'x');
  talk.share = 2;
  EXPECT_EQ(render_bar(talk).size(), kScreenColumns + 2) << "the … has three bytes";
}

TEST(ReportTest, SpansAndAges) {
  EXPECT_EQ(age_text(119'000), "119s");
  EXPECT_EQ(age_text(120'000), "2m");
  EXPECT_EQ(age_text(47 * 3600 * 1000), "47h");
  EXPECT_EQ(age_text(uint64_t{72} * 3600 * 1000), "3d");
  EXPECT_EQ(span_text(1), "1s");
  EXPECT_EQ(span_text(61'000), "1m01s");
  EXPECT_EQ(span_text(7'260'000), "2h01m");
}

TEST(ReportTest, MissingFieldsAreNothing) {
  const Json odd = Json::parse(R"({"a":{"b":"x","n":-1},"s":5})");
  EXPECT_EQ(text_of(odd, "a.b"), "x");
  EXPECT_EQ(text_of(odd, "a.c"), "");
  EXPECT_EQ(text_of(odd, "s.t"), "");
  EXPECT_EQ(text_of(odd, "s"), "");
  EXPECT_EQ(number_of(odd, "a.n"), 0U);
  for (const char* kind : {"nodes", "pools", "volumes", "replicas", "snapshots"}) {
    EXPECT_NE(render_list(kind, {odd}, kLook), "");
    EXPECT_NE(render_one(kind, Json::array(), kLook), "");
  }
}

TEST(YamlTest, QuotesWhatWouldBeReadAsSomethingElse) {
  const Json json = Json::parse(
      R"({"a":1,"b":{"c":[],"d":{},"e":["x",{"f":true,"g":[1,2]},[3]]},"s":"plain words","t":"true","n":"12","e":"",)"
      R"("c":"a: b","u":"é","l":"x\ny","v":null,"k y":"/dev/sdb","p":"nqn.2026-01.io:volume:1"})");
  EXPECT_EQ(to_yaml(json),
            "a: 1\n"
            "b:\n"
            "  c: []\n"
            "  d: {}\n"
            "  e:\n"
            "    - x\n"
            "    - f: true\n"
            "      g:\n"
            "        - 1\n"
            "        - 2\n"
            "    - - 3\n"
            "s: plain words\n"
            "t: \"true\"\n"
            "\"n\": \"12\"\n"
            "e: \"\"\n"
            "c: \"a: b\"\n"
            "u: \"\\u00e9\"\n"
            "l: \"x\\ny\"\n"
            "v: null\n"
            "k y: /dev/sdb\n"
            "p: nqn.2026-01.io:volume:1\n");
  EXPECT_EQ(to_yaml(Json::array()), "[]\n");
  EXPECT_EQ(to_yaml(Json("x")), "x\n");
}

TEST(AttachTest, LinesAreSafeInAShell) {
  EXPECT_EQ(shell_line({"nvme", "a b", "it's", ""}), "nvme 'a b' 'it'\\''s' ''");
}

TEST(AttachTest, RunsAProgramAndGivesItsExitCode) {
  EXPECT_EQ(execute({"sh", "-c", "exit 7"}).value(), 7);
  const auto missing = execute({"no-such-program-here"});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().error.code, Code::kNotFound);
}

}  // namespace
}  // namespace fairlead::cli
