#include <CLI/CLI.hpp>
#include <gtest/gtest.h>

#include "base/units.h"
#include "cli/completion.h"
#include "cli/engine.h"
#include "cli/serve.h"

namespace fairlead::cli {
namespace {

TEST(ServeArgumentsTest, DefaultsAreSafeAndComplete) {
  const auto plan = check({.paths = {"disk.img"}, .size = "1GiB"});
  ASSERT_TRUE(plan) << plan.error();
  ASSERT_EQ(plan->listeners.size(), 1U);
  EXPECT_EQ(to_string(plan->listeners[0].bind), "127.0.0.1:4420");
  ASSERT_EQ(plan->disks.size(), 1U);
  EXPECT_EQ(plan->disks[0].size_bytes, kGiB);
  EXPECT_EQ(plan->disks[0].access, Access::kReadWrite);
  EXPECT_GE(plan->runtime.shards, 1);
  EXPECT_TRUE(plan->subsystem.nqn.starts_with("nqn.2014-08.org.nvmexpress:uuid:"));
}

TEST(ServeArgumentsTest, TheDerivedNameIsStableAndTellsPathsApart) {
  const auto one = check({.paths = {"/tmp/a"}});
  const auto same = check({.paths = {"/tmp/a"}});
  const auto other = check({.paths = {"/tmp/b"}});
  ASSERT_TRUE(one && same && other);
  EXPECT_EQ(one->subsystem.nqn, same->subsystem.nqn);
  EXPECT_NE(one->subsystem.nqn, other->subsystem.nqn);
}

TEST(ServeArgumentsTest, ListenersWithAdvertisedAddress) {
  const auto plan =
      check({.listen = {"[::1]:0,advertise=10.0.2.2", "10.0.0.1:5,advertise=[fe80::1]:6"}, .memory = {"64MiB"}});
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_EQ(to_string(plan->listeners[0].bind), "[::1]:0");
  EXPECT_EQ(to_string(*plan->listeners[0].advertise), "10.0.2.2:0");
  EXPECT_EQ(to_string(*plan->listeners[1].advertise), "[fe80::1]:6");
  EXPECT_EQ(plan->memory_bytes, (std::vector<uint64_t>{64 * kMiB}));
}

TEST(ServeArgumentsTest, NullNamespacesNeedNoPath) {
  const auto plan = check({.null = {"1GiB", "4KiB"}});
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_EQ(plan->null_bytes, (std::vector<uint64_t>{kGiB, 4 * kKiB}));
  EXPECT_TRUE(plan->memory_bytes.empty());
}

TEST(ServeArgumentsTest, APoolGivesTheNameOfTheSubsystem) {
  const auto plan = check({.pool = {"a", "b"}, .replicas = {"db"}, .commands = true});
  ASSERT_TRUE(plan) << plan.error();
  ASSERT_EQ(plan->pool.size(), 2U);
  EXPECT_EQ(plan->pool[1].path, "b");
  EXPECT_EQ(plan->replicas, (std::vector<std::string>{"db"}));
  EXPECT_TRUE(plan->takes_commands);
  EXPECT_EQ(plan->subsystem.nqn, "") << "it is known when the pool is open";
  EXPECT_EQ(check({.nqn = "nqn.2020-01.org.example:me", .pool = {"a"}})->subsystem.nqn, "nqn.2020-01.org.example:me");
  EXPECT_EQ(check({.paths = {"/tmp/a"}, .pool = {"b"}})->subsystem.nqn, check({.paths = {"/tmp/a"}})->subsystem.nqn);
}

TEST(ServeArgumentsTest, ComplaintsNameTheArgument) {
  const struct {
    ServeArguments arguments;
    const char* says;
  } kTable[] = {
      {{}, "PATH"},
      {{.paths = {"a"}, .size = "12x"}, "--size 12x"},
      {{.paths = {"a"}, .size = "1000"}, "--size 1000"},
      {{.paths = {"a"}, .size = "0"}, "--size 0"},
      {{.size = "1GiB", .memory = {"1GiB"}}, "--size"},
      {{.paths = {"a"}, .size = "1GiB", .read_only = true}, "--size"},
      {{.memory = {"lots"}}, "--memory lots"},
      {{.memory = {"1GiB"}, .replicas = {"db"}}, "--replica"},
      {{.memory = {"1GiB"}, .commands = true}, "--commands"},
      {{.pool = {"a"}, .read_only = true}, "--read-only"},
      {{.null = {"1000"}}, "--null 1000"},
      {{.paths = {"a"}, .listen = {"somewhere"}}, "--listen somewhere"},
      {{.paths = {"a"}, .listen = {"10.0.0.1,publish=1"}}, "--listen 10.0.0.1,publish=1"},
      {{.paths = {"a"}, .listen = {"10.0.0.1,advertise=x"}}, "--listen 10.0.0.1,advertise=x"},
      {{.paths = {"a"}, .nqn = "disk"}, "--nqn disk"},
      {{.paths = {"a"}, .hosts = {"me"}}, "--host me"},
      {{.paths = {"a"}, .shards = 1000}, "--shards 1000"},
      {{.paths = {"a"}, .poll = "often"}, "--poll often"},
  };
  for (const auto& [arguments, says] : kTable) {
    const auto plan = check(arguments);
    ASSERT_FALSE(plan) << says;
    EXPECT_NE(plan.error().find(says), std::string::npos) << plan.error();
  }
}

TEST(EngineArgumentsTest, DefaultsAreThoseOfTheProtocol) {
  const auto plan = check(EngineArguments{.pool = {"a", "b"}});
  ASSERT_TRUE(plan) << plan.error();
  ASSERT_EQ(plan->pool.size(), 2U);
  EXPECT_EQ(plan->pool[1].path, "b");
  ASSERT_EQ(plan->listeners.size(), 1U);
  EXPECT_EQ(to_string(plan->listeners[0].bind), "127.0.0.1:4420");
  const mirror::MirrorOptions defaults;
  EXPECT_EQ(plan->engine.mirror.lease, defaults.lease);
  EXPECT_EQ(plan->engine.mirror.checkpoint_interval, defaults.checkpoint_interval);
  EXPECT_EQ(plan->engine.mirror.stall_limit, defaults.stall_limit);
  EXPECT_EQ(plan->engine.copies_max, engine::EngineOptions{}.copies_max);
  EXPECT_FALSE(plan->engine.controller_ids) << "they are known when the pool is open";
  EXPECT_FALSE(plan->takes_commands);
  EXPECT_FALSE(plan->has_faulty_disks);
}

TEST(EngineArgumentsTest, WhatIsGivenIsTaken) {
  const auto plan = check(EngineArguments{.pool = {"a"},
                                          .listen = {"127.0.0.1:0", "[::1]:7"},
                                          .commands = true,
                                          .lease = "1s",
                                          .checkpoint_interval = "500ms",
                                          .stall_limit = "1.5s",
                                          .copies = 3,
                                          .controller_ids = "7-65519",
                                          .faulty = true,
                                          .shards = 3});
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_EQ(plan->listeners.size(), 2U);
  EXPECT_TRUE(plan->has_faulty_disks);
  EXPECT_TRUE(plan->takes_commands);
  EXPECT_EQ(plan->engine.mirror.lease, std::chrono::seconds(1));
  EXPECT_EQ(plan->engine.mirror.checkpoint_interval, std::chrono::milliseconds(500));
  EXPECT_EQ(plan->engine.mirror.stall_limit, std::chrono::milliseconds(1500));
  EXPECT_EQ(plan->engine.copies_max, 3U);
  ASSERT_TRUE(plan->engine.controller_ids);
  EXPECT_EQ(*plan->engine.controller_ids, (engine::ControllerIds{.first = 7, .last = 65519}));
  EXPECT_EQ(plan->runtime.shards, 3);
}

TEST(EngineArgumentsTest, APoolInMemory) {
  using Backing = MemoryOptions::Backing;
  for (const auto& [pool, backing] :
       {std::pair("memory:64MiB", Backing::kSparse), std::pair("resident-memory:64MiB", Backing::kResident)}) {
    const auto plan = check(EngineArguments{.pool = {pool}});
    ASSERT_TRUE(plan) << plan.error();
    EXPECT_TRUE(plan->pool.empty());
    ASSERT_TRUE(plan->memory);
    EXPECT_EQ(plan->memory->size_bytes, 64 * kMiB);
    EXPECT_EQ(plan->memory->backing, backing);
  }
}

TEST(EngineArgumentsTest, ComplaintsNameTheArgument) {
  const struct {
    EngineArguments arguments;
    const char* says;
  } kTable[] = {
      {{}, "--pool"},
      {{.pool = {"a"}, .listen = {"somewhere"}}, "--listen somewhere"},
      {{.pool = {"a"}, .lease = "long"}, "--lease long"},
      {{.pool = {"a"}, .lease = "0ms"}, "--lease 0ms: expected 10ms to 60s"},
      {{.pool = {"a"}, .lease = "61s"}, "--lease 61s"},
      {{.pool = {"a"}, .checkpoint_interval = "1ms"}, "--checkpoint-interval 1ms"},
      {{.pool = {"a"}, .stall_limit = "0s"}, "--stall-limit 0s"},
      {{.pool = {"memory:lots"}}, "--pool memory:lots"},
      {{.pool = {"resident-memory:lots"}}, "--pool resident-memory:lots"},
      {{.pool = {"a", "memory:1GiB"}}, "--pool memory:1GiB"},
      {{.pool = {"a"}, .limit = "latency=soon"}, "--limit latency=soon"},
      {{.pool = {"a"}, .copy_share = 0}, "--copy-share 0"},
      {{.pool = {"a"}, .copy_share = 101}, "--copy-share 101"},
      {{.pool = {"a"}, .copies = 0}, "--copies 0: expected 1 to 1024"},
      {{.pool = {"a"}, .copies = 1025}, "--copies 1025"},
      {{.pool = {"a"}, .controller_ids = "7"}, "--controller-ids 7"},
      {{.pool = {"a"}, .controller_ids = "7-"}, "--controller-ids 7-"},
      {{.pool = {"a"}, .controller_ids = "0-7"}, "--controller-ids 0-7"},
      {{.pool = {"a"}, .controller_ids = "8-7"}, "--controller-ids 8-7"},
      {{.pool = {"a"}, .controller_ids = "1-65520"}, "--controller-ids 1-65520"},
      {{.pool = {"a"}, .controller_ids = "1-7x"}, "--controller-ids 1-7x"},
      {{.pool = {"a"}, .shards = 1000}, "--shards 1000"},
      {{.pool = {"a"}, .poll = "often"}, "--poll often"},
  };
  for (const auto& [arguments, says] : kTable) {
    const auto plan = check(arguments);
    ASSERT_FALSE(plan) << says;
    EXPECT_NE(plan.error().find(says), std::string::npos) << plan.error();
  }
}

TEST(CompletionTest, KnowsCommandsAndOptionsOfEachShell) {
  CLI::App app("test", "fairlead");
  bool read_only = false;
  app.add_subcommand("serve", "Serve")->add_flag("--read-only", read_only, "No writes");
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const auto script = completion_script(app, shell);
    ASSERT_TRUE(script) << shell;
    EXPECT_NE(script->find("serve"), std::string::npos) << shell;
    EXPECT_NE(script->find("read-only"), std::string::npos) << shell;
  }
  EXPECT_FALSE(completion_script(app, "tcsh"));
}

TEST(CompletionTest, KnowsCommandsOfCommands) {
  CLI::App app("test", "fairlead");
  bool json = false;
  CLI::App& pool = *app.add_subcommand("pool", "Pools");
  pool.add_subcommand("check", "Check")->add_flag("--json", json, "JSON");
  const auto bash = completion_script(app, "bash");
  ASSERT_TRUE(bash);
  EXPECT_NE(bash->find("pool) words='check"), std::string::npos) << *bash;
  EXPECT_NE(bash->find("pool-check) words='--help --json' ;;"), std::string::npos) << *bash;
  const auto fish = completion_script(app, "fish");
  ASSERT_TRUE(fish);
  EXPECT_NE(fish->find("'__fish_seen_subcommand_from pool; and not __fish_seen_subcommand_from check' -a check"),
            std::string::npos)
      << *fish;
  EXPECT_NE(fish->find("'__fish_seen_subcommand_from pool; and __fish_seen_subcommand_from check' -l json"),
            std::string::npos)
      << *fish;
}

}  // namespace
}  // namespace fairlead::cli
