// What a disk holds: by the first bytes of files.
#include "io/disk_signature.h"

#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <string_view>
#include <unistd.h>

namespace fairlead {
namespace {

// A disk of zeroes that has these bytes at these places.
class DiskSignatureTest : public testing::Test {
 protected:
  DiskSignatureTest() { write(0, std::string(kBytes, '\0')); }
  ~DiskSignatureTest() override { std::remove(path_.c_str()); }
  void write(size_t at, std::string_view bytes) {
    std::fstream file(path_,
                      std::ios::binary | std::ios::in | std::ios::out | (at == 0 ? std::ios::trunc : std::ios::in));
    file.seekp(static_cast<std::streamoff>(at));
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    EXPECT_TRUE(file.good());
  }

  static constexpr size_t kBytes = 4 << 20;
  // Tests run at once, each in a process of its own.
  const std::string path_ = fmt::format("{}/disk_signature_test.{}", testing::TempDir(), ::getpid());
};

// LUKS1: its magic and its version, big-endian; the header goes on with names, padded by zeroes.
constexpr std::string_view kLuks("LUKS\xba\xbe\x00\x01", 8);
// File systems that are known by their magic alone, at 0 and at 65536.
constexpr std::string_view kRomfs = "-rom1fs-";
constexpr std::string_view kReiser4 = "ReIsEr4";

TEST_F(DiskSignatureTest, ZeroesAreNothing) {
  const auto found = look_for_signature(path_);
  ASSERT_TRUE(found) << to_string(found.error());
  EXPECT_FALSE(*found);
  EXPECT_EQ(signature_of(path_), "");
}

TEST_F(DiskSignatureTest, WhatIsKnownIsNamed) {
  write(0, std::string(kLuks) + std::string(kBytes - kLuks.size(), '\0'));
  const auto found = look_for_signature(path_);
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->type, "crypto_LUKS");
  EXPECT_EQ((*found)->usage, "crypto");
  EXPECT_EQ((*found)->table, "");
  EXPECT_EQ(signature_of(path_), "a crypto_LUKS");
}

TEST_F(DiskSignatureTest, SeveralAreNotOne) {
  write(0, std::string(kRomfs) + std::string(kBytes - kRomfs.size(), '\0'));
  write(65536, kReiser4);
  const auto found = look_for_signature(path_);
  ASSERT_TRUE(found && *found);
  EXPECT_TRUE((*found)->is_ambiguous);
  EXPECT_EQ(signature_of(path_), "signatures of several kinds");
}

TEST_F(DiskSignatureTest, ATableOfPartitionsComesFirst) {
  // One partition of Linux, from sector 2048 on, 4096 sectors.
  constexpr std::string_view kEntry("\x00\x00\x21\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x10\x00\x00", 16);
  write(446, kEntry);
  write(510, "\x55\xaa");
  const auto found = look_for_signature(path_);
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->table, "dos");
  EXPECT_EQ(signature_of(path_), "a dos partition table");
}

TEST_F(DiskSignatureTest, WhatCannotBeReadIsAnError) {
  EXPECT_EQ(look_for_signature(path_ + ".none").error().code, Code::kNotFound);
  EXPECT_EQ(signature_of(path_ + ".none"), "");
}

}  // namespace
}  // namespace fairlead
