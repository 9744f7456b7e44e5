#include "cli/pool_commands.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "async/scope.h"
#include "base/crc32c.h"
#include "cli/pool_disks.h"
#include "cli/serve_pool.h"
#include "io/runtime.h"

namespace fairlead::cli {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;

// A folder that is gone with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() { std::filesystem::create_directories(path_); }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string file(std::string_view name) const { return fmt::format("{}/{}", path_, name); }

 private:
  const std::string path_ = fmt::format("{}/pool_commands_test.{}", testing::TempDir(), ::getpid());
};

struct Outcome {
  int code = -1;
  std::string output;
  std::string complaint;
};

// As main() does with what follows `fairlead offline`.
Outcome run_command(std::vector<std::string> words) {
  CLI::App app("test", "fairlead");
  const PoolCommands commands(app);
  words.insert(words.begin(), "offline");
  std::ranges::reverse(words);
  Outcome outcome;
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  try {
    app.parse(words);
    outcome.code = commands.run().value_or(-2);
  } catch (const CLI::ParseError& error) {
    outcome.code = app.exit(error) == 0 ? 0 : 2;
  }
  outcome.output = testing::internal::GetCapturedStdout();
  outcome.complaint = testing::internal::GetCapturedStderr();
  return outcome;
}

Task<int> write_in_pool(Runtime& runtime, std::string disk, std::string replica, uint64_t offset) {
  Shard& shard = runtime.shard(0);
  auto pool = co_await import_pool({&shard}, {{.path = std::move(disk)}});
  EXPECT_TRUE(pool) << pool.error();
  {
    const auto source = co_await (*pool)->source(std::move(replica));
    const auto device = (*source)->open(shard);
    std::vector<std::byte> bytes(4 * kKiB, std::byte{7});
    iovec piece{bytes.data(), bytes.size()};
    EXPECT_TRUE(co_await block_write(shard.reactor, **device, ByteOffset(offset), {&piece, 1}));
  }
  EXPECT_TRUE(co_await (*pool)->close());
  co_return 0;
}
// A block of a replica.
void write_to(std::string disk, std::string replica, uint64_t offset) {
  Runtime runtime({.shards = 1, .pinning = Pinning::kNone});
  ASSERT_TRUE(runtime.start());
  EXPECT_EQ(runtime.run(write_in_pool(runtime, std::move(disk), std::move(replica), offset)), 0);
}

class PoolCommandsTest : public testing::Test {
 protected:
  std::string disk(std::string_view name) const { return folder_.file(name); }
  // Expects success, and returns what it printed.
  static std::string did(std::vector<std::string> words) {
    const Outcome outcome = run_command(words);
    EXPECT_EQ(outcome.code, 0) << fmt::format("{}", fmt::join(words, " ")) << "\n" << outcome.complaint;
    return outcome.output;
  }
  // Expects that it fails with that code, and returns the complaint.
  static std::string failed(int code, std::vector<std::string> words) {
    const Outcome outcome = run_command(words);
    EXPECT_EQ(outcome.code, code) << fmt::format("{}", fmt::join(words, " ")) << "\n" << outcome.output;
    return outcome.complaint;
  }
  void make_pool() { (void)did({"pool", "create", "fast", disk("a"), "--size", "64MiB", "--extent", "64KiB"}); }

 private:
  const TemporaryFolder folder_;
};

