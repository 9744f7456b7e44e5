// Services and channels, carried by the simulator.
#include "tests/support/sim_rpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/engine/v1/engine.pb.h"

namespace fairlead::rpc {
namespace {

using engine::v1::NextTermReply;
using engine::v1::NextTermRequest;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* kAddress = "10.0.0.1:7420";
constexpr const char* kMethod = "/fairlead.engine.v1.Control/NextTerm";

class Terms {
 public:
  Task<Outcome<NextTermReply>> next_term(NextTermRequest request) {
    if (request.volume().empty()) co_return problem(Code::kInvalidArgument, "name the volume");
    NextTermReply reply;
    reply.set_number(++last_);
    co_return reply;
  }
  uint64_t last() const { return last_; }

 private:
  uint64_t last_ = 0;
};

class SimRpcTest : public testing::Test {
 protected:
  // A server's program, until the node ends.
  Task<void> serve(sim::SimNode& node) {
    Service service;
    service.add(kMethod, terms_, &Terms::next_term);
    test::SimRpcServer server(rpc_, node, kAddress, service);
    co_await node.stopping(0).wait();
    co_await server.close();
  }
  Task<void> ask(sim::SimNode& node, std::string method, std::string volume, Duration limit) {
    const std::unique_ptr<Dialer> dialer = rpc_.dialer(node);
    const std::unique_ptr<Channel> channel = dialer->dial(kAddress);
    NextTermRequest request;
    request.set_volume(std::move(volume));
    answer_ = co_await call<NextTermReply>(*channel, std::move(method), std::move(request), limit);
  }
  Outcome<NextTermReply> get(std::string volume = "db", std::string method = kMethod,
                             Duration limit = milliseconds(100)) {
    answer_.reset();
    world_.spawn(client_, 0, ask(client_, std::move(method), std::move(volume), limit));
    EXPECT_EQ(world_.run_until([&] { return answer_.has_value(); }, seconds(5)), sim::RunResult::kDone);
    return answer_.value_or(problem(Code::kInternal, "no answer at all"));
  }
  Code code_of(const Outcome<NextTermReply>& answer) { return answer ? Code::kInternal : answer.error().error.code; }

  SimRpcTest() { rpc_.join(world_); }

  test::SimRpc rpc_;
  Terms terms_;
  sim::SimWorld world_{1};
  sim::SimNode& server_ = world_.add_node("10.0.0.1");
  sim::SimNode& client_ = world_.add_node("10.0.0.2");
  std::optional<Outcome<NextTermReply>> answer_;
};

TEST_F(SimRpcTest, CallsReachTheService) {
  server_.run_at_boot([this](sim::SimNode& node) { world_.spawn(node, 0, serve(node)); });
  const auto first = get();
  ASSERT_TRUE(first.has_value()) << to_string(first.error());
  EXPECT_EQ(first->number(), 1U);
  const auto refused = get("");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(to_string(refused.error()), "name the volume");
  EXPECT_EQ(code_of(get("db", "/fairlead.engine.v1.Control/None")), Code::kNotSupported);
}

TEST_F(SimRpcTest, WhatIsLostIsNeverAnswered) {
  server_.run_at_boot([this](sim::SimNode& node) { world_.spawn(node, 0, serve(node)); });
  world_.run_for(milliseconds(1));
  rpc_.set({.lost_requests = 100});
  EXPECT_EQ(code_of(get()), Code::kTimedOut);
  EXPECT_EQ(terms_.last(), 0U);
  rpc_.set({.lost_replies = 100});
  EXPECT_EQ(code_of(get()), Code::kTimedOut);
  EXPECT_EQ(terms_.last(), 1U);
  rpc_.heal();
  world_.network().isolate(server_.index());
  EXPECT_EQ(code_of(get()), Code::kTimedOut);
  EXPECT_EQ(terms_.last(), 1U);
  world_.heal();
  EXPECT_TRUE(get().has_value());
}

TEST_F(SimRpcTest, ANodeThatIsDownIsUnreachableUntilItIsBack) {
  EXPECT_EQ(code_of(get()), Code::kUnreachable);
  server_.run_at_boot([this](sim::SimNode& node) { world_.spawn(node, 0, serve(node)); });
  world_.crash(server_);
  EXPECT_EQ(code_of(get()), Code::kUnreachable);
  world_.restart(server_);
  EXPECT_TRUE(get().has_value());
}

TEST_F(SimRpcTest, ACallerMayDieMeanwhile) {
  server_.run_at_boot([this](sim::SimNode& node) { world_.spawn(node, 0, serve(node)); });
  world_.spawn(client_, 0, ask(client_, kMethod, "db", seconds(10)));
  world_.run_for(Duration(1));
  world_.crash(client_);
  world_.run_for(milliseconds(10));
  world_.crash(server_);
}

}  // namespace
}  // namespace fairlead::rpc
