// The commands of `fairlead engine`, by their answers.
#include "cli/engine_commands.h"

#include <filesystem>
#include <gmock/gmock.h>
#include <unistd.h>

#include "block/memory.h"
#include "cli/pool_disks.h"
#include "engine/no_witness.h"
#include "io/runtime.h"

namespace fairlead::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr const char* kVolume = "00000000-0000-4000-8000-0000000000f1";
constexpr const char* kReplica = "00000000-0000-4000-8000-000000000001";

Task<int> answer(Runtime& runtime, std::string disk, std::vector<std::string> lines,
                 std::vector<std::string>& answers) {
  std::vector<Shard*> shards = {&runtime.shard(0), &runtime.shard(1)};
  auto disks = open_disks(*shards[0], {{.path = disk, .size_bytes = 64 * kMiB}});
  EXPECT_TRUE(disks) << disks.error();
  EXPECT_TRUE((co_await pool::Pool::create(*shards[0], *disks, {.name = "tank"})).has_value());
  disks->clear();
  auto pool = co_await import_pool(shards, {{.path = disk}});
  EXPECT_TRUE(pool) << pool.error();
  if (!pool) co_return 1;
  engine::NoWitness witness;
  engine::Engine engine(shards, (*pool)->id(), witness, {});
  EXPECT_TRUE(co_await engine.add_pool(std::move(*pool)));
  EXPECT_TRUE((co_await engine.listen({.bind = *parse_socket_address("127.0.0.1", 0), .advertise = {}})).has_value());
  const auto disk_that_fails = make_faulty_source(*make_memory_source({.size_bytes = kMiB}), {});
  EngineCommands commands(engine, {disk_that_fails});
  EngineCommands others(engine);
  for (const std::string& line : lines) answers.push_back(co_await commands.execute(line));
  answers.push_back(co_await others.execute("disk faults none"));
  EXPECT_TRUE(co_await engine.stop());
  co_return 0;
}

struct Line {
  std::string line;
  std::string answer;  // begins with
};
std::vector<Line> conversation() {
  const std::string volume = kVolume;
  const std::string replica = kReplica;
  const std::string snapshot = "00000000-0000-4000-8000-0000000000a1";
  return {
      {"replica list", "ok []"},
      {"replica create db 8MiB " + volume, "error expected replica create NAME SIZE VOLUME REPLICA"},
      {"replica create db 8MB1 " + volume + " " + replica, "error SIZE 8MB1"},
      {"replica create db 1000 " + volume + " " + replica, "error SIZE 1000: must be a multiple"},
      {"replica create db 8MiB v " + replica, "error VOLUME v"},
      {"replica create db 8MiB " + volume + " r", "error REPLICA r"},
      {"replica create db 8MiB " + volume + " " + replica + " " + replica + ",", "error MEMBER "},
      {"replica create db 8MiB " + volume + " " + replica + " " + replica + "," + replica,
       "error MEMBER " + replica + ": is named twice"},
      {"replica create db 8MiB " + volume + " " + replica + " " + volume, "error db is not valid"},
      {"  replica  create db 8MiB " + volume + " " + replica + " " + replica + "\r", "ok db"},
      {"replica create db 8MiB " + volume + " " + replica, "error db exists already"},
      {"replica list", R"(ok [{"name":"db","replica":")" + replica + R"(","volume":")" + volume},
      {"volume status " + volume, "error " + volume + " does not exist"},
      {"volume serve " + volume, "error " + volume + " does not exist"},
      {"volume open " + volume + " 8MiB " + replica, "error " + replica + ": expected REPLICA@local"},
      {"volume open " + volume + " 8MiB " + replica + "@nowhere", "error " + replica + "@nowhere"},
      {"volume open " + volume + " 8MiB " + volume + "@local", "error " + volume + " does not exist"},
      {"volume open " + volume + " 8MiB " + replica + "@local", "ok nqn.2026-01.io.fairlead:volume:" + volume},
      {"volume open " + volume + " 8MiB " + replica + "@local", "ok nqn.2026-01.io.fairlead:volume:" + volume},
      {"volume status " + volume, R"(ok {"volume":")" + volume},
      {"volume list", R"(ok [{"volume":")" + volume},
      {"volume force " + volume + " " + replica, "error " + volume},
      {"replica delete db", "error db is in use"},
      {"volume serve " + volume, "ok " + volume},
      {"volume status " + volume, R"(ok {"volume":")" + volume},
      {"volume snapshot " + volume + " s1", "error SNAPSHOT s1"},
      {"volume snapshot " + replica + " " + snapshot, "error " + replica + " does not exist"},
      {"volume grow " + volume + " 16MiB1", "error SIZE 16MiB1"},
      {"volume snapshot " + volume + " " + snapshot, "ok " + volume},
      {"volume grow " + volume + " 16MiB", "ok " + volume},
      {"volume grow " + volume + " 8MiB", "error " + volume + " is not valid"},
      {"volume status " + volume, R"(ok {"volume":")" + volume},
      {"replica clone copy " + replica + " " + volume + " " + snapshot + " " + snapshot + " " + snapshot,
       "error copy does not exist"},
      {"replica clone copy " + replica + " " + snapshot + " " + snapshot + " " + snapshot + " " + snapshot, "ok copy"},
      {"volume delete-snapshot " + volume + " " + snapshot, "ok " + volume},
      {"replica delete copy", "ok copy"},
      {"volume stand-by " + volume, "ok " + volume},
      {"volume snapshot " + volume + " " + snapshot, "error " + volume + " is not valid"},
      {"volume close " + volume, "ok " + volume},
      {"volume close " + volume, "error " + volume + " does not exist"},
      {"replica delete db", "ok db"},
      {"replica delete db", "error db does not exist"},
      {"stats", R"(ok {"capacity_bytes":)"},
      {"disk faults write:error=io,every=3;read:delay=5ms", "ok 0"},
      {"disk faults write", "error write: is not valid"},
      {"disk faults none", "ok 0"},
      {"help", "ok replica create NAME SIZE VOLUME REPLICA"},
      {"volume", "error volume: no such command"},
      {"volume dance", "error volume: no such command"},
      {"", "error an empty line"},
  };
}

TEST(EngineCommandsTest, EachLineHasItsAnswer) {
  const std::vector<Line> table = conversation();
  std::vector<std::string> lines;
  for (const auto& each : table) lines.push_back(each.line);
  const std::string disk = fmt::format("{}/engine_commands_test.{}", testing::TempDir(), ::getpid());
  std::vector<std::string> answers;
  {
    Runtime runtime({.shards = 2, .pinning = Pinning::kNone});
    ASSERT_TRUE(runtime.start());
    EXPECT_EQ(runtime.run(answer(runtime, disk, lines, answers)), 0);
  }
  std::filesystem::remove(disk);
  ASSERT_EQ(answers.size(), table.size() + 1);
  EXPECT_THAT(answers.back(), HasSubstr("--faulty"));
  answers.pop_back();
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_THAT(answers[i], StartsWith(table[i].answer)) << table[i].line;
    EXPECT_THAT(answers[i], Not(HasSubstr("\n")));
  }
  EXPECT_THAT(answers[31], HasSubstr(R"("snapshots":[{"snapshot":"00000000-0000-4000-8000-0000000000a1")"));
  EXPECT_THAT(answers[31], HasSubstr(R"("size_bytes":16777216)"));
  EXPECT_THAT(answers[19], HasSubstr(R"("state":"standby")"));
}

}  // namespace
}  // namespace fairlead::cli
