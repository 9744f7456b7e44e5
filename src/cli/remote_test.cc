#include "cli/remote.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "block/memory.h"
#include "cli/bench.h"
#include "tests/support/target_bed.h"

namespace fairlead::cli {
namespace {

using fairlead::testing::kNqn;
using fairlead::testing::TargetBed;
using ::testing::Contains;

using ::testing::HasSubstr;

TEST(RemoteArgumentsTest, TakesAddressesAndUrls) {
  const auto there = check(DiscoverArguments{.address = "10.0.0.1"});
  ASSERT_TRUE(there) << there.error();
  EXPECT_EQ(fairlead::to_string(there->address), "10.0.0.1:4420");
  EXPECT_TRUE(there->identity.nqn.starts_with("nqn.2014-08.org.nvmexpress:uuid:"));
  EXPECT_EQ(check(DiscoverArguments{.address = "10.0.0.1"})->identity.nqn, there->identity.nqn) << "each time the same";
  const auto local = check(DiscoverArguments{.address = "localhost:8009", .host = "nqn.2020-01.org.example:me"});
  ASSERT_TRUE(local) << local.error();
  EXPECT_EQ(fairlead::to_string(local->address), "127.0.0.1:8009");
  EXPECT_EQ(local->identity.nqn, "nqn.2020-01.org.example:me");
  const auto all = check(IdentifyArguments{.target = "nvme+tcp://[::1]/nqn.2020-01.org.example:a", .hdgst = true});
  ASSERT_TRUE(all) << all.error();
  EXPECT_FALSE(all->question.nsid);
  EXPECT_TRUE(all->question.header_digest);
  EXPECT_EQ(check(IdentifyArguments{.target = "nvme+tcp://[::1]/a?ns=3"})->question.nsid, 3U);
}

TEST(RemoteArgumentsTest, ComplaintsNameTheArgument) {
  for (const char* address : {"", "somewhere", "10.0.0.1:x", "10.0.0.1:0"}) {
    const auto plan = check(DiscoverArguments{.address = address});
    ASSERT_FALSE(plan) << address;
    EXPECT_THAT(plan.error(), HasSubstr(address));
  }
  for (const char* target : {"", "10.0.0.1", "disk.img", "nvme+tcp://10.0.0.1", "nvme+tcp://10.0.0.1/a?ns=0"}) {
    const auto plan = check(IdentifyArguments{.target = target});
    ASSERT_FALSE(plan) << target;
    EXPECT_THAT(plan.error(), HasSubstr(target));
  }
  EXPECT_THAT(check(DiscoverArguments{.address = "::1", .host = "me"}).error(), HasSubstr("--host me"));
  EXPECT_THAT(check(IdentifyArguments{.target = "nvme+tcp://[::1]/a", .host = "me"}).error(), HasSubstr("--host me"));
}

RemoteQuestion question_to(const TargetBed& bed) {
  return {.address = bed.address, .nqn = kNqn, .nsid = {}, .identity = host::identity_from_id(uuid_from_random(1, 2))};
}

Task<void> describes_a_target(TargetBed& bed) {
  co_await bed.add_memory(kNqn, 1 * kMiB, 512, 9);
  const auto controller = co_await describe_remote(bed.shard(), question_to(bed));
  CO_ASSERT_TRUE(controller.has_value());
  EXPECT_EQ(controller->subsystem_nqn, kNqn);
  EXPECT_EQ(controller->type, "I/O");
  EXPECT_EQ(controller->model, "Fairlead");
  EXPECT_EQ(controller->version, "2.0");
  EXPECT_GE(controller->transfer_max, kMiB);
  EXPECT_GT(controller->io_queues, 0U);
  EXPECT_THAT(controller->commands, Contains("compare_and_write"));
  CO_ASSERT_TRUE(controller->namespaces.size() == 2);
  const RemoteNamespace& first = controller->namespaces[0];
  EXPECT_EQ(first.nsid, 1U);
  EXPECT_EQ(first.size_bytes, 16 * kMiB);
  EXPECT_EQ(first.uuid.size(), 36U);
  EXPECT_EQ(first.ana, nvme::AnaState::kOptimized);
  EXPECT_FALSE(first.unusable);
  const RemoteNamespace& second = controller->namespaces[1];
  EXPECT_EQ(second.nsid, 9U);
  CO_ASSERT_TRUE(second.formats.size() == 1);
  EXPECT_EQ(second.formats[0].block_bytes, 512U);
  const nlohmann::json json = nlohmann::json::parse(to_json(*controller));
  EXPECT_EQ(json.at("subsystem_nqn"), kNqn);
  EXPECT_EQ(json.at("namespaces").at(1).at("size_bytes"), kMiB);
  EXPECT_EQ(json.at("namespaces").at(1).at("ana_state"), "optimized");
  const std::string text = to_text(*controller);
  for (const char* part : {kNqn, "Fairlead", "namespace 9", "16 MiB", "optimized", "compare and write"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}
TEST(RemoteDataTest, DescribesATarget) { run_in_worlds(describes_a_target); }

Task<void> asks_for_one_namespace(TargetBed& bed) {
  co_await bed.add_memory(kNqn, 1 * kMiB, 512, 9);
  RemoteQuestion question = question_to(bed);
  question.nsid = 9;
  const auto one = co_await describe_remote(bed.shard(), question);
  CO_ASSERT_TRUE(one.has_value());
  CO_ASSERT_TRUE(one->namespaces.size() == 1);
  EXPECT_EQ(one->namespaces[0].nsid, 9U);
  for (const uint32_t nsid : {2U, 10U}) {
    question.nsid = nsid;
    const auto none = co_await describe_remote(bed.shard(), question);
    CO_ASSERT_TRUE(!none.has_value());
    EXPECT_EQ(none.error().code, Code::kNotFound);
  }
  question.nqn = "nqn.2020-01.org.example:nobody";
  EXPECT_FALSE((co_await describe_remote(bed.shard(), question)).has_value());
  question.nqn = nvme::kDiscoveryNqn;
  const auto discovery = co_await describe_remote(bed.shard(), question);
  CO_ASSERT_TRUE(discovery.has_value());
  EXPECT_EQ(discovery->type, "discovery");
}
TEST(RemoteDataTest, AsksForOneNamespace) { TargetBed().run(asks_for_one_namespace); }

TEST(RemoteDataTest, WhateverTheControllerWritesIsPrintable) {
  nvme::IdentifyController data;
  std::ranges::fill(data.mn, '\x1b');
  std::ranges::fill(data.sn, '\xff');
  std::ranges::fill(data.subnqn, 'x');  // no end
  data.mdts = 255;
  data.ver = 0x00010301;
  data.ioccsz = UINT32_MAX;
  const RemoteController controller = read_remote(data, ~uint64_t{0});
  EXPECT_EQ(controller.model, std::string(40, '?'));
  EXPECT_EQ(controller.serial, std::string(20, '?'));
  EXPECT_EQ(controller.subsystem_nqn, "");
  EXPECT_EQ(controller.version, "1.3.1");
  EXPECT_EQ(controller.transfer_max, 0U);
  EXPECT_FALSE(to_text(controller).empty());
  EXPECT_EQ(nlohmann::json::parse(to_json(controller)).at("transfer_bytes_max"), nullptr);
}

TEST(RemoteDataTest, FormatsThatCannotBeAreShownAsSuch) {
  nvme::IdentifyNamespace data;
  std::memset(static_cast<void*>(&data), 0xff, sizeof data);
  const RemoteNamespace all_ones = read_remote_namespace(1, data);
  EXPECT_EQ(all_ones.formats.size(), 64U);
  EXPECT_EQ(all_ones.size_bytes, 0U);
  data.flbas = 0x21;  // 16 + 1
  data.nlbaf = 17;
  data.lbaf[17].lbads = 12;
  data.lbaf[17].ms = 8;
  data.nsze = 10;
  data.nuse = 3;
  const RemoteNamespace odd = read_remote_namespace(1, data);
  ASSERT_EQ(odd.formats.size(), 18U);
  EXPECT_TRUE(odd.formats[17].in_use);
  EXPECT_EQ(odd.formats[17].metadata_bytes, 8U);
  EXPECT_EQ(odd.size_bytes, 40'960U);
  EXPECT_EQ(odd.used_bytes, 12'288U);
}

TEST(RemoteReportTest, DiscoveryAsTableAndJson) {
  host::Discovery discovery;
  EXPECT_THAT(to_text(discovery), HasSubstr("nothing"));
  discovery.found.push_back({.nqn = kNqn, .address = "10.0.0.1", .service = "4420", .learned_from = {}});
  discovery.found.push_back({.type = nvme::SubsystemType::kReferral,
                             .transport = nvme::TransportType::kRdma,
                             .nqn = "nqn.2014-08.org.nvmexpress.discovery",
                             .address = "fe80::1",
                             .service = "8009",
                             .requires_secure_channel = true,
                             .learned_from = {}});
  discovery.failures.push_back({SocketAddress{}, Error{Code::kUnreachable}});
  EXPECT_EQ(to_text(discovery),
            "TYPE       TRANSPORT ADDRESS       NQN\n"
            "subsystem  tcp       10.0.0.1:4420 nqn.2024-01.example.fairlead:disk\n"
            "referral   rdma      fe80::1:8009  nqn.2014-08.org.nvmexpress.discovery (TLS required)\n");
  const nlohmann::json json = nlohmann::json::parse(to_json(discovery));
  EXPECT_EQ(json.at("subsystems").at(0).at("address"), "10.0.0.1");
  EXPECT_EQ(json.at("subsystems").at(1).at("type"), "referral");
  EXPECT_EQ(json.at("failures").at(0).at("error"), "cannot be reached");
}

// A target on a real runtime, for the commands as they are.
struct CommandTest : ::testing::Test {
  void SetUp() override {
    const auto started = runtime.start();
    ASSERT_TRUE(started) << to_string(started.error());
    runtime.run_on(0, set_up());
  }
  void TearDown() override {
    runtime.run_on(0, tear_down());
    runtime.stop();
  }
  Task<void> set_up() {
    target = std::make_unique<target::Target>(std::vector{&runtime.shard(0)}, target::TargetOptions{});
    const auto subsystem = co_await target->add_subsystem({.nqn = kNqn, .serial = "", .allowed_hosts = {}});
    CO_ASSERT_TRUE(subsystem.has_value());
    auto memory = make_memory_source({.size_bytes = 4 * kMiB});
    const auto added = co_await target->add_namespace(kNqn, {.source = std::move(*memory), .uuid = {}});
    CO_ASSERT_TRUE(added.has_value());
    const auto listening =
        co_await target->start_listener({.bind = *parse_socket_address("127.0.0.1", 0), .advertise = {}});
    CO_ASSERT_TRUE(listening.has_value());
    address = fairlead::to_string(listening->bound);
  }
  Task<void> tear_down() {
    const auto stopped = co_await target->stop();
    EXPECT_TRUE(stopped.has_value());
    target.reset();
  }
  std::string url() const { return fmt::format("nvme+tcp://{}/{}", address, kNqn); }

  // Runs a command whose arguments are right and returns what it printed.
  template <typename Arguments, typename Run>
  static std::string output_of(const Arguments& arguments, Run run, int wanted_exit_code = 0) {
    const auto plan = check(arguments);
    EXPECT_TRUE(plan) << plan.error();
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(run(*plan), wanted_exit_code);
    const std::string printed = ::testing::internal::GetCapturedStdout();
    const std::string complaints = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(complaints.empty(), wanted_exit_code == 0) << complaints;
    return printed;
  }

  Runtime runtime{{.poll = PollMode::kNever, .pinning = Pinning::kNone}};
  std::unique_ptr<target::Target> target;
  std::string address;
};

TEST_F(CommandTest, DiscoverFindsTheSubsystem) {
  EXPECT_THAT(output_of(DiscoverArguments{.address = address}, discover), HasSubstr(address + " " + kNqn));
}

TEST_F(CommandTest, IdentifyDescribesIt) {
  const auto json =
      nlohmann::json::parse(output_of(IdentifyArguments{.target = url(), .ddgst = true, .json = true}, identify));
  EXPECT_EQ(json.at("subsystem_nqn"), kNqn);
  EXPECT_EQ(json.at("namespaces").at(0).at("size_bytes"), 4 * kMiB);
  EXPECT_EQ(output_of(IdentifyArguments{.target = url() + "?ns=2"}, identify, 1), "");
}

TEST_F(CommandTest, BenchVerifiesARemoteNamespaceOverSeveralQueues) {
  const BenchArguments arguments = {.target = url(),
                                    .rw = "randrw",
                                    .qd = 8,
                                    .queues = 3,
                                    .shards = 2,
                                    .runtime = "300ms",
                                    .verify = true,
                                    .overwrite = true,
                                    .hdgst = true,
                                    .json = true};
  const auto json = nlohmann::json::parse(output_of(arguments, bench));
  EXPECT_GT(json.at("operations"), 0);
  EXPECT_EQ(json.at("errors"), 0);
  EXPECT_EQ(json.at("verify_errors"), 0);
  EXPECT_GT(json.at("verified_reads"), 0);
}

TEST_F(CommandTest, BenchSaysWhatItCouldNotReach) {
  EXPECT_EQ(output_of(BenchArguments{.target = url() + "?ns=2", .runtime = "10ms"}, bench, 1), "");
  EXPECT_EQ(output_of(BenchArguments{.target = "nvme+tcp://127.0.0.1:1/" + std::string(kNqn)}, bench, 1), "");
}

}  // namespace
}  // namespace fairlead::cli
