#include "cli/kubectl.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace fairlead::cli {
namespace {

constexpr std::string_view kName = "kubectl-fairlead";
constexpr int kExitNotFound = 127;
// kubectl goes through a template: a line with the token, then certificates.
constexpr const char* kSecretTemplate =
    "go-template={{index .data \"token\" | base64decode}}{{\"\\n\"}}{{index .data \"ca.crt\" | base64decode}}";
constexpr const char* kNamesTemplate = "go-template={{range .items}}{{.metadata.name}}{{\"\\n\"}}{{end}}";
constexpr const char* kControlServices =
    "app.kubernetes.io/name=fairlead,app.kubernetes.io/component=control,fairlead.dev/process";

template <typename... Arguments>
std::unexpected<Problem> refuse(Code code, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return problem(code, fmt::format(format, std::forward<Arguments>(arguments)...));
}

std::string trimmed(std::string text) {
  while (text.ends_with('\n') || text.ends_with(' ')) text.pop_back();
  return text;
}

// Until its end, or its first line.
enum class Amount : uint8_t { kAll, kLine };
std::string read_from(int descriptor, Amount amount) {
  std::string text;
  std::array<char, 4096> piece{};
  while (amount == Amount::kAll || text.find('\n') == std::string::npos) {
    const ssize_t count = ::read(descriptor, piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    text.append(piece.data(), static_cast<size_t>(count));
  }
  return text;
}

bool is_refusal(const Problem& error) { return error.detail.find("Forbidden") != std::string::npos; }

}  // namespace

const char* const kKubectlHelp =
    "Commands that speak to a cluster find it by kubectl:\n"
    "  -n,--namespace NAME         Where Fairlead is. Default: fairlead\n"
    "  --context NAME, --kubeconfig FILE\n"
    "                              Which cluster, as for kubectl\n"
    "They may stand anywhere. With --server kubectl is not asked.";

bool is_kubectl_plugin(std::string_view called_as) {
  const size_t slash = called_as.rfind('/');
  return called_as.substr(slash == std::string_view::npos ? 0 : slash + 1) == kName;
}

Outcome<KubectlArguments> take_kubectl_arguments(std::vector<std::string>& words) {
  KubectlArguments taken;
  std::vector<std::string> left;
  bool is_over = false;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    is_over = is_over || word == "--";
    const size_t equals = std::min(word.find('='), word.size());
    const std::string option = word.substr(0, equals);
    const bool is_name_space = option == "-n" || option == "--namespace";
    if (is_over || (!is_name_space && option != "--context" && option != "--kubeconfig")) {
      left.push_back(word);
      continue;
    }
    if (equals == word.size() && i + 1 == words.size()) {
      return refuse(Code::kInvalidArgument, "{}: a value is missing", option);
    }
    std::string value = equals < word.size() ? word.substr(equals + 1) : words[++i];
    if (is_name_space) {
      taken.name_space = std::move(value);
    } else {
      taken.options.push_back(fmt::format("{}={}", option, value));
    }
  }
  words = std::move(left);
  return taken;
}

Kubectl::~Kubectl() {
  for (Child& child : forwards_) {
    ::kill(child.process, SIGTERM);
    reap(child);
  }
  for (const int file : kept_) ::close(file);
}

// ---- Children

Outcome<Kubectl::Child> Kubectl::start(std::vector<std::string> words) const {
  words.insert(words.begin(), arguments_.options.begin(), arguments_.options.end());
  words.insert(words.begin(), "kubectl");
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  std::array<int, 2> pipe{};
  Child child;
  child.errors = ::memfd_create("kubectl", MFD_CLOEXEC);
  if (child.errors < 0 || ::pipe2(pipe.data(), O_CLOEXEC) != 0) {
    return refuse(Code::kResourceExhausted, "no file can be opened for kubectl: {}", std::strerror(errno));
  }
  const pid_t self = ::getpid();
  child.process = ::fork();  // lint: allow(thread) nothing else makes a child that dies with us; no thread runs yet
  if (child.process == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != self) ::_exit(kExitNotFound);
    ::dup2(pipe[1], 1);
    ::dup2(child.errors, 2);
    ::execvp("kubectl", pointers.data());
    ::_exit(kExitNotFound);
  }
  ::close(pipe[1]);
  child.output = pipe[0];
  if (child.process > 0) return child;
  ::close(child.output);
  ::close(child.errors);
  return refuse(Code::kResourceExhausted, "kubectl cannot be started: {}", std::strerror(errno));
}

std::string Kubectl::read_errors(const Child& child) {
  ::lseek(child.errors, 0, SEEK_SET);
  return trimmed(read_from(child.errors, Amount::kAll));
}

