// What identify data and ANA logs may say, and what they may not.
#include "host/namespace_info.h"

#include <cstring>
#include <gmock/gmock.h>

#include "nvme/properties.h"
#include "tests/support/scripted_controller.h"

namespace fairlead::host {
namespace {

using nvme::AnaState;
using testing::ControllerNature;

Code code_of(const auto& result) { return result ? Code::kInternal : result.error().code; }

Result<ControllerInfo> read(const ControllerNature& nature) {
  return read_controller(nature.identify, nature.capabilities);
}

TEST(ReadControllerTest, TakesWhatItSays) {
  ControllerNature nature;
  nature.identify.mdts = 3;
  nature.identify.vwc = nvme::kVwcPresent;
  const Result<ControllerInfo> info = read(nature);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->controller_id, 7);
  EXPECT_EQ(info->serial, "S1");
  EXPECT_EQ(info->model, "scripted");
  EXPECT_EQ(info->subsystem_nqn, testing::kScriptedNqn);
  EXPECT_EQ(info->transfer_max, 32 * kKiB);
  EXPECT_EQ(info->in_capsule_max, 8192U);
  EXPECT_EQ(info->queue_entries_max, 128);
  EXPECT_EQ(info->keep_alive_unit_ms, 1000U);
  EXPECT_TRUE(info->has_compare && info->has_volatile_cache);
  EXPECT_FALSE(info->has_ana || info->is_discovery);
}

TEST(ReadControllerTest, Limits) {
  const auto with_mdts = [](uint8_t mdts, uint8_t page_shift) {
    ControllerNature nature;
    nature.identify.mdts = mdts;
    nature.capabilities = nvme::encode_capabilities({.max_queue_entries = 2, .page_shift_min = page_shift});
    return read(nature)->transfer_max;
  };
  EXPECT_EQ(with_mdts(0, 12), kTransferMax);
  EXPECT_EQ(with_mdts(1, 12), 8192U);
  EXPECT_EQ(with_mdts(8, 12), kTransferMax);
  for (const auto mdts : std::initializer_list<uint8_t>{9, 20, 31, 32, 52, 63, 64, 255}) {
    for (const auto shift : std::initializer_list<uint8_t>{12, 27})
      EXPECT_EQ(with_mdts(mdts, shift), kTransferMax) << int{mdts};
  }
  const auto with_ioccsz = [](uint32_t units) {
    ControllerNature nature;
    nature.identify.ioccsz = units;
    return read(nature);
  };
  EXPECT_EQ(with_ioccsz(4)->in_capsule_max, 0U);
  EXPECT_EQ(with_ioccsz(5)->in_capsule_max, 16U);
  EXPECT_EQ(with_ioccsz(UINT32_MAX)->in_capsule_max, kTransferMax);
  for (const uint32_t units : {0U, 1U, 3U}) EXPECT_EQ(code_of(with_ioccsz(units)), Code::kProtocol) << units;
  const auto with_entries = [](uint64_t mqes) {
    ControllerNature nature;
    nature.capabilities = mqes;
    return read(nature)->queue_entries_max;
  };
  EXPECT_EQ(with_entries(0), 1);
  EXPECT_EQ(with_entries(1), 2);
  EXPECT_EQ(with_entries(0xffff), 0xffff);
}

TEST(ReadControllerTest, Refuses) {
  const auto code = [](auto change) {
    ControllerNature nature;
    change(nature.identify);
    return code_of(read(nature));
  };
  using Identify = nvme::IdentifyController;
  EXPECT_EQ(code([](Identify& data) { data.cntrltype = 3; }), Code::kNotSupported);
  EXPECT_EQ(code([](Identify& data) { data.cntrltype = 4; }), Code::kProtocol);
  EXPECT_EQ(code([](Identify& data) { data.cntrltype = 0xff; }), Code::kProtocol);
  EXPECT_EQ(code([](Identify& data) { data.sgls = 0; }), Code::kNotSupported);
  EXPECT_EQ(code([](Identify& data) { data.icdoff = 1; }), Code::kNotSupported);
  EXPECT_EQ(code([](Identify& data) { std::memset(data.subnqn, 'a', sizeof data.subnqn); }), Code::kProtocol);
  // Fabrics controllers do keep-alive (base 2.0 section 3.9); without it nobody would notice a dead path.
  EXPECT_EQ(code([](Identify& data) { data.kas = 0; }), Code::kNotSupported);
  EXPECT_EQ(code([](Identify& data) {
              data.kas = 0;
              data.sgls = 0;
              data.cntrltype = 2;  // a discovery controller needs neither
            }),
            Code::kInternal);
}

// They end in logs and on terminals.
TEST(ReadControllerTest, TextsArePrintable) {
  ControllerNature nature;
  std::memcpy(nature.identify.sn, "\x1b[2J\n\x07\xff\0z", 9);
  std::memset(nature.identify.mn, 0, sizeof nature.identify.mn);
  const Result<ControllerInfo> info = read(nature);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->model, "");
  for (const std::string& text : {info->serial, info->model, info->firmware}) {
    EXPECT_TRUE(std::ranges::all_of(text, [](char c) { return c >= ' ' && c < 0x7f; })) << text;
  }
  EXPECT_EQ(info->serial.substr(0, 4), "?[2J");
}

