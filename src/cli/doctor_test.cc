#include "cli/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fairlead::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

MachineFacts good_machine() {
  MachineFacts facts;
  facts.kernel = "6.1.0";
  facts.has_nvme_tcp = true;
  facts.is_multipath = true;
  facts.has_nvme_cli = true;
  facts.host_nqn = "nqn.2014-08.org.nvmexpress:uuid:1";
  facts.host_id = "1";
  facts.is_clock_in_sync = true;
  facts.locked_bytes_max = ~uint64_t{0};
  facts.files_max = 1 << 20;
  return facts;
}

TEST(DoctorTest, NothingIsWrongWithAGoodMachine) {
  DoctorPlan plan;
  plan.disks = {"/dev/sdb"};
  plan.ports = {4420};
  plan.reach = {*parse_socket_address("10.0.0.1:4420", 0)};
  MachineFacts facts = good_machine();
  facts.disks["/dev/sdb"] = {.kind = DiskFacts::Kind::kBlockDevice, .can_write = true};
  for (const Finding& finding : findings_of(facts, plan))
    EXPECT_EQ(finding.level, Finding::Level::kGood) << finding.what;
  EXPECT_THAT(to_text(findings_of(facts, plan), Paint::kNo), HasSubstr("ok    port 4420 is free\n"));
  EXPECT_THAT(to_text(findings_of(facts, plan), Paint::kNo), HasSubstr("\nNothing is wrong.\n"));
}

TEST(DoctorTest, EachFindingSaysWhatToDo) {
  DoctorPlan plan;
  plan.disks = {"/a", "/b", "/c", "/d"};
  plan.ports = {4420};
  plan.reach = {*parse_socket_address("10.0.0.1:4420", 0)};
  using Change = void (*)(MachineFacts&);
  const struct {
    Change change;
    Finding::Level level;
    const char* what;
  } kTable[] = {
      {[](MachineFacts& facts) { facts.has_nvme_tcp = false, facts.can_load_nvme_tcp = true; },
       Finding::Level::kWarning, "nvme-tcp is not loaded"},
      {[](MachineFacts& facts) { facts.has_nvme_tcp = false; }, Finding::Level::kWarning, "has no module nvme-tcp"},
      {[](MachineFacts& facts) { facts.is_multipath = false; }, Finding::Level::kBad, "multipath is off"},
      {[](MachineFacts& facts) { facts.has_nvme_cli = false; }, Finding::Level::kWarning, "nvme-cli"},
      {[](MachineFacts& facts) { facts.host_id = ""; }, Finding::Level::kWarning, "no NVMe name"},
      {[](MachineFacts& facts) { facts.is_clock_in_sync = false; }, Finding::Level::kWarning, "clock is not in sync"},
      {[](MachineFacts& facts) { facts.is_clock_in_sync.reset(); }, Finding::Level::kWarning, "does not say"},
      {[](MachineFacts& facts) { facts.io_uring_disabled = 2; }, Finding::Level::kBad, "io_uring_disabled"},
      {[](MachineFacts& facts) { facts.locked_bytes_max = 65536; }, Finding::Level::kWarning, "only 64 KiB"},
      {[](MachineFacts& facts) { facts.files_max = 1024; }, Finding::Level::kWarning, "only 1024 files"},
      {[](MachineFacts& facts) { facts.listening = {4420}; }, Finding::Level::kBad, "port 4420 is taken"},
      {[](MachineFacts& facts) { facts.unreachable["10.0.0.1:4420"] = "refuses"; }, Finding::Level::kBad,
       "10.0.0.1:4420 refuses"},
      {[](MachineFacts&) {}, Finding::Level::kBad, "/a is not there"},
      {[](MachineFacts& facts) { facts.disks["/b"].kind = DiskFacts::Kind::kOther; }, Finding::Level::kBad,
       "/b is neither"},
      {[](MachineFacts& facts) { facts.disks["/c"].kind = DiskFacts::Kind::kFile; }, Finding::Level::kBad,
       "/c may not be written"},
      {[](MachineFacts& facts) {
         facts.disks["/d"] = {.kind = DiskFacts::Kind::kFile, .can_write = true, .holds = "an ext4 file system"};
       },
       Finding::Level::kWarning, "/d holds an ext4 file system"},
  };
  for (const auto& [change, level, what] : kTable) {
    MachineFacts facts = good_machine();
    change(facts);
    bool is_found = false;
    for (const Finding& finding : findings_of(facts, plan)) {
      if (finding.what.find(what) == std::string::npos) continue;
      is_found = true;
      EXPECT_EQ(finding.level, level) << what;
      EXPECT_NE(finding.mend, "") << what;
    }
    EXPECT_TRUE(is_found) << what;
  }
}

TEST(DoctorTest, PortsThatAreListenedOn) {
  EXPECT_THAT(
      listening_ports("  sl  local_address rem_address   st tx_queue\n"
                      "   0: 0100007F:1144 00000000:0000 0A 00000000:00000000\n"
                      "   1: 0100007F:1145 0100007F:1144 01 00000000:00000000\n"
                      "   2: 00000000000000000000000001000000:1F49 00000000000000000000000000000000:0000 0A 0\n"),
      ElementsAre(4420, 8009));
  EXPECT_TRUE(listening_ports("x\n\n0: 1 2 0A").empty());
}

TEST(DoctorTest, ModulesOfAKernel) {
  const char* const list = "kernel/drivers/nvme/host/nvme-tcp.ko: kernel/drivers/nvme/host/nvme-fabrics.ko\n";
  EXPECT_TRUE(has_module(list, "nvme-tcp"));
  EXPECT_FALSE(has_module(list, "tcp"));
  EXPECT_FALSE(has_module("", "nvme-tcp"));
}

TEST(DoctorTest, Arguments) {
  EXPECT_FALSE(check(DoctorArguments{.ports = {0}}));
  EXPECT_FALSE(check(DoctorArguments{.reach = {"somewhere"}}));
  EXPECT_EQ(check(DoctorArguments{.reach = {"10.0.0.1"}})->reach.front().port, 4420);
}

TEST(DoctorTest, LooksAtThisMachine) {
  DoctorPlan plan;
  plan.disks = {"/proc/self/no-such-disk"};
  plan.reach = {*parse_socket_address("127.0.0.1:1", 0)};
  const MachineFacts facts = look_at_machine(plan);
  EXPECT_NE(facts.kernel, "");
  EXPECT_GT(facts.files_max, 0U);
  EXPECT_EQ(facts.disks.at("/proc/self/no-such-disk").kind, DiskFacts::Kind::kMissing);
  EXPECT_TRUE(facts.unreachable.contains("127.0.0.1:1"));
}

}  // namespace
}  // namespace fairlead::cli