TEST(PoolArgumentsTest, ComplaintsNameTheArgument) {
  using enum PoolAction;
  const struct {
    PoolArguments arguments;
    const char* says;
  } kTable[] = {
      {{.action = kShow}, "disks"},
      {{.action = kCreate, .name = "-x", .disks = {"a"}}, "-x: a name has"},
      {{.action = kCreate, .name = "x", .disks = {"a"}, .size = "12x"}, "--size 12x"},
      {{.action = kCreate, .name = "x", .disks = {"a"}, .size = "1000"}, "--size 1000"},
      {{.action = kCreate, .name = "x", .disks = {"a"}, .extent = "100KiB"}, "--extent 100KiB"},
      {{.action = kCreate, .name = "x", .disks = {"a"}, .extent = "32KiB"}, "--extent 32KiB"},
      {{.action = kCreate, .name = "x", .disks = {"a"}, .extent = "32MiB"}, "--extent 32MiB"},
      {{.action = kCreate, .name = "x", .disks = {"a"}, .unit = "x"}, "--unit x"},
      {{.action = kCreate, .name = "x", .disks = {"a"}, .unit = "12KiB"}, "--unit 12KiB"},
      {{.action = kCreate, .name = "x", .disks = {"a"}, .unit = "2KiB"},
       "--unit 2KiB: must be a power of two from 4 KiB"},
      {{.action = kCreate, .name = "x", .disks = {"a"}, .unit = "2MiB"}, "--unit 2MiB"},
      {{.action = kCreate, .name = "x", .disks = {"a"}, .extent = "64KiB", .unit = "256"}, "--unit 256"},
      {{.action = kGrow, .disks = {"a"}, .size = "1GiB"}, "--size"},
  };
  for (const auto& [arguments, says] : kTable) {
    const auto plan = check(arguments);
    ASSERT_FALSE(plan) << says;
    EXPECT_THAT(plan.error(), HasSubstr(says));
  }
}

TEST(ObjectArgumentsTest, ComplaintsNameTheArgument) {
  using enum ObjectAction;
  const struct {
    ObjectArguments arguments;
    const char* says;
  } kTable[] = {
      {{.action = kListReplicas}, "--pool"},
      {{.action = kCreateReplica, .pool = {"a"}, .name = "db"}, "--size"},
      {{.action = kCreateReplica, .pool = {"a"}, .name = ".db", .size = "1GiB"}, ".db: a name has"},
      {{.action = kCreateReplica, .pool = {"a"}, .name = "db", .size = "1000"}, "--size 1000"},
      {{.action = kCreateReplica, .pool = {"a"}, .name = "db", .origin = "s", .thick = true}, "--thick"},
      {{.action = kResizeReplica, .pool = {"a"}, .name = "db", .size = "much"}, "SIZE much"},
      {{.action = kSetReplica, .pool = {"a"}, .name = "db"}, "--label"},
      {{.action = kSetReplica, .pool = {"a"}, .name = "db", .labels = {"zone"}}, "--label zone"},
      {{.action = kSetReplica, .pool = {"a"}, .name = "db", .labels = {"=b"}}, "--label =b"},
      {{.action = kSetReplica, .pool = {"a"}, .name = "db", .labels = {"a=1", "a=2"}}, "a is given twice"},
      {{.action = kSetReplica, .pool = {"a"}, .name = "db", .volume_id = "7"}, "--volume-id 7"},
      {{.action = kCreateSnapshot, .pool = {"a"}, .name = "a b", .origin = "db"}, "a b: a name has"},
  };
  for (const auto& [arguments, says] : kTable) {
    const auto plan = check(arguments);
    ASSERT_FALSE(plan) << says;
    EXPECT_THAT(plan.error(), HasSubstr(says));
  }
}

TEST(ObjectArgumentsTest, DisksComeAsAListOrOneByOne) {
  CLI::App app("test", "fairlead");
  const PoolCommands commands(app);
  EXPECT_EQ(run_command({"replica", "list", "--pool"}).code, 2);
  EXPECT_THAT(run_command({"replica", "list", "--pool", "/nowhere/a,/nowhere/b"}).complaint, HasSubstr("/nowhere/a "));
  EXPECT_THAT(run_command({"snapshot", "create", "--pool", "/nowhere/a", "db", "monday"}).complaint,
              HasSubstr("/nowhere/a "));
}

TEST_F(PoolCommandsTest, InspectTellsTheUnit) {
  (void)did({"pool", "create", "fast", disk("a"), "--size", "64MiB", "--unit", "16KiB"});
  EXPECT_THAT(did({"pool", "inspect", disk("a")}), HasSubstr("extents of 1 MiB, units of 16 KiB"));
  EXPECT_EQ(Json::parse(did({"pool", "inspect", disk("a"), "--json"}))["unit_bytes"], 16 * kKiB);
}

