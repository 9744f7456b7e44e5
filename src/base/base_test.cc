#include <gtest/gtest.h>
#include <random>

#include "base/crc32c.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/intrusive_list.h"
#include "base/log.h"
#include "base/units.h"
#include "base/uuid.h"
#include "base/xoshiro.h"

namespace fairlead {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(ErrorTest, TableNamesEachCodeOnce) {
  std::vector<std::string_view> names;
  for (int i = 0; i < kCodeCount; ++i) {
    const CodeInfo& info = code_info(static_cast<Code>(i));
    EXPECT_EQ(static_cast<int>(info.code), i);
    EXPECT_NE(info.nvme_status, 0) << info.name << " would look like success to a host";
    EXPECT_NE(info.grpc_code, 0) << info.name;
    names.push_back(info.name);
  }
  std::ranges::sort(names);
  EXPECT_EQ(std::ranges::adjacent_find(names), names.end());
}

TEST(ErrorTest, EachNameLeadsBackToItsCode) {
  for (int i = 0; i < kCodeCount; ++i) {
    const auto code = static_cast<Code>(i);
    EXPECT_EQ(code_from_name(code_info(code).name), code);
  }
  EXPECT_EQ(code_from_name("not_foun"), std::nullopt);
  EXPECT_EQ(code_from_name(""), std::nullopt);
}

TEST(ErrorTest, TextNamesStepAndCause) {
  EXPECT_EQ(to_string(error_from_errno(EBUSY, "claim the file")),
            "is in use (claim the file: Device or resource busy)");
  EXPECT_EQ(to_string(Error{Code::kNotFound}), "does not exist");
  EXPECT_EQ(to_string(Error{Code::kInvalidArgument, 0, "a UUID"}), "is not valid (a UUID)");
}

TEST(EndianTest, BytesAreLittleEndianAndUnaligned) {
  struct Wire {
    uint8_t type;
    Le32 length;
  };
  static_assert(sizeof(Wire) == 5);
  const Wire wire{1, 0x01020304U};
  EXPECT_EQ(std::memcmp(&wire, "\x01\x04\x03\x02\x01", 5), 0);
  EXPECT_EQ(wire.length, 0x01020304U);
}

TEST(Crc32cTest, KnownValues) {
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283U);
  EXPECT_EQ(crc32c({}), 0U);
  // RFC 3720 appendix B.4: 32 bytes of zeroes.
  EXPECT_EQ(crc32c(bytes_of(std::string(32, '\0'))), 0x8a9136aaU);
}