TEST(ReadControllerTest, NeverFailsOtherwiseOnAnyBytes) {
  uint64_t seed = 0;
  for (int i = 0; i < 2000; ++i) {
    nvme::IdentifyController data;
    const auto bytes = std::as_writable_bytes(std::span(&data, 1));
    for (std::byte& each : bytes) each = static_cast<std::byte>((seed = seed * 6364136223846793005U + 1) >> 56);
    data.cntrltype = 1;
    const Result<ControllerInfo> info = read_controller(data, seed);
    if (!info) continue;
    EXPECT_GE(info->transfer_max, 4096U);
    EXPECT_LE(info->transfer_max, kTransferMax);
    EXPECT_LE(info->in_capsule_max, kTransferMax);
  }
}

// ---- Namespaces.

Result<NamespaceInfo> read(const ControllerNature& nature, const ControllerNature::Namespace& data) {
  const Result<ControllerInfo> controller = read(nature);
  return read_namespace(1, data.identify, data.descriptors, *controller);
}
template <typename Change>
Result<NamespaceInfo> read_with(Change change) {
  ControllerNature nature;
  change(nature.namespaces.at(1));
  return read(nature, nature.namespaces.at(1));
}
using Data = ControllerNature::Namespace;

TEST(ReadNamespaceTest, TakesWhatItSays) {
  const Result<NamespaceInfo> info = read_with([](Data& data) {
    data.identify.nguid[3] = 9;
    data.identify.eui64[0] = 8;
    data.identify.anagrpid = 5;
    data.identify.dlfeat = 1;
    data.identify.nsattr = nvme::kNsattrWriteProtected;
  });
  ASSERT_TRUE(info);
  EXPECT_EQ(info->identity.nsid, 1U);
  EXPECT_EQ(info->identity.uuid.bytes[0], 1);
  EXPECT_EQ(info->identity.nguid[3], 9);
  EXPECT_EQ(info->identity.eui64[0], 8);
  EXPECT_EQ(info->ana_group, 5U);
  EXPECT_EQ(info->geometry.size_bytes, 1 * kMiB);
  EXPECT_EQ(info->geometry.logical_block, 4096U);
  EXPECT_TRUE(info->geometry.discard_zeroes && info->geometry.read_only);
  EXPECT_TRUE(check_geometry(info->geometry));
}

TEST(ReadNamespaceTest, Sizes) {
  const auto code = [](uint64_t blocks, uint8_t shift) {
    return code_of(read_with([=](Data& data) {
      data.identify.nsze = blocks;
      data.identify.lbaf[0].lbads = shift;
    }));
  };
  EXPECT_EQ(code(1, 9), Code::kInternal);
  EXPECT_EQ(code(0, 12), Code::kProtocol);
  EXPECT_EQ(code(UINT64_MAX, 12), Code::kProtocol);
  EXPECT_EQ(code(UINT64_MAX, 9), Code::kProtocol);
  EXPECT_EQ(code(uint64_t{1} << 50, 12), Code::kInternal);
  EXPECT_EQ(code((uint64_t{1} << 50) + 1, 12), Code::kProtocol);
  EXPECT_EQ(code(uint64_t{1} << 53, 9), Code::kInternal);
  for (const auto shift : std::initializer_list<uint8_t>{0, 1, 8, 10, 11, 13, 16, 31, 32, 63, 64, 255}) {
    EXPECT_EQ(code(256, shift), Code::kNotSupported) << int{shift};
  }
}

TEST(ReadNamespaceTest, Formats) {
  // Each index that FLBAS can name, all bits of it.
  for (unsigned flbas = 0; flbas < 256; ++flbas) {
    const size_t index = (flbas & 0xf) | ((flbas & 0x60) >> 1);
    const Result<NamespaceInfo> info = read_with([=](Data& data) {
      data.identify.nlbaf = 63;
      data.identify.flbas = static_cast<uint8_t>(flbas);
      data.identify.lbaf[0].lbads = 0;
      data.identify.lbaf[index].lbads = 9;
    });
    ASSERT_TRUE(info) << flbas;
    EXPECT_EQ(info->geometry.logical_block, 512U);
  }
  EXPECT_EQ(code_of(read_with([](Data& data) { data.identify.lbaf[0].ms = 8; })), Code::kNotSupported);
  // A format that the namespace says it does not have.
  EXPECT_EQ(code_of(read_with([](Data& data) {
              data.identify.flbas = 1;
              data.identify.lbaf[1].lbads = 12;
            })),
            Code::kProtocol);
}

