#include "io/small_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace fairlead {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  int number() const { return number_; }
  bool is_open() const { return number_ >= 0; }

 private:
  int number_;
};

Result<void> write_all(int file, const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t written = ::write(file, bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail_errno(errno, "write it");
    done += static_cast<size_t>(written);
  }
  return {};
}

// By another name first: whoever looks finds all of one or all of the other.
Result<void> replace_in(int directory, const std::string& name, const std::string& bytes) {
  const std::string temporary = name + ".new";
  {
    const Descriptor file(
        ::openat(directory, temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR));
    if (!file.is_open()) return fail_errno(errno, "make it");
    FL_TRY_VOID(write_all(file.number(), bytes));
    if (::fsync(file.number()) != 0) return fail_errno(errno, "sync it");
  }
  if (::renameat(directory, temporary.c_str(), directory, name.c_str()) != 0) return fail_errno(errno, "rename it");
  if (::fsync(directory) != 0) return fail_errno(errno, "sync its directory");
  return {};
}

class DirectoryFiles final : public SmallFiles {
 public:
  DirectoryFiles(Reactor& home, std::string path, Descriptor directory)
      : path_(std::move(path)), directory_(std::move(directory)), worker_(home, "small-files") {}

  Outcome<std::optional<std::string>> read(const std::string& name) override {
    const Descriptor file(::openat(directory_.number(), name.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.is_open() && errno == ENOENT) return std::nullopt;
    if (!file.is_open()) return problem_of(error_from_errno(errno, "open it"), path_ + "/" + name);
    std::string bytes;
    char piece[16384];
    while (true) {
      const ssize_t got = ::read(file.number(), piece, sizeof piece);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return problem_of(error_from_errno(errno, "read it"), path_ + "/" + name);
      if (got == 0) return bytes;
      bytes.append(piece, static_cast<size_t>(got));
      if (bytes.size() > kSmallFileBytesMax) {
        return problem_of({.code = Code::kOutOfRange, .what = "it is too large"}, path_ + "/" + name);
      }
    }
  }

  Task<Outcome<void>> replace(std::string name, std::string bytes) override {
    const Result<void> done = co_await worker_.run([&] { return replace_in(directory_.number(), name, bytes); });
    if (!done) co_return problem_of(done.error(), path_ + "/" + name);
    co_return Outcome<void>();
  }

 private:
  const std::string path_;
  const Descriptor directory_;
  Worker worker_;
};

}  // namespace

Outcome<std::unique_ptr<SmallFiles>> open_small_files(Reactor& home, const std::string& directory) {
  if (::mkdir(directory.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
    return problem_of(error_from_errno(errno, "make it"), directory);
  }
  Descriptor opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened.is_open()) return problem_of(error_from_errno(errno, "open it"), directory);
  if (::flock(opened.number(), LOCK_EX | LOCK_NB) != 0) {
    return problem_of({.code = Code::kBusy, .what = "another process has it"}, directory);
  }
  return std::make_unique<DirectoryFiles>(home, directory, std::move(opened));
}

}  // namespace fairlead
