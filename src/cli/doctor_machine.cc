// What `fairlead doctor` looks at. Nothing here changes anything.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <sys/resource.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/doctor.h"
#include "io/disk_signature.h"
#include "io/runtime.h"

namespace fairlead::cli {
namespace {

constexpr Duration kReachLimit = std::chrono::seconds(3);

std::string content_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string first_word_of(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word;
}

bool is_in_path(const std::string& program) {
  const char* const path = std::getenv("PATH");
  std::string folders = fmt::format("{}:/usr/sbin:/sbin", path == nullptr ? "" : path);
  for (size_t begin = 0; begin < folders.size();) {
    const size_t end = std::min(folders.find(':', begin), folders.size());
    const std::string file = folders.substr(begin, end - begin) + "/" + program;
    if (access(file.c_str(), X_OK) == 0) return true;
    begin = end + 1;
  }
  return false;
}

uint64_t limit_of(__rlimit_resource resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0) return 0;
  return limit.rlim_cur == RLIM_INFINITY ? ~uint64_t{0} : limit.rlim_cur;
}

DiskFacts look_at_disk(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  DiskFacts facts;
  if (std::filesystem::is_regular_file(status)) {
    facts.kind = DiskFacts::Kind::kFile;
  } else if (std::filesystem::is_block_file(status)) {
    facts.kind = DiskFacts::Kind::kBlockDevice;
  } else if (std::filesystem::exists(status)) {
    facts.kind = DiskFacts::Kind::kOther;
  }
  facts.can_write = access(path.c_str(), R_OK | W_OK) == 0;
  if (facts.can_write && facts.kind != DiskFacts::Kind::kOther) facts.holds = signature_of(path);
  return facts;
}

Task<void> reach(Shard& shard, const std::vector<SocketAddress>& addresses, MachineFacts& facts) {
  for (const SocketAddress& address : addresses) {
    const auto stream = co_await shard.network.connect(address, kReachLimit);
    if (!stream) facts.unreachable[to_string(address)] = to_string(stream.error());
  }
}

void look_at_network(const DoctorPlan& plan, MachineFacts& facts) {
  facts.listening = listening_ports(content_of("/proc/net/tcp"));
  facts.listening.merge(listening_ports(content_of("/proc/net/tcp6")));
  if (plan.reach.empty()) return;
  set_log_level(LogLevel::kError);
  Runtime runtime({.poll = PollMode::kNever, .pinning = Pinning::kNone, .signals = RuntimeOptions::Signals::kDefault});
  if (const auto started = runtime.start(); !started) {
    for (const SocketAddress& address : plan.reach) facts.unreachable[to_string(address)] = to_string(started.error());
    return;
  }
  runtime.run_on(0, reach(runtime.shard(0), plan.reach, facts));
  runtime.stop();
}

}  // namespace

MachineFacts look_at_machine(const DoctorPlan& plan) {
  MachineFacts facts;
  utsname system{};
  if (uname(&system) == 0) facts.kernel = system.release;
  const std::string modules = "/lib/modules/" + facts.kernel;
  facts.has_nvme_tcp = std::filesystem::exists("/sys/module/nvme_tcp") ||
                       has_module(content_of(modules + "/modules.builtin"), "nvme-tcp");
  facts.can_load_nvme_tcp = has_module(content_of(modules + "/modules.dep"), "nvme-tcp");
  const std::string multipath = first_word_of("/sys/module/nvme_core/parameters/multipath");
  if (!multipath.empty()) facts.is_multipath = multipath == "Y" || multipath == "1";
  facts.has_nvme_cli = is_in_path("nvme");
  facts.host_nqn = first_word_of("/etc/nvme/hostnqn");
  facts.host_id = first_word_of("/etc/nvme/hostid");
  timex clock{};
  if (const int state = adjtimex(&clock); state >= 0) {
    facts.is_clock_in_sync = state != TIME_ERROR && (static_cast<unsigned>(clock.status) & STA_UNSYNC) == 0;
  }
  const std::string disabled = first_word_of("/proc/sys/kernel/io_uring_disabled");
  if (!disabled.empty()) facts.io_uring_disabled = disabled == "0" ? 0 : 1;
  facts.locked_bytes_max = limit_of(RLIMIT_MEMLOCK);
  facts.files_max = limit_of(RLIMIT_NOFILE);
  for (const std::string& disk : plan.disks) facts.disks[disk] = look_at_disk(disk);
  look_at_network(plan, facts);
  return facts;
}

int doctor(const DoctorPlan& plan) {
  const std::vector<Finding> findings = findings_of(look_at_machine(plan), plan);
  const bool paints = isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
  std::fputs((plan.json ? to_json(findings) : to_text(findings, paints ? Paint::kYes : Paint::kNo)).c_str(), stdout);
  for (const Finding& finding : findings) {
    if (finding.level == Finding::Level::kBad) return 1;
  }
  return 0;
}

}  // namespace fairlead::cli
