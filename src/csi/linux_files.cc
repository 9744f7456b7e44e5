#include "csi/linux_files.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <libmount.h>
#include <linux/fs.h>
#include <memory>
#include <span>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/units.h"
#include "io/address.h"
#include "io/disk_signature.h"

namespace fairlead::csi::linux_host {
namespace {

namespace fs = std::filesystem;

constexpr uint16_t kNvmePort = 4420;
constexpr const char* kFabrics = "/dev/nvme-fabrics";
constexpr const char* kControllers = "/sys/class/nvme";
constexpr const char* kSubsystems = "/sys/class/nvme-subsystem";
constexpr size_t kEdgeBytes = kMiB;      // at each end of a device, which have to be zeroes
constexpr size_t kWordsBytesMax = 2000;  // of what a tool says

template <typename... Arguments>
std::unexpected<Problem> refuse(Code code, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return problem(code, fmt::format(format, std::forward<Arguments>(arguments)...));
}
std::unexpected<Problem> system_says(int os_errno, const char* what, const std::string& about) {
  return problem_of(error_from_errno(os_errno, what), about);
}
std::unexpected<Problem> system_says(const std::error_code& error, const char* what, const std::string& about) {
  return system_says(error.value(), what, about);
}

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return number_; }
  void close() {
    if (number_ >= 0) ::close(std::exchange(number_, -1));
  }

 private:
  int number_;
};

std::string line_of(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

Outcome<void> write_to(const std::string& path, const std::string& text) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (file.get() < 0) return system_says(errno, "open", path);
  if (::write(file.get(), text.data(), text.size()) < 0) return system_says(errno, "write", path);
  return {};
}

// The folders in `path` whose names begin so; none when there is no such folder.
std::vector<fs::path> entries(const fs::path& path, std::string_view beginning) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path, error)) {
    if (entry.path().filename().string().starts_with(beginning)) found.push_back(entry.path());
  }
  std::ranges::sort(found);
  return found;
}

// "nvme0n1": a namespace as all paths have it, not the one of a path, "nvme0c1n1", or a partition.
bool is_namespace(const std::string& name) {
  const size_t n = name.find('n', 4);
  return n != std::string::npos && name.find_first_not_of("0123456789", 4) == n && n + 1 < name.size() &&
         name.find_first_not_of("0123456789", n + 1) == std::string::npos;
}

std::string name_of_device(const std::string& device) { return fs::path(device).filename().string(); }

}  // namespace

// ---- NVMe

Outcome<void> check() {
  std::error_code ignored;
  if (!fs::exists(kFabrics, ignored) || !fs::exists("/sys/module/nvme_tcp", ignored)) {
    return refuse(Code::kNotSupported,
                  "this machine cannot connect to NVMe over TCP: 'modprobe nvme-tcp', and have it "
                  "done at each start");
  }
  if (line_of("/sys/module/nvme_core/parameters/multipath") != "Y") {
    return refuse(Code::kNotSupported,
                  "this kernel makes a device of each path: start it with nvme_core.multipath=Y, so that a volume "
                  "outlives the node that serves it");
  }
  return {};
}

