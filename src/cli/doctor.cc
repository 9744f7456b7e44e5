#include "cli/doctor.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/table.h"

namespace fairlead::cli {
namespace {

constexpr uint64_t kLockedBytesWanted = uint64_t{64} << 20;
constexpr uint64_t kFilesWanted = 4096;

using Level = Finding::Level;

class Findings {
 public:
  void good(std::string what) { list_.push_back({Level::kGood, std::move(what), ""}); }
  void warn(std::string what, std::string mend) {
    list_.push_back({Level::kWarning, std::move(what), std::move(mend)});
  }
  void bad(std::string what, std::string mend) { list_.push_back({Level::kBad, std::move(what), std::move(mend)}); }
  std::vector<Finding> take() { return std::move(list_); }

 private:
  std::vector<Finding> list_;
};

void judge_host(const MachineFacts& facts, Findings& findings) {
  if (facts.has_nvme_tcp) {
    findings.good("the kernel has nvme-tcp: this machine can use volumes");
  } else if (facts.can_load_nvme_tcp) {
    findings.warn("the module nvme-tcp is not loaded: this machine cannot use volumes yet",
                  "modprobe nvme-tcp; echo nvme-tcp > /etc/modules-load.d/nvme-tcp.conf");
  } else {
    findings.warn(fmt::format("kernel {} has no module nvme-tcp: this machine cannot use volumes", facts.kernel),
                  "install the distribution's full kernel (on clouds: linux-modules-extra), or use volumes elsewhere");
  }
  if (facts.is_multipath && !*facts.is_multipath) {
    findings.bad("nvme_core.multipath is off: a volume would show as several disks, and a failover ends its I/O",
                 "boot with nvme_core.multipath=Y");
  } else if (facts.is_multipath) {
    findings.good("NVMe multipath is on");
  }
  if (facts.has_nvme_cli) {
    findings.good("nvme-cli is installed");
  } else {
    findings.warn("nvme-cli is not installed: 'fairlead volume attach --execute' needs it", "apt install nvme-cli");
  }
  if (facts.host_nqn.empty() || facts.host_id.empty()) {
    findings.warn("this machine has no NVMe name of its own (/etc/nvme/hostnqn and hostid)",
                  "nvme gen-hostnqn > /etc/nvme/hostnqn; cat /proc/sys/kernel/random/uuid > /etc/nvme/hostid");
  } else {
    findings.good(fmt::format("this machine's NVMe name is {}", facts.host_nqn));
  }
}

void judge_engine(const MachineFacts& facts, Findings& findings) {
  if (facts.io_uring_disabled.value_or(0) == 0) {
    findings.good("io_uring may be used");
  } else {
    findings.bad("kernel.io_uring_disabled keeps engines from running", "sysctl -w kernel.io_uring_disabled=0");
  }
  if (facts.locked_bytes_max < kLockedBytesWanted) {
    findings.warn(fmt::format("only {} KiB of memory may be locked: buffers are not registered with the kernel",
                              facts.locked_bytes_max / 1024),
                  "LimitMEMLOCK=infinity in the unit, or 'ulimit -l unlimited'");
  } else {
    findings.good("enough memory may be locked");
  }
  if (facts.files_max < kFilesWanted) {
    findings.warn(fmt::format("only {} files and connections may be open at a time", facts.files_max),
                  "LimitNOFILE=1048576 in the unit, or 'ulimit -n 1048576'");
  } else {
    findings.good(fmt::format("{} files and connections may be open at a time", facts.files_max));
  }
  if (!facts.is_clock_in_sync) {
    findings.warn("the kernel does not say whether the clock is in sync", "run chrony or systemd-timesyncd");
  } else if (!*facts.is_clock_in_sync) {
    findings.warn("the clock is not in sync: events of several nodes cannot be put in order by their times",
                  "apt install chrony");
  } else {
    findings.good("the clock is in sync");
  }
}

void judge_disk(const std::string& path, const DiskFacts& disk, Findings& findings) {
  if (disk.kind == DiskFacts::Kind::kMissing) {
    findings.bad(fmt::format("{} is not there", path), "lsblk lists the block devices");
  } else if (disk.kind == DiskFacts::Kind::kOther) {
    findings.bad(fmt::format("{} is neither a block device nor a file", path), "lsblk lists the block devices");
  } else if (!disk.can_write) {
    findings.bad(fmt::format("{} may not be written to by this user", path),
                 "run as root, or as a member of group disk");
  } else if (!disk.holds.empty()) {
    findings.warn(fmt::format("{} holds {}", path, disk.holds),
                  fmt::format("if that is not needed: wipefs --all {}", path));
  } else {
    findings.good(fmt::format("{} is blank: a pool can be made of it", path));
  }
}

}  // namespace

std::expected<DoctorPlan, Complaint> check(const DoctorArguments& arguments) {
  DoctorPlan plan;
  plan.disks = arguments.disks;
  plan.json = arguments.json;
  for (const uint16_t port : arguments.ports) {
    if (port == 0) return std::unexpected("--port 0: expected 1 to 65535");
    plan.ports.push_back(port);
  }
  for (const std::string& text : arguments.reach) {
    const Result<SocketAddress> address = parse_socket_address(text, 4420);
    if (!address) return complain_about(fmt::format("--reach {}", text), address.error());
    plan.reach.push_back(*address);
  }
  return plan;
}

std::set<uint16_t> listening_ports(std::string_view proc_net_tcp) {
  constexpr std::string_view kListen = "0A";
  std::set<uint16_t> ports;
  while (!proc_net_tcp.empty()) {
    const size_t end = std::min(proc_net_tcp.find('\n'), proc_net_tcp.size());
    std::string_view line = proc_net_tcp.substr(0, end);
    proc_net_tcp.remove_prefix(std::min(end + 1, proc_net_tcp.size()));
    // "  0: 0100007F:1144 00000000:0000 0A …"
    std::array<std::string_view, 4> words;
    for (std::string_view& word : words) {
      line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
      word = line.substr(0, line.find(' '));
      line.remove_prefix(word.size());
    }
    const size_t colon = words[1].rfind(':');
    if (words[3] != kListen || colon == std::string_view::npos) continue;
    const std::string_view digits = words[1].substr(colon + 1);
    uint16_t port = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), port, 16);
    if (parsed.ec == std::errc{}) ports.insert(port);
  }
  return ports;
}

