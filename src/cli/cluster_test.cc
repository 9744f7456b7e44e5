// The commands of the cluster, from their words to what they print, against a server in this process.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <mutex>
#include <span>
#include <thread>

#include "cli/cluster_commands.h"
#include "cli/cluster_run.h"

namespace fairlead::cli {
namespace {

using control::EventParser;
using control::EventSink;

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

const char* const kReplica = "00000000-0000-4000-8000-0000000000a1";

// Answers by method and path, in the order in which they were set; the last one stays.
class FakeServer {
 public:
  FakeServer() {
    const auto handler = [this](const httplib::Request& request, httplib::Response& response) {
      answer(request, response);
    };
    server_.Get(".*", handler);
    server_.Post(".*", handler);
    server_.Patch(".*", handler);
    server_.Delete(".*", handler);
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();
  }
  ~FakeServer() {
    server_.stop();
    thread_.join();
  }
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  std::string address() const { return fmt::format("127.0.0.1:{}", port_); }
  std::string url() const { return "http://" + address(); }
  void on(const std::string& what, int status, const std::string& body) {
    const std::lock_guard guard(mutex_);
    answers_[what].push_back({status, body});
  }
  // "POST /v1/volumes {…}", with "If-Match" where it was sent.
  std::vector<std::string> requests() {
    const std::lock_guard guard(mutex_);
    return requests_;
  }

 private:
  void answer(const httplib::Request& request, httplib::Response& response) {
    const std::lock_guard guard(mutex_);
    const std::string what = request.method + " " + request.target;
    std::string told = what + (request.body.empty() ? "" : " " + request.body);
    if (request.has_header("If-Match")) told += " If-Match " + request.get_header_value("If-Match");
    if (request.has_header("Authorization")) told += " " + request.get_header_value("Authorization");
    requests_.push_back(told);
    auto& answers = answers_[what];
    if (answers.empty()) {
      response.status = 404;
      response.set_content(R"({"detail":"there is no such thing here","code":"not_found"})",
                           "application/problem+json");
      return;
    }
    response.status = answers.front().first;
    response.set_content(answers.front().second, "application/json");
    if (answers.size() > 1) answers.erase(answers.begin());
  }