std::string address_of(std::string_view attribute) {
  std::string host;
  std::string port;
  while (!attribute.empty()) {
    const size_t end = std::min(attribute.find(','), attribute.size());
    const std::string_view part = attribute.substr(0, end);
    if (part.starts_with("traddr=")) host = part.substr(7);
    if (part.starts_with("trsvcid=")) port = part.substr(8);
    attribute.remove_prefix(std::min(end + 1, attribute.size()));
  }
  if (host.empty() || port.empty()) return {};
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

Outcome<Attachment> find(const std::string& nqn, const std::string& host_nqn) {
  Attachment attachment;
  for (const fs::path& controller : entries(kControllers, "nvme")) {
    if (line_of(controller / "subsysnqn") != nqn || line_of(controller / "hostnqn") != host_nqn) continue;
    const std::string state = line_of(controller / "state");
    if (state.starts_with("deleting")) continue;
    attachment.connections.push_back({.controller = controller.filename().string(),
                                      .address = address_of(line_of(controller / "address")),
                                      .is_live = state == "live"});
  }
  for (const fs::path& subsystem : entries(kSubsystems, "nvme-subsys")) {
    if (line_of(subsystem / "subsysnqn") != nqn) continue;
    for (const fs::path& entry : entries(subsystem, "nvme")) {
      const std::string name = entry.filename().string();
      std::error_code ignored;
      if (is_namespace(name) && fs::exists("/dev/" + name, ignored)) attachment.device = "/dev/" + name;
    }
  }
  return attachment;
}

Outcome<std::string> connect_line(const ConnectRequest& request) {
  const Result<SocketAddress> address = parse_socket_address(request.address, kNvmePort);
  if (!address) return problem_of(address.error(), request.address);
  // As 'fairlead volume attach' has it, and for the same reasons: a lost path is tried for ever, each second, and the
  // keep-alive is as long as the control plane waits for a silent engine.
  std::string line = fmt::format(
      "nqn={},transport=tcp,traddr={},trsvcid={},hostnqn={},hostid={},ctrl_loss_tmo=-1,reconnect_delay=1,"
      "keep_alive_tmo=2",
      request.nqn, address->ip_text(), address->port, request.host_nqn, request.host_id);
  if (request.io_queues != 0) line += fmt::format(",nr_io_queues={}", request.io_queues);
  return line;
}

Outcome<void> connect(const ConnectRequest& request) {
  FL_TRY(const std::string line, connect_line(request));
  const Descriptor fabrics(::open(kFabrics, O_RDWR | O_CLOEXEC));
  if (fabrics.get() < 0) return system_says(errno, "open", kFabrics);
  if (::write(fabrics.get(), line.data(), line.size()) >= 0 || errno == EALREADY) return {};
  return system_says(errno, "connect", request.address);
}

Outcome<void> disconnect(const std::string& controller) {
  const std::string path = fmt::format("{}/{}/delete_controller", kControllers, controller);
  const Outcome<void> told = write_to(path, "1");
  std::error_code ignored;
  if (!told && !fs::exists(path, ignored)) return {};
  return told;
}

Outcome<void> set_io_timeout(const std::string& device, uint32_t seconds) {
  // "nvme0n1" has a "nvme0c1n1" below each of its controllers.
  const std::string name = name_of_device(device);
  const size_t n = name.find('n', 4);
  if (n == std::string::npos) return refuse(Code::kInvalidArgument, "{}: is no NVMe namespace", device);
  const std::string beginning = name.substr(0, n) + "c";
  const std::string milliseconds = fmt::format("{}", uint64_t{seconds} * 1000);
  for (const fs::path& controller : entries(kControllers, "nvme")) {
    for (const fs::path& path : entries(controller, beginning)) {
      if (!path.filename().string().ends_with(name.substr(n))) continue;
      const fs::path setting = path / "queue" / "io_timeout";
      if (line_of(setting) != milliseconds) FL_TRY_VOID(write_to(setting, milliseconds));
    }
  }
  return {};
}

Outcome<void> set_access(const std::string& device, Access access) {
  const Descriptor file(::open(device.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return system_says(errno, "open", device);
  const int is_read_only = access == Access::kReadOnly ? 1 : 0;
  if (::ioctl(file.get(), BLKROSET, &is_read_only) != 0) return system_says(errno, "set the access of", device);
  return {};
}

Outcome<uint64_t> size_of(const std::string& device) {
  constexpr uint64_t kSectorBytes = 512;
  const std::string path = fmt::format("/sys/class/block/{}/size", name_of_device(device));
  std::ifstream file(path);
  uint64_t sectors = 0;
  if (!(file >> sectors)) return refuse(Code::kNotFound, "{} is gone", device);
  return sectors * kSectorBytes;
}

// ---- Devices and file systems

namespace {

Outcome<bool> is_zero(int descriptor, const std::string& device, uint64_t offset, uint64_t bytes) {
  std::vector<char> edge(bytes);
  for (uint64_t done = 0; done < bytes;) {
    const ssize_t count = ::pread(descriptor, edge.data() + done, bytes - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return system_says(errno, "read", device);
    if (count == 0) return refuse(Code::kIo, "{} ends at {}, before its end", device, offset + done);
    done += static_cast<uint64_t>(count);
  }
  return std::ranges::all_of(edge, [](char c) { return c == '\0'; });
}

}  // namespace

Outcome<DeviceContent> look_into(const std::string& device) {
  using Kind = DeviceContent::Kind;
  const Descriptor file(::open(device.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return system_says(errno, "open", device);
  const Result<std::optional<Signature>> looked = look_for_signature(device);
  if (!looked) return problem_of(looked.error(), device);
  if (*looked) {
    const Signature& found = **looked;
    if (found.is_ambiguous) return DeviceContent{.kind = Kind::kOther, .what = "signatures of several kinds"};
    if (!found.table.empty()) {
      return DeviceContent{.kind = Kind::kOther, .what = fmt::format("a {} partition table", found.table)};
    }
    return DeviceContent{.kind = found.usage == "filesystem" ? Kind::kFileSystem : Kind::kOther, .what = found.type};
  }
  const off_t size = ::lseek(file.get(), 0, SEEK_END);
  if (size < 0) return system_says(errno, "size", device);
  const uint64_t bytes = static_cast<uint64_t>(size);
  const uint64_t edge = std::min<uint64_t>(bytes, kEdgeBytes);
  FL_TRY(bool is_blank, is_zero(file.get(), device, 0, edge));
  if (is_blank) {
    FL_TRY(is_blank, is_zero(file.get(), device, bytes - edge, edge));
  }
  if (is_blank) return DeviceContent{};
  return DeviceContent{.kind = Kind::kOther, .what = "bytes of no kind that is known"};
}

CommandLine format_command(const std::string& device, const std::string& fs_type,
                           const std::vector<std::string>& options) {
  // Nothing is discarded: a new volume has nothing that could be.
  CommandLine command = fs_type == "ext4"  ? CommandLine{"mkfs.ext4", "-q", "-F", "-E", "nodiscard"}
                        : fs_type == "xfs" ? CommandLine{"mkfs.xfs", "-q", "-f", "-K"}
                                           : CommandLine{"mkfs.btrfs", "-q", "-f", "-K"};
  command.insert(command.end(), options.begin(), options.end());
  command.push_back(device);
  return command;
}

Outcome<int> run(const CommandLine& command) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return system_says(errno, "pipe", command.front());
  Descriptor in(ends[0]);
  Descriptor out(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out.get(), 1);
  posix_spawn_file_actions_adddup2(&actions, out.get(), 2);
  // Signals that this process waits for are none of a tool's business; else it could not be ended by them.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawnp(&child, words[0], &actions, &attributes, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  out.close();
  if (error == ENOENT) return refuse(Code::kNotFound, "{} is not installed on this machine", command.front());
  if (error != 0) return system_says(error, "run", command.front());
  std::string said;
  std::array<char, 4096> piece;
  for (ssize_t count = 0;
       (count = ::read(in.get(), piece.data(), piece.size())) > 0 || (count < 0 && errno == EINTR);) {
    if (count > 0) said.append(piece.data(), static_cast<size_t>(count));
    if (said.size() > 2 * kWordsBytesMax) said.erase(0, said.size() - kWordsBytesMax);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (code == 0) return 0;
  if (command.front() == "e2fsck" && code < 4) return code;  // what was wrong is mended
  while (said.ends_with('\n')) said.pop_back();
  return refuse(Code::kIo, "{} ended with code {}: {}", command.front(), code, said);
}

Outcome<void> freeze(const std::string& target) {
  const Descriptor folder(::open(target.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0) return system_says(errno, "open", target);
  if (::ioctl(folder.get(), FIFREEZE, 0) != 0) return system_says(errno, "freeze", target);
  return {};
}

Outcome<void> thaw(const std::string& target) {
  const Descriptor folder(::open(target.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0) return system_says(errno, "open", target);
  // EINVAL: it is not frozen.
  if (::ioctl(folder.get(), FITHAW, 0) != 0 && errno != EINVAL) return system_says(errno, "thaw", target);
  return {};
}

// ---- Mounts

namespace {

struct TableFree {
  void operator()(libmnt_table* table) const { mnt_unref_table(table); }
};
struct IteratorFree {
  void operator()(libmnt_iter* iterator) const { mnt_free_iter(iterator); }
};
struct ContextFree {
  void operator()(libmnt_context* context) const { mnt_free_context(context); }
};

std::string text_or_empty(const char* text) { return text == nullptr ? "" : text; }

Mounted mounted_of(libmnt_fs* entry) {
  Mounted mounted;
  mounted.target = text_or_empty(mnt_fs_get_target(entry));
  mounted.source = text_or_empty(mnt_fs_get_srcpath(entry));
  const std::string type = text_or_empty(mnt_fs_get_fstype(entry));
  const std::string root = text_or_empty(mnt_fs_get_root(entry));
  // A device that was bound to a file.
  if ((type == "devtmpfs" || type == "tmpfs") && root.starts_with("/nvme")) mounted.source = "/dev" + root;
  const std::string options = text_or_empty(mnt_fs_get_vfs_options(entry));
  mounted.is_read_only = options == "ro" || options.starts_with("ro,");
  return mounted;
}

}  // namespace

Outcome<std::vector<Mounted>> mounts() {
  const std::unique_ptr<libmnt_table, TableFree> table(mnt_new_table_from_file("/proc/self/mountinfo"));
  const std::unique_ptr<libmnt_iter, IteratorFree> iterator(mnt_new_iter(MNT_ITER_FORWARD));
  if (table == nullptr || iterator == nullptr) return refuse(Code::kIo, "the table of mounts cannot be read");
  std::vector<Mounted> all;
  libmnt_fs* entry = nullptr;
  while (mnt_table_next_fs(table.get(), iterator.get(), &entry) == 0) all.push_back(mounted_of(entry));
  return all;
}

Outcome<std::optional<Mounted>> mounted_at(const std::string& target) {
  std::error_code error;
  const fs::path resolved = fs::weakly_canonical(target, error);
  const std::string path = error ? target : resolved.string();
  FL_TRY(const std::vector<Mounted> all, mounts());
  std::optional<Mounted> found;
  for (const Mounted& each : all) {
    if (each.target == path) found = each;
  }
  return found;
}

Outcome<void> mount(const MountRequest& request) {
  const std::unique_ptr<libmnt_context, ContextFree> context(mnt_new_context());
  if (context == nullptr) return refuse(Code::kResourceExhausted, "no memory for a mount");
  std::string options;
  for (const std::string& option : request.options) options += (options.empty() ? "" : ",") + option;
  mnt_context_disable_mtab(context.get(), 1);
  mnt_context_set_source(context.get(), request.source.c_str());
  mnt_context_set_target(context.get(), request.target.c_str());
  mnt_context_set_fstype(context.get(), request.fs_type.c_str());
  if (!options.empty()) mnt_context_set_options(context.get(), options.c_str());
  const int result = mnt_context_mount(context.get());
  if (result == 0) return {};
  std::array<char, 512> words{};
  mnt_context_get_excode(context.get(), result, words.data(), words.size() - 1);
  return refuse(Code::kIo, "{} cannot be mounted at {} as {}{}{}: {}", request.source, request.target, request.fs_type,
                options.empty() ? "" : " with ", options, words.data());
}

Outcome<void> bind(const std::string& source, const std::string& target, Access access) {
  if (::mount(source.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return system_says(errno, "bind mount", target);
  }
  if (access == Access::kReadWrite) return {};
  if (::mount(nullptr, target.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) != 0) {
    return system_says(errno, "mount read-only", target);
  }
  return {};
}

Outcome<void> unmount(const std::string& target) {
  if (::umount2(target.c_str(), UMOUNT_NOFOLLOW) != 0 && errno != EINVAL && errno != ENOENT) {
    return system_says(errno, "unmount", target);
  }
  return {};
}

Outcome<void> make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return system_says(error, "make the folder", path);
  return {};
}

Outcome<void> make_file(const std::string& path) {
  FL_TRY_VOID(make_folder(fs::path(path).parent_path().string()));
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0660));
  if (file.get() < 0) return system_says(errno, "make the file", path);
  return {};
}

Outcome<void> remove(const std::string& path) {
  std::error_code error;
  fs::remove(path, error);
  if (error) return system_says(error, "remove", path);
  return {};
}

Outcome<Usage> usage(const std::string& path) {
  struct statvfs found{};
  if (::statvfs(path.c_str(), &found) != 0) return system_says(errno, "statvfs", path);
  return Usage{.total_bytes = found.f_blocks * found.f_frsize,
               .used_bytes = (found.f_blocks - found.f_bfree) * found.f_frsize,
               .available_bytes = found.f_bavail * found.f_frsize,
               .total_inodes = found.f_files,
               .used_inodes = found.f_files - found.f_ffree,
               .available_inodes = found.f_favail};
}

}  // namespace fairlead::csi::linux_host
