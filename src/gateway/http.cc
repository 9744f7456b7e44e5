#include "gateway/http.h"

#include <nlohmann/json.hpp>

namespace fairlead::gateway {
namespace {

int status_of(Code code) {
  switch (code) {
    case Code::kNotFound:
      return 404;
    case Code::kNotSupported:
      return 405;
    case Code::kAlreadyExists:
    case Code::kBusy:
    case Code::kNoSpace:
    case Code::kResourceExhausted:
      return 409;
    case Code::kMiscompare:
      return 412;
    case Code::kInvalidArgument:
    case Code::kOutOfRange:
    case Code::kIsDirectory:
      return 422;
    case Code::kPermissionDenied:
      return 403;
    case Code::kUnreachable:
    case Code::kConnectionLost:
    case Code::kShuttingDown:
    case Code::kFenced:
    case Code::kCancelled:
      return 503;
    case Code::kTimedOut:
      return 504;
    default:
      return 500;
  }
}

}  // namespace

std::string_view status_phrase(int status) {
  switch (status) {
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 421:
      return "Misdirected Request";
    case 422:
      return "Unprocessable Content";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Error";
  }
}

HttpResponse problem_response(int status, Code code, std::string_view detail) {
  const nlohmann::ordered_json json = {{"type", "about:blank"},
                                       {"title", status_phrase(status)},
                                       {"status", status},
                                       {"detail", detail},
                                       {"code", code_info(code).name}};
  HttpResponse response;
  response.status = status;
  response.content_type = "application/problem+json";
  response.body = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  if (status == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

HttpResponse problem_response(const Problem& problem) {
  const Code code = problem.error.code;
  return problem_response(status_of(code), code, to_string(problem));
}

}  // namespace fairlead::gateway