  httplib::Server server_;
  std::mutex mutex_;
  std::map<std::string, std::vector<std::pair<int, std::string>>> answers_;
  std::vector<std::string> requests_;
  int port_ = 0;
  std::thread thread_;
};

// Goes on by what is paused, at once.
class FakeTime final : public Timekeeper {
 public:
  Instant now() override { return now_; }
  uint64_t wall_ms() override { return 1'000'000'000; }
  void pause(Duration span) override { now_ = now_ + span; }
  Instant now_;
};

struct Done {
  int code = -1;
  std::string output;
  std::string complaint;
};

Done run(ClusterArguments arguments, const std::string& servers, const Console& console = {}) {
  Done done;
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const auto plan = check(arguments, servers);
  FakeTime time;
  done.code = plan ? run_cluster_command(*plan, command_name(arguments), time, console) : 2;
  done.output = testing::internal::GetCapturedStdout();
  done.complaint = testing::internal::GetCapturedStderr();
  if (!plan) done.complaint = plan.error();
  return done;
}

std::string volume(const std::string& state, const std::string& more = "") {
  return fmt::format(R"({{"kind":"volume","name":"db","spec":{{"size_bytes":1073741824,"replicas":3}},)"
                     R"("status":{{"state":"{}"{}}}}})",
                     state, more);
}

// ---- Arguments

struct Asked {
  ClusterArguments arguments;
  const char* path;
  const char* body;
  const char* goal;
};

void expect_requests(std::span<const Asked> table) {
  for (const auto& [arguments, path, body, goal] : table) {
    const auto plan = check(arguments, "");
    ASSERT_TRUE(plan) << plan.error();
    ASSERT_TRUE(plan->change) << path;
    EXPECT_EQ(plan->change->path, path);
    EXPECT_EQ(plan->change->body.dump(), body);
    EXPECT_EQ(to_text(plan->goal), goal);
    EXPECT_THAT(plan->servers.urls, ElementsAre("http://127.0.0.1:7400"));
  }
}

TEST(ClusterArgumentsTest, RequestsThatMakeSomething) {
  const Asked kTable[] = {
      {{.verb = ClusterVerb::kCreate,
        .kind = "volumes",
        .name = "db",
        .size = "10GiB",
        .replicas = 3,
        .snapshot_limit = 0,
        .resync_share = 20,
        .thick = true,
        .labels = {"app=shop"},
        .spread_over = {"zone"},
        .affinity = {"disk=ssd"},
        .hosts = {"nqn.a"},
        .group = "g",
        .node = "a"},
       "/v1/volumes",
       R"({"name":"db","labels":{"app":"shop"},"spec":{"size_bytes":10737418240,"replicas":3,"thin":false,)"
       R"("preferred_node":"a","allowed_hosts":["nqn.a"],"snapshot_limit":0,"resync_share":20,)"
       R"("topology":{"spread_over":["zone"],"group":"g","affinity":{"disk":"ssd"}}}})",
       "is online"},
      {{.verb = ClusterVerb::kClone, .kind = "volumes", .other = "copy", .source = "monday"},
       "/v1/volumes",
       R"({"name":"copy","labels":{},"spec":{"source":"monday"}})",
       "is online"},
      {{.verb = ClusterVerb::kCreate, .kind = "pools", .name = "fast", .size = "1GiB", .disks = {"/d"}, .node = "a"},
       "/v1/pools",
       R"({"name":"fast","labels":{},"spec":{"node":"a","disks":["/d"],"file_size_bytes":1073741824}})",
       "is online"},
      {{.verb = ClusterVerb::kCreate, .kind = "snapshots", .name = "monday", .volume = "db"},
       "/v1/snapshots",
       R"({"name":"monday","labels":{},"spec":{"volume":"db"}})",
       "is online"},
  };
  expect_requests(kTable);
}

TEST(ClusterArgumentsTest, RequestsThatChangeSomething) {
  const Asked kTable[] = {
      {{.verb = ClusterVerb::kSet, .kind = "nodes", .name = "a", .labels = {"zone=b", "old="}},
       "/v1/nodes/a",
       R"({"spec":{},"labels":{"zone":"b","old":null}})",
       "is changed"},
      {{.verb = ClusterVerb::kSet, .kind = "volumes", .name = "db", .affinity = {"disk="}},
       "/v1/volumes/db",
       R"({"spec":{"topology":{"affinity":{"disk":null}}},"labels":{}})",
       "is changed"},
      {{.verb = ClusterVerb::kSet, .kind = "settings", .rebalance = "on"},
       "/v1/settings",
       R"({"spec":{"rebalance":"on"}})",
       "is changed"},
      {{.verb = ClusterVerb::kCordon, .kind = "nodes", .name = "a"},
       "/v1/nodes/a",
       R"({"spec":{"cordoned":true}})",
       "is changed"},
      {{.verb = ClusterVerb::kUncordon, .kind = "nodes", .name = "a"},
       "/v1/nodes/a",
       R"({"spec":{"cordoned":false,"draining":false}})",
       "is changed"},
      {{.verb = ClusterVerb::kDrain, .kind = "nodes", .name = "node/a"},
       "/v1/nodes/a",
       R"({"spec":{"draining":true}})",
       "is empty"},
      {{.verb = ClusterVerb::kEvacuate, .kind = "pools", .name = "fast"},
       "/v1/pools/fast",
       R"({"spec":{"evacuating":true}})",
       "is empty"},
      {{.verb = ClusterVerb::kEvacuate, .kind = "pools", .name = "fast", .cancel = true},
       "/v1/pools/fast",
       R"({"spec":{"evacuating":false}})",
       "is changed"},
      {{.verb = ClusterVerb::kResize, .kind = "volumes", .name = "db", .size = "2GiB"},
       "/v1/volumes/db",
       R"({"spec":{"size_bytes":2147483648}})",
       "has 2 GiB"},
      {{.verb = ClusterVerb::kScale, .kind = "volumes", .name = "db", .replicas = 2},
       "/v1/volumes/db",
       R"({"spec":{"replicas":2}})",
       "has 2 replicas"},
      {{.verb = ClusterVerb::kMove, .kind = "volumes", .name = "volume/db", .other = "b"},
       "/v1/volumes/db",
       R"({"spec":{"preferred_node":"b"}})",
       "is served by b"},
      {{.verb = ClusterVerb::kForce, .kind = "volumes", .name = "db", .trust = kReplica},
       "/v1/volumes/db/force",
       R"({"replica":"00000000-0000-4000-8000-0000000000a1"})",
       "is available"},
      {{.verb = ClusterVerb::kDelete, .kind = "volumes", .name = "a b/c"}, "/v1/volumes/a%20b%2Fc", "null", "is gone"},
  };
  expect_requests(kTable);
}

TEST(ClusterArgumentsTest, ComplaintsNameTheArgument) {
  const ClusterArguments create = {.verb = ClusterVerb::kCreate, .kind = "volumes", .name = "db", .size = "1GiB"};
  const auto with = [&](auto change) {
    ClusterArguments arguments = create;
    change(arguments);
    return arguments;
  };
  using A = ClusterArguments;
  const std::pair<ClusterArguments, const char*> kTable[] = {
      {with([](A& a) { a.size = ""; }), "--size SIZE"},
      {with([](A& a) { a.size = "1000"; }), "--size 1000"},
      {with([](A& a) { a.size = "big"; }), "--size big"},
      {with([](A& a) { a.name = "Db"; }), "NAME 'Db'"},
      {with([](A& a) { a.replicas = 8; }), "--replicas 8"},
      {with([](A& a) { a.labels = {"x"}; }), "--label x"},
      {with([](A& a) { a.affinity = {"=x"}; }), "--affinity =x"},
      {with([](A& a) { a.output = "xml"; }), "-o xml"},
      {with([](A& a) { a.timeout = "soon"; }), "--timeout soon"},
      {with([](A& a) { a.timeout = "5d"; }), "--timeout 5d"},
      {with([](A& a) { a.servers = {"ftp://x"}; }), "--server ftp://x"},
      {with([](A& a) { a.servers = {"http://a:b"}; }), "--server http://a:b"},
      {with([](A& a) { a.token_file = "/nowhere/token"; }), "--token-file /nowhere/token"},
      {with([](A& a) { a.ca_file = "/nowhere/ca"; }), "--ca /nowhere/ca"},
      {{.verb = ClusterVerb::kCreate, .kind = "pools", .name = "p", .disks = {"d"}, .node = "a"}, "d: expected a path"},
      {{.verb = ClusterVerb::kSet, .kind = "nodes", .name = "a"}, "--label KEY=VALUE"},
      {{.verb = ClusterVerb::kForce, .kind = "volumes", .name = "db", .trust = "a1"}, "--trust a1"},
      {{.verb = ClusterVerb::kWhy, .name = "db"}, "db: expected node/NAME"},
      {{.verb = ClusterVerb::kWait, .name = "volume/"}, "volume/: expected"},
      {{.verb = ClusterVerb::kWait, .name = "node/a", .wait_for = "available"}, "--for available"},
      {{.verb = ClusterVerb::kWait, .name = "volume/db", .wait_for = "empty"}, "--for empty"},
  };
  for (const auto& [arguments, says] : kTable) {
    const auto plan = check(arguments, "");
    ASSERT_FALSE(plan) << says;
    EXPECT_THAT(plan.error(), HasSubstr(says));
  }
}

TEST(ClusterArgumentsTest, ServersComeFromOptionsOrTheEnvironment) {
  const ClusterArguments none = {.verb = ClusterVerb::kList, .kind = "volumes"};
  ClusterArguments some = none;
  some.servers = {"a,https://b", "[::1]:7"};
  EXPECT_THAT(check(none, "x:1,y")->servers.urls, ElementsAre("http://x:1", "http://y:7400"));
  EXPECT_THAT(check(some, "x:1")->servers.urls, ElementsAre("http://a:7400", "https://b:7400", "http://[::1]:7"));
}

TEST(GoalTest, IsMetByTheDocument) {
  const Json online = Json::parse(volume("online", R"(,"size_bytes":10,"target":"a","replicas":[{},{}])"));
  const Json degraded = Json::parse(volume("degraded", R"(,"size_bytes":10)"));
  const Json none;
  using Kind = Goal::Kind;
  EXPECT_TRUE(is_met({.kind = Kind::kOnline}, online));
  EXPECT_FALSE(is_met({.kind = Kind::kOnline}, degraded));
  EXPECT_FALSE(is_met({.kind = Kind::kOnline}, none));
  EXPECT_TRUE(is_met({.kind = Kind::kAvailable}, degraded));
  EXPECT_TRUE(is_met({.kind = Kind::kGone}, none));
  EXPECT_FALSE(is_met({.kind = Kind::kGone}, online));
  EXPECT_TRUE(is_met({.kind = Kind::kState, .text = "degraded"}, degraded));
  EXPECT_TRUE(is_met({.kind = Kind::kSize, .number = 10}, online));
  EXPECT_FALSE(is_met({.kind = Kind::kSize, .number = 11}, online));
  EXPECT_TRUE(is_met({.kind = Kind::kTarget, .text = "a"}, online));
  EXPECT_FALSE(is_met({.kind = Kind::kTarget, .text = "b"}, online));
  const Json starting = Json::parse(volume("unavailable", R"(,"target":"a")"));
  EXPECT_FALSE(is_met({.kind = Kind::kTarget, .text = "a"}, starting)) << "it does not serve yet";
  EXPECT_TRUE(is_met({.kind = Kind::kReplicas, .number = 2}, online));
  EXPECT_FALSE(is_met({.kind = Kind::kReplicas, .number = 3}, online));
  EXPECT_TRUE(is_met({.kind = Kind::kEmpty}, Json::parse(R"({"status":{"targets":0,"replicas":0}})")));
  EXPECT_FALSE(is_met({.kind = Kind::kEmpty}, Json::parse(R"({"status":{"targets":0,"replicas":1}})")));
}

// ---- The client

struct Kept final : EventSink {
  bool take(std::string_view name, const Json& data) override {
    taken.push_back(fmt::format("{} {}", name, data.dump()));
    return taken.size() < enough;
  }
  std::vector<std::string> taken;
  size_t enough = 100;
};

TEST(EventParserTest, TakesEventsInPiecesOfAnySize) {
  const std::string stream =
      ": hello\n\nevent: resource\r\ndata: {\"a\":\ndata: 1}\r\n\r\nid: 7\nevent: gone\ndata: x\n\n";
  for (const size_t size : {size_t{1}, size_t{3}, stream.size()}) {
    Kept kept;
    EventParser parser;
    for (size_t at = 0; at < stream.size(); at += size) EXPECT_TRUE(parser.feed(stream.substr(at, size), kept));
    EXPECT_THAT(kept.taken, ElementsAre(R"(resource {"a":1})", "gone null"));
  }
}

TEST(EventParserTest, EndsWhenTheSinkHasEnough) {
  Kept kept;
  kept.enough = 1;
  EventParser parser;
  EXPECT_FALSE(parser.feed("event: a\ndata: 1\n\nevent: b\ndata: 2\n\n", kept));
  EXPECT_THAT(kept.taken, ElementsAre("a 1"));
}

TEST(ClientTest, AFollowerLeadsToTheLeader) {
  FakeServer leader;
  FakeServer follower;
  leader.on("GET /v1/volumes", 200, R"({"items":[]})");
  follower.on("GET /v1/volumes", 503, fmt::format(R"({{"detail":"ask the leader","leader":"{}"}})", leader.address()));
  RestClient client({.urls = {follower.url()}});
  EXPECT_TRUE(client.list("/v1/volumes"));
  EXPECT_TRUE(client.list("/v1/volumes"));
  EXPECT_EQ(follower.requests().size(), 1U) << "the one that answered is asked first";
}

TEST(ClientTest, TheNextServerIsAskedWhenOneIsAwayOrDoesNotLead) {
  FakeServer one;
  FakeServer other;
  one.on("GET /v1/overview", 503, R"({"detail":"no control process leads the cluster now","code":"unreachable"})");
  other.on("GET /v1/overview", 200, R"({"well":true})");
  RestClient client({.urls = {"http://127.0.0.1:1", one.url(), other.url()}});
  EXPECT_TRUE(client.get("/v1/overview"));
  RestClient lost({.urls = {"http://127.0.0.1:1", one.url()}});
  const auto none = lost.get("/v1/overview");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().error.code, Code::kUnreachable);
  EXPECT_EQ(to_string(none.error()), "no control process leads the cluster now");
}

TEST(ClientTest, ListsOfSeveralPages) {
  FakeServer server;
  server.on("GET /v1/nodes?label=a%3Db", 200, R"({"items":[1,2],"continue":"x y"})");
  server.on("GET /v1/nodes?label=a%3Db&continue=x%20y", 200, R"({"items":[3]})");
  RestClient client({.urls = {server.url()}, .token = "secret"});
  const auto all = client.list("/v1/nodes?label=a%3Db");
  ASSERT_TRUE(all) << to_string(all.error());
  EXPECT_THAT(*all, ElementsAre(1, 2, 3));
  EXPECT_EQ(server.requests().front(), "GET /v1/nodes?label=a%3Db Bearer secret");
}

// ---- Commands

TEST(ClusterCommandsTest, ListsAndShows) {
  FakeServer server;
  server.on("GET /v1/volumes?label=app%3Dshop", 200, R"({"items":[)" + volume("online") + "]}");
  server.on("GET /v1/volumes/db", 200, volume("online"));
  ClusterArguments list = {.verb = ClusterVerb::kList, .kind = "volumes", .labels = {"app=shop"}};
  EXPECT_THAT(run(list, server.url()).output, HasSubstr("db    online  1 GiB  0/3"));
  list.output = "name";
  EXPECT_EQ(run(list, server.url()).output, "volume/db\n");
  ClusterArguments show = {.verb = ClusterVerb::kShow, .kind = "volumes", .output = "yaml", .name = "volume/db"};
  EXPECT_THAT(run(show, server.url()).output, HasSubstr("spec:\n  size_bytes: 1073741824\n  replicas: 3\n"));
}

TEST(ClusterCommandsTest, ErrorsGiveTheirExitCode) {
  const struct {
    int status;
    const char* code;
    int exit;
  } kTable[] = {{404, "not_found", 3},     {422, "invalid_argument", 2},  {409, "busy", 4},
                {412, "miscompare", 4},    {403, "permission_denied", 1}, {503, "unreachable", 5},
                {409, "already_exists", 4}};
  for (const auto& [status, code, exit] : kTable) {
    FakeServer server;
    server.on("PATCH /v1/nodes/a", status, fmt::format(R"({{"detail":"say why","code":"{}"}})", code));
    const Done done =
        run({.verb = ClusterVerb::kSet, .kind = "nodes", .name = "a", .labels = {"x=y"}, .revision = 7}, server.url());
    EXPECT_EQ(done.code, exit) << code;
    EXPECT_EQ(done.complaint, "fairlead node set: say why\n");
    EXPECT_THAT(server.requests(), ElementsAre(R"(PATCH /v1/nodes/a {"spec":{},"labels":{"x":"y"}} If-Match "7")"));
  }
  EXPECT_EQ(run({.verb = ClusterVerb::kList, .kind = "nodes"}, "127.0.0.1:1").code, 5);
}

TEST(ClusterCommandsTest, CreationWaitsUntilItIsOnline) {
  FakeServer server;
  server.on("POST /v1/volumes", 201, volume("creating"));
  server.on("GET /v1/volumes/db", 200, volume("creating"));
  server.on("GET /v1/volumes/db", 503, R"({"detail":"nobody leads"})");
  server.on("GET /v1/volumes/db", 200, volume("online"));
  ClusterArguments create = {.verb = ClusterVerb::kCreate, .kind = "volumes", .name = "db", .size = "1GiB"};
  const Done done = run(create, server.url());
  EXPECT_EQ(done.code, 0) << done.complaint;
  EXPECT_EQ(done.output, "volume/db is online\n");
  EXPECT_EQ(server.requests().size(), 4U);
  create.no_wait = true;
  EXPECT_EQ(run(create, server.url()).output, "volume/db is asked for\n");
  EXPECT_EQ(server.requests().size(), 5U);
}

TEST(ClusterCommandsTest, TheTimeLimitEndsWaitingAndTellsWhy) {
  FakeServer server;
  server.on("POST /v1/volumes", 201, volume("creating"));
  server.on("GET /v1/volumes/db", 200,
            volume("creating", R"(,"conditions":[{"type":"Placed","met":false,"message":"there is no pool"}])"));
  const Done done = run(
      {.verb = ClusterVerb::kCreate, .kind = "volumes", .timeout = "5s", .name = "db", .size = "1GiB"}, server.url());
  EXPECT_EQ(done.code, 6);
  EXPECT_THAT(done.complaint, HasSubstr("volume/db: creating: there is no pool\n"));
  EXPECT_THAT(done.complaint, HasSubstr("after 5s it is not yet so that volume/db is online: there is no pool\n"));
}

TEST(ClusterCommandsTest, ACloneHasAsManyReplicasAsItsSource) {
  FakeServer server;
  server.on("GET /v1/snapshots/monday", 200, R"({"name":"monday","spec":{"volume":"db"}})");
  server.on("GET /v1/volumes/db", 200, volume("online"));
  server.on("POST /v1/volumes", 201, "{}");
  ClusterArguments clone = {
      .verb = ClusterVerb::kClone, .kind = "volumes", .no_wait = true, .other = "copy", .source = "monday"};
  EXPECT_EQ(run(clone, server.url()).code, 0);
  EXPECT_EQ(server.requests().back(),
            R"(POST /v1/volumes {"name":"copy","labels":{},"spec":{"source":"monday","replicas":3}})");
  clone.replicas = 1;
  EXPECT_EQ(run(clone, server.url()).code, 0);
  EXPECT_THAT(server.requests().back(), HasSubstr(R"("replicas":1)"));
}

TEST(ClusterCommandsTest, DeletionWaitsUntilItIsGone) {
  FakeServer server;
  server.on("DELETE /v1/volumes/db", 202, volume("deleting"));
  server.on("GET /v1/volumes/db", 200, volume("deleting"));
  server.on("GET /v1/volumes/db", 404, R"({"detail":"there is no volume db","code":"not_found"})");
  const Done done = run({.verb = ClusterVerb::kDelete, .kind = "volumes", .name = "db"}, server.url());
  EXPECT_EQ(done.output, "volume/db is gone\n") << done.complaint;
}

TEST(ClusterCommandsTest, DrainTellsHowFarItIs) {
  FakeServer server;
  const auto node = [](int left) {
    return fmt::format(R"({{"name":"a","status":{{"state":"draining","targets":0,"replicas":{}}}}})", left);
  };
  server.on("PATCH /v1/nodes/a", 200, node(4));
  for (int i = 0; i < 12; ++i) server.on("GET /v1/nodes/a", 200, node(4));
  server.on("GET /v1/nodes/a", 200, node(2));
  server.on("GET /v1/nodes/a", 200, node(0));
  const Done done = run({.verb = ClusterVerb::kDrain, .kind = "nodes", .name = "a"}, server.url());
  EXPECT_EQ(done.output, "node/a is empty\n") << done.complaint;
  EXPECT_THAT(done.complaint, HasSubstr("node/a: 4 of 4 still to move (0 %)\n"));
  EXPECT_THAT(done.complaint, HasSubstr("node/a: 2 of 4 still to move (50 %)"));
}

TEST(ClusterCommandsTest, WhatIsNotThereEndsWaiting) {
  FakeServer server;
  EXPECT_EQ(run({.verb = ClusterVerb::kWait, .name = "volume/db"}, server.url()).code, 3);
  EXPECT_EQ(run({.verb = ClusterVerb::kWait, .name = "volume/db", .wait_for = "gone"}, server.url()).code, 0);
}

TEST(ClusterCommandsTest, AttachPrintsALineForEachPath) {
  FakeServer server;
  const std::string paths = R"(,"nqn":"nqn.x:volume:1","paths":[)"
                            R"({"node":"b","address":"[fe80::2]:4421","state":"standby","controllers":0},)"
                            R"({"node":"a","address":"10.0.0.1:4420","state":"serving","controllers":1},)"
                            R"({"node":"c","address":"","state":"stopped","controllers":0}])";
  server.on("GET /v1/volumes/db", 200, volume("degraded", paths));
  EXPECT_EQ(run({.verb = ClusterVerb::kAttach, .kind = "volumes", .name = "db"}, server.url()).output,
            "nvme connect --transport=tcp --traddr=10.0.0.1 --trsvcid=4420 --nqn=nqn.x:volume:1 --ctrl-loss-tmo=-1 "
            "--reconnect-delay=1 --keep-alive-tmo=2\n"
            "nvme connect --transport=tcp --traddr=fe80::2 --trsvcid=4421 --nqn=nqn.x:volume:1 --ctrl-loss-tmo=-1 "
            "--reconnect-delay=1 --keep-alive-tmo=2\n");
  EXPECT_EQ(run({.verb = ClusterVerb::kDetach, .kind = "volumes", .name = "db"}, server.url()).output,
            "nvme disconnect --nqn=nqn.x:volume:1\n");
}

TEST(ClusterCommandsTest, AttachWithoutAPathSaysSo) {
  FakeServer server;
  server.on("GET /v1/volumes/db", 200, volume("unavailable"));
  const Done done = run({.verb = ClusterVerb::kAttach, .kind = "volumes", .no_wait = true, .name = "db"}, server.url());
  EXPECT_EQ(done.code, 4);
  EXPECT_THAT(done.complaint, HasSubstr("'fairlead why volume/db'"));
}

TEST(ClusterCommandsTest, StatusSaysByItsExitCodeWhetherAllIsWell) {
  FakeServer server;
  server.on("GET /v1/overview", 200, R"({"well":true,"problems":[]})");
  server.on("GET /v1/overview", 200, R"({"well":false,"problems":[{"resource":"nodes/a","state":"lost","why":"w"}]})");
  const ClusterArguments status = {.verb = ClusterVerb::kStatus};
  EXPECT_EQ(run(status, server.url()).code, 0);
  const Done bad = run(status, server.url());
  EXPECT_EQ(bad.code, 1);
  EXPECT_THAT(bad.output, StartsWith("1 thing is not well.\n"));
}

TEST(ClusterCommandsTest, WhyAndNames) {
  FakeServer server;
  server.on("GET /v1/volumes/db/why", 200, R"({"resource":"volumes/db","lines":["one","two"]})");
  server.on("GET /v1/volumes", 200, R"({"items":[{"name":"db"},{"name":"log"}]})");
  EXPECT_EQ(run({.verb = ClusterVerb::kWhy, .name = "volume/db"}, server.url()).output, "one\ntwo\n");
  EXPECT_EQ(run({.verb = ClusterVerb::kNames, .kind = "volumes"}, server.url()).output, "db\nlog\n");
  const Done lost = run({.verb = ClusterVerb::kNames, .kind = "volumes"}, "127.0.0.1:1");
  EXPECT_EQ(lost.complaint, "") << "completion is quiet";
}

TEST(ClusterCommandsTest, WatchShowsWhatChanges) {
  FakeServer server;
  server.on("GET /v1/watch?kind=volumes", 200,
            "event: resource\ndata: " + volume("creating") + "\n\nevent: synced\ndata: {}\n\nevent: resource\ndata: " +
                volume("online") + "\n\nevent: gone\ndata: {\"kind\":\"volume\",\"name\":\"db\"}\n\n");
  const Done done =
      run({.verb = ClusterVerb::kList, .kind = "volumes", .watch = true, .timeout = "500ms"}, server.url());
  EXPECT_EQ(done.code, 0) << done.complaint;
  EXPECT_THAT(done.output, HasSubstr("NAME"));
  EXPECT_LT(done.output.find("creating"), done.output.find("online"));
  EXPECT_EQ(done.complaint, "volume/db is gone\n");
}

TEST(ClusterCommandsTest, EventsAreFollowedFromWhereTheListEnds) {
  FakeServer server;
  const std::string first = R"({"number":7,"at_ms":0,"resource":"volumes/db","reason":"Created","message":"m"})";
  const std::string next = R"({"number":8,"at_ms":1000,"resource":"volumes/db","reason":"Degraded","message":"n"})";
  server.on("GET /v1/events", 200, R"({"items":[)" + first + "]}");
  server.on("GET /v1/watch?kind=events&after=7", 200, "id: 8\nevent: event\ndata: " + next + "\n\n");
  const Done done = run({.verb = ClusterVerb::kEvents, .watch = true, .timeout = "500ms"}, server.url());
  EXPECT_EQ(done.code, 0) << done.complaint;
  EXPECT_EQ(done.output,
            "1970-01-01T00:00:00Z  volumes/db                Created  m\n"
            "1970-01-01T00:00:01Z  volumes/db                Degraded  n\n");
}

TEST(ClusterCommandsTest, TheCommandLineHasThem) {
  FakeServer server;
  server.on("GET /v1/nodes", 200, R"({"items":[]})");
  CLI::App app("test", "fairlead");
  const ClusterCommands commands(app);
  std::vector<std::string> words = {"node", "list", "--server", server.url(), "-o", "json"};
  std::ranges::reverse(words);
  app.parse(words);
  testing::internal::CaptureStdout();
  EXPECT_EQ(commands.run(nullptr), 0);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "[]\n");
}

}  // namespace
}  // namespace fairlead::cli
