#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fstream>
#include <sstream>

#include "cli/control.h"
#include "cli/engine_options.h"
#include "io/address.h"

namespace fairlead::cli {
namespace {

constexpr uint16_t kRestPort = 7400;
constexpr uint16_t kManagementPort = 7401;

struct Text {
  const char* option;
  std::string ControlArguments::* value;
  const char* help;
};
constexpr Text kTexts[] = {
    {"--store", &ControlArguments::store,
     "sqlite:PATH, one file for one machine, or etcd:URL[,URL…], such as etcd:http://127.0.0.1:2379, for several "
     "control processes, of which one leads"},
    {"--etcd-ca", &ControlArguments::etcd_ca,
     "PEM file: whose certificates of etcd are trusted. Default: the system's"},
    {"--etcd-certificate", &ControlArguments::etcd_certificate, "PEM file to show to etcd"},
    {"--etcd-key", &ControlArguments::etcd_key, "PEM file: the key of --etcd-certificate"},
    {"--listen", &ControlArguments::listen,
     "ADDR[:PORT] of the REST API, IPv4 or [IPv6]; port 0 lets the system choose. Addresses that other machines reach "
     "need --token-file, --tls-certificate and --tls-key"},
    {"--management", &ControlArguments::management,
     "ADDR[:PORT] that engines report to. Addresses that other machines reach need --tls-ca, --tls-certificate and "
     "--tls-key, for both sides"},
    {"--advertise", &ControlArguments::advertise,
     "HOST[:PORT]: where others reach the REST API, which processes that do not lead tell. Default: as in --listen"},
    {"--token-file", &ControlArguments::token_file,
     "Lines 'TOKEN ROLE', ROLE being admin, viewer, who changes nothing, or host, for csi node. Requests then need a token"},
    {"--tls-ca", &ControlArguments::tls_ca, "PEM file: whose certificates of engines are trusted"},
    {"--tls-certificate", &ControlArguments::tls_certificate, "PEM file: the certificate, and what links it to a CA"},
    {"--tls-key", &ControlArguments::tls_key, "PEM file: the key of --tls-certificate"},
    {"--lost-after", &ControlArguments::lost_after, "An engine that gives no sign of life for so long counts as lost"},
    {"--replace-after", &ControlArguments::replace_after,
     "A replica that is away for so long gets a successor; before, it is waited for"},
};

std::expected<void, Complaint> check_store(const ControlArguments& arguments, ControlPlan& plan) {
  constexpr std::string_view kSqlite = "sqlite:";
  constexpr std::string_view kEtcd = "etcd:";
  const std::string_view store = arguments.store;
  const bool has_etcd_files =
      !arguments.etcd_ca.empty() || !arguments.etcd_certificate.empty() || !arguments.etcd_key.empty();
  if (store.starts_with(kSqlite) && store.size() > kSqlite.size()) {
    if (has_etcd_files) return std::unexpected("--etcd-ca, --etcd-certificate, --etcd-key: are for --store etcd:…");
    plan.store = std::string(store.substr(kSqlite.size()));
    return {};
  }
  if (!store.starts_with(kEtcd) || store.size() == kEtcd.size()) {
    return std::unexpected(fmt::format("--store {}: expected sqlite:PATH or etcd:URL[,URL…]", store));
  }
  control::EtcdClientOptions etcd;
  for (std::string_view left = store.substr(kEtcd.size()); !left.empty();) {
    const size_t comma = std::min(left.find(','), left.size());
    etcd.endpoints.emplace_back(left.substr(0, comma));
    left.remove_prefix(std::min(comma + 1, left.size()));
  }
  if (arguments.etcd_certificate.empty() != arguments.etcd_key.empty()) {
    return std::unexpected("--etcd-certificate and --etcd-key: give both or none");
  }
  etcd.authority_file = arguments.etcd_ca;
  etcd.certificate_file = arguments.etcd_certificate;
  etcd.key_file = arguments.etcd_key;
  plan.store = std::move(etcd);
  return {};
}

bool is_loopback(const SocketAddress& address) {
  if (address.family == AddressFamily::kIpv4) return address.ip[0] == 127;
  std::array<uint8_t, 16> loopback{};
  loopback.back() = 1;
  return address.ip == loopback;
}
bool is_any(const SocketAddress& address) { return address.ip == std::array<uint8_t, 16>{}; }

std::expected<gateway::Tokens, Complaint> read_tokens(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::unexpected(fmt::format("--token-file {}: cannot be read", path));
  std::ostringstream text;
  text << file.rdbuf();
  Outcome<gateway::Tokens> tokens = gateway::Tokens::parse(text.view());
  if (!tokens) return std::unexpected(fmt::format("--token-file {}: {}", path, to_string(tokens.error())));
  return std::move(*tokens);
}

std::expected<void, Complaint> check_rest(const ControlArguments& arguments, ControlPlan& plan) {
  const std::string argument = "--listen " + arguments.listen;
  const Result<SocketAddress> listen = parse_socket_address(arguments.listen, kRestPort);
  if (!listen) return complain_about(argument, listen.error());
  plan.listen = to_string(*listen);
  if (arguments.tls_certificate.empty() != arguments.tls_key.empty()) {
    return std::unexpected("--tls-certificate and --tls-key: give both or none");
  }
  if (!arguments.tls_certificate.empty()) {
    plan.certificate = {.certificate = arguments.tls_certificate, .key = arguments.tls_key};
  }
  if (!arguments.token_file.empty()) {
    auto tokens = read_tokens(arguments.token_file);
    if (!tokens) return std::unexpected(tokens.error());
    plan.tokens = std::move(*tokens);
  }
  if (!is_loopback(*listen) && (!plan.tokens || !plan.certificate)) {
    return std::unexpected(
        fmt::format("{}: other machines reach this address: give --token-file, --tls-certificate and --tls-key, or "
                    "listen on 127.0.0.1",
                    argument));
  }
  plan.advertise = arguments.advertise;
  if (plan.advertise.empty() && is_any(*listen)) {
    return std::unexpected(fmt::format("{}: say where others reach it: --advertise HOST:PORT", argument));
  }
  return {};
}

std::expected<void, Complaint> check_management(const ControlArguments& arguments, ControlPlan& plan) {
  const std::string argument = "--management " + arguments.management;
  const Result<SocketAddress> management = parse_socket_address(arguments.management, kManagementPort);
  if (!management) return complain_about(argument, management.error());
  plan.management = to_string(*management);
  if (!arguments.tls_ca.empty()) {
    if (!plan.certificate) return std::unexpected("--tls-ca: needs --tls-certificate and --tls-key");
    plan.management_tls = {.ca = arguments.tls_ca, .certificate = arguments.tls_certificate, .key = arguments.tls_key};
  }
  if (!is_loopback(*management) && !plan.management_tls && !arguments.insecure) {
    return std::unexpected(fmt::format(
        "{}: other machines reach this address: give --tls-ca, --tls-certificate and --tls-key, or, on a network where "
        "everybody may command the cluster, --insecure",
        argument));
  }
  return {};
}

}  // namespace

void define_control(CLI::App& command, ControlArguments& arguments) {
  for (const Text& text : kTexts) {
    std::string& value = arguments.*text.value;
    CLI::Option& option = *command.add_option(text.option, value, text.help);
    if (!value.empty()) option.capture_default_str();
  }
  command.add_flag("--insecure", arguments.insecure,
                   "Lets every machine that reaches --management command the cluster: for networks of tests");
  command.footer(
      "Keeps what was asked for, places replicas and targets, and sees to it that engines do what they should. "
      "Engines\n"
      "go on without it; what fails meanwhile is mended when it is back.\n"
      "SIGINT and SIGTERM let another process lead at once. With systemd: Type=notify.\n"
      "Options come from the command line, from section [control] of the file that --config names, and from the\n"
      "environment, in this order: --token-file is token-file = \"…\" there and FAIRLEAD_CONTROL_TOKEN_FILE here.\n"
      "Example: fairlead control --store sqlite:control.db");
  command.fallthrough();  // for --config
  take_environment(command, "FAIRLEAD_CONTROL_");
}

std::expected<ControlPlan, Complaint> check(const ControlArguments& arguments) {
  ControlPlan plan;
  if (const auto store = check_store(arguments, plan); !store) return std::unexpected(store.error());
  if (const auto rest = check_rest(arguments, plan); !rest) return std::unexpected(rest.error());
  if (const auto management = check_management(arguments, plan); !management) {
    return std::unexpected(management.error());
  }
  using std::chrono::milliseconds;
  using std::chrono::seconds;
  const auto lost = parse_span("--lost-after", arguments.lost_after, {milliseconds(500), seconds(3600), "500ms to 1h"});
  if (!lost) return std::unexpected(lost.error());
  plan.settings.lost_after = *lost;
  // Several signs of life have to be late together.
  plan.settings.report_interval = std::min<Duration>(plan.settings.report_interval, *lost / 4);
  const auto replace =
      parse_span("--replace-after", arguments.replace_after, {seconds(1), seconds(31'536'000), "1s to 8760h"});
  if (!replace) return std::unexpected(replace.error());
  plan.settings.replace_after = *replace;
  // It has little to do, and waits in the kernel for it.
  plan.runtime = {.shards = 1, .poll = PollMode::kNever, .pinning = Pinning::kNone};
  return plan;
}

}  // namespace fairlead::cli