TEST(ReadNamespaceTest, PreferredSizes) {
  for (const auto zeroes_based : std::initializer_list<uint16_t>{0, 1, 2, 6, 15, 255, 256, 65534, 65535}) {
    const Result<NamespaceInfo> info = read_with([=](Data& data) {
      data.identify.nsfeat = nvme::kNsfeatOptimalSizes;
      data.identify.npwg = data.identify.npdg = data.identify.nows = zeroes_based;
    });
    ASSERT_TRUE(info);
    EXPECT_TRUE(check_geometry(info->geometry)) << zeroes_based;
    EXPECT_TRUE(is_power_of_two(info->geometry.physical_block)) << zeroes_based;
    EXPECT_EQ(info->geometry.discard_granularity % 4096, 0U);
    EXPECT_GT(info->geometry.discard_granularity, 0U);
  }
}

TEST(ReadNamespaceTest, Descriptors) {
  struct Case {
    uint8_t type;
    uint8_t length;
    Code code;
  };
  const Case cases[] = {{3, 16, Code::kInternal},    {3, 0, Code::kProtocol},  {3, 15, Code::kProtocol},
                        {3, 17, Code::kProtocol},    {2, 16, Code::kInternal}, {2, 8, Code::kProtocol},
                        {1, 8, Code::kInternal},     {1, 16, Code::kProtocol}, {4, 1, Code::kNotSupported},
                        {4, 0, Code::kProtocol},     {4, 2, Code::kProtocol},  {5, 0, Code::kInternal},
                        {0x80, 255, Code::kInternal}};
  for (const Case& each : cases) {
    const Result<NamespaceInfo> info = read_with([&](Data& data) {
      data.descriptors.fill(std::byte{0});
      data.descriptors[0] = std::byte{each.type};
      data.descriptors[1] = std::byte{each.length};
      if (each.length > 0) data.descriptors[4] = std::byte{1};  // a key-value command set, or any other value
    });
    EXPECT_EQ(code_of(info), each.code) << int{each.type} << ' ' << int{each.length};
  }
  // To the very end, and one byte beyond.
  const auto fill = [](uint8_t last) {
    return code_of(read_with([=](Data& data) {
      size_t at = 0;
      while (at + 4 + 60 <= data.descriptors.size() - 64) {
        data.descriptors[at] = std::byte{0x7f};
        data.descriptors[at + 1] = std::byte{60};
        at += 64;
      }
      data.descriptors[at] = std::byte{0x7f};
      data.descriptors[at + 1] = std::byte{last};
    }));
  };
  EXPECT_EQ(fill(60), Code::kInternal);
  EXPECT_EQ(fill(57), Code::kInternal);  // less than a head is left
  EXPECT_EQ(fill(61), Code::kProtocol);
  EXPECT_EQ(fill(255), Code::kProtocol);
}

TEST(ReadNamespaceTest, NothingButZeroes) {
  EXPECT_FALSE(read_with([](Data& data) { data = {}; }));
}

// ---- ANA.

std::vector<std::byte> log_of(uint32_t groups) {
  ControllerNature nature;
  nature.set_ana_groups(groups, 1);
  return nature.ana_log;
}
size_t group_at(size_t index, size_t field) {
  return sizeof(nvme::AnaHeader) + index * sizeof(nvme::AnaGroupDescriptor) + field;
}

TEST(ReadAnaTest, Groups) {
  for (const auto state : std::initializer_list<uint8_t>{1, 2, 3, 4, 15}) {
    std::vector<std::byte> log = log_of(2);
    log[group_at(1, offsetof(nvme::AnaGroupDescriptor, state))] = std::byte{state} | std::byte{0xf0};
    const Result<AnaStates> states = read_ana_groups(log);
    ASSERT_TRUE(states) << int{state};
    EXPECT_THAT(*states, ::testing::ElementsAre(::testing::Pair(1, AnaState::kOptimized),
                                                ::testing::Pair(2, static_cast<AnaState>(state))));
  }
  EXPECT_TRUE(read_ana_groups(log_of(0))->empty());
}

TEST(ReadAnaTest, Refuses) {
  for (const auto state : std::initializer_list<uint8_t>{0, 5, 6, 14}) {
    std::vector<std::byte> log = log_of(2);
    log[group_at(1, offsetof(nvme::AnaGroupDescriptor, state))] = std::byte{state};
    EXPECT_EQ(code_of(read_ana_groups(log)), Code::kProtocol) << int{state};
  }
  std::vector<std::byte> log = log_of(2);
  EXPECT_EQ(code_of(read_ana_groups(std::span(log).first(log.size() - 1))), Code::kProtocol);
  EXPECT_EQ(code_of(read_ana_groups(std::span(log).first(15))), Code::kProtocol);
  EXPECT_EQ(code_of(read_ana_groups({})), Code::kProtocol);
  log[group_at(0, offsetof(nvme::AnaGroupDescriptor, namespaces))] = std::byte{1};
  EXPECT_EQ(code_of(read_ana_groups(log)), Code::kProtocol);
  // The group 0 does not exist, and none is there twice.
  log = log_of(2);
  log[group_at(1, 0)] = std::byte{0};
  EXPECT_EQ(code_of(read_ana_groups(log)), Code::kProtocol);
  log[group_at(1, 0)] = std::byte{1};
  EXPECT_EQ(code_of(read_ana_groups(log)), Code::kProtocol);
}

}  // namespace
}  // namespace fairlead::host
