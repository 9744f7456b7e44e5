#include <CLI/CLI.hpp>
#include <gtest/gtest.h>

#include "base/units.h"
#include "cli/attach.h"
#include "cli/cluster_commands.h"
#include "cli/completion.h"
#include "cli/control.h"
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

TEST(ControlArgumentsTest, ByDefaultItServesThisMachineFromOneFile) {
  const auto plan = check(ControlArguments{});
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_EQ(std::get<std::string>(plan->store), "/var/lib/fairlead/control.db");
  EXPECT_EQ(plan->listen, "127.0.0.1:7400");
  EXPECT_EQ(plan->management, "127.0.0.1:7401");
  EXPECT_FALSE(plan->tokens || plan->certificate || plan->management_tls);
  EXPECT_EQ(plan->settings.lost_after, control::ControlSettings{}.lost_after);
  EXPECT_EQ(plan->settings.replace_after, control::ControlSettings{}.replace_after);
}

TEST(ControlArgumentsTest, WhatIsGivenIsTaken) {
  ControlArguments arguments{.store = "etcd:http://10.0.0.1:2379,http://10.0.0.2:2379",
                             .listen = "[::1]:0",
                             .management = "192.0.2.1",
                             .advertise = "control.example",
                             .tls_ca = "ca",
                             .tls_certificate = "own",
                             .tls_key = "key",
                             .lost_after = "1s",
                             .replace_after = "1h"};
  const auto plan = check(arguments);
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_EQ(std::get<control::EtcdClientOptions>(plan->store).endpoints,
            (std::vector<std::string>{"http://10.0.0.1:2379", "http://10.0.0.2:2379"}));
  EXPECT_EQ(plan->listen, "[::1]:0");
  EXPECT_EQ(plan->management, "192.0.2.1:7401");
  EXPECT_EQ(plan->advertise, "control.example");
  ASSERT_TRUE(plan->management_tls && plan->certificate);
  EXPECT_EQ(plan->management_tls->ca, "ca");
  EXPECT_EQ(plan->settings.lost_after, std::chrono::seconds(1));
  EXPECT_LE(plan->settings.report_interval * 4, plan->settings.lost_after);
  EXPECT_EQ(plan->settings.replace_after, std::chrono::hours(1));
}