TEST(Crc32cTest, PiecesGiveTheSameAsTheWhole) {
  std::mt19937 random(7);
  std::string text(10'000, '\0');
  for (char& c : text) c = static_cast<char>(random());
  for (int round = 0; round < 100; ++round) {
    const size_t cut = random() % text.size();
    Crc32c crc;
    crc.update(bytes_of(text).first(cut));
    crc.update(bytes_of(text).subspan(cut));
    ASSERT_EQ(crc.value(), crc32c(bytes_of(text)));
  }
}

TEST(UnitsTest, ParsesWhatPeopleWrite) {
  EXPECT_EQ(parse_size("4096"), 4096U);
  EXPECT_EQ(parse_size("4KiB"), 4096U);
  EXPECT_EQ(parse_size("1.5 GiB"), kGiB * 3 / 2);
  EXPECT_EQ(parse_size("2g"), 2 * kGiB);
  EXPECT_EQ(parse_size("10GB"), 10'000'000'000U);
  for (const char* bad :
       {"", "GiB", "-1", "1XiB", "1.0.0", "0.3KiB", "9000000000000TiB", "99999999999999999999", "1 GiB x"}) {
    EXPECT_EQ(parse_size(bad).error().code, Code::kInvalidArgument) << bad;
  }
}

TEST(UnitsTest, FormatIsExactAndParsesBack) {
  EXPECT_EQ(format_size(0), "0 B");
  EXPECT_EQ(format_size(4096), "4 KiB");
  EXPECT_EQ(format_size(kGiB * 3 / 2), "1.5 GiB");
  std::mt19937_64 random(3);
  for (int i = 0; i < 1000; ++i) {
    const uint64_t value = random() >> (1 + random() % 62);
    ASSERT_EQ(parse_size(format_size(value)), value) << format_size(value);
  }
}

TEST(UuidTest, TextRoundTripAndVersions) {
  const Uuid random = uuid_from_random(0x0123456789abcdef, 0xfedcba9876543210);
  EXPECT_EQ(to_string(random), "01234567-89ab-4def-bedc-ba9876543210");
  EXPECT_EQ(parse_uuid(to_string(random)), random);
  for (const char* bad : {"", "01234567-89ab-4def-bedc-ba987654321", "01234567-89ab-4def-bedc_ba9876543210",
                          "0123456g-89ab-4def-bedc-ba9876543210"}) {
    EXPECT_FALSE(parse_uuid(bad)) << bad;
  }
  // RFC 9562 appendix A.4.
  const Uuid dns = *parse_uuid("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  EXPECT_EQ(to_string(uuid_from_name(dns, "www.example.com")), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
}

TEST(LogTest, WritesKeyValueAndQuotesWhatCouldForgeALine) {
  struct Sink : LogSink {
    std::string last;
    void write(LogLevel, std::string_view, std::string_view line) override { last = line; }
  } sink;
  log_info("target.started", {{"port", 4420}, {"name", "a b\n\"c\""}, {"ok", true}});
  EXPECT_EQ(sink.last, "INFO target.started port=4420 name=\"a b\\x0a\\\"c\\\"\" ok=true");
  sink.last.clear();
  log_debug("dropped");
  EXPECT_EQ(sink.last, "");
}

TEST(FaultTest, OnlyAnInstalledPlanFires) {
  EXPECT_FALSE(fault(FaultPoint::kShortSend));
  struct Plan : FaultPlan {
    bool fires(FaultPoint point) override { return point == FaultPoint::kShortSend; }
  };
  {
    Plan plan;
    EXPECT_TRUE(fault(FaultPoint::kShortSend));
    EXPECT_FALSE(fault(FaultPoint::kShortReceive));
    probe(Probe::kBufferWait);
    EXPECT_EQ(plan.count_of(Probe::kBufferWait), 1U);
  }
  EXPECT_FALSE(fault(FaultPoint::kShortSend));
}

TEST(XoshiroTest, GivesTheNumbersOfItsAuthorsFromTheSameState) {
  Xoshiro generator(Xoshiro::State{1, 2, 3, 4});
  for (const uint64_t expected : {11520ULL, 0ULL, 1509978240ULL, 1215971899390074240ULL}) {
    EXPECT_EQ(generator.next(), expected);
  }
}

TEST(IntrusiveListTest, AgreesWithADeque) {
  struct Item : ListNode<Item> {
    int id = 0;
  };
  std::mt19937 random(11);
  std::array<Item, 32> items;
  for (size_t i = 0; i < items.size(); ++i) items[i].id = static_cast<int>(i);
  IntrusiveList<Item> list;
  std::deque<int> model;
  for (int step = 0; step < 10'000; ++step) {
    Item& item = items[random() % items.size()];
    if (item.is_linked()) {
      list.remove(item);
      std::erase(model, item.id);
    } else if (random() % 2 == 0) {
      list.push_back(item);
      model.push_back(item.id);
    } else {
      list.push_front(item);
      model.push_front(item.id);
    }
    std::vector<int> seen;
    for (Item& each : list) seen.push_back(each.id);
    ASSERT_TRUE(std::ranges::equal(seen, model));
  }
  while (!list.empty()) list.pop_front();
}

}  // namespace
}  // namespace fairlead
