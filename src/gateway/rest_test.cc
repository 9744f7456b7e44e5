#include "gateway/rest.h"

#include <api/engine/v1/engine.pb.h>
#include <gtest/gtest.h>

#include "tests/support/memory_store.h"
#include "tests/support/sim_rpc.h"

namespace fairlead::gateway {
namespace {

using control::Json;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* kVolume = R"({"name":"db","labels":{"app":"shop"},"spec":{"size_bytes":1048576,"replicas":2}})";

// One control process in a simulated world, without engines.
struct Bed {
  Bed(sim::SimNode& node, test::MemoryStoreState& state, test::SimRpc& rpc, const std::string& address)
      : shard(node.shard(0)),
        store(shard, state, address),
        dialer(rpc.dialer(node)),
        control(shard, store, *dialer, {}),
        rest(shard, control, store, {.version = "1.2.3", .address = address}),
        scope(shard.reactor) {}

  Task<void> start() {
    scope.spawn(control.run());
    while (!control.is_leading()) (void)co_await sleep(shard.reactor, milliseconds(10));
  }
  Task<void> stop() {
    co_await rest.close();
    co_await control.stop();
    co_await scope.close();
  }

  // "POST /v1/volumes?x=y"
  Task<HttpResponse> ask(std::string_view method, std::string target, std::string body = "",
                         std::map<std::string, std::string> headers = {}) {
    HttpRequest request{
        .method = std::string(method), .path = target, .headers = std::move(headers), .body = std::move(body)};
    if (const size_t mark = target.find('?'); mark != std::string::npos) {
      request.path = target.substr(0, mark);
      for (std::string_view left = std::string_view(target).substr(mark + 1); !left.empty();) {
        const size_t end = std::min(left.find('&'), left.size());
        const size_t equals = std::min(left.find('='), end);
        request.query.emplace(left.substr(0, equals),
                              left.substr(std::min(equals + 1, end), end - std::min(equals + 1, end)));
        left.remove_prefix(std::min(end + 1, left.size()));
      }
    }
    co_return co_await rest.handle(std::move(request));
  }
  Task<void> expect(int status, std::string method, std::string target, std::string body = "",
                    std::map<std::string, std::string> headers = {}, std::string words = "") {
    const HttpResponse response = co_await ask(method, target, std::move(body), std::move(headers));
    EXPECT_EQ(response.status, status) << method << " " << target << ": " << response.body;
    EXPECT_NE(response.body.find(words), std::string::npos) << method << " " << target << ": " << response.body;
    if (response.status < 400) co_return;
    EXPECT_EQ(response.content_type, "application/problem+json");
    const Json json = Json::parse(response.body);
    EXPECT_EQ(json["status"], status);
    EXPECT_FALSE(json["title"].get<std::string>().empty());
    EXPECT_FALSE(json["detail"].get<std::string>().empty());
    EXPECT_TRUE(code_from_name(json["code"].get<std::string>()));
  }
  Task<Json> get(std::string target) {
    const HttpResponse response = co_await ask("GET", target);
    EXPECT_EQ(response.status, 200) << target << ": " << response.body;
    co_return Json::parse(response.body, nullptr, false);
  }

  // A node with a pool joins.
  Task<void> join(std::string name) {
    control::api::ReportRequest request;
    request.set_node(name);
    request.set_run_id(to_string(shard.random.uuid()));
    request.set_sequence(1);
    control::api::NodeState& state = *request.mutable_state();
    state.set_node(name);
    state.set_node_id(to_string(shard.random.uuid()));
    state.set_run_id(request.run_id());
    state.set_data_address("10.0.0.9:4420");
    state.set_management_address("10.0.0.9:7420");
    (*state.mutable_labels())["zone"] = "z-" + name;
    control::api::PoolState& pool = *state.add_pools();
    pool.set_name("pool-" + name);
    pool.set_id(to_string(shard.random.uuid()));
    pool.add_disks("/disk");
    pool.set_capacity_bytes(1 << 30);
    pool.set_free_bytes(1 << 30);
    const auto reply =
        co_await control.service().handle("/fairlead.engine.v1.Control/Report", request.SerializeAsString());
    EXPECT_TRUE(reply) << to_string(reply.error());
  }