TEST(ControlArgumentsTest, ComplaintsNameTheArgument) {
  const struct {
    ControlArguments arguments;
    const char* says;
  } kTable[] = {
      {{.store = "postgres:x"}, "--store postgres:x: expected sqlite:PATH or etcd:URL"},
      {{.store = "sqlite:"}, "--store sqlite:"},
      {{.etcd_ca = "x"}, "are for --store etcd"},
      {{.store = "etcd:https://a:1", .etcd_key = "x"}, "give both or none"},
      {{.listen = "nowhere"}, "--listen nowhere"},
      {{.listen = "192.0.2.1"}, "--listen 192.0.2.1: other machines reach this address: give --token-file"},
      {{.listen = "192.0.2.1", .tls_certificate = "a", .tls_key = "b"}, "give --token-file"},
      {{.management = "192.0.2.1"}, "--management 192.0.2.1: other machines reach this address: give --tls-ca"},
      {{.management = "x"}, "--management x"},
      {{.tls_ca = "a"}, "--tls-ca: needs"},
      {{.tls_key = "a"}, "--tls-certificate and --tls-key: give both or none"},
      {{.token_file = "/none/tokens"}, "--token-file /none/tokens: cannot be read"},
      {{.lost_after = "1ms"}, "--lost-after 1ms: expected 500ms to 1h"},
      {{.replace_after = "soon"}, "--replace-after soon"},
  };
  for (const auto& [arguments, says] : kTable) {
    const auto plan = check(arguments);
    ASSERT_FALSE(plan) << says;
    EXPECT_NE(plan.error().find(says), std::string::npos) << plan.error();
  }
  EXPECT_TRUE(check(ControlArguments{.management = "192.0.2.1", .insecure = true}));
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

TEST(EngineArgumentsTest, AMemberOfAClusterKnowsWhoItIsAndWhomItObeys) {
  EngineArguments member{.listen = {"192.0.2.1"},
                         .node = "a",
                         .state_dir = "/state",
                         .control = {"127.0.0.1:7430"},
                         .management = "127.0.0.1:0",
                         .labels = {"rack=7", "zone="},
                         .stop_limit = "5s"};
  const auto plan = check(member);
  ASSERT_TRUE(plan) << plan.error();
  EXPECT_TRUE(plan->pool.empty());
  EXPECT_EQ(plan->cluster.node, "a");
  EXPECT_EQ(plan->cluster.labels, (std::map<std::string, std::string>{{"rack", "7"}, {"zone", ""}}));
  EXPECT_EQ(plan->cluster.control, std::vector<std::string>{"127.0.0.1:7430"});
  EXPECT_EQ(plan->stop_limit, std::chrono::seconds(5));
  EXPECT_FALSE(plan->cluster.tls);
  member.listen = {"0.0.0.0"};
  EXPECT_FALSE(check(member)) << "which address is it?";
  member.advertise = "192.0.2.1";
  EXPECT_TRUE(check(member));
  member.management = "192.0.2.1:7420";
  EXPECT_FALSE(check(member)) << "in the clear";
  member.insecure = true;
  EXPECT_TRUE(check(member));
  member.insecure = false;
  member.tls_ca = member.tls_certificate = member.tls_key = "file";
  EXPECT_TRUE(check(member));
}

TEST(EngineArgumentsTest, ComplaintsOfMembersNameTheArgument) {
  const std::string here = "127.0.0.1:7420";
  const struct {
    EngineArguments arguments;
    const char* says;
  } kTable[] = {
      {{}, "--pool DISK"},
      {{.management = here}, "--state-dir DIR"},
      {{.pool = {"a"}, .control = {here}}, "--management ADDR:PORT"},
      {{.control = {"127.0.0.1"}, .management = here}, "--control 127.0.0.1: expected ADDR:PORT"},
      {{.pool = {"a"}, .control = {"somewhere"}}, "--control somewhere"},
      {{.pool = {"a"}, .management = "x"}, "--management x"},
      {{.pool = {"a"}, .advertise = "x"}, "--advertise x"},
      {{.pool = {"a"}, .labels = {"rack"}}, "--label rack"},
      {{.pool = {"a"}, .labels = {"a=1", "a=2"}}, "--label a=2"},
      {{.pool = {"a"}, .tls_key = "k"}, "--tls-ca"},
      {{.pool = {"a"}, .node = "a b"}, "--node a b"},
      {{.pool = {"a"}, .stop_limit = "never"}, "--stop-limit never"},
  };
  for (const auto& [arguments, says] : kTable) {
    const auto plan = check(arguments);
    ASSERT_FALSE(plan) << says;
    EXPECT_NE(plan.error().find(says), std::string::npos) << plan.error();
  }
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
      {{.pool = {"a"}, .resync_share = 0}, "--resync-share 0"},
      {{.pool = {"a"}, .resync_share = 101}, "--resync-share 101"},
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
  EXPECT_NE(bash->find("pool) words='check "), std::string::npos) << *bash;
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

TEST(CompletionTest, BashAsksTheClusterForNames) {
  CLI::App app("test", "fairlead");
  const ClusterCommands commands(app);
  const auto script = completion_script(app, "bash");
  ASSERT_TRUE(script);
  EXPECT_EQ(script->find("names)"), std::string::npos) << "what is for scripts is not offered";
  const std::string stand_in = "fairlead() { echo \"$2-1 $2-2\"; }\n";
  const auto complete = [&](const std::string& words) {
    const std::string ask =
        stand_in + *script + "COMP_WORDS=(" + words +
        ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_fairlead\n[[ \"${COMPREPLY[*]}\" == \"$1\" ]] || "
        "{ echo \"${COMPREPLY[*]}\" >&2; exit 1; }\n";
    return ask;
  };
  const std::pair<const char*, const char*> kTable[] = {
      {"fairlead vol", "volume"},
      {"fairlead volume mo", "move"},
      {"fairlead volume move ''", "volumes-1 volumes-2"},
      {"fairlead volume move db ''", "nodes-1 nodes-2"},
      {"fairlead volume move db a ''", ""},
      {"fairlead volume create ''", ""},
      {"fairlead volume show --wat", "--watch"},
      {"fairlead why vol", ""},
      {"fairlead why res", "resources-1 resources-2"},
      {"fairlead pool create p --node n", "nodes-1 nodes-2"},
      {"fairlead snapshot create s --volume ''", "volumes-1 volumes-2"},
  };
  for (const auto& [words, expected] : kTable) {
    EXPECT_EQ(execute({"bash", "-c", complete(words), "bash", expected}).value(), 0) << words;
  }
}

}  // namespace
}  // namespace fairlead::cli
