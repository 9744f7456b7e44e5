#include "io/disk_file.h"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <libgen.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/units.h"
#include "io/disk_claim.h"

namespace fairlead {
namespace {

constexpr uint32_t kSectorBytes = 512;
constexpr uint32_t kPageBytes = 4096;
constexpr const char* kReadOnlyMedium = "it cannot be written: open it read-only";
constexpr const char* kOtherProcess = "by another process";

// What open() has found out so far; owns the descriptor until release().
class Opening {
 public:
  explicit Opening(const OpenDisk& options) : options_(options) {}
  ~Opening() {
    if (descriptor_ < 0) return;
    ::close(descriptor_);
    if (is_new_) ::unlink(options_.path.c_str());
  }
  Opening(const Opening&) = delete;
  Opening& operator=(const Opening&) = delete;

  Result<void> find();
  Result<void> open();
  Result<void> claim();
  Result<void> fit_size();
  Result<DiskGeometry> measure();
  int release() { return std::exchange(descriptor_, -1); }
  DiskKind kind() const { return S_ISBLK(status_.st_mode) ? DiskKind::kBlockDevice : DiskKind::kFile; }

 private:
  bool writes() const { return options_.access == Access::kReadWrite; }
  Error explain_open_failure(int os_errno) const;
  Result<void> open_with(int flags);
  Result<uint64_t> device_size() const;
  Result<DiskGeometry> measure_device() const;
  Result<DiskGeometry> measure_file();
  uint32_t direct_alignment() const;
  bool can_punch_holes() const;
  Result<void> sync_directory() const;

