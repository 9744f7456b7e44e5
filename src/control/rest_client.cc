#include "control/rest_client.h"

#include <algorithm>
#include <fmt/format.h>
#include <httplib.h>

#include "base/check.h"

namespace fairlead::control {
namespace {

constexpr std::string_view kPortDefault = "7400";

template <typename... Arguments>
std::unexpected<Problem> refuse(Code code, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return problem(code, fmt::format(format, std::forward<Arguments>(arguments)...));
}

std::string_view meaning_of(httplib::Error error) {
  switch (error) {
    case httplib::Error::Connection:
      return "no connection can be made";
    case httplib::Error::ConnectionTimeout:
      return "no answer to a connection in time";
    case httplib::Error::Read:
      return "no answer in time, or the connection broke";
    case httplib::Error::Write:
      return "the connection broke";
    case httplib::Error::SSLConnection:
      return "TLS fails: does it speak https there?";
    case httplib::Error::SSLLoadingCerts:
      return "the certificates of --ca cannot be read";
    case httplib::Error::SSLServerVerification:
      return "its certificate is not trusted: name its authority by --ca";
    default:
      return "the request fails";
  }
}

std::string scheme_of(const std::string& url) { return url.substr(0, url.find("://")); }

httplib::Client connect(const std::string& url, const ServerOptions& options, Duration read_limit) {
  httplib::Client client(url);
  client.set_connection_timeout(options.connect_limit);
  client.set_read_timeout(read_limit);
  client.set_write_timeout(options.answer_limit);
  if (!options.ca_file.empty()) client.set_ca_cert_path(options.ca_file);
  return client;
}

httplib::Headers headers_of(const ServerOptions& options) {
  httplib::Headers headers = {{"Accept", "application/json"}};
  if (!options.token.empty()) headers.emplace("Authorization", "Bearer " + options.token);
  return headers;
}

// Of an answer that is no success.
Problem problem_of_answer(int status, const Json& json, const std::string& url) {
  const auto text = [&](const char* name) {
    return json.is_object() && json.contains(name) && json[name].is_string() ? json[name].get<std::string>() : "";
  };
  Problem found;
  const Code by_status = status == 401 || status == 403 ? Code::kPermissionDenied
                         : status == 404                ? Code::kNotFound
                         : status == 409                ? Code::kBusy
                         : status == 412                ? Code::kMiscompare
                         : status == 503                ? Code::kUnreachable
                                                        : Code::kInternal;
  found.error.code = code_from_name(text("code")).value_or(by_status);
  found.is_sentence = true;
  found.detail = text("detail");
  if (found.detail.empty()) found.detail = fmt::format("{} answers with status {}", url, status);
  if (status == 401) found.detail += " (--token-file names the file that has it)";
  return found;
}

}  // namespace

Outcome<std::string> server_url(std::string_view text) {
  std::string_view rest = text;
  std::string scheme = "http";
  if (const size_t mark = rest.find("://"); mark != std::string_view::npos) {
    scheme = rest.substr(0, mark);
    rest.remove_prefix(mark + 3);
  }
  while (rest.ends_with('/')) rest.remove_suffix(1);
  const bool is_good = (scheme == "http" || scheme == "https") && !rest.empty() &&
                       rest.find_first_of("/ @?#") == std::string_view::npos && rest.front() != ':';
  const size_t bracket = rest.rfind(']');
  const size_t colon = rest.find(':', bracket == std::string_view::npos ? 0 : bracket);
  const std::string_view port = colon == std::string_view::npos ? kPortDefault : rest.substr(colon + 1);
  const bool has_port =
      !port.empty() && port.size() <= 5 && std::ranges::all_of(port, [](char c) { return c >= '0' && c <= '9'; });
  if (!is_good || !has_port) {
    return refuse(Code::kInvalidArgument, "{}: expected http://HOST:PORT or https://HOST:PORT", text);
  }
  return fmt::format("{}://{}:{}", scheme, rest.substr(0, colon), port);
}

std::string percent_encoded(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                          std::string_view("-._~").find(c) != std::string_view::npos;
    encoded += is_plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<uint8_t>(c));
  }
  return encoded;
}

const Json& field(const Json& json, std::string_view path) {
  static const Json nothing;
  const Json* at = &json;
  while (!path.empty()) {
    const size_t end = std::min(path.find('.'), path.size());
    if (!at->is_object()) return nothing;
    const auto found = at->find(std::string(path.substr(0, end)));
    if (found == at->end()) return nothing;
    at = &*found;
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return *at;
}

std::string text_of(const Json& json, std::string_view path) {
  const Json& found = field(json, path);
  return found.is_string() ? found.get<std::string>() : "";
}

uint64_t number_of(const Json& json, std::string_view path) {
  const Json& found = field(json, path);
  return found.is_number_unsigned() ? found.get<uint64_t>() : 0;
}

// ---- Server-sent events

bool EventParser::feed(std::string_view bytes, EventSink& sink) {
  rest_ += bytes;
  size_t begin = 0;
  for (size_t end = rest_.find('\n'); end != std::string::npos; end = rest_.find('\n', begin)) {
    std::string_view line = std::string_view(rest_).substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!take_line(line, sink)) return false;
    begin = end + 1;
  }
  rest_.erase(0, begin);
  return true;
}