TEST_F(PoolCommandsTest, APoolFromItsMakingToItsEnd) {
  EXPECT_THAT(did({"pool", "create", "fast", disk("a"), disk("b"), "--size", "64MiB", "--extent", "64KiB"}),
              StartsWith("created pool fast: "));
  const std::string pool = disk("a") + "," + disk("b");
  EXPECT_THAT(did({"replica", "create", "db", "--size", "1GiB", "--label", "app=shop", "--pool", pool}),
              AllOf(StartsWith("created replica db ("), HasSubstr("1 GiB")));
  EXPECT_THAT(did({"snapshot", "create", "db", "monday", "--pool", pool}), HasSubstr("monday"));
  EXPECT_THAT(did({"replica", "create", "copy", "--from", "monday", "--pool", pool}),
              AllOf(HasSubstr("1 GiB"), HasSubstr("from monday")));
  EXPECT_THAT(did({"replica", "resize", "copy", "2GiB", "--pool", pool}), HasSubstr("from 1 GiB to 2 GiB"));
  EXPECT_EQ(did({"replica", "set", "copy", "--label", "app=", "--label", "zone=b", "--pool", pool}), "");

  const Json shown = Json::parse(did({"pool", "show", disk("b"), disk("a"), "--json"}));
  EXPECT_EQ(shown["name"], "fast");
  EXPECT_GT(shown["statistics"]["free_bytes"], 0);
  ASSERT_EQ(shown["objects"].size(), 3U);
  (void)did({"replica", "set", "db", "--label", "app=sh\x1b[31m\xffop", "--pool", pool});
  EXPECT_THAT(did({"replica", "list", "--pool", pool}), HasSubstr("app=sh?[31m\xffop"));
  EXPECT_THAT(did({"replica", "list", "--pool", pool, "--json"}), Not(HasSubstr("\xff")));
  EXPECT_THAT(did({"pool", "inspect", disk("a"), disk("b"), "--json"}), Not(HasSubstr("\xff")));
  EXPECT_THAT(did({"pool", "show", disk("a"), disk("b")}), AllOf(HasSubstr("copy"), HasSubstr("monday")));

  const Json replicas = Json::parse(did({"replica", "list", "--pool", pool, "--json"}));
  ASSERT_EQ(replicas.size(), 2U);
  const bool is_first = replicas[0]["name"] == "copy";
  const Json& copy = replicas[is_first ? 0 : 1];
  EXPECT_EQ(copy["size_bytes"], 2 * kGiB);
  EXPECT_EQ(copy["labels"], (Json{{"zone", "b"}}));
  EXPECT_THAT(did({"snapshot", "list", "--pool", pool}), AllOf(HasSubstr("monday"), HasSubstr("db")));

  EXPECT_THAT(did({"replica", "delete", "db", "--pool", pool}), StartsWith("deleted replica db"));
  EXPECT_THAT(did({"snapshot", "delete", "monday", "--pool", pool}), StartsWith("deleted snapshot monday"));
  EXPECT_EQ(did({"snapshot", "list", "--pool", pool}), "no snapshots\n");
  EXPECT_THAT(did({"pool", "check", disk("a"), disk("b")}), StartsWith("pool fast: clean\n"));
  EXPECT_THAT(failed(1, {"pool", "destroy", disk("a"), disk("b")}), AllOf(HasSubstr("copy"), HasSubstr("--force")));
  EXPECT_THAT(did({"pool", "destroy", disk("a"), disk("b"), "--force"}), StartsWith("destroyed"));
  EXPECT_THAT(failed(2, {"pool", "check", disk("a"), disk("b")}), HasSubstr("no pool is here"));
}

