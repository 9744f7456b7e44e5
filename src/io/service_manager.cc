#include "io/service_manager.h"

#include <cstddef>
#include <cstring>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace fairlead {

Result<void> tell_service_manager(const std::string& socket, std::string_view state) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const bool is_path = !socket.empty() && (socket[0] == '/' || socket[0] == '@');
  if (!is_path || socket.size() >= sizeof address.sun_path) {
    return fail(Code::kInvalidArgument, "a socket is an absolute path, or @ and a name");
  }
  std::memcpy(address.sun_path, socket.data(), socket.size());
  if (socket[0] == '@') address.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket.size());
  const int descriptor = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) return fail_errno(errno, "make a socket");
  const ssize_t sent = ::sendto(descriptor, state.data(), state.size(), MSG_NOSIGNAL,
                                reinterpret_cast<const sockaddr*>(&address), length);
  const int failure = sent < 0 ? errno : 0;
  ::close(descriptor);
  if (failure != 0) return fail_errno(failure, "tell the service manager");
  return {};
}

}  // namespace fairlead
