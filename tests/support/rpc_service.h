// What the tests of rpc call: a few methods that do what the test asks, and a server of them. Lives on one shard.
#pragma once

#include <api/engine/v1/engine.pb.h>
#include <gtest/gtest.h>

#include "async/event.h"
#include "async/scope.h"
#include "io/runtime.h"
#include "rpc/grpc_channel.h"
#include "rpc/grpc_server.h"

namespace fairlead::test {

using engine::v1::CreatePoolRequest;
using engine::v1::PoolState;
using rpc::GrpcDialer;
using rpc::GrpcServer;
using rpc::Service;

inline constexpr Duration kLong = std::chrono::seconds(60);
inline constexpr const char* kEcho = "/test.Test/Echo";
inline constexpr const char* kFail = "/test.Test/Fail";
inline constexpr const char* kHold = "/test.Test/Hold";
inline constexpr const char* kGrow = "/test.Test/Grow";

class TestMethods {
 public:
  explicit TestMethods(Reactor& reactor) : released(reactor), arrived(reactor) {}

  void add_to(Service& service) {
    service.add(kEcho, *this, &TestMethods::echo);
    service.add(kFail, *this, &TestMethods::fail_as_asked);
    service.add(kHold, *this, &TestMethods::hold);
    service.add(kGrow, *this, &TestMethods::grow);
  }

  Task<Outcome<PoolState>> echo(CreatePoolRequest request) {
    ++calls;
    PoolState reply;
    reply.set_name(request.name());
    reply.set_capacity_bytes(request.file_size_bytes());
    co_return reply;
  }
  // With the code whose number is file_size_bytes, and the name as its words.
  Task<Outcome<PoolState>> fail_as_asked(CreatePoolRequest request) {
    co_return problem(static_cast<Code>(request.file_size_bytes()), request.name());
  }
  // Until it is released.
  Task<Outcome<PoolState>> hold(CreatePoolRequest request) {
    ++held;
    arrived.release_waiters();
    co_await released.wait();
    --held;
    co_return co_await echo(std::move(request));
  }
  // A reply of so many bytes and a few more.
  Task<Outcome<PoolState>> grow(CreatePoolRequest request) {
    PoolState reply;
    reply.set_name(std::string(request.file_size_bytes(), 'x'));
    co_return reply;
  }

  Task<void> wait_for_held(size_t count) {
    while (held < count) co_await arrived.wait();
  }

  Event released;
  Event arrived;  // somebody is held
  size_t held = 0;
  size_t calls = 0;
};

inline CreatePoolRequest request_of(std::string name, uint64_t size = 0) {
  CreatePoolRequest request;
  request.set_name(std::move(name));
  request.set_file_size_bytes(size);
  return request;
}

// A server of TestMethods.
struct TestServer {
  TestServer(Reactor& home, GrpcServer::Options options)
      : methods(home), service(with_methods()), server(home, service, std::move(options)) {}
  Service with_methods() {
    Service made;
    methods.add_to(made);
    return made;
  }
  // Returns where it can be reached.
  std::string start() {
    const Outcome<uint16_t> port = server.start();
    EXPECT_TRUE(port) << to_string(port.error());
    return port ? "127.0.0.1:" + std::to_string(*port) : "";
  }

  TestMethods methods;
  const Service service;
  GrpcServer server;
};

// Runs one test's coroutine on a shard.
inline void run_test(Task<void> (*test)(Reactor&)) {
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  runtime.run_on(0, test(runtime.shard(0).reactor));
}

}  // namespace fairlead::test
