#include "io/boot_id.h"

#include <array>
#include <fcntl.h>
#include <string_view>
#include <sys/random.h>
#include <unistd.h>

#include "base/check.h"

namespace fairlead {

Uuid read_boot_id(const char* path) {
  std::array<char, 64> text{};
  ssize_t size = -1;
  if (const int descriptor = ::open(path, O_RDONLY | O_CLOEXEC); descriptor >= 0) {
    size = ::read(descriptor, text.data(), text.size());
    ::close(descriptor);
  }
  std::string_view line(text.data(), size > 0 ? static_cast<size_t>(size) : 0);
  line = line.substr(0, line.find('\n'));
  if (const Result<Uuid> read = parse_uuid(line); read && !read->is_nil()) return *read;
  std::array<uint64_t, 2> drawn{};
  FL_CHECK(::getrandom(drawn.data(), sizeof drawn, 0) == static_cast<ssize_t>(sizeof drawn));
  return uuid_from_random(drawn[0], drawn[1]);
}

const Uuid& kernel_boot_id() {
  static const Uuid id = read_boot_id("/proc/sys/kernel/random/boot_id");
  return id;
}

}  // namespace fairlead
