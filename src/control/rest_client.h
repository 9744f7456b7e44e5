// RestClient: the REST API of a cluster (api/openapi.yaml) over HTTP or HTTPS, for other processes: every call blocks.
// One thread.
//
// Servers are asked in turn: one that cannot be reached or does not lead is followed by the one that it names as the
// leader, or by the next; the one that answered is asked first from then on. Changes are idempotent by name, so asking
// another server is safe even when the answer of the first was lost.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/time.h"
#include "base/problem.h"
#include "control/json.h"

namespace fairlead::control {

struct ServerOptions {
  std::vector<std::string> urls = {};  // as server_url() gives them; not empty
  std::string token = {};              // empty: none is sent
  std::string ca_file = {};            // empty: the system's certificates
  // How a person names the servers, for errors.
  std::string named_by = "--server or FAIRLEAD_SERVER";
  Duration connect_limit = std::chrono::seconds(3);
  Duration answer_limit = std::chrono::seconds(60);
};

// "http://HOST:PORT" or "https://…" of "HOST[:PORT]" or such a URL. Error kInvalidArgument.
Outcome<std::string> server_url(std::string_view text);

// In a document, by the way there: "status.state". There is none: null, "", 0.
const Json& field(const Json& json, std::string_view path);
std::string text_of(const Json& json, std::string_view path);
uint64_t number_of(const Json& json, std::string_view path);

// As a part of a URL's path or a value in its query.
std::string percent_encoded(std::string_view text);

enum class RestMethod : uint8_t { kGet, kPost, kPatch, kDelete };
struct RestRequest {
  RestMethod method = RestMethod::kGet;
  std::string path = {};                  // with the query: "/v1/volumes?limit=10"
  Json body = {};                         // of kPost and kPatch
  std::optional<uint64_t> revision = {};  // that it must have still
};

// Server-sent events: bytes in, events out. A comment counts for nothing.
class EventSink {
 public:
  virtual ~EventSink() = default;
  // False: no more of them. Data that is no JSON is null.
  virtual bool take(std::string_view name, const Json& data) = 0;
};
class EventParser {
 public:
  // False: the sink wants no more.
  bool feed(std::string_view bytes, EventSink& sink);

 private:
  bool take_line(std::string_view line, EventSink& sink);
  std::string rest_;
  std::string name_;
  std::string data_;
};

class RestClient {
 public:
  // Requires: options.urls is not empty.
  explicit RestClient(ServerOptions options);

  // The answer's document; null: there is none. Errors: kUnreachable (no server answers, or none leads), kTimedOut;
  // those of the server, by their code. Each is a sentence that says what to do.
  Outcome<Json> call(const RestRequest& request);
  Outcome<Json> get(std::string path) { return call({.method = RestMethod::kGet, .path = std::move(path)}); }
  // All pages. `path` has no limit and no continuation in its query.
  Outcome<std::vector<Json>> list(const std::string& path);
  // Server-sent events until the sink has enough, or the server ends them. `silence`: after which the connection is
  // taken for dead.
  Outcome<void> follow(const std::string& path, EventSink& sink, Duration silence);

 private:
  struct Answer {
    int status = 0;
    std::string body;
  };
  // Calls ask(url), which gives an Outcome<Answer>, for one server after another.
  template <typename Ask>
  Outcome<Json> ask_in_turn(Ask ask);
  Outcome<Answer> send(const std::string& url, const RestRequest& request) const;
  Outcome<Answer> stream(const std::string& url, const std::string& path, EventSink& sink, Duration silence) const;

  ServerOptions options_;
};

}  // namespace fairlead::control
