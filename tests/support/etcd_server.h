// EtcdServer: a real etcd of one member on loopback, with a folder and ports of its own, for tests.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>

#include "base/problem.h"

namespace fairlead::test {

// PEM files: its clients show certificates of that authority.
struct EtcdServerTls {
  std::string authority_file;
  std::string certificate_file;
  std::string key_file;
};

// One thread. Ends etcd and removes its folder when it dies; etcd ends with the test's process too.
class EtcdServer {
 public:
  static bool is_installed();
  // Returns when it serves. Errors: kUnreachable with the last lines of what it said.
  static Outcome<std::unique_ptr<EtcdServer>> start(std::optional<EtcdServerTls> tls = std::nullopt);
  ~EtcdServer();
  EtcdServer(const EtcdServer&) = delete;
  EtcdServer& operator=(const EtcdServer&) = delete;

  const std::string& url() const { return url_; }
  // It gets no time to say farewell. Requires: it runs.
  void kill();
  // With the same data and address. Requires: it does not run.
  Outcome<void> restart() { return run(); }
  // Stopped, it answers nobody.
  void pause();
  void resume();

 private:
  class Reader;

  explicit EtcdServer(std::optional<EtcdServerTls> tls);
  Outcome<void> run();

  const std::optional<EtcdServerTls> tls_;
  std::string folder_;
  std::string url_;
  std::string peer_url_;
  pid_t process_ = -1;
  std::unique_ptr<Reader> reader_;
};

}  // namespace fairlead::test