  Shard& shard;
  test::MemoryStore store;
  std::unique_ptr<rpc::Dialer> dialer;
  control::Control control;
  Rest rest;
  Scope scope;
};

Task<void> run_bed(sim::SimNode& node, test::MemoryStoreState& state, test::SimRpc& rpc, Task<void> (*program)(Bed&),
                   bool& done) {
  Bed bed(node, state, rpc, "http://10.0.0.1:7400");
  co_await bed.start();
  co_await program(bed);
  co_await bed.stop();
  done = true;
}

void run_test(Task<void> (*program)(Bed&)) {
  test::SimRpc rpc;
  bool done = false;
  sim::SimWorld world(1);
  rpc.join(world);
  test::MemoryStoreState state(world);
  sim::SimNode& node = world.add_node("10.0.0.1");
  world.spawn(node, 0, run_bed(node, state, rpc, program, done));
  EXPECT_EQ(world.run_until([&] { return done; }, seconds(300)), sim::RunResult::kDone) << world.report();
}

std::string header_of(const HttpResponse& response, std::string_view name) {
  for (const auto& [each, value] : response.headers) {
    if (each == name) return value;
  }
  return "";
}

Task<void> live_and_die(Bed& bed) {
  const HttpResponse made = co_await bed.ask("POST", "/v1/volumes", kVolume);
  EXPECT_EQ(made.status, 201) << made.body;
  EXPECT_EQ(header_of(made, "Location"), "/v1/volumes/db");
  const HttpResponse again = co_await bed.ask("POST", "/v1/volumes", kVolume);
  EXPECT_EQ(again.status, 200) << again.body;
  co_await bed.expect(409, "POST", "/v1/volumes", R"({"name":"db","spec":{"size_bytes":2097152}})", {},
                      "already_exists");

  const HttpResponse found = co_await bed.ask("GET", "/v1/volumes/db");
  const Json before = Json::parse(found.body);
  EXPECT_EQ(before["kind"], "volume");
  EXPECT_EQ(before["spec"]["replicas"], 2);
  const std::string tag = header_of(found, "ETag");
  EXPECT_EQ(tag, "\"" + before["revision"].dump() + "\"");

  const std::string patch = R"({"spec":{"replicas":3},"labels":{"app":null,"tier":"gold"}})";
  co_await bed.expect(412, "PATCH", "/v1/volumes/db", patch, {{"if-match", "\"999999\""}}, "look at it again");
  co_await bed.expect(412, "PATCH", "/v1/volumes/db?revision=999999", patch);
  const HttpResponse patched = co_await bed.ask("PATCH", "/v1/volumes/db", patch, {{"if-match", tag}});
  EXPECT_EQ(patched.status, 200) << patched.body;
  EXPECT_EQ(Json::parse(patched.body)["labels"], Json({{"tier", "gold"}}));
  EXPECT_NE(header_of(patched, "ETag"), tag);
  co_await bed.expect(412, "DELETE", "/v1/volumes/db", "", {{"if-match", tag}});
  co_await bed.expect(200, "PATCH", "/v1/volumes/db", R"({"spec":{"replicas":1}})", {{"if-match", "*"}});

  co_await bed.expect(202, "DELETE", "/v1/volumes/db", "", {}, "deleting");
  while ((co_await bed.ask("GET", "/v1/volumes/db")).status != 404) {
    (void)co_await sleep(bed.shard.reactor, milliseconds(50));
  }
  const HttpResponse gone = co_await bed.ask("DELETE", "/v1/volumes/db");
  EXPECT_EQ(gone.status, 204);
  EXPECT_TRUE(gone.body.empty());
}
TEST(RestTest, AVolumeIsMadeChangedAndDeleted) { run_test(live_and_die); }

// Nobody serves the volumes here: the group stays pending, and says why.
Task<void> ask_for_a_group(Bed& bed) {
  co_await bed.expect(201, "POST", "/v1/volumes", kVolume);
  co_await bed.expect(201, "POST", "/v1/volumes", R"({"name":"log","spec":{"size_bytes":1048576}})");
  const std::string group = R"({"name":"monday","labels":{"by":"me"},"spec":{"volumes":["log","db"]}})";
  const HttpResponse made = co_await bed.ask("POST", "/v1/snapshot-groups", group);
  EXPECT_EQ(made.status, 201) << made.body;
  EXPECT_EQ(header_of(made, "Location"), "/v1/snapshot-groups/monday");
  co_await bed.expect(200, "POST", "/v1/snapshot-groups", R"({"name":"monday","spec":{"volumes":["db","log"]}})");
  co_await bed.expect(409, "POST", "/v1/snapshot-groups", R"({"name":"monday","spec":{"volumes":["db"]}})");
  for (const char* const volumes : {R"([])", R"(["db","db"])", R"(["db","none"])"}) {
    co_await bed.expect(422, "POST", "/v1/snapshot-groups",
                        R"({"name":"tuesday","spec":{"volumes":)" + std::string(volumes) + "}}", {}, "volume");
  }
  co_await bed.expect(422, "POST", "/v1/snapshots", R"({"name":"s","spec":{"volume":"db","group":"monday"}})", {},
                      "group");
  co_await bed.expect(405, "PATCH", "/v1/snapshot-groups/monday", "{}");
  co_await bed.expect(409, "DELETE", "/v1/snapshots/monday-1", "", {}, "is of the group monday");
  co_await bed.expect(409, "DELETE", "/v1/volumes/db", "", {}, "monday-1");

  const Json part = co_await bed.get("/v1/snapshots/monday-2");
  EXPECT_EQ(part["spec"], Json({{"volume", "log"}, {"group", "monday"}}));
  EXPECT_EQ(part["labels"], Json({{"by", "me"}}));
  Json found;
  while (!found.contains("status") || !found["status"].contains("why")) {
    (void)co_await sleep(bed.shard.reactor, milliseconds(50));
    found = co_await bed.get("/v1/snapshot-groups/monday");
  }
  EXPECT_EQ(found["spec"]["volumes"], Json({"db", "log"}));
  EXPECT_EQ(found["status"]["state"], "pending");
  EXPECT_NE(found["status"]["why"].get<std::string>().find("is not served now"), std::string::npos) << found.dump();
  EXPECT_EQ(found["status"]["snapshots"][1]["name"], "monday-2");
  EXPECT_EQ((co_await bed.get("/v1/snapshot-groups?volume=log"))["items"].size(), 1U);
  EXPECT_EQ((co_await bed.get("/v1/snapshot-groups?label=by=you"))["items"].size(), 0U);

  co_await bed.expect(412, "DELETE", "/v1/snapshot-groups/monday?revision=99999");
  co_await bed.expect(202, "DELETE", "/v1/snapshot-groups/monday", "", {}, "deleting");
  while ((co_await bed.ask("GET", "/v1/snapshot-groups/monday")).status != 404) {
    (void)co_await sleep(bed.shard.reactor, milliseconds(50));
  }
  co_await bed.expect(404, "GET", "/v1/snapshots/monday-1");
  co_await bed.expect(204, "DELETE", "/v1/snapshot-groups/monday");
}
TEST(RestTest, AGroupOfSnapshotsIsItsSnapshots) { run_test(ask_for_a_group); }

Task<void> freeze_for_a_snapshot(Bed& bed) {
  co_await bed.expect(201, "POST", "/v1/volumes", kVolume);
  const char* const path = "/v1/volumes/db/frozen";
  const char* const frozen = R"({"request":"r-1","state":"frozen"})";
  const char* const thawed = R"({"request":"r-1","state":"thawed"})";
  co_await bed.expect(412, "POST", path, frozen, {}, "nobody waits for 'r-1' to be frozen");
  co_await bed.expect(200, "PATCH", "/v1/volumes/db", R"({"labels":{"fairlead.dev/freeze":"r-1"}})");
  co_await bed.expect(412, "POST", path, thawed);
  co_await bed.expect(412, "POST", path, R"({"request":"r-2","state":"frozen"})");
  co_await bed.expect(200, "POST", path, frozen, {}, R"("fairlead.dev/frozen":"r-1")");
  co_await bed.expect(412, "POST", path, frozen);  // that was said: who says it again froze it again
  co_await bed.expect(412, "POST", path, thawed);  // nobody has a snapshot yet
  co_await bed.expect(200, "PATCH", "/v1/volumes/db", R"({"labels":{"fairlead.dev/freeze":"r-1.taken"}})");
  co_await bed.expect(200, "POST", path, thawed, {}, R"("fairlead.dev/frozen":"r-1.thawed")");
  co_await bed.expect(412, "POST", path, thawed);
  co_await bed.expect(422, "POST", path, R"({"request":"r-1","state":"cold"})");
  co_await bed.expect(422, "POST", path, R"({"request":"r-1","state":"frozen","more":1})");
  co_await bed.expect(404, "POST", "/v1/volumes/none/frozen", frozen);
  co_await bed.expect(405, "GET", path);
}
TEST(RestTest, AHostAnswersWhatItIsAsked) { run_test(freeze_for_a_snapshot); }

Task<void> ask_wrongly(Bed& bed) {
  co_await bed.expect(404, "GET", "/v1/volumes/none", "", {}, "there is no volume none");
  co_await bed.expect(404, "GET", "/v2/volumes");
  co_await bed.expect(404, "GET", "/v1/volumes/");
  co_await bed.expect(404, "GET", "/v1/hamsters");
  co_await bed.expect(404, "PATCH", "/v1/volumes/none", "{}");
  co_await bed.expect(405, "POST", "/v1/nodes", "{}", {}, "takes GET, not POST");
  co_await bed.expect(405, "DELETE", "/v1/replicas/x");
  co_await bed.expect(400, "GET", "/v1/volumes?lable=a=b", "", {}, "takes only label, volume, node, limit, continue");
  co_await bed.expect(400, "GET", "/v1/overview?x=1", "", {}, "takes no parameters");
  co_await bed.expect(400, "GET", "/v1/volumes?label=app");
  co_await bed.expect(400, "GET", "/v1/volumes?limit=0");
  co_await bed.expect(400, "GET", "/v1/volumes?limit=many");
  co_await bed.expect(400, "GET", "/v1/events?after=-1");
  co_await bed.expect(400, "GET", "/v1/watch?kind=hamsters");
  co_await bed.expect(400, "POST", "/v1/volumes", "{", {}, "");
  co_await bed.expect(400, "POST", "/v1/volumes", "");
  co_await bed.expect(400, "POST", "/v1/volumes", "[]");
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += R"({"a":)";
  co_await bed.expect(400, "PATCH", "/v1/volumes/db", deep, {}, "more than 32 levels");
  co_await bed.expect(422, "POST", "/v1/volumes", R"({"name":"db","spec":{"size":1}})", {}, "spec.size");
  co_await bed.expect(422, "POST", "/v1/volumes", R"({"name":"NO","spec":{"size_bytes":1048576}})");
  co_await bed.expect(422, "POST", "/v1/pools", R"({"name":"p","spec":{"node":"nowhere","disks":["/d"]}})", {},
                      "there is no node nowhere");
  co_await bed.expect(201, "POST", "/v1/volumes", kVolume);
  co_await bed.expect(400, "PATCH", "/v1/volumes/db", "{}", {{"if-match", "17"}}, "If-Match");
  co_await bed.expect(400, "PATCH", "/v1/volumes/db?revision=2", "{}", {{"if-match", "\"1\""}});
  co_await bed.expect(422, "POST", "/v1/volumes/db/force", R"({"replica":"x"})");
  co_await bed.expect(409, "POST", "/v1/volumes/db/force", R"({"replica":"11111111-2222-3333-4444-555555555555"})");
}
TEST(RestTest, WhatIsWrongIsSaid) { run_test(ask_wrongly); }

Task<void> change_settings(Bed& bed) {
  const Json before = co_await bed.get("/v1/settings");
  EXPECT_EQ(before, Json::parse(R"({"kind":"settings","revision":0,"spec":{"rebalance":"suggest"}})"));
  co_await bed.expect(200, "PATCH", "/v1/settings", R"({"spec":{"rebalance":"on"}})", {}, R"("rebalance":"on")");
  const Json after = co_await bed.get("/v1/settings");
  EXPECT_EQ(after["spec"]["rebalance"], "on");
  EXPECT_GT(after["revision"], 0);
  co_await bed.expect(412, "PATCH", "/v1/settings?revision=1000000", R"({"spec":{"rebalance":"off"}})");
  co_await bed.expect(422, "PATCH", "/v1/settings", R"({"spec":{"rebalance":"often"}})", {}, "off, suggest");
  co_await bed.expect(422, "PATCH", "/v1/settings", R"({"labels":{"a":"b"}})", {}, "labels");
  co_await bed.expect(405, "DELETE", "/v1/settings");
}
TEST(RestTest, SettingsAreThereAndChange) { run_test(change_settings); }

Task<void> page(Bed& bed) {
  for (const char* name : {"a", "b", "c", "d", "e"}) {
    const std::string side = *name < 'c' ? "left" : "right";
    co_await bed.expect(
        201, "POST", "/v1/volumes",
        Json{{"name", name}, {"labels", {{"side", side}, {"x", "1"}}}, {"spec", {{"size_bytes", 1 << 20}}}}.dump());
  }
  std::vector<std::string> names;
  std::string token;
  size_t pages = 0;
  do {
    const Json list = co_await bed.get("/v1/volumes?limit=2" + (token.empty() ? "" : "&continue=" + token));
    EXPECT_LE(list["items"].size(), 2U);
    for (const Json& each : list["items"]) names.push_back(each["name"]);
    token = list.value("continue", "");
    ++pages;
  } while (!token.empty() && pages < 10);
  EXPECT_EQ(names, (std::vector<std::string>{"a", "b", "c", "d", "e"}));
  EXPECT_EQ(pages, 3U);
  EXPECT_EQ((co_await bed.get("/v1/volumes?limit=5")).contains("continue"), false);
  EXPECT_EQ((co_await bed.get("/v1/volumes?label=side=left"))["items"].size(), 2U);
  EXPECT_EQ((co_await bed.get("/v1/volumes?label=side=left&label=x=1"))["items"].size(), 2U);
  EXPECT_EQ((co_await bed.get("/v1/volumes?label=side=left&label=x=2"))["items"].size(), 0U);
}
TEST(RestTest, ListsComeInPagesAndByLabel) { run_test(page); }

Task<void> look_at_replicas(Bed& bed) {
  for (const char* name : {"n1", "n2", "n3"}) co_await bed.join(name);
  while ((co_await bed.get("/v1/pools"))["items"].size() < 3) (void)co_await sleep(bed.shard.reactor, milliseconds(50));
  co_await bed.expect(201, "POST", "/v1/volumes", kVolume);
  while ((co_await bed.get("/v1/replicas"))["items"].size() < 2)
    (void)co_await sleep(bed.shard.reactor, milliseconds(50));
  const Json replica = (co_await bed.get("/v1/replicas?volume=db&limit=1"))["items"][0];
  EXPECT_EQ(replica["kind"], "replica");
  EXPECT_EQ(replica["name"], replica["id"]);
  EXPECT_EQ(co_await bed.get("/v1/replicas/" + replica["id"].get<std::string>()), replica);
  EXPECT_EQ((co_await bed.get("/v1/replicas?volume=other"))["items"].size(), 0U);
  EXPECT_EQ((co_await bed.get("/v1/replicas?label=a=b"))["items"].size(), 0U);
  EXPECT_EQ((co_await bed.get("/v1/replicas?node=" + replica["node"].get<std::string>()))["items"].size(), 1U);
  EXPECT_EQ((co_await bed.get("/v1/pools?node=n2"))["items"].size(), 1U);
  const Json node = co_await bed.get("/v1/nodes/n1");
  EXPECT_EQ(node["labels"]["zone"], "z-n1");
  EXPECT_GT((co_await bed.get("/v1/nodes/n1/why"))["lines"].size(), 0U);
  EXPECT_GT((co_await bed.get("/v1/volumes/db/why"))["lines"].size(), 0U);
  EXPECT_FALSE((co_await bed.get("/v1/overview"))["well"].get<bool>());
  const Json events = (co_await bed.get("/v1/events?resource=nodes/n1"))["items"];
  EXPECT_GT(events.size(), 0U);
  for (const Json& event : events) EXPECT_EQ(event["resource"], "nodes/n1");
  const std::string last = (co_await bed.get("/v1/events"))["items"].back()["number"].dump();
  EXPECT_EQ((co_await bed.get("/v1/events?after=" + last))["items"].size(), 0U);
  const HttpResponse metrics = co_await bed.ask("GET", "/metrics");
  EXPECT_NE(metrics.body.find("fairlead_replica_state{replica=\"" + replica["id"].get<std::string>()),
            std::string::npos);
}
TEST(RestTest, ShowsWhereThingsAre) { run_test(look_at_replicas); }

// ---- Watches

struct ServerEvent {
  std::string name;
  Json data;
};
std::vector<ServerEvent> parse_events(const std::string& text) {
  std::vector<ServerEvent> events;
  std::string name;
  for (std::string_view left = text; !left.empty();) {
    const size_t end = left.find('\n');
    const std::string_view line = left.substr(0, end);
    left.remove_prefix(std::min(end + 1, left.size()));
    if (line.starts_with("event: ")) name = line.substr(7);
    if (line.starts_with("data: ")) events.push_back({name, Json::parse(line.substr(6))});
  }
  return events;
}

// Until there is one that fits.
Task<std::vector<ServerEvent>> read_until(HttpFeed& feed, std::string name, std::string word) {
  std::vector<ServerEvent> all;
  for (int turns = 0; turns < 100; ++turns) {
    const auto piece = co_await feed.next();
    EXPECT_TRUE(piece);
    if (!piece) break;
    for (ServerEvent& event : parse_events(*piece)) {
      const bool fits = event.name == name && event.data.dump().find(word) != std::string::npos;
      all.push_back(std::move(event));
      if (fits) co_return all;
    }
  }
  ADD_FAILURE() << "no " << name << " with " << word;
  co_return all;
}

Task<void> watch(Bed& bed) {
  co_await bed.expect(201, "POST", "/v1/volumes", kVolume);
  HttpResponse response = co_await bed.ask("GET", "/v1/watch?kind=volumes&kind=events");
  EXPECT_EQ(response.content_type, "text/event-stream");
  EXPECT_NE(response.feed, nullptr);
  if (response.feed == nullptr) co_return;
  const auto first = co_await read_until(*response.feed, "synced", "{}");
  EXPECT_EQ(first.size(), 2U);
  EXPECT_EQ(first.front().name, "resource");
  EXPECT_EQ(first.front().data["name"], "db");

  co_await bed.expect(200, "PATCH", "/v1/volumes/db", R"({"labels":{"app":"other"}})");
  const auto changed = co_await read_until(*response.feed, "resource", "other");
  // What is as it was is not told again.
  Json last = first.front().data;
  for (const ServerEvent& event : changed) {
    if (event.name != "resource") continue;
    EXPECT_NE(event.data, last);
    last = event.data;
  }
  co_await bed.expect(201, "POST", "/v1/volumes", R"({"name":"two","spec":{"size_bytes":1048576}})");
  co_await read_until(*response.feed, "event", "volumes/two");
  co_await bed.expect(202, "DELETE", "/v1/volumes/db");
  const auto gone = co_await read_until(*response.feed, "gone", "db");
  EXPECT_EQ(gone.back().data, Json({{"kind", "volume"}, {"name", "db"}}));

  // Silence is broken now and then.
  const Instant begun = bed.shard.reactor.now();
  std::string piece;
  while (!piece.starts_with(":") && bed.shard.reactor.now() - begun < seconds(60))
    piece = *co_await response.feed->next();
  EXPECT_EQ(piece, ": still here\n\n");
  EXPECT_LE(bed.shard.reactor.now() - begun, seconds(17));

  co_await bed.rest.close();
  EXPECT_EQ(co_await response.feed->next(), std::nullopt);
}
TEST(RestTest, WhoWatchesIsToldOfEveryChange) { run_test(watch); }

Task<void> watch_a_selection(Bed& bed) {
  co_await bed.expect(201, "POST", "/v1/volumes", kVolume);
  co_await bed.expect(201, "POST", "/v1/volumes", R"({"name":"two","spec":{"size_bytes":1048576}})");
  HttpResponse response = co_await bed.ask("GET", "/v1/watch?kind=volumes&label=app=shop");
  const auto first = co_await read_until(*response.feed, "synced", "{}");
  EXPECT_EQ(first.size(), 2U);
  EXPECT_EQ(first.front().data["name"], "db");
  // One that is selected no more is gone for who selects.
  co_await bed.expect(200, "PATCH", "/v1/volumes/db", R"({"labels":{"app":"other"}})");
  co_await read_until(*response.feed, "gone", "db");
  co_await bed.expect(200, "PATCH", "/v1/volumes/two", R"({"labels":{"app":"shop"}})");
  co_await read_until(*response.feed, "resource", "two");
}
TEST(RestTest, WatchesSelect) { run_test(watch_a_selection); }

Task<void> resume_a_watch(Bed& bed) {
  co_await bed.expect(201, "POST", "/v1/volumes", R"({"name":"one","spec":{"size_bytes":1048576}})");
  co_await bed.expect(201, "POST", "/v1/volumes", R"({"name":"two","spec":{"size_bytes":1048576}})");
  const Json events = (co_await bed.get("/v1/events?resource=volumes/one"))["items"];
  HttpResponse response =
      co_await bed.ask("GET", "/v1/watch?kind=events", "", {{"last-event-id", events[0]["number"].dump()}});
  const auto told = co_await read_until(*response.feed, "event", "volumes/two");
  for (const ServerEvent& event : told) {
    if (event.name == "event") EXPECT_GT(event.data["number"], events[0]["number"]);
  }
}
TEST(RestTest, AWatchGoesOnWhereAnotherEnded) { run_test(resume_a_watch); }

// ---- Who does not lead

Task<void> stand_by(sim::SimNode& node, test::MemoryStoreState& state, test::SimRpc& rpc, bool& done) {
  Bed leader(node, state, rpc, "http://10.0.0.1:7400");
  Bed other(node, state, rpc, "http://10.0.0.2:7400");
  co_await other.expect(503, "GET", "/readyz", "", {}, "no control process leads");
  co_await other.expect(503, "GET", "/v1/volumes", "", {}, "no control process leads");
  // Who asks at the wrong moment is answered when it is over.
  Scope asking(leader.shard.reactor);
  asking.spawn(leader.expect(200, "GET", "/v1/overview"));
  // Nobody stands by for himself.
  leader.scope.spawn(leader.control.run());
  size_t beginning = 0;
  while (!leader.control.is_leading()) {
    const HttpResponse response = co_await leader.ask("GET", "/readyz");
    if (leader.control.is_leading()) break;
    EXPECT_EQ(response.status, 503) << response.body;
    if (response.body.find("begins to lead") != std::string::npos) ++beginning;
  }
  EXPECT_GT(beginning, 0U);
  co_await asking.close();
  other.scope.spawn(other.control.run());
  co_await leader.expect(200, "GET", "/readyz", "", {}, "leads");
  co_await other.expect(200, "GET", "/readyz", "", {}, "stands by for http://10.0.0.1:7400");
  co_await other.expect(200, "GET", "/livez");
  for (const char* target : {"/v1/volumes", "/v1/volumes/db", "/v1/overview", "/v1/events", "/v1/watch"}) {
    co_await other.expect(503, "GET", target, "", {}, R"("leader":"http://10.0.0.1:7400")");
  }
  co_await other.expect(503, "POST", "/v1/volumes", kVolume, {}, "http://10.0.0.1:7400");
  co_await other.expect(503, "DELETE", "/v1/volumes/db");
  co_await other.expect(200, "GET", "/metrics", "", {}, "fairlead_control_leading 0");
  HttpResponse response = co_await leader.ask("GET", "/v1/watch");
  co_await leader.control.stop();
  EXPECT_EQ(co_await response.feed->next(), std::nullopt);
  response = {};
  while (!other.control.is_leading()) (void)co_await sleep(other.shard.reactor, milliseconds(10));
  co_await other.expect(201, "POST", "/v1/volumes", kVolume);
  co_await leader.stop();
  co_await other.stop();
  done = true;
}

TEST(RestTest, WhoDoesNotLeadNamesTheLeader) {
  test::SimRpc rpc;
  bool done = false;
  sim::SimWorld world(2);
  rpc.join(world);
  test::MemoryStoreState state(world);
  sim::SimNode& node = world.add_node("10.0.0.1");
  world.spawn(node, 0, stand_by(node, state, rpc, done));
  EXPECT_EQ(world.run_until([&] { return done; }, seconds(300)), sim::RunResult::kDone) << world.report();
}

}  // namespace
}  // namespace fairlead::gateway