TEST_F(PoolCommandsTest, RefusalsSayWhatIsThereAndWhatOverrides) {
  make_pool();
  EXPECT_THAT(failed(1, {"pool", "create", "other", disk("a")}), AllOf(HasSubstr("fast"), HasSubstr("--force")));
  std::ofstream(disk("full")) << std::string(8 * kMiB, 'x');
  EXPECT_THAT(failed(1, {"pool", "create", "other", disk("full")}), AllOf(HasSubstr("full"), HasSubstr("--force")));
  EXPECT_THAT(failed(1, {"pool", "create", "other", disk("none")}), HasSubstr("--size"));
  EXPECT_THAT(failed(1, {"pool", "grow", disk("a"), "--add", disk("full")}), HasSubstr("--force"));
  (void)did({"replica", "create", "db", "--size", "1GiB", "--pool", disk("a")});
  (void)did({"snapshot", "create", "db", "monday", "--pool", disk("a")});
  EXPECT_THAT(failed(1, {"replica", "resize", "db", "1MiB", "--pool", disk("a")}), HasSubstr("--lose-data"));
  (void)did({"replica", "resize", "db", "1MiB", "--lose-data", "--pool", disk("a")});
  EXPECT_THAT(failed(1, {"replica", "delete", "monday", "--pool", disk("a")}), HasSubstr("is a snapshot"));
  EXPECT_THAT(failed(1, {"replica", "delete", "nobody", "--pool", disk("a")}), HasSubstr("nobody does not exist"));
  EXPECT_THAT(failed(1, {"replica", "create", "db", "--size", "1GiB", "--pool", disk("a")}), HasSubstr("db exists"));
  EXPECT_THAT(failed(1, {"snapshot", "create", "nobody", "s", "--pool", disk("a")}), HasSubstr("nobody"));
  EXPECT_THAT(did({"pool", "check", disk("a")}), StartsWith("pool fast: clean"));
}

TEST_F(PoolCommandsTest, DisksThatWereRolledBackAreTakenWhenTold) {
  make_pool();
  const std::string state = disk("state");
  const auto accept = [&](const std::string& in) {
    return std::vector<std::string>{"pool", "accept", disk("a"), "--state-dir", in};
  };
  EXPECT_THAT(failed(2, accept(disk("nowhere"))), HasSubstr("nowhere"));
  std::filesystem::create_directory(state);
  const auto view = Json::parse(did({"pool", "show", disk("a"), "--json"}));
  const Json seen = {{"pool", view["id"]}, {"batch", 1'000'000}};
  std::ofstream(state + "/pools.json") << Json{{"version", 1},
                                               {"pools", {{{"name", "fast"}, {"disks", {disk("a")}}, {"seen", seen}}}}};
  EXPECT_EQ(did(accept(state)), "pool fast: the engine takes it as it is\n");
  EXPECT_EQ(did(accept(state)), "pool fast: the engine has not seen a newer state of it\n");
  EXPECT_THAT(failed(1, {"pool", "accept", disk("none"), "--state-dir", state}), HasSubstr("none"));
}

TEST_F(PoolCommandsTest, ASecondDiskAndALargerFileAreRoom) {
  make_pool();
  EXPECT_THAT(did({"pool", "grow", disk("a")}), HasSubstr("no more room"));
  EXPECT_THAT(did({"pool", "grow", disk("a"), "--add", disk("b"), "--size", "32MiB"}), HasSubstr("more"));
  EXPECT_THAT(failed(1, {"pool", "show", disk("a")}), HasSubstr("missing"));
  std::filesystem::resize_file(disk("a"), 128 * kMiB);
  EXPECT_THAT(did({"pool", "grow", disk("a"), disk("b")}), HasSubstr("64 MiB more"));
  EXPECT_THAT(did({"pool", "check", disk("b"), disk("a")}), StartsWith("pool fast: clean"));
}

TEST_F(PoolCommandsTest, TheChecksumIsThatOfAllBytes) {
  make_pool();
  const std::string of_pool = "--pool";
  for (const char* const name : {"db", "twin", "longer"}) {
    (void)did(
        {"replica", "create", name, "--size", name == std::string("longer") ? "2MiB" : "1540KiB", of_pool, disk("a")});
  }
  const auto sum = [&](const char* name) { return did({"replica", "checksum", name, of_pool, disk("a")}); };
  const std::vector<std::byte> zeroes(1540 * kKiB);
  EXPECT_EQ(sum("db"), fmt::format("{:08x}\n", crc32c(zeroes))) << "which nobody wrote";
  EXPECT_EQ(sum("db"), sum("twin"));
  EXPECT_NE(sum("db"), sum("longer"));
  write_to(disk("a"), "twin", 1536 * kKiB);
  EXPECT_NE(sum("db"), sum("twin")) << "which differ in their last bytes";
  EXPECT_THAT(failed(1, {"replica", "checksum", "nobody", of_pool, disk("a")}), HasSubstr("nobody does not exist"));
}

