#include "control/etcd_client.h"

#include <charconv>
#include <fmt/format.h>
#include <httplib.h>
#include <nlohmann/json.hpp>
#include <openssl/evp.h>

namespace fairlead::control {
namespace {

using Json = nlohmann::json;

// gRPC's codes, by which the gateway tells what went wrong.
enum GrpcCode : uint64_t {
  kGrpcInvalidArgument = 3,
  kGrpcDeadlineExceeded = 4,
  kGrpcNotFound = 5,
  kGrpcPermissionDenied = 7,
  kGrpcResourceExhausted = 8,
  kGrpcOutOfRange = 11,
  kGrpcUnavailable = 14,
  kGrpcUnauthenticated = 16,
};

std::string to_base64(std::string_view bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');  // OpenSSL writes a zero behind it
  const int length =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(length));
  return text;
}

// None: it is not base64.
std::optional<std::string> from_base64(const std::string& text) {
  if (text.empty()) return "";
  std::string bytes(text.size() / 4 * 3 + 3, '\0');
  const int length =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                      reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (length < 0 || text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  bytes.resize(static_cast<size_t>(length) - padding);
  return bytes;
}

// The gateway leaves fields out that have their default, and writes 64 bits as strings.
const Json& field(const Json& object, const char* name) {
  static const Json kNone;
  if (!object.is_object()) return kNone;
  const auto at = object.find(name);
  return at == object.end() ? kNone : *at;
}
uint64_t number(const Json& object, const char* name) {
  const Json& value = field(object, name);
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  if (!value.is_string()) return 0;
  const auto& text = value.get_ref<const std::string&>();
  uint64_t parsed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
  return error == std::errc() && end == text.data() + text.size() ? parsed : 0;
}
std::string text(const Json& object, const char* name) {
  const Json& value = field(object, name);
  return value.is_string() ? value.get<std::string>() : "";
}
bool flag(const Json& object, const char* name) { return field(object, name) == Json(true); }

std::unexpected<Problem> not_etcd() {
  return problem(Code::kProtocol, "what answers there does not speak as etcd v3 does: check the addresses of etcd");
}

Outcome<EtcdEntry> parse_entry(const Json& object) {
  std::optional<std::string> key = from_base64(text(object, "key"));
  std::optional<std::string> value = from_base64(text(object, "value"));
  if (!key || !value) return not_etcd();
  return EtcdEntry{.key = std::move(*key),
                   .value = std::move(*value),
                   .create_revision = number(object, "create_revision"),
                   .mod_revision = number(object, "mod_revision"),
                   .lease = number(object, "lease")};
}

Outcome<Json> parse(const Outcome<std::string>& answer) {
  if (!answer) return std::unexpected(answer.error());
  Json json = Json::parse(*answer, nullptr, false);
  if (!json.is_object()) return not_etcd();
  return json;
}

Json compare_of(const EtcdCompare& compare) {
  const bool is_create = compare.what == EtcdCompare::What::kCreateRevision;
  return {{"key", to_base64(compare.key)},
          {"result", "EQUAL"},
          {"target", is_create ? "CREATE" : "MOD"},
          {is_create ? "create_revision" : "mod_revision", std::to_string(compare.revision)}};
}

Json write_of(const EtcdWrite& write) {
  if (!write.value) return {{"request_delete_range", {{"key", to_base64(write.key)}}}};
  return {
      {"request_put",
       {{"key", to_base64(write.key)}, {"value", to_base64(*write.value)}, {"lease", std::to_string(write.lease)}}}};
}

Code code_of(uint64_t grpc, std::string_view message) {
  switch (grpc) {
    case kGrpcInvalidArgument:
      return Code::kInvalidArgument;
    case kGrpcNotFound:
      return Code::kNotFound;
    case kGrpcPermissionDenied:
    case kGrpcUnauthenticated:
      return Code::kPermissionDenied;
    case kGrpcResourceExhausted:
      return message.find("space") != std::string_view::npos ? Code::kNoSpace : Code::kUnreachable;
    case kGrpcOutOfRange:
      return Code::kOutOfRange;
    case kGrpcDeadlineExceeded:
    case kGrpcUnavailable:
      return Code::kTimedOut;
    default:
      return Code::kIo;
  }
}

std::string_view reason_of(httplib::Error error) {
  switch (error) {
    case httplib::Error::Connection:
    case httplib::Error::ConnectionTimeout:
      return "no connection can be made; check that it runs, and its address";
    case httplib::Error::Read:
      return "it does not answer, or closed the connection";
    case httplib::Error::Write:
      return "the request cannot be sent";
    case httplib::Error::SSLConnection:
      return "TLS fails; check its certificate, and ours";
    case httplib::Error::SSLLoadingCerts:
      return "the file of certificate authorities cannot be read";
    case httplib::Error::SSLServerVerification:
      return "its certificate is not of an authority that we trust, or for another name";
    default:
      return "the request failed";
  }
}

Outcome<void> check_options(const EtcdClientOptions& options) {
  if (options.endpoints.empty()) return problem(Code::kInvalidArgument, "name at least one address of etcd");
  if (options.certificate_file.empty() != options.key_file.empty()) {
    return problem(Code::kInvalidArgument, "for etcd, give a certificate and its key, or neither");
  }
  for (const std::string& endpoint : options.endpoints) {
    const size_t scheme = endpoint.starts_with("http://") ? 7 : endpoint.starts_with("https://") ? 8 : 0;
    const size_t port = endpoint.rfind(':');
    const bool has_port = scheme != 0 && port != std::string::npos && port > scheme && port + 1 < endpoint.size() &&
                          endpoint.find_first_not_of("0123456789", port + 1) == std::string::npos;
    if (!has_port) {
      return problem(
          Code::kInvalidArgument,
          fmt::format("{} is no address of etcd: it is written http://HOST:PORT or https://HOST:PORT", endpoint));
    }
  }
  return {};
}

}  // namespace

struct EtcdClient::Endpoint {
  Endpoint(std::string u, const EtcdClientOptions& options)
      : url(std::move(u)), http(url, options.certificate_file, options.key_file) {
    http.set_keep_alive(true);
    http.set_tcp_nodelay(true);
    http.set_connection_timeout(options.connect_max);
    http.set_read_timeout(options.answer_max);
    http.set_write_timeout(options.answer_max);
    if (!options.authority_file.empty()) http.set_ca_cert_path(options.authority_file);
  }
  const std::string url;
  httplib::Client http;
};

struct EtcdClient::Answer {
  std::string body = {};
  std::optional<Problem> failure = {};
  bool was_taken = false;  // it may have been done
  bool can_go_on = false;  // another endpoint may do better
};

EtcdClient::EtcdClient() = default;
EtcdClient::~EtcdClient() = default;

Outcome<std::unique_ptr<EtcdClient>> EtcdClient::make(const EtcdClientOptions& options) {
  FL_TRY_VOID(check_options(options));
  std::unique_ptr<EtcdClient> client(new EtcdClient);
  for (const std::string& url : options.endpoints) {
    client->endpoints_.push_back(std::make_unique<Endpoint>(url, options));
    if (!client->endpoints_.back()->http.is_valid()) {
      return problem(Code::kInvalidArgument,
                     fmt::format("{}: the certificate {} or its key {} cannot be used; check that both can be read and "
                                 "belong together",
                                 url, options.certificate_file, options.key_file));
    }
  }
  return client;
}

EtcdClient::Answer EtcdClient::post_to(Endpoint& endpoint, const char* path, const std::string& body) {
  httplib::Request request;
  request.method = "POST";
  request.path = path;
  request.body = body;
  request.set_header("Content-Type", "application/json");
  // What etcd refuses it ends with trailers, and the library takes an answer with trailers for a broken one: what came
  // before them is the answer.
  Answer answer;
  int status = 0;
  request.response_handler = [&](const httplib::Response& response) {
    status = response.status;
    return true;
  };
  request.content_receiver = [&](const char* data, size_t length, uint64_t, uint64_t) {
    answer.body.append(data, length);
    return true;
  };
  const httplib::Result result = endpoint.http.send(request);
  const Json json = status == 200 ? Json() : Json::parse(answer.body, nullptr, false);
  if (!result && !json.is_object()) {
    const httplib::Error error = result.error();
    answer.was_taken = error == httplib::Error::Read || error == httplib::Error::Write ||
                       error == httplib::Error::Unknown || error == httplib::Error::Canceled;
    answer.can_go_on = true;
    answer.failure = problem(answer.was_taken ? Code::kTimedOut : Code::kUnreachable,
                             fmt::format("etcd at {}: {}", endpoint.url, reason_of(error)))
                         .error();
    return answer;
  }
  if (status == 200) return answer;
  std::string message = text(json, "message");
  if (message.empty()) {
    answer.failure = not_etcd().error();
    return answer;
  }
  const Code code = code_of(number(json, "code"), message);
  answer.failure = problem(code, fmt::format("etcd at {}: {}", endpoint.url, message)).error();
  answer.was_taken = answer.can_go_on = code == Code::kTimedOut;
  return answer;
}

Outcome<std::string> EtcdClient::post(const char* path, const std::string& body, Repeat repeat) {
  std::optional<Problem> failure;
  for (size_t attempt = 0; attempt < endpoints_.size(); ++attempt) {
    Answer answer = post_to(*endpoints_[current_], path, body);
    if (!answer.failure) return std::move(answer.body);
    failure = std::move(answer.failure);
    if (!answer.can_go_on) break;
    current_ = (current_ + 1) % endpoints_.size();
    if (answer.was_taken && repeat == Repeat::kForbidden) break;
  }
  return std::unexpected(std::move(*failure));
}

Outcome<EtcdRangeAnswer> EtcdClient::range(const EtcdRange& range) {
  const Json request = {{"key", to_base64(range.key)},
                        {"range_end", to_base64(range.end)},
                        {"revision", std::to_string(range.revision)},
                        {"limit", std::to_string(range.limit)}};
  FL_TRY(const Json json, parse(post("/v3/kv/range", request.dump(), Repeat::kAllowed)));
  EtcdRangeAnswer answer;
  answer.revision = range.revision != 0 ? range.revision : number(field(json, "header"), "revision");
  answer.has_more = flag(json, "more");
  for (const Json& object : field(json, "kvs")) {
    FL_TRY(EtcdEntry entry, parse_entry(object));
    answer.entries.push_back(std::move(entry));
  }
  if (answer.revision == 0) return not_etcd();
  return answer;
}

Outcome<EtcdTransactionAnswer> EtcdClient::commit(const EtcdTransaction& transaction) {
  Json compares = Json::array();
  Json writes = Json::array();
  Json reads = Json::array();
  for (const EtcdCompare& compare : transaction.compares) compares.push_back(compare_of(compare));
  for (const EtcdWrite& write : transaction.writes) writes.push_back(write_of(write));
  for (const std::string& key : transaction.otherwise) {
    reads.push_back({{"request_range", {{"key", to_base64(key)}, {"keys_only", true}}}});
  }
  const Json request = {{"compare", compares}, {"success", writes}, {"failure", reads}};
  FL_TRY(const Json json, parse(post("/v3/kv/txn", request.dump(), Repeat::kForbidden)));
  EtcdTransactionAnswer answer;
  answer.is_done = flag(json, "succeeded");
  answer.revision = number(field(json, "header"), "revision");
  if (answer.revision == 0) return not_etcd();
  if (answer.is_done) return answer;
  for (const Json& response : field(json, "responses")) {
    const Json& found = field(field(response, "response_range"), "kvs");
    if (!found.is_array() || found.empty()) {
      answer.otherwise.emplace_back();
      continue;
    }
    FL_TRY(EtcdEntry entry, parse_entry(found[0]));
    answer.otherwise.emplace_back(std::move(entry));
  }
  if (answer.otherwise.size() != transaction.otherwise.size()) return not_etcd();
  return answer;
}

// One that nobody hears of runs out by itself.
Outcome<EtcdLease> EtcdClient::grant(uint32_t seconds) {
  const Json request = {{"TTL", std::to_string(seconds)}};
  FL_TRY(const Json json, parse(post("/v3/lease/grant", request.dump(), Repeat::kAllowed)));
  const EtcdLease lease{.id = number(json, "ID"), .seconds = static_cast<uint32_t>(number(json, "TTL"))};
  if (lease.id == 0) return not_etcd();
  return lease;
}

Outcome<uint32_t> EtcdClient::keep_alive(uint64_t lease) {
  const Json request = {{"ID", std::to_string(lease)}};
  FL_TRY(const Json json, parse(post("/v3/lease/keepalive", request.dump(), Repeat::kAllowed)));
  const Json& result = field(json, "result");
  if (number(result, "ID") == lease) return static_cast<uint32_t>(number(result, "TTL"));
  // What went wrong after the stream of answers had begun comes with status 200.
  const Json& error = field(json, "error");
  if (!error.is_object()) return not_etcd();
  const std::string message = text(error, "message");
  return problem(code_of(number(error, "grpc_code"), message), fmt::format("etcd: {}", message));
}

Outcome<void> EtcdClient::revoke(uint64_t lease) {
  const Json request = {{"ID", std::to_string(lease)}};
  const Outcome<Json> json = parse(post("/v3/lease/revoke", request.dump(), Repeat::kAllowed));
  if (!json && json.error().error.code != Code::kNotFound) return std::unexpected(json.error());
  return {};
}

}  // namespace fairlead::control
