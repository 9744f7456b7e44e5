// Requests and responses of HTTP, as those see them who answer: whole, decoded, and already let in. Plain values.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "async/task.h"
#include "base/problem.h"

namespace fairlead::gateway {

struct HttpRequest {
  std::string method;                                  // "GET"
  std::string path;                                    // "/v1/volumes/db"
  std::multimap<std::string, std::string> query = {};  // what follows the path
  std::map<std::string, std::string> headers = {};     // names in lower case; of several the first
  std::string body = {};

  // Empty: it is not there.
  std::string_view header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string_view() : std::string_view(found->second);
  }
};

// What goes on without an end, piece by piece. Lives on the shard of its handler.
class HttpFeed {
 public:
  virtual ~HttpFeed() = default;  // Requires: no next() is under way.
  // What is to be sent next, within a second; may be empty. None: it is over.
  virtual Task<std::optional<std::string>> next() = 0;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::unique_ptr<HttpFeed> feed = {};  // instead of the body
};

// Answers requests, on one shard.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  virtual Task<HttpResponse> handle(HttpRequest request) = 0;
};

// "Not Found"
std::string_view status_phrase(int status);
// An error of RFC 9457: `detail` is the sentence that says what to do; "code" is Fairlead's name of it.
HttpResponse problem_response(int status, Code code, std::string_view detail);
// With the status that the code has.
HttpResponse problem_response(const Problem& problem);

}  // namespace fairlead::gateway