TEST_F(PoolCommandsTest, WhatIsFoundGoesIntoTheExitCode) {
  make_pool();
  EXPECT_EQ(Json::parse(did({"pool", "check", disk("a"), "--json"}))["clean"], true);
  std::fstream(disk("a")).seekp(100).put('\x7f');
  const Outcome checked = run_command({"pool", "check", disk("a")});
  EXPECT_EQ(checked.code, 1);
  EXPECT_THAT(checked.output, AllOf(StartsWith("repair: the first superblock"), HasSubstr("repairs 1")));
  const Outcome json = run_command({"pool", "check", disk("a"), "--json"});
  EXPECT_EQ(json.code, 1);
  EXPECT_EQ(Json::parse(json.output)["findings"][0]["severity"], "repair");
  EXPECT_THAT(did({"pool", "inspect", disk("a")}), HasSubstr("superblock at 0: is corrupt"));
  const Json inspected = Json::parse(did({"pool", "inspect", disk("a"), "--json"}));
  EXPECT_TRUE(inspected["disks"][0]["superblocks"][0].contains("error"));
  EXPECT_EQ(inspected["disks"][0]["superblocks"][1]["exported"], true);
  EXPECT_THAT(did({"pool", "show", disk("a")}), HasSubstr("pool fast"));
  EXPECT_THAT(did({"pool", "check", disk("a")}), StartsWith("pool fast: clean")) << "import has mended it";
}

TEST_F(PoolCommandsTest, WithoutASuperblockTheCheckerStillReports) {
  make_pool();
  for (const uint64_t offset : pool::kSuperblockOffsets) {
    std::fstream(disk("a")).seekp(static_cast<std::streamoff>(offset + 100)).put('\x7f');
  }
  const Outcome checked = run_command({"pool", "check", disk("a")});
  EXPECT_EQ(checked.code, 1) << checked.complaint;
  EXPECT_THAT(checked.output, AllOf(StartsWith("damage: "), HasSubstr("no superblock that can be used")));
  EXPECT_EQ(run_command({"pool", "check", disk("a"), "--json"}).code, 1);
  EXPECT_THAT(did({"pool", "inspect", disk("a")}), HasSubstr("superblock at 65536: is corrupt"));
  EXPECT_TRUE(Json::parse(did({"pool", "inspect", disk("a"), "--json"})).contains("disks"));
  EXPECT_THAT(failed(1, {"pool", "destroy", disk("a")}), HasSubstr("--force"));
}

TEST_F(PoolCommandsTest, ListTellsWhoseDisksTheyAre) {
  make_pool();
  std::ofstream(disk("text")) << std::string(kMiB, 'x');
  const std::string listed = did({"pool", "list", disk("a"), disk("text"), disk("none")});
  EXPECT_THAT(listed, AllOf(HasSubstr("fast"), HasSubstr("exported"), HasSubstr("text: no disk of a pool"),
                            HasSubstr("none: does not exist")));
  const Json json = Json::parse(did({"pool", "list", disk("a"), disk("text"), "--json"}));
  EXPECT_EQ(json["pools"][0]["name"], "fast");
  EXPECT_EQ(json["others"].size(), 1U);
}

// ---- A pool that is served

Task<int> serve_and_change(Runtime& runtime, std::string disk, std::vector<std::string> lines,
                           std::vector<std::string>& answers) {
  std::vector<Shard*> shards = {&runtime.shard(0), &runtime.shard(1)};
  target::Target target(shards, {}, nullptr);
  PoolService service(shards, target);
  const std::string nqn = "nqn.2024-01.example.fairlead:pool";
  EXPECT_TRUE(co_await target.add_subsystem({.nqn = nqn, .serial = {}, .allowed_hosts = {}}));
  const auto opened = co_await service.open({{.path = std::move(disk)}});
  EXPECT_TRUE(opened) << opened.error();
  if (opened) {
    service.set_subsystem(nqn);
    for (const std::string& name : service.names()) EXPECT_TRUE(co_await service.serve(name));
    for (const std::string& line : lines) answers.push_back(co_await service.execute(line));
  }
  EXPECT_TRUE(co_await target.stop());
  const auto closed = co_await service.close();
  EXPECT_TRUE(closed) << closed.error();
  co_return 0;
}

