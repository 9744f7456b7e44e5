#include "nvme/nqn.h"

#include <gtest/gtest.h>

namespace fairlead::nvme {
namespace {

constexpr std::string_view kUuidNqn = "nqn.2014-08.org.nvmexpress:uuid:6f0d3b5e-5c1d-4c36-9a53-1a8e2774f109";

TEST(NqnTest, Table) {
  const std::pair<std::string, bool> table[] = {
      {std::string(kDiscoveryNqn), true},
      {std::string(kUuidNqn), true},
      {"nqn.2016-06.io.spdk:cnode1", true},
      {"nqn.2024-12.example:x", true},
      {"nqn.2024-12.com.ex-ample:db:1", true},
      {"nqn.2024-12.com.example:volumé", true},
      {"nqn.2024-12.example:" + std::string(203, 'x'), true},   // 223 bytes
      {"nqn.2024-12.example:" + std::string(204, 'x'), false},  // 224 bytes
      {"", false},
      {"nqn", false},
      {"nqn.", false},
      {"NQN.2024-12.example:x", false},
      {"iqn.2024-12.example:x", false},
      {"nqn.2024-12.example", false},
      {"nqn.2024-12.example:", false},
      {"nqn.2024-12.:x", false},
      {"nqn.2024-12:x", false},
      {"nqn.2024-13.example:x", false},
      {"nqn.2024-00.example:x", false},
      {"nqn.2024_12.example:x", false},
      {"nqn.24-12.example:x", false},
      {"nqn.2024-12.com..example:x", false},
      {"nqn.2024-12.com.:x", false},
      {"nqn.2024-12.exa mple:x", false},
      {"nqn.2014-08.org.nvmexpress:uuid:6f0d3b5e", false},
      {std::string(kUuidNqn) + "0", false},
      {"nqn.2014-08.org.nvmexpress.discovery2", false},
      {"nqn.2024-12.example:a\nb", false},
      {std::string("nqn.2024-12.example:a\0b", 23), false},
  };
  for (const auto& [nqn, good] : table) {
    EXPECT_EQ(validate_nqn(nqn).has_value(), good) << nqn;
  }
}

TEST(NqnTest, AcceptableFromAPeer) {
  const std::pair<std::string, bool> table[] = {
      {"blktests-subsystem-1", true},
      {"x", true},
      {std::string(223, 'x'), true},
      {std::string(224, 'x'), false},
      {"", false},
      {"a\tb", false},
      {"a\x7f", false},
      {"\x1b[31mred", false},
      {"\xc3\xa9", true},           // e with acute accent
      {"\xc3", false},              // cut
      {"\xa9", false},              // continuation without a start
      {"\xc0\xaf", false},          // overlong
      {"\xc2\x85", false},          // a C1 control character
      {"\xe0\x9f\xbf", false},      // overlong
      {"\xe2\x82\xac", true},       // euro
      {"\xed\xa0\x80", false},      // surrogate
      {"\xf0\x9f\x92\xbe", true},   // floppy disk
      {"\xf0\x8f\xbf\xbf", false},  // overlong
      {"\xf4\x90\x80\x80", false},  // above U+10FFFF
      {"\xff", false},
  };
  for (const auto& [nqn, good] : table) {
    EXPECT_EQ(is_acceptable_nqn(nqn), good) << testing::PrintToString(nqn);
  }
}

TEST(NqnTest, FromUuid) {
  const auto uuid = parse_uuid("6f0d3b5e-5c1d-4c36-9a53-1a8e2774f109");
  ASSERT_TRUE(uuid);
  EXPECT_EQ(nqn_from_uuid(*uuid), kUuidNqn);
  EXPECT_TRUE(validate_nqn(nqn_from_uuid(*uuid)));
}

TEST(FieldTest, ZeroTerminated) {
  char field[4] = {'a', 'b', 'c', 'd'};
  EXPECT_EQ(read_zero_terminated(field), std::nullopt);
  field[3] = 0;
  EXPECT_EQ(read_zero_terminated(field), "abc");
  field[0] = 0;
  EXPECT_EQ(read_zero_terminated(field), "");
  write_zero_terminated(field, "x");
  EXPECT_EQ(std::string_view(field, 4), std::string_view("x\0\0\0", 4));
  EXPECT_DEATH(write_zero_terminated(field, "abcd"), "size");
}

TEST(FieldTest, SpacePadded) {
  char field[5];
  write_space_padded(field, "ab");
  EXPECT_EQ(std::string_view(field, 5), "ab   ");
  EXPECT_EQ(read_space_padded(field), "ab");
  write_space_padded(field, "abcdefg");
  EXPECT_EQ(std::string_view(field, 5), "abcde");
  EXPECT_EQ(read_space_padded(field), "abcde");
  write_space_padded(field, "a\n\xff");
  EXPECT_EQ(std::string_view(field, 5), "a??  ");
  write_space_padded(field, "");
  EXPECT_EQ(read_space_padded(field), "");
  write_zero_terminated(field, "ab");
  EXPECT_EQ(read_space_padded(field), "ab");
}

}  // namespace
}  // namespace fairlead::nvme
