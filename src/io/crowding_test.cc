#include "io/crowding.h"

#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <unistd.h>

namespace fairlead {
namespace {

using std::chrono::milliseconds;

std::optional<Duration> delay_in(const char* text) {
  const std::string path = fmt::format("{}/crowding_test.{}", testing::TempDir(), ::getpid());
  std::ofstream(path) << text;
  const std::optional<Duration> read = RunDelay(path.c_str()).read();
  std::remove(path.c_str());
  return read;
}

TEST(RunDelayTest, IsTheSecondNumber) {
  EXPECT_EQ(delay_in("123 456 7\n"), Duration(456));
  EXPECT_EQ(delay_in("0 0 0\n"), Duration(0));
  for (const char* const text : {"", "123", "123 ", "123 -4 5", "123 x", "1 99999999999999999999 1"}) {
    EXPECT_EQ(delay_in(text), std::nullopt) << text;
  }
  EXPECT_EQ(RunDelay("/nonexistent").read(), std::nullopt);
}

TEST(CrowdingTest, IsWhenMuchOfTheTimeIsSpentWaiting) {
  Crowding crowding;
  Instant now{1'000'000'000};
  const auto after = [&](Duration span, std::optional<Duration> waited) {
    now = now + span;
    crowding.look(now, waited);
    return crowding.is_crowded();
  };
  EXPECT_TRUE(crowding.is_due(now));
  EXPECT_FALSE(after(milliseconds(0), milliseconds(500))) << "what was before the first look says nothing";
  EXPECT_FALSE(crowding.is_due(now + milliseconds(9)));
  EXPECT_TRUE(crowding.is_due(now + milliseconds(10)));
  EXPECT_FALSE(after(milliseconds(16), milliseconds(502)));
  EXPECT_TRUE(after(milliseconds(16), milliseconds(505)));
  EXPECT_TRUE(after(milliseconds(16), milliseconds(508)));
  EXPECT_FALSE(after(milliseconds(16), milliseconds(508)));
  EXPECT_FALSE(after(milliseconds(16), std::nullopt));
}

}  // namespace
}  // namespace fairlead
