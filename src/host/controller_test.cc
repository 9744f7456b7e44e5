// A whole controller that says what cannot be, never comes to an end, or is slow on purpose.
#include "host/controller.h"

#include <gmock/gmock.h>

#include "host/remote_device.h"
#include "host/subsystem.h"
#include "nvme/properties.h"
#include "tests/support/controller_bed.h"

namespace fairlead::host {
namespace {

using nvme::AdminOpcode;
using nvme::Cns;
using nvme::FabricsType;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ControllerBed;
using testing::ControllerNature;
using testing::pattern;
using testing::ScriptedCommand;
using testing::ScriptedLink;

bool is_identify(const ScriptedCommand& command, Cns cns) {
  return !command.entry.is_fabrics() && command.is(AdminOpcode::kIdentify) &&
         (command.entry.cdw10 & 0xff) == static_cast<uint32_t>(cns);
}
bool is_log(const ScriptedLink& link, const ScriptedCommand& command, nvme::LogPage page) {
  return link.is_admin() && command.is(AdminOpcode::kGetLogPage) &&
         (command.entry.cdw10 & 0xff) == static_cast<uint32_t>(page);
}

void answer_with(ScriptedLink& link, const ScriptedCommand& command, std::span<const std::byte> data) {
  link.send_data({.cccid = command.cid(), .last = true}, data.first(command.entry.sgl.length));
  link.complete(command.cid());
}

std::vector<Shard*> shards_of(ControllerBed& bed) {
  std::vector<Shard*> shards;
  for (size_t i = 0; i < bed.client.shard_count(); ++i) shards.push_back(&bed.client.shard(i));
  return shards;
}

// ---- What the first attempt to connect ends with.

struct Lie {
  const char* name;
  void (*tell)(ControllerBed& bed);
  Code code;  // kInternal: it is none, the host can live with it
  size_t namespaces = 1;
  size_t shards = 1;
};

constexpr Code kFine = Code::kInternal;

void tell_list(ControllerBed& bed, std::initializer_list<uint32_t> nsids) {
  nvme::NamespaceList list;
  std::ranges::copy(nsids, std::begin(list.nsid));
  bed.on_command([list](ScriptedLink& link, const ScriptedCommand& command) {
    if (!is_identify(command, Cns::kActiveNamespaces)) return false;
    answer_with(link, command, std::as_bytes(std::span(&list, 1)));
    return true;
  });
}
void set_capabilities(ControllerBed& bed, nvme::Capabilities capabilities) {
  bed.controller.nature.capabilities = nvme::encode_capabilities(capabilities);
}
void set_descriptor(ControllerBed& bed, uint8_t type, uint8_t length) {
  auto& descriptors = bed.controller.nature.namespaces.at(1).descriptors;
  descriptors[0] = std::byte{type};
  descriptors[1] = std::byte{length};
}

const Lie kLies[] = {
    {"Nothing", [](ControllerBed&) {}, kFine},
    {"ListThatDoesNotAscend", [](ControllerBed& bed) { tell_list(bed, {1, 3, 2}); }, Code::kProtocol},
    {"ListWithANamespaceTwice", [](ControllerBed& bed) { tell_list(bed, {1, 1}); }, Code::kProtocol},
    {"ListWithTheBroadcastNamespace", [](ControllerBed& bed) { tell_list(bed, {1, 0xffff'ffff}); }, Code::kProtocol},
    {"ListWithAReservedNamespace", [](ControllerBed& bed) { tell_list(bed, {1, 0xffff'fffe}); }, Code::kProtocol},
    {"ListWithNamespacesThatAreNotThere", [](ControllerBed& bed) { tell_list(bed, {1, 5, 9}); }, kFine},
    {"EmptyList", [](ControllerBed& bed) { tell_list(bed, {}); }, kFine, 0},
    {"ListWithoutEnd",
     [](ControllerBed& bed) {
       bed.on_command([](ScriptedLink& link, const ScriptedCommand& command) {
         if (!is_identify(command, Cns::kActiveNamespaces)) return false;
         nvme::NamespaceList list;
         for (uint32_t i = 0; i < std::size(list.nsid); ++i) list.nsid[i] = command.entry.nsid + 1 + i;
         answer_with(link, command, std::as_bytes(std::span(&list, 1)));
         return true;
       });
     },
     Code::kResourceExhausted},
    {"UuidOfAnotherLength", [](ControllerBed& bed) { set_descriptor(bed, 3, 15); }, kFine, 0},
    {"DescriptorBeyondTheEnd", [](ControllerBed& bed) { set_descriptor(bed, 9, 255); }, kFine, 1},
    {"AnotherCommandSet",
     [](ControllerBed& bed) {
       set_descriptor(bed, 4, 1);
       bed.controller.nature.namespaces.at(1).descriptors[4] = std::byte{2};
     },
     kFine, 0},
    {"MoreAnaGroupsThanItHas",
     [](ControllerBed& bed) {
       bed.controller.nature.set_ana_groups(4, 1);
       bed.controller.nature.identify.nanagrpid = 3;
     },
     Code::kProtocol},
    {"AnaGroupsBeyondReason",
     [](ControllerBed& bed) {
       bed.controller.nature.set_ana_groups(2000, 1);
       bed.controller.nature.identify.nanagrpid = UINT32_MAX;
     },
     Code::kProtocol},
    {"ManyAnaGroups", [](ControllerBed& bed) { bed.controller.nature.set_ana_groups(1024, 1); }, kFine},
    {"AnaLogThatAlwaysGrows",
     [](ControllerBed& bed) {
       bed.controller.nature.set_ana_groups(1, 1);
       bed.on_command([&bed, groups = 1U](ScriptedLink& link, const ScriptedCommand& command) mutable {
         if (is_log(link, command, nvme::LogPage::kAna)) bed.controller.nature.set_ana_groups(++groups, 1);
         return false;
       });
     },
     Code::kProtocol},
    {"AnaLogThatAlwaysChanges",
     [](ControllerBed& bed) {
       bed.controller.nature.set_ana_groups(300, 1);  // more than one piece
       bed.on_command([&bed, changes = 1U](ScriptedLink& link, const ScriptedCommand& command) mutable {
         if (is_log(link, command, nvme::LogPage::kAna)) bed.controller.nature.set_ana_groups(300, ++changes);
         return false;
       });
     },
     Code::kBusy},
    {"AnotherControllerId", [](ControllerBed& bed) { bed.controller.nature.identify.cntlid = 8; }, Code::kProtocol},
    {"AnotherSubsystem", [](ControllerBed& bed) { bed.controller.nature.identify.subnqn[5] = 'x'; }, Code::kProtocol},
    {"NoLimitOfTransfers", [](ControllerBed& bed) { bed.controller.nature.identify.mdts = 0; }, kFine},
    {"SmallTransfers", [](ControllerBed& bed) { bed.controller.nature.identify.mdts = 1; }, kFine},
    {"NoRoomInCapsules", [](ControllerBed& bed) { bed.controller.nature.identify.ioccsz = 4; }, kFine},
    {"CapsulesBelowACommand", [](ControllerBed& bed) { bed.controller.nature.identify.ioccsz = 3; }, Code::kProtocol},
    {"ShortestQueues", [](ControllerBed& bed) { set_capabilities(bed, {.max_queue_entries = 2}); }, kFine},
    {"QueuesOfOneEntry", [](ControllerBed& bed) { set_capabilities(bed, {.max_queue_entries = 1}); }, kFine},
    {"FewerQueuesThanShards", [](ControllerBed& bed) { bed.controller.nature.queue_counts = 0; },
     Code::kResourceExhausted, 0, 2},
    {"FewerCompletionQueues", [](ControllerBed& bed) { bed.controller.nature.queue_counts = 0x0000'ffff; },
     Code::kResourceExhausted, 0, 2},
    {"NoKeepAlive", [](ControllerBed& bed) { bed.controller.nature.identify.kas = 0; }, Code::kNotSupported},
    {"NoVersion", [](ControllerBed& bed) { bed.controller.nature.identify.ver = 0; }, kFine},
    {"VersionOfTheFuture", [](ControllerBed& bed) { bed.controller.nature.identify.ver = 0xffff'ffff; }, kFine},
    {"FatalStatus", [](ControllerBed& bed) { bed.controller.nature.status_bits = 2; }, Code::kIo},
    {"NeverReady", [](ControllerBed& bed) { bed.controller.nature.becomes_ready = false; }, Code::kTimedOut},
    {"NoTimeToBecomeReady",
     [](ControllerBed& bed) {
       set_capabilities(bed, {.max_queue_entries = 128, .ready_timeout_ms = 0});
       bed.controller.nature.becomes_ready = false;
     },
     Code::kTimedOut},
    {"NoCapabilities",
     [](ControllerBed& bed) {
       bed.on_command([](ScriptedLink& link, const ScriptedCommand& command) {
         if (!command.is(FabricsType::kPropertyGet)) return false;
         link.complete(command.cid(), nvme::permanent(nvme::StatusCode::kInvalidField));
         return true;
       });
     },
     Code::kInvalidArgument},
    {"Administrative", [](ControllerBed& bed) { bed.controller.nature.identify.cntrltype = 3; }, Code::kNotSupported},
    {"Discovery", [](ControllerBed& bed) { bed.controller.nature.identify.cntrltype = 2; }, Code::kNotSupported},
};

class ControllerLieTest : public ::testing::TestWithParam<Lie> {};

// A device of the first namespace works, if there is one.
Task<void> moves_data(ControllerBed& bed, Subsystem& subsystem) {
  const auto source = subsystem.source(1);
  CO_ASSERT_TRUE(source);
  const Result<std::unique_ptr<BlockDevice>> device = (*source)->open(bed.shard());
  CO_ASSERT_TRUE(device);
  std::vector<std::byte> data = pattern(128 * kKiB, 1);
  const iovec piece{data.data(), data.size()};
  EXPECT_TRUE(co_await block_write(bed.reactor(), **device, ByteOffset{0}, {&piece, 1}));
  std::vector<std::byte> back(data.size());
  const iovec back_piece{back.data(), back.size()};
  EXPECT_TRUE(co_await block_read(bed.reactor(), **device, ByteOffset{0}, {&back_piece, 1}));
  EXPECT_TRUE(back == data);
}

Task<void> is_told(ControllerBed& bed, const Lie& lie) {
  lie.tell(bed);
  Subsystem subsystem(shards_of(bed), bed.subsystem_options());
  const Instant begin = bed.reactor().now();
  const Result<void> started = co_await subsystem.start();
  EXPECT_LE(bed.reactor().now() - begin, seconds(10));
  EXPECT_EQ(started.has_value(), lie.code == kFine);
  if (!started) {
    EXPECT_EQ(started.error().code, lie.code) << to_string(started.error());
    co_return;
  }
  EXPECT_EQ(subsystem.namespaces().size(), lie.namespaces);
  if (lie.namespaces > 0) co_await moves_data(bed, subsystem);
  co_await subsystem.stop();
}

TEST_P(ControllerLieTest, IsSeenThrough) {
  ControllerBed(sim::SimSettings::calm(), 1, GetParam().shards).run([](ControllerBed& bed) {
    return is_told(bed, GetParam());
  });
}
INSTANTIATE_TEST_SUITE_P(ControllerTest, ControllerLieTest, ::testing::ValuesIn(kLies),
                         [](const auto& instance) { return std::string(instance.param.name); });

// ---- A log in several pieces, which changes between two of them, is none.

Task<void> reads_one_ana_log(ControllerBed& bed) {
  ControllerNature& nature = bed.controller.nature;
  nature.set_ana_groups(300, 1);
  // The namespace's group is in the first piece; it is taken away while the second one is read.
  bed.on_command([&nature](ScriptedLink& link, const ScriptedCommand& command) {
    if (is_log(link, command, nvme::LogPage::kAna) && command.entry.cdw12 != 0) {
      nature.set_ana_groups(300, 2);
      nature.ana_log[sizeof(nvme::AnaHeader) + offsetof(nvme::AnaGroupDescriptor, state)] =
          std::byte{static_cast<uint8_t>(nvme::AnaState::kInaccessible)};
    }
    return false;
  });
  Subsystem subsystem(shards_of(bed), bed.subsystem_options());
  CO_ASSERT_TRUE(co_await subsystem.start());
  EXPECT_EQ(subsystem.controllers()[0].namespaces[0].state, PathState::kUnusable);
  co_await subsystem.stop();
}
TEST(ControllerTest, ReadsOneAnaLog) { ControllerBed().run(reads_one_ana_log); }

// ---- Slow.

// Many namespaces and a slow controller: the keep-alives come all the while.
Task<void> keeps_alive_while_it_connects(ControllerBed& bed) {
  ControllerNature& nature = bed.controller.nature;
  for (uint32_t nsid = 2; nsid <= 40; ++nsid) nature.add_namespace(nsid, 16);
  std::vector<Instant> heard;
  bed.on_command([&](ScriptedLink& link, const ScriptedCommand& command) {
    if (!link.is_admin() || command.entry.is_fabrics()) return false;
    if (command.is(AdminOpcode::kKeepAlive)) heard.push_back(bed.world.now());
    if (!is_identify(command, Cns::kNamespace)) return false;
    bed.world.after(milliseconds(500), [&link, command] { link.answer(command); });
    return true;
  });
  SubsystemOptions options = bed.subsystem_options();
  options.keep_alive = seconds(2);
  Subsystem subsystem(shards_of(bed), options);
  const Instant begin = bed.world.now();
  EXPECT_TRUE(co_await subsystem.start());
  EXPECT_GE(bed.world.now() - begin, seconds(20));
  heard.push_back(bed.world.now());
  Instant last = begin;
  for (const Instant each : heard) {
    EXPECT_LE(each - last, seconds(2));
    last = each;
  }
  co_await subsystem.stop();
}
TEST(ControllerTest, KeepsAliveWhileItConnects) { ControllerBed().run(keeps_alive_while_it_connects); }

// What is stopped, or loses a path, does not wait for a controller that takes its time.
struct Slow {
  bool is_slow = false;
  Duration delay = seconds(14);  // below the limit of admin commands
};
void be_slow(ControllerBed& bed, Slow& slow) {
  bed.on_command([&bed, &slow](ScriptedLink& link, const ScriptedCommand& command) {
    if (!slow.is_slow || !link.is_admin() || command.is(AdminOpcode::kKeepAlive)) return false;
    if (!command.entry.is_fabrics() && command.is(AdminOpcode::kAsyncEventRequest)) return false;
    bed.world.after(slow.delay, [&link, command] {
      if (!link.has_ended()) link.answer(command);
    });
    return true;
  });
}

Task<void> stops_soon(ControllerBed& bed, bool scans) {
  Slow slow;
  be_slow(bed, slow);
  for (uint32_t nsid = 2; nsid <= 40; ++nsid) bed.controller.nature.add_namespace(nsid, 16);
  Subsystem subsystem(shards_of(bed), bed.subsystem_options());
  CO_ASSERT_TRUE(co_await subsystem.start());
  slow.is_slow = true;
  if (scans) {
    (void)co_await bed.sleep(milliseconds(10));
    EXPECT_TRUE(bed.controller.tell(
        nvme::AsyncEvent::notice(nvme::NoticeInfo::kNamespaceAttributeChanged, nvme::LogPage::kChangedNamespaces)));
    (void)co_await bed.sleep(seconds(20));
  }
  const Instant begin = bed.reactor().now();
  co_await subsystem.stop();
  EXPECT_LE(bed.reactor().now() - begin, seconds(10));
  (void)co_await bed.sleep(seconds(20));  // until the answers that are on their way have come
}
TEST(ControllerTest, StopsSoon) {
  ControllerBed().run([](ControllerBed& bed) { return stops_soon(bed, false); });
}
TEST(ControllerTest, StopsSoonWhileItScans) {
  ControllerBed().run([](ControllerBed& bed) { return stops_soon(bed, true); });
}

// The I/O connection is lost while the admin queue is busy: the path is given up, and comes back.
Task<void> loses_a_path_at_once(ControllerBed& bed) {
  Slow slow;
  be_slow(bed, slow);
  for (uint32_t nsid = 2; nsid <= 40; ++nsid) bed.controller.nature.add_namespace(nsid, 16);
  Subsystem subsystem(shards_of(bed), bed.subsystem_options());
  CO_ASSERT_TRUE(co_await subsystem.start());
  (void)co_await bed.sleep(milliseconds(10));
  slow.is_slow = true;
  EXPECT_TRUE(bed.controller.tell(
      nvme::AsyncEvent::notice(nvme::NoticeInfo::kNamespaceAttributeChanged, nvme::LogPage::kChangedNamespaces)));
  (void)co_await bed.sleep(seconds(1));
  slow.is_slow = false;
  bed.last_link().cut();  // the I/O queue's
  const Instant begin = bed.reactor().now();
  co_await moves_data(bed, subsystem);
  EXPECT_LE(bed.reactor().now() - begin, seconds(5));
  EXPECT_EQ(subsystem.controllers()[0].connects, 2U);
  co_await subsystem.stop();
  (void)co_await bed.sleep(seconds(20));
}
TEST(ControllerTest, LosesAPathAtOnce) { ControllerBed().run(loses_a_path_at_once); }

}  // namespace
}  // namespace fairlead::host