TEST_F(PoolCommandsTest, AServedPoolTakesCommandsAndIsClosed) {
  make_pool();
  (void)did({"replica", "create", "db", "--size", "1GiB", "--pool", disk("a")});
  const struct {
    const char* line;
    const char* answer;  // begins with
  } kTable[] = {
      {"snapshot db monday", "ok snapshot monday "},
      {"snapshot db monday", "error monday exists already"},
      {"snapshot nobody x", "error nobody does not exist"},
      {"clone monday copy", "ok replica copy "},
      {"serve monday", "ok snapshot monday nsid 3"},
      {"serve monday", "error monday is served already"},
      {"  resize   db 2GiB\r", "ok db has 2 GiB"},
      {"resize db 1GiB", "error db has 2 GiB: fairlead offline replica resize --lose-data"},
      {"resize db lots", "error lots is not valid"},
      {"unserve monday", "ok monday"},
      {"unserve monday", "error monday does not exist"},
      {"delete monday", "ok deleted snapshot monday"},
      {"delete db", "ok deleted replica db"},
      {"delete db", "error db does not exist"},
      {"list", R"(ok [{"name":"copy")"},
      {"stats", R"(ok {"capacity_bytes":)"},
      {"help", "ok snapshot REPLICA NAME; clone SNAPSHOT NAME; "},
      {"clone monday", "error expected clone SNAPSHOT NAME"},
      {"dance", "error dance: no such command"},
      {" ", "error an empty line"},
  };
  std::vector<std::string> lines;
  for (const auto& [line, answer] : kTable) lines.emplace_back(line);
  std::vector<std::string> answers;
  {
    Runtime runtime({.shards = 2, .pinning = Pinning::kNone});
    ASSERT_TRUE(runtime.start());
    EXPECT_EQ(runtime.run(serve_and_change(runtime, disk("a"), lines, answers)), 0);
  }
  ASSERT_EQ(answers.size(), std::size(kTable));
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_THAT(answers[i], StartsWith(kTable[i].answer)) << kTable[i].line;
    EXPECT_THAT(answers[i], Not(HasSubstr("\n")));
  }
  EXPECT_THAT(did({"pool", "list", disk("a")}), HasSubstr(" exported"));
  EXPECT_THAT(did({"pool", "check", disk("a")}), StartsWith("pool fast: clean\nobjects 1;"));
}

TEST_F(PoolCommandsTest, NamespacesKeepTheirNumbersWhateverComesBetween) {
  make_pool();
  (void)did({"replica", "create", "db", "--size", "1GiB", "--pool", disk("a")});
  const auto answers_to = [&](const std::vector<std::string>& lines) {
    std::vector<std::string> answers;
    Runtime runtime({.shards = 2, .pinning = Pinning::kNone});
    EXPECT_TRUE(runtime.start());
    EXPECT_EQ(runtime.run(serve_and_change(runtime, disk("a"), lines, answers)), 0);
    return answers;
  };
  const auto first = answers_to({"snapshot db monday", "clone monday copy", "serve monday"});
  ASSERT_EQ(first.size(), 3U);
  EXPECT_THAT(first[1], EndsWith(" nsid 2"));
  EXPECT_THAT(first[2], EndsWith(" nsid 3"));
  // By now all are served from the start, in the order of their names.
  EXPECT_THAT(answers_to({"unserve copy", "serve copy", "unserve db", "serve db", "delete copy", "clone monday again"}),
              ElementsAre("ok copy", "ok replica copy nsid 2", "ok db", "ok replica db nsid 1",
                          "ok deleted replica copy", EndsWith(" nsid 4")));
}

}  // namespace
}  // namespace fairlead::cli
