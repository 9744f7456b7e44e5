#include "io/line_input.h"

#include <array>
#include <gtest/gtest.h>
#include <unistd.h>
#include <vector>

#include "async/cancel.h"
#include "async/scope.h"
#include "io/runtime.h"

namespace fairlead {
namespace {

struct Pipe {
  Pipe() { EXPECT_EQ(::pipe(ends.data()), 0); }
  ~Pipe() {
    ::close(ends[0]);
    close_writer();
  }
  void write(std::string_view text) const {
    EXPECT_EQ(::write(ends[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void close_writer() {
    if (ends[1] >= 0) ::close(ends[1]);
    ends[1] = -1;
  }
  std::array<int, 2> ends{};
};

Task<void> read_all(UringShard& shard, Pipe& pipe, std::vector<std::string>& lines) {
  LineInput input(shard, pipe.ends[0]);
  while (true) {
    const Result<std::optional<std::string>> line = co_await input.next();
    EXPECT_TRUE(line);
    if (!line || !*line) co_return;
    lines.push_back(**line);
    if (**line == "more") {
      pipe.write("half a ");
      pipe.write("line\n\nlast");
      pipe.close_writer();
    }
  }
}

TEST(LineInputTest, GivesEachLineAndTheLastWithoutItsNewline) {
  Runtime runtime({.pinning = Pinning::kNone});
  ASSERT_TRUE(runtime.start());
  Pipe pipe;
  pipe.write("one\ntwo\nmore\n");
  std::vector<std::string> lines;
  runtime.run_on(0, read_all(runtime.uring_shard(0), pipe, lines));
  EXPECT_EQ(lines, (std::vector<std::string>{"one", "two", "more", "half a line", "", "last"}));
}

Task<void> keep_next(LineInput& input, Result<std::optional<std::string>>& kept) { kept = co_await input.next(); }

Task<void> close_while_waiting(UringShard& shard, const Pipe& pipe, Result<std::optional<std::string>>& kept) {
  LineInput input(shard, pipe.ends[0]);
  Scope scope(shard.shard().reactor);
  scope.spawn(keep_next(input, kept));
  co_await sleep(shard.shard().reactor, std::chrono::milliseconds(1));
  input.close();
  co_await scope.close();
}

TEST(LineInputTest, CloseEndsTheWait) {
  Runtime runtime({.pinning = Pinning::kNone});
  ASSERT_TRUE(runtime.start());
  const Pipe pipe;
  Result<std::optional<std::string>> kept;
  runtime.run_on(0, close_while_waiting(runtime.uring_shard(0), pipe, kept));
  ASSERT_FALSE(kept);
  EXPECT_EQ(kept.error().code, Code::kCancelled);
}

TEST(LineInputTest, ALineWithoutEndIsRefused) {
  Runtime runtime({.pinning = Pinning::kNone});
  ASSERT_TRUE(runtime.start());
  std::FILE* const file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  std::fputs(std::string(2 * LineInput::kLineBytesMax, 'x').c_str(), file);
  std::fflush(file);
  std::rewind(file);
  LineInput input(runtime.uring_shard(0), ::fileno(file));
  Result<std::optional<std::string>> kept;
  runtime.run_on(0, keep_next(input, kept));
  std::fclose(file);
  ASSERT_FALSE(kept);
  EXPECT_EQ(kept.error().code, Code::kResourceExhausted);
}

}  // namespace
}  // namespace fairlead
