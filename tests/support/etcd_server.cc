#include "tests/support/etcd_server.h"

#include <array>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <future>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/check.h"

namespace fairlead::test {
namespace {

constexpr const char* kProgram = "/usr/bin/etcd";
constexpr int kAttempts = 3;
constexpr auto kStartMax = std::chrono::seconds(30);

// Two ports that were free a moment ago.
std::array<uint16_t, 2> free_ports() {
  std::array<uint16_t, 2> ports{};
  std::array<int, 2> sockets{};
  for (size_t i = 0; i < ports.size(); ++i) {
    sockets[i] = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    FL_CHECK(::bind(sockets[i], reinterpret_cast<sockaddr*>(&address), length) == 0);
    FL_CHECK(::getsockname(sockets[i], reinterpret_cast<sockaddr*>(&address), &length) == 0);
    ports[i] = ntohs(address.sin_port);
  }
  for (const int socket : sockets) ::close(socket);
  return ports;
}

// The child's side of fork(): what may be called there is little.
[[noreturn]] void become(const std::vector<char*>& arguments, int output, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(output, STDERR_FILENO);
  ::execv(kProgram, arguments.data());
  ::_exit(127);
}

}  // namespace

// Reads all that etcd says, so that it never waits for a full pipe.
class EtcdServer::Reader {
 public:
  explicit Reader(int output) : output_(output), thread_([this] { main(); }) {}
  ~Reader() { thread_.join(); }  // Requires: etcd has ended.

  // False: it ended before, or did not in time.
  bool wait_until_ready() {
    std::future<bool> ready = ready_.get_future();
    return ready.wait_for(kStartMax) == std::future_status::ready && ready.get();
  }
  // Requires: etcd has ended, and the thread with it.
  std::string last_words() {
    thread_.join();
    thread_ = std::thread([] {});
    return said_.size() <= 2000 ? said_ : said_.substr(said_.size() - 2000);
  }

 private:
  void main() {
    bool was_ready = false;
    std::array<char, 4096> piece;
    ssize_t length = 0;
    while ((length = ::read(output_, piece.data(), piece.size())) > 0) {
      said_.append(piece.data(), static_cast<size_t>(length));
      if (was_ready) continue;
      // 3.5 says the one, 3.4 the other.
      was_ready = said_.find("ready to serve client requests") != std::string::npos ||
                  said_.find("serving client traffic") != std::string::npos;
      if (!was_ready) continue;
      ready_.set_value(true);
    }
    if (!was_ready) ready_.set_value(false);
    ::close(output_);
  }

  const int output_;
  std::promise<bool> ready_;
  std::string said_;
  std::thread thread_;
};

bool EtcdServer::is_installed() { return ::access(kProgram, X_OK) == 0; }

EtcdServer::EtcdServer(std::optional<EtcdServerTls> tls) : tls_(std::move(tls)) {
  std::string folder = (std::filesystem::temp_directory_path() / "fairlead-etcd-XXXXXX").string();
  FL_CHECK(::mkdtemp(folder.data()) != nullptr);
  folder_ = folder;
}

Outcome<std::unique_ptr<EtcdServer>> EtcdServer::start(std::optional<EtcdServerTls> tls) {
  std::unique_ptr<EtcdServer> server(new EtcdServer(std::move(tls)));
  for (int attempt = 1;; ++attempt) {
    const auto [client, peer] = free_ports();
    server->url_ = fmt::format("{}://127.0.0.1:{}", server->tls_ ? "https" : "http", client);
    server->peer_url_ = fmt::format("http://127.0.0.1:{}", peer);
    const Outcome<void> started = server->run();
    if (started) return server;
    // Another process may have taken a port meanwhile.
    if (attempt == kAttempts) return std::unexpected(started.error());
    std::filesystem::remove_all(server->folder_ + "/data");
  }
}

EtcdServer::~EtcdServer() {
  if (process_ > 0) kill();
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

Outcome<void> EtcdServer::run() {
  FL_CHECK(process_ < 0);
  // What counts here is how it ends and comes back, not power cuts: no waiting for the disk. Short elections, for the
  // least lease that it grants depends on them.
  std::vector<std::string> words = {kProgram,
                                    "--data-dir=" + folder_ + "/data",
                                    "--listen-client-urls=" + url_,
                                    "--advertise-client-urls=" + url_,
                                    "--listen-peer-urls=" + peer_url_,
                                    "--initial-advertise-peer-urls=" + peer_url_,
                                    "--initial-cluster=default=" + peer_url_,
                                    "--heartbeat-interval=50",
                                    "--election-timeout=500",
                                    "--logger=zap",
                                    "--unsafe-no-fsync"};
  if (tls_) {
    words.insert(words.end(), {"--client-cert-auth", "--trusted-ca-file=" + tls_->authority_file,
                               "--cert-file=" + tls_->certificate_file, "--key-file=" + tls_->key_file});
  }
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::array<int, 2> pipe{};
  FL_CHECK(::pipe2(pipe.data(), O_CLOEXEC) == 0);
  const pid_t parent = ::getpid();
  process_ = ::fork();
  FL_CHECK(process_ >= 0);
  if (process_ == 0) become(arguments, pipe[1], parent);
  ::close(pipe[1]);
  reader_ = std::make_unique<Reader>(pipe[0]);
  if (reader_->wait_until_ready()) return {};
  ::kill(process_, SIGKILL);
  ::waitpid(process_, nullptr, 0);
  process_ = -1;
  const std::string words_said = reader_->last_words();
  reader_.reset();
  return problem(Code::kUnreachable, fmt::format("etcd did not start:\n{}", words_said));
}

void EtcdServer::kill() {
  FL_CHECK(process_ > 0);
  ::kill(process_, SIGKILL);
  ::waitpid(process_, nullptr, 0);
  process_ = -1;
  reader_.reset();
}

void EtcdServer::pause() { ::kill(process_, SIGSTOP); }
void EtcdServer::resume() { ::kill(process_, SIGCONT); }

}  // namespace fairlead::test
