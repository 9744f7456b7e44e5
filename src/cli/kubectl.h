// `kubectl fairlead …`: the same program as a plugin of kubectl. It finds the control plane of a release of the chart
// by kubectl itself, so that whatever the user's kubeconfig says holds: names of Services and one Secret by `kubectl
// get`, a way to them by `kubectl port-forward`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include "base/problem.h"

namespace fairlead::cli {

struct KubectlArguments {
  std::string name_space = "fairlead";
  std::vector<std::string> options = {};  // for kubectl: --context C, --kubeconfig K
};

// What its own help says of them.
extern const char* const kKubectlHelp;

// Whether the program was called by the plugin's name.
bool is_kubectl_plugin(std::string_view called_as);
// Takes what is kubectl's out of `words`: -n, --namespace, --context, --kubeconfig. Error: one has no value.
Outcome<KubectlArguments> take_kubectl_arguments(std::vector<std::string>& words);

// Where the control plane is: for the options --server, --token-file and --ca.
struct KubectlServers {
  std::vector<std::string> urls;
  std::string token_file;
  std::string ca_file;
};

// Ways to the control plane, for as long as it lives; its children end with it, and with this process however that
// ends. One thread. Requires: no other thread runs when children are made.
class Kubectl {
 public:
  explicit Kubectl(KubectlArguments arguments) : arguments_(std::move(arguments)) {}
  ~Kubectl();
  Kubectl(const Kubectl&) = delete;
  Kubectl& operator=(const Kubectl&) = delete;

  // kGiven: token and authority are known, and no Secret is read.
  enum class Credentials : uint8_t { kOfSecret, kGiven };
  // Blocks. Errors are sentences: kubectl is missing, there is no release, access is refused.
  Outcome<KubectlServers> connect(Credentials credentials);

 private:
  struct Child {
    pid_t process = -1;
    int output = -1;  // what it prints is read from here
    int errors = -1;  // a file with what it complains of
  };
  Outcome<Child> start(std::vector<std::string> words) const;
  static std::string read_errors(const Child& child);
  // Its exit code.
  static int reap(Child& child);
  // What it prints. Error: what it complains of.
  Outcome<std::string> ask(std::vector<std::string> words) const;
  Outcome<std::vector<std::string>> find_services() const;
  // A token, and whom to trust.
  Outcome<std::string> read_secret(const std::string& release);
  Outcome<std::string> forward(const std::string& service);
  Outcome<std::string> keep(std::string_view bytes);

  const KubectlArguments arguments_;
  std::vector<Child> forwards_;
  std::vector<int> kept_;  // files that only this process has
};

}  // namespace fairlead::cli
