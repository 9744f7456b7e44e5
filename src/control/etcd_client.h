// EtcdClient: requests to etcd v3 by its JSON gateway (etcd's api/etcdserverpb/rpc.proto says what the fields mean).
// Every function blocks, within the time limits of the options: one thread at a time, a worker's. Requires: that thread
// gets no SIGPIPE.
//
// Errors of all: kUnreachable (no endpoint took it), kTimedOut (it may have been done), kPermissionDenied, kNoSpace,
// kIo, kProtocol (what answers is no etcd). Several endpoints are tried in turn, from the one that answered last; what
// could be done twice is sent once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/time.h"
#include "base/problem.h"

namespace fairlead::control {

struct EtcdClientOptions {
  std::vector<std::string> endpoints = {};  // each http://HOST:PORT or https://HOST:PORT
  // PEM files, for https. No authority: the system's. Certificate and key: both or none.
  std::string authority_file = {};
  std::string certificate_file = {};
  std::string key_file = {};
  Duration connect_max = std::chrono::seconds(1);  // an endpoint
  Duration answer_max = std::chrono::seconds(3);   // each wait for bytes
};

struct EtcdEntry {
  std::string key;
  std::string value;
  uint64_t create_revision = 0;
  uint64_t mod_revision = 0;
  uint64_t lease = 0;  // 0: none
};

struct EtcdRange {
  std::string key;
  std::string end = {};   // empty: `key` alone; "\0": all from it on
  uint64_t revision = 0;  // 0: the newest
  size_t limit = 0;       // 0: all
};
struct EtcdRangeAnswer {
  std::vector<EtcdEntry> entries;
  bool has_more = false;
  uint64_t revision = 0;  // the store's, or the one that was asked for
};

struct EtcdCompare {
  enum class What : uint8_t { kCreateRevision, kModRevision };
  std::string key;
  What what = What::kModRevision;
  uint64_t revision = 0;  // 0: it is not there
};
struct EtcdWrite {
  std::string key;
  std::optional<std::string> value;  // none: it is deleted
  uint64_t lease = 0;
};
struct EtcdTransaction {
  std::vector<EtcdCompare> compares = {};
  std::vector<EtcdWrite> writes = {};       // when all compares hold
  std::vector<std::string> otherwise = {};  // keys to read when one does not
};
struct EtcdTransactionAnswer {
  bool is_done = false;
  uint64_t revision = 0;
  std::vector<std::optional<EtcdEntry>> otherwise;  // one a key, without values; when it was not done
};

struct EtcdLease {
  uint64_t id = 0;
  uint32_t seconds = 0;  // as granted
};

class EtcdClient {
 public:
  // Errors: kInvalidArgument. Contacts nobody.
  static Outcome<std::unique_ptr<EtcdClient>> make(const EtcdClientOptions& options);
  ~EtcdClient();
  EtcdClient(const EtcdClient&) = delete;
  EtcdClient& operator=(const EtcdClient&) = delete;

  // Errors besides: kOutOfRange (that revision was compacted).
  Outcome<EtcdRangeAnswer> range(const EtcdRange& range);
  // Errors besides: kInvalidArgument (too large for how this etcd is set up), kNotFound (no such lease).
  Outcome<EtcdTransactionAnswer> commit(const EtcdTransaction& transaction);
  Outcome<EtcdLease> grant(uint32_t seconds);
  // The seconds that it has again; 0: it is gone.
  Outcome<uint32_t> keep_alive(uint64_t lease);
  // Its keys go with it. Also of one that is gone.
  Outcome<void> revoke(uint64_t lease);

 private:
  struct Endpoint;
  struct Answer;
  enum class Repeat : uint8_t { kAllowed, kForbidden };

  EtcdClient();
  Outcome<std::string> post(const char* path, const std::string& body, Repeat repeat);
  Answer post_to(Endpoint& endpoint, const char* path, const std::string& body);

  std::vector<std::unique_ptr<Endpoint>> endpoints_;
  size_t current_ = 0;  // the endpoint that answered last
};

}  // namespace fairlead::control
