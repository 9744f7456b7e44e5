#include "io/disk_claim.h"

#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <libmount/libmount.h>
#include <memory>
#include <string>
#include <sys/sysmacros.h>

namespace fairlead {
namespace {

namespace fs = std::filesystem;

bool is_same(const struct stat& a, const char* path_of_b) {
  struct stat b{};
  if (path_of_b == nullptr || ::stat(path_of_b, &b) != 0) return false;
  if (S_ISBLK(a.st_mode)) return S_ISBLK(b.st_mode) && a.st_rdev == b.st_rdev;
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

std::string read_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Calls look(libmount_fs*) for each line of a table until it says true.
template <typename Load, typename Look>
bool any_in_table(Load load, Look look) {
  libmnt_table* const table = mnt_new_table();
  libmnt_iter* const iterator = mnt_new_iter(MNT_ITER_FORWARD);
  bool found = false;
  if (table != nullptr && iterator != nullptr && load(table) == 0) {
    libmnt_fs* entry = nullptr;
    while (!found && mnt_table_next_fs(table, iterator, &entry) == 0) found = look(entry);
  }
  mnt_free_iter(iterator);
  mnt_unref_table(table);
  return found;
}

bool is_mounted(const struct stat& device) {
  return any_in_table([](libmnt_table* table) { return mnt_table_parse_mtab(table, "/proc/self/mountinfo"); },
                      [&](libmnt_fs* entry) {
                        return mnt_fs_get_devno(entry) == device.st_rdev || is_same(device, mnt_fs_get_srcpath(entry));
                      });
}

bool is_swap(const struct stat& status) {
  return any_in_table([](libmnt_table* table) { return mnt_table_parse_swaps(table, nullptr); },
                      [&](libmnt_fs* entry) { return is_same(status, mnt_fs_get_source(entry)); });
}

fs::path sysfs_of(dev_t device) { return fmt::format("/sys/dev/block/{}:{}", major(device), minor(device)); }

bool has_holders(dev_t device) {
  std::error_code error;
  const fs::directory_iterator holders(sysfs_of(device) / "holders", error);
  return !error && holders != fs::directory_iterator();
}

// Claiming a whole disk claims its partitions.
bool any_partition_mounted(dev_t device) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(sysfs_of(device), error)) {
    if (!fs::exists(entry.path() / "partition", error)) continue;
    const std::string numbers = read_line(entry.path() / "dev");
    unsigned major_number = 0;
    unsigned minor_number = 0;
    if (std::sscanf(numbers.c_str(), "%u:%u", &major_number, &minor_number) != 2) continue;
    struct stat partition{};
    partition.st_mode = S_IFBLK;
    partition.st_rdev = makedev(major_number, minor_number);
    if (is_mounted(partition) || has_holders(partition.st_rdev)) return true;
  }
  return false;
}

bool backs_loop_device(const struct stat& status) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/sys/block", error)) {
    if (!entry.path().filename().string().starts_with("loop")) continue;
    const std::string backing = read_line(entry.path() / "loop" / "backing_file");
    if (!backing.empty() && is_same(status, backing.c_str())) return true;
  }
  return false;
}

}  // namespace

const char* reason_in_use(const struct stat& status) {
  if (is_swap(status)) return "it is used as swap";
  if (backs_loop_device(status)) return "by a loop device: losetup -j tells which";
  if (!S_ISBLK(status.st_mode)) return nullptr;
  if (is_mounted(status)) return "it is mounted";
  if (has_holders(status.st_rdev)) return "by the device mapper, LVM or a RAID";
  if (any_partition_mounted(status.st_rdev)) return "one of its partitions is mounted or in use";
  return nullptr;
}

}  // namespace fairlead