  const OpenDisk& options_;
  struct stat status_{};
  int descriptor_ = -1;
  bool is_new_ = false;
  bool is_direct_ = true;
};

Result<void> Opening::find() {
  if (::stat(options_.path.c_str(), &status_) != 0) {
    if (errno != ENOENT || !options_.size_bytes.has_value() || !writes()) {
      return fail_errno(errno, errno == ENOENT ? "no such file or device" : "look it up");
    }
    status_.st_mode = S_IFREG;
    is_new_ = true;
    return {};
  }
  if (S_ISDIR(status_.st_mode)) return fail(Code::kIsDirectory, "a file or a block device is needed");
  if (!S_ISREG(status_.st_mode) && !S_ISBLK(status_.st_mode)) {
    return fail(Code::kNotSupported, "it is neither a file nor a block device");
  }
  return {};
}

Result<void> Opening::open_with(int flags) {
  // O_NONBLOCK: should the path have become a FIFO since.
  descriptor_ = ::open(options_.path.c_str(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
  if (descriptor_ < 0) return std::unexpected(explain_open_failure(errno));
  return {};
}

Result<void> Opening::open() {
  int flags = writes() ? O_RDWR : O_RDONLY;
  if (kind() == DiskKind::kBlockDevice) flags |= O_EXCL;
  if (is_new_) {
    // Made here and nowhere else, or it is not ours to remove.
    const int made = ::open(options_.path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (made < 0 && errno != EEXIST) return std::unexpected(explain_open_failure(errno));
    is_new_ = made >= 0;
    if (made >= 0) ::close(made);
  }
  Result<void> opened = open_with(flags | O_DIRECT);
  if (!opened && opened.error().os_errno == EINVAL) {
    is_direct_ = false;
    opened = open_with(flags);
  }
  if (!opened) {
    if (is_new_) ::unlink(options_.path.c_str());
    return opened;
  }
  const mode_t expected = status_.st_mode & S_IFMT;
  if (::fstat(descriptor_, &status_) != 0) return fail_errno(errno, "look at it");
  if ((status_.st_mode & S_IFMT) != expected) return fail(Code::kBusy, "it was replaced while it was opened");
  // io_uring takes O_NONBLOCK for "fail rather than wait".
  const int open_flags = ::fcntl(descriptor_, F_GETFL);
  if (open_flags < 0 || ::fcntl(descriptor_, F_SETFL, open_flags & ~O_NONBLOCK) != 0) {
    return fail_errno(errno, "set its flags");
  }
  int read_only = 0;
  if (writes() && kind() == DiskKind::kBlockDevice && ::ioctl(descriptor_, BLKROGET, &read_only) == 0 && read_only) {
    return fail(Code::kReadOnly, kReadOnlyMedium);
  }
  return {};
}

Error Opening::explain_open_failure(int os_errno) const {
  switch (os_errno) {
    case EBUSY:
    case ETXTBSY: {
      const char* const reason = reason_in_use(status_);
      return {Code::kBusy, 0, reason != nullptr ? reason : kOtherProcess};
    }
    case EROFS:
      return {Code::kReadOnly, os_errno, kReadOnlyMedium};
    case EACCES:
    case EPERM: {
      // The kernel refuses to open a write-protected device with the same error as a missing permission.
      int read_only = 0;
      const int device = kind() == DiskKind::kBlockDevice && writes()
                             ? ::open(options_.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)
                             : -1;
      if (device >= 0) {
        if (::ioctl(device, BLKROGET, &read_only) != 0) read_only = 0;
        ::close(device);
      }
      if (read_only != 0) return {Code::kReadOnly, os_errno, kReadOnlyMedium};
      return error_from_errno(os_errno, "open it");
    }
    default:
      return error_from_errno(os_errno, "open it");
  }
}

// A block device was claimed by O_EXCL; a file still has to be.
Result<void> Opening::claim() {
  if (kind() == DiskKind::kBlockDevice) return {};
  struct flock whole{};
  whole.l_type = writes() ? F_WRLCK : F_RDLCK;
  whole.l_whence = SEEK_SET;
  if (::fcntl(descriptor_, F_OFD_SETLK, &whole) != 0) {
    if (errno == EAGAIN || errno == EACCES) return fail(Code::kBusy, kOtherProcess);
    log_warn("io.file_not_locked",
             {{"path", options_.path}, {"reason", to_string(error_from_errno(errno, "lock the file"))}});
  }
  if (const char* const reason = reason_in_use(status_); reason != nullptr) return fail(Code::kBusy, reason);
  return {};
}

Result<uint64_t> Opening::device_size() const {
  uint64_t size = 0;
  if (::ioctl(descriptor_, BLKGETSIZE64, &size) != 0) return fail_errno(errno, "ask for the size");
  return size;
}

// The file's entry in its directory must survive a power loss as well.
Result<void> Opening::sync_directory() const {
  std::string path = options_.path;
  const int directory = ::open(::dirname(path.data()), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return fail_errno(errno, "open the directory");
  const int result = ::fsync(directory);
  ::close(directory);
  if (result != 0) return fail_errno(errno, "sync the directory");
  return {};
}

Result<void> Opening::fit_size() {
  if (!options_.size_bytes.has_value()) return {};
  const uint64_t wanted = *options_.size_bytes;
  if (wanted == 0 || !is_aligned(wanted, kSectorBytes)) {
    return fail(Code::kInvalidArgument, "a size is a multiple of 512 bytes");
  }
  if (kind() == DiskKind::kBlockDevice) {
    FL_TRY(const uint64_t size, device_size());
    if (size != wanted) return fail(Code::kInvalidArgument, "the size of a block device cannot be chosen");
    return {};
  }
  const auto size = static_cast<uint64_t>(status_.st_size);
  if (size > wanted) return fail(Code::kInvalidArgument, "it is larger than the size asked for: nothing is cut off");
  if (size == wanted) return {};
  if (!writes()) return fail(Code::kReadOnly, "it is smaller than the size asked for and open read-only");
  if (wanted > static_cast<uint64_t>(INT64_MAX)) return fail(Code::kInvalidArgument, "the size is too large");
  if (::ftruncate(descriptor_, static_cast<off_t>(wanted)) != 0) {
    if (errno == EFBIG || errno == EINVAL) return fail(Code::kNoSpace, "the file system has no files of that size");
    return fail_errno(errno, "set the size of the file");
  }
  if (::fsync(descriptor_) != 0) return fail_errno(errno, "sync the file");
  if (is_new_) FL_TRY_VOID(sync_directory());
  if (::fstat(descriptor_, &status_) != 0) return fail_errno(errno, "look at it");
  return {};
}

Result<DiskGeometry> Opening::measure() {
  FL_TRY(DiskGeometry geometry, kind() == DiskKind::kBlockDevice ? measure_device() : measure_file());
  if (geometry.logical_block != kSectorBytes && geometry.logical_block != kPageBytes) {
    return fail(Code::kNotSupported, "its logical blocks have neither 512 nor 4096 bytes");
  }
  if (geometry.size_bytes % geometry.logical_block != 0 && options_.size_bytes.has_value()) {
    return fail(Code::kInvalidArgument, "here a size is a multiple of 4096 bytes");
  }
  geometry.size_bytes = align_down(geometry.size_bytes, geometry.logical_block);
  if (geometry.size_bytes == 0) return fail(Code::kInvalidArgument, "it is empty: give it a size");
  geometry.read_only = !writes();
  is_new_ = false;  // it stays from now on
  return geometry;
}

// An attribute of the device's queue, which for a partition is the whole disk's.
std::string queue_attribute(dev_t device, const char* name) {
  for (const char* const base : {"/sys/dev/block/{}:{}/queue/{}", "/sys/dev/block/{}:{}/../queue/{}"}) {
    std::ifstream file(fmt::format(fmt::runtime(base), major(device), minor(device), name));
    std::string line;
    if (std::getline(file, line)) return line;
  }
  return {};
}

uint32_t queue_number(dev_t device, const char* name) {
  const std::string text = queue_attribute(device, name);
  const unsigned long long value = std::strtoull(text.c_str(), nullptr, 10);
  return static_cast<uint32_t>(std::min<unsigned long long>(value, 1U << 31));
}

Result<DiskGeometry> Opening::measure_device() const {
  int logical = 0;
  unsigned physical = 0;
  unsigned optimal = 0;
  if (::ioctl(descriptor_, BLKSSZGET, &logical) != 0) return fail_errno(errno, "ask for the logical block");
  if (::ioctl(descriptor_, BLKPBSZGET, &physical) != 0) return fail_errno(errno, "ask for the physical block");
  if (::ioctl(descriptor_, BLKIOOPT, &optimal) != 0) return fail_errno(errno, "ask for the optimal size");
  DiskGeometry geometry;
  FL_TRY(geometry.size_bytes, device_size());
  geometry.logical_block = static_cast<uint32_t>(logical);
  geometry.physical_block = physical;
  geometry.optimal_io = optimal;
  if (queue_attribute(status_.st_rdev, "discard_max_bytes") != "0") {
    geometry.discard_granularity = queue_number(status_.st_rdev, "discard_granularity");
  }
  geometry.volatile_cache = queue_attribute(status_.st_rdev, "write_cache") != "write through";
  return geometry;
}

// The alignment that direct I/O on this file needs; 0: it has none.
uint32_t Opening::direct_alignment() const {
  struct statx more{};
  if (::statx(descriptor_, "", AT_EMPTY_PATH, STATX_DIOALIGN, &more) == 0 && (more.stx_mask & STATX_DIOALIGN) != 0) {
    return std::max(more.stx_dio_offset_align, more.stx_dio_mem_align);
  }
  // File systems that do not tell: try. A read at the end of an empty file tells nothing, so those get the safe size.
  if (status_.st_size < static_cast<off_t>(kPageBytes)) return kPageBytes;
  alignas(kPageBytes) static thread_local std::byte probe[kPageBytes];
  for (const uint32_t length : {kSectorBytes, kPageBytes}) {
    if (::pread(descriptor_, probe, length, length) >= 0) return length;
  }
  return 0;
}

// Tried behind the end of the file, where there is nothing to lose.
bool Opening::can_punch_holes() const {
  const auto end = static_cast<off_t>(align_up(static_cast<uint64_t>(status_.st_size), kPageBytes));
  return ::fallocate(descriptor_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, end, kPageBytes) == 0;
}

Result<DiskGeometry> Opening::measure_file() {
  DiskGeometry geometry;
  geometry.size_bytes = static_cast<uint64_t>(status_.st_size);
  const uint32_t alignment = is_direct_ ? direct_alignment() : 0;
  if (alignment == 0 || alignment > kPageBytes) {
    is_direct_ = false;
    const int flags = ::fcntl(descriptor_, F_GETFL);
    if (flags < 0 || ::fcntl(descriptor_, F_SETFL, flags & ~O_DIRECT) != 0) return fail_errno(errno, "drop O_DIRECT");
    log_warn("io.file_is_buffered", {{"path", options_.path}, {"reason", "its file system has no direct I/O"}});
  }
  geometry.logical_block = alignment > kSectorBytes && is_direct_ ? kPageBytes : kSectorBytes;
  geometry.physical_block = kPageBytes;
  geometry.discard_zeroes = can_punch_holes();  // of a block device nothing is known
  geometry.discard_granularity = geometry.discard_zeroes ? static_cast<uint32_t>(status_.st_blksize) : 0;
  geometry.volatile_cache = true;
  return geometry;
}

}  // namespace

NativeDiskFile::NativeDiskFile(int descriptor, DiskKind kind, const DiskGeometry& geometry)
    : descriptor_(descriptor), kind_(kind), geometry_(geometry), size_bytes_(geometry.size_bytes) {}

NativeDiskFile::~NativeDiskFile() { ::close(descriptor_); }

DiskGeometry NativeDiskFile::geometry() const {
  DiskGeometry geometry = geometry_;
  geometry.size_bytes = size_bytes_.load(std::memory_order_relaxed);
  return geometry;
}

Result<uint64_t> NativeDiskFile::refresh_size() {
  uint64_t size = 0;
  if (kind_ == DiskKind::kBlockDevice) {
    if (::ioctl(descriptor_, BLKGETSIZE64, &size) != 0) return fail_errno(errno, "ask for the size");
  } else {
    struct stat status{};
    if (::fstat(descriptor_, &status) != 0) return fail_errno(errno, "ask for the size");
    size = static_cast<uint64_t>(status.st_size);
  }
  size = align_down(size, geometry_.logical_block);
  size_bytes_.store(size, std::memory_order_relaxed);
  return size;
}

int NativeDiskFile::open_again() const {
  const int flags = ::fcntl(descriptor_, F_GETFL);
  if (flags < 0) return -1;
  return ::open(fmt::format("/proc/self/fd/{}", descriptor_).c_str(),
                (flags & (O_ACCMODE | O_DIRECT)) | O_CLOEXEC | O_NOCTTY);
}

Result<std::shared_ptr<NativeDiskFile>> open_disk_file(const OpenDisk& options) {
  Opening opening(options);
  FL_TRY_VOID(opening.find());
  FL_TRY_VOID(opening.open());
  FL_TRY_VOID(opening.claim());
  FL_TRY_VOID(opening.fit_size());
  FL_TRY(const DiskGeometry geometry, opening.measure());
  return std::make_shared<NativeDiskFile>(opening.release(), opening.kind(), geometry);
}

}  // namespace fairlead
