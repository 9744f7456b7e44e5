#include "io/crowding.h"

#include <array>
#include <charconv>
#include <fcntl.h>
#include <string_view>
#include <unistd.h>

namespace fairlead {

RunDelay::RunDelay(const char* path) : descriptor_(::open(path, O_RDONLY | O_CLOEXEC)) {}
RunDelay::~RunDelay() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::optional<Duration> RunDelay::read() const {
  std::array<char, 96> text{};
  const ssize_t size = descriptor_ >= 0 ? ::pread(descriptor_, text.data(), text.size(), 0) : -1;
  if (size <= 0) return std::nullopt;
  const std::string_view line(text.data(), static_cast<size_t>(size));
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  int64_t waited_ns = 0;
  const auto [end, error] = std::from_chars(line.data() + space + 1, line.data() + line.size(), waited_ns);
  if (error != std::errc{} || waited_ns < 0) return std::nullopt;
  return Duration(waited_ns);
}

void Crowding::look(Instant now, std::optional<Duration> waited) {
  const Duration since = now - last_look_;
  is_crowded_ = waited && last_look_ != Instant{} && *waited - waited_ > since / kPart;
  waited_ = waited.value_or(Duration{});
  last_look_ = now;
  next_look_ = now + kInterval;
}

}  // namespace fairlead