bool EventParser::take_line(std::string_view line, EventSink& sink) {
  if (line.empty()) {
    const std::string name = std::exchange(name_, "");
    const std::string data = std::exchange(data_, "");
    if (name.empty() && data.empty()) return true;
    return sink.take(name, parse_json(data).value_or(Json()));
  }
  const size_t colon = std::min(line.find(':'), line.size());
  std::string_view value = line.substr(std::min(colon + 1, line.size()));
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (line.substr(0, colon) == "event") name_ = value;
  if (line.substr(0, colon) == "data") data_ += (data_.empty() ? "" : "\n") + std::string(value);
  return true;
}

// ---- RestClient

RestClient::RestClient(ServerOptions options) : options_(std::move(options)) { FL_CHECK(!options_.urls.empty()); }

template <typename Ask>
Outcome<Json> RestClient::ask_in_turn(Ask ask) {
  std::vector<std::string> waiting = options_.urls;
  std::vector<std::string> asked;
  Problem last;
  while (!waiting.empty()) {
    const std::string url = waiting.front();
    waiting.erase(waiting.begin());
    asked.push_back(url);
    const Outcome<Answer> answer = ask(url);
    if (!answer) {
      last = answer.error();
      continue;
    }
    Json json = answer->body.empty() ? Json() : parse_json(answer->body).value_or(Json());
    if (answer->status >= 200 && answer->status < 300) {
      std::erase(options_.urls, url);
      options_.urls.insert(options_.urls.begin(), url);
      return json;
    }
    last = problem_of_answer(answer->status, json, url);
    if (answer->status != 503) return std::unexpected(last);
    if (!json.is_object() || !json.contains("leader") || !json["leader"].is_string()) continue;
    const std::string address = json["leader"].get<std::string>();
    const auto leader =
        server_url(address.find("://") == std::string::npos ? scheme_of(url) + "://" + address : address);
    if (!leader || std::ranges::find(asked, *leader) != asked.end()) continue;
    std::erase(waiting, *leader);
    waiting.insert(waiting.begin(), *leader);
  }
  return std::unexpected(last);
}

Outcome<RestClient::Answer> RestClient::send(const std::string& url, const RestRequest& request) const {
  httplib::Client client = connect(url, options_, options_.answer_limit);
  httplib::Headers headers = headers_of(options_);
  if (request.revision) headers.emplace("If-Match", fmt::format("\"{}\"", *request.revision));
  const std::string body = request.body.is_null() ? "" : to_text(request.body);
  const auto ask = [&]() -> httplib::Result {
    switch (request.method) {
      case RestMethod::kPost:
        return client.Post(request.path, headers, body, "application/json");
      case RestMethod::kPatch:
        return client.Patch(request.path, headers, body, "application/merge-patch+json");
      case RestMethod::kDelete:
        return client.Delete(request.path, headers);
      default:
        return client.Get(request.path, headers);
    }
  };
  const httplib::Result result = ask();
  if (result) return Answer{.status = result->status, .body = result->body};
  return refuse(Code::kUnreachable, "{}: {}. 'fairlead control' serves a cluster; {} says where it is", url,
                meaning_of(result.error()), options_.named_by);
}

Outcome<Json> RestClient::call(const RestRequest& request) {
  return ask_in_turn([&](const std::string& url) { return send(url, request); });
}

Outcome<std::vector<Json>> RestClient::list(const std::string& path) {
  std::vector<Json> all;
  std::string more;
  do {
    const char separator = path.find('?') == std::string::npos ? '?' : '&';
    FL_TRY(const Json page, get(more.empty() ? path : fmt::format("{}{}continue={}", path, separator, more)));
    if (!page.is_object() || !page.contains("items") || !page["items"].is_array()) {
      return refuse(Code::kProtocol, "{} answers with no list; is it the server of a cluster?", options_.urls.front());
    }
    for (const Json& item : page["items"]) all.push_back(item);
    more = page.contains("continue") && page["continue"].is_string()
               ? percent_encoded(page["continue"].get<std::string>())
               : "";
  } while (!more.empty());
  return all;
}

Outcome<RestClient::Answer> RestClient::stream(const std::string& url, const std::string& path, EventSink& sink,
                                               Duration silence) const {
  httplib::Client client = connect(url, options_, silence);
  Answer answer;
  EventParser parser;
  bool is_enough = false;
  const auto result = client.Get(
      path, headers_of(options_),
      [&](const httplib::Response& response) {
        answer.status = response.status;
        return true;
      },
      [&](const char* bytes, size_t size) {
        if (answer.status != 200) {
          answer.body.append(bytes, size);
        } else if (!parser.feed({bytes, size}, sink)) {
          is_enough = true;
        }
        return !is_enough;
      });
  if (result || is_enough) return answer;
  // One that had begun, and broke: whoever follows connects anew.
  if (answer.status == 200) return answer;
  return refuse(Code::kUnreachable, "{}: {}. 'fairlead control' serves a cluster; {} says where it is", url,
                meaning_of(result.error()), options_.named_by);
}

Outcome<void> RestClient::follow(const std::string& path, EventSink& sink, Duration silence) {
  FL_TRY_VOID(ask_in_turn([&](const std::string& url) { return stream(url, path, sink, silence); }));
  return {};
}

}  // namespace fairlead::control