int Kubectl::reap(Child& child) {
  int status = 0;
  while (::waitpid(child.process, &status, 0) < 0 && errno == EINTR) {
  }
  ::close(child.output);
  ::close(child.errors);
  return WIFEXITED(status) ? WEXITSTATUS(status) : kExitNotFound;
}

Outcome<std::string> Kubectl::ask(std::vector<std::string> words) const {
  FL_TRY(Child child, start(std::move(words)));
  std::string said = read_from(child.output, Amount::kAll);
  // Its complaints are whole when its output is closed.
  const std::string complaint = read_errors(child);
  const int code = reap(child);
  if (code == 0) return said;
  if (code == kExitNotFound && complaint.empty()) {
    return refuse(Code::kNotFound, "kubectl cannot be run: install it, or put it on the PATH");
  }
  return refuse(Code::kUnreachable, "kubectl: {}", complaint);
}

// ---- The release

Outcome<std::vector<std::string>> Kubectl::find_services() const {
  FL_TRY(const std::string said,
         ask({"get", "services", "-n", arguments_.name_space, "-l", kControlServices, "-o", kNamesTemplate}));
  std::vector<std::string> names;
  for (size_t begin = 0; begin < said.size();) {
    const size_t end = std::min(said.find('\n', begin), said.size());
    if (end > begin) names.push_back(said.substr(begin, end - begin));
    begin = end + 1;
  }
  if (names.empty()) {
    return refuse(Code::kNotFound, "there is no Fairlead in namespace {}: -n says in which it is",
                  arguments_.name_space);
  }
  return names;
}

Outcome<std::string> Kubectl::read_secret(const std::string& release) {
  Problem refused;
  for (const char* const role : {"admin", "viewer"}) {
    const Outcome<std::string> found =
        ask({"get", "secret", fmt::format("{}-{}", release, role), "-n", arguments_.name_space, "-o", kSecretTemplate});
    if (found) return found;
    if (!is_refusal(found.error())) return found;
    refused = found.error();
  }
  return refuse(Code::kPermissionDenied,
                "you may read neither Secret {0}-admin nor {0}-viewer in namespace {1}: have somebody bind you to the "
                "Role of one of these names ({2})",
                release, arguments_.name_space, refused.detail);
}

Outcome<std::string> Kubectl::forward(const std::string& service) {
  FL_TRY(Child child,
         start({"port-forward", "-n", arguments_.name_space, "--address=127.0.0.1", "service/" + service, ":7400"}));
  const std::string said = read_from(child.output, Amount::kLine);
  constexpr std::string_view kBegin = "Forwarding from 127.0.0.1:";
  const size_t at = said.find(kBegin);
  if (at == std::string::npos) {
    const std::string complaint = read_errors(child);
    ::kill(child.process, SIGTERM);
    reap(child);
    return refuse(Code::kUnreachable, "no way to service {} in namespace {}: {}", service, arguments_.name_space,
                  complaint.empty() ? "kubectl port-forward has ended" : complaint);
  }
  const size_t begin = at + kBegin.size();
  const size_t end = std::min(said.find_first_not_of("0123456789", begin), said.size());
  forwards_.push_back(child);
  return fmt::format("https://127.0.0.1:{}", said.substr(begin, end - begin));
}

Outcome<std::string> Kubectl::keep(std::string_view bytes) {
  const int file = ::memfd_create("fairlead", MFD_CLOEXEC);
  if (file < 0 || ::write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
    return refuse(Code::kResourceExhausted, "no file can be made in memory: {}", std::strerror(errno));
  }
  kept_.push_back(file);
  return fmt::format("/proc/self/fd/{}", file);
}

Outcome<KubectlServers> Kubectl::connect(Credentials credentials) {
  FL_TRY(const std::vector<std::string> services, find_services());
  KubectlServers servers;
  if (credentials == Credentials::kOfSecret) {
    const std::string& first = services.front();
    FL_TRY(const std::string secret, read_secret(first.substr(0, first.rfind("-control-"))));
    const size_t line = std::min(secret.find('\n'), secret.size());
    FL_TRY(servers.token_file, keep(std::string_view(secret).substr(0, line)));
    FL_TRY(servers.ca_file, keep(std::string_view(secret).substr(std::min(line + 1, secret.size()))));
  }
  // One that stands by names the leader by an address inside the cluster: all of them are tried.
  Problem last;
  for (const std::string& service : services) {
    const Outcome<std::string> url = forward(service);
    if (url) servers.urls.push_back(*url);
    if (!url) last = url.error();
  }
  if (servers.urls.empty()) return std::unexpected(last);
  return servers;
}

}  // namespace fairlead::cli
