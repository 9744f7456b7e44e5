#include "host/discovery.h"

#include <gmock/gmock.h>

#include "nvme/nqn.h"
#include "tests/support/target_bed.h"

namespace fairlead::host {
namespace {

using testing::kNqn;
using testing::TargetBed;

DiscoveryOptions options() { return {.identity = identity_from_id(uuid_from_random(1, 2))}; }

Task<void> lists_subsystems(TargetBed& bed) {
  co_await bed.add_subsystem({.nqn = "nqn.2024-01.example.fairlead:other", .serial = "", .allowed_hosts = {}});
  co_await bed.add_subsystem(
      {.nqn = "nqn.2024-01.example.fairlead:secret", .serial = "", .allowed_hosts = {"nqn.2024-01.example:someone"}});
  const Result<Discovery> discovery = co_await discover(bed.shard(), bed.address, options());
  CO_ASSERT_TRUE(discovery.has_value());
  std::vector<std::string> names;
  for (const DiscoveredSubsystem& each : discovery->found) {
    if (each.type != nvme::SubsystemType::kNvm) continue;
    names.push_back(each.nqn);
    EXPECT_EQ(each.socket_address(), bed.address);
    EXPECT_EQ(each.learned_from, bed.address);
    EXPECT_FALSE(each.requires_secure_channel);
  }
  EXPECT_THAT(names, ::testing::UnorderedElementsAre(kNqn, "nqn.2024-01.example.fairlead:other"));
  EXPECT_TRUE(discovery->failures.empty());
}
TEST(DiscoveryTest, ListsWhatTheHostMaySee) { run_in_worlds(lists_subsystems); }

// A subsystem for each of so many that the log is read in many pieces.
Task<void> lists_many(TargetBed& bed) {
  for (int i = 0; i < 100; ++i) {
    co_await bed.add_subsystem(
        {.nqn = "nqn.2024-01.example.fairlead:" + std::to_string(i), .serial = "", .allowed_hosts = {}});
  }
  const Result<Discovery> discovery = co_await discover(bed.shard(), bed.address, options());
  CO_ASSERT_TRUE(discovery.has_value());
  EXPECT_GE(discovery->found.size(), 101U);
}
TEST(DiscoveryTest, ReadsALongLogInPieces) { TargetBed().run(lists_many); }

Task<void> finds_nobody(TargetBed& bed) {
  SocketAddress nobody = bed.address;
  ++nobody.port;
  const Result<Discovery> discovery = co_await discover(bed.shard(), nobody, options());
  CO_ASSERT_TRUE(!discovery.has_value());
  EXPECT_EQ(discovery.error().code, Code::kUnreachable);
}
TEST(DiscoveryTest, SaysThatNobodyIsThere) { TargetBed().run(finds_nobody); }

nvme::DiscoveryEntry entry() {
  nvme::DiscoveryEntry entry;
  entry.trtype = static_cast<uint8_t>(nvme::TransportType::kTcp);
  entry.adrfam = static_cast<uint8_t>(nvme::AddressFamily::kIpv4);
  entry.subtype = static_cast<uint8_t>(nvme::SubsystemType::kNvm);
  nvme::write_space_padded(entry.traddr, "10.0.0.1");
  nvme::write_space_padded(entry.trsvcid, "4420");
  nvme::write_zero_terminated(entry.subnqn, kNqn);
  return entry;
}

TEST(DiscoveryTest, ChecksEntries) {
  ASSERT_TRUE(read_discovery_entry(entry()).has_value());
  EXPECT_EQ(to_string(*read_discovery_entry(entry())->socket_address()), "10.0.0.1:4420");
  nvme::DiscoveryEntry endless = entry();
  std::ranges::fill(endless.subnqn, 'x');
  EXPECT_FALSE(read_discovery_entry(endless).has_value());
  nvme::DiscoveryEntry control = entry();
  control.traddr[1] = '\n';
  EXPECT_FALSE(read_discovery_entry(control).has_value());
  nvme::DiscoveryEntry name = entry();
  nvme::write_space_padded(name.traddr, "storage.example");
  EXPECT_FALSE(read_discovery_entry(name)->socket_address().has_value());
  for (const char* const port : {"0", "65536", "44x", "", "-1"}) {
    nvme::DiscoveryEntry wrong = entry();
    nvme::write_space_padded(wrong.trsvcid, port);
    EXPECT_FALSE(read_discovery_entry(wrong)->socket_address().has_value()) << port;
  }
  nvme::DiscoveryEntry rdma = entry();
  rdma.trtype = static_cast<uint8_t>(nvme::TransportType::kRdma);
  EXPECT_FALSE(read_discovery_entry(rdma)->socket_address().has_value());
}

}  // namespace
}  // namespace fairlead::host
