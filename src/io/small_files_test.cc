// Small files of a directory: what was replaced is read by the next process.
#include "io/small_files.h"

#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>

#include "io/runtime.h"

namespace fairlead {
namespace {

class SmallFilesTest : public testing::Test {
 protected:
  SmallFilesTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "fairlead-XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    parent_ = pattern;
  }
  ~SmallFilesTest() override { std::filesystem::remove_all(parent_); }
  std::string path() const { return (parent_ / "state").string(); }

  std::filesystem::path parent_;
};

Task<int> write_both(Runtime& runtime, std::string path) {
  auto files = open_small_files(runtime.shard(0).reactor, path);
  EXPECT_TRUE(files.has_value());
  if (!files) co_return 1;
  EXPECT_EQ(*(*files)->read("a.json"), std::nullopt);
  EXPECT_TRUE(co_await (*files)->replace("a.json", "first, and longer"));
  EXPECT_TRUE(co_await (*files)->replace("a.json", "second"));
  EXPECT_TRUE(co_await (*files)->replace("b.json", std::string(100'000, 'b')));
  EXPECT_EQ(*(*files)->read("a.json"), "second");
  const auto again = open_small_files(runtime.shard(0).reactor, path);
  EXPECT_FALSE(again.has_value());
  if (!again) EXPECT_EQ(again.error().error.code, Code::kBusy);
  co_return 0;
}

TEST_F(SmallFilesTest, WhatWasReplacedIsThereForTheNext) {
  Runtime runtime({.shards = 1});
  ASSERT_TRUE(runtime.start());
  EXPECT_EQ(runtime.run(write_both(runtime, path())), 0);
  Reactor home({});
  const auto files = open_small_files(home, path());
  ASSERT_TRUE(files.has_value()) << "nobody has it any more";
  EXPECT_EQ(*(*files)->read("a.json"), "second");
  EXPECT_EQ(*(*files)->read("b.json"), std::string(100'000, 'b'));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path()), {}), 2) << "nothing is left over";
  EXPECT_EQ(std::filesystem::status(path()).permissions(), std::filesystem::perms::owner_all);
}

TEST_F(SmallFilesTest, WhatCannotBeUsedIsSaid) {
  Reactor home({});
  const auto nowhere = open_small_files(home, path() + "/deeper");
  ASSERT_FALSE(nowhere.has_value());
  EXPECT_EQ(nowhere.error().error.code, Code::kNotFound);
  std::ofstream(path()) << "a file";
  EXPECT_FALSE(open_small_files(home, path()).has_value());
}

}  // namespace
}  // namespace fairlead