bool has_module(std::string_view list, std::string_view module) {
  for (size_t at = list.find(module); at != std::string_view::npos; at = list.find(module, at + 1)) {
    const bool begins = at > 0 && list[at - 1] == '/';
    if (begins && list.substr(at + module.size()).starts_with(".ko")) return true;
  }
  return false;
}

std::vector<Finding> findings_of(const MachineFacts& facts, const DoctorPlan& plan) {
  Findings findings;
  judge_engine(facts, findings);
  judge_host(facts, findings);
  for (const uint16_t port : plan.ports) {
    if (facts.listening.contains(port)) {
      findings.bad(fmt::format("port {} is taken: somebody listens on it", port),
                   fmt::format("'ss -tlnp sport = :{}' tells who; end that, or --listen on another port", port));
    } else {
      findings.good(fmt::format("port {} is free", port));
    }
  }
  for (const SocketAddress& address : plan.reach) {
    const std::string name = to_string(address);
    const auto found = facts.unreachable.find(name);
    if (found == facts.unreachable.end()) {
      findings.good(name + " can be reached");
    } else {
      findings.bad(fmt::format("{} {}", name, found->second),
                   "is the engine there running, does it listen on that address, does a firewall stand between?");
    }
  }
  for (const std::string& disk : plan.disks) {
    const auto found = facts.disks.find(disk);
    judge_disk(disk, found == facts.disks.end() ? DiskFacts{} : found->second, findings);
  }
  return findings.take();
}

std::string to_text(const std::vector<Finding>& findings, Paint paint) {
  std::string text;
  size_t bad = 0;
  size_t warnings = 0;
  for (const Finding& finding : findings) {
    constexpr std::array<std::string_view, 3> kWords = {"ok", "note", "bad"};
    constexpr std::array<Colour, 3> kColours = {Colour::kGood, Colour::kWarning, Colour::kBad};
    const auto level = static_cast<size_t>(finding.level);
    const std::string word = fmt::format("{:<4}", kWords.at(level));
    text += fmt::format("{}  {}\n", paint == Paint::kYes ? painted(word, kColours.at(level)) : word,
                        printable(finding.what));
    if (!finding.mend.empty()) text += fmt::format("      -> {}\n", printable(finding.mend));
    bad += finding.level == Level::kBad ? 1 : 0;
    warnings += finding.level == Level::kWarning ? 1 : 0;
  }
  if (bad + warnings == 0) return text + "\nNothing is wrong.\n";
  return text + fmt::format("\n{} bad, {} to note.\n", bad, warnings);
}

std::string to_json(const std::vector<Finding>& findings) {
  constexpr std::array<std::string_view, 3> kNames = {"good", "warning", "bad"};
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    json.push_back(
        {{"level", kNames.at(static_cast<size_t>(finding.level))}, {"what", finding.what}, {"mend", finding.mend}});
  }
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace fairlead::cli
