#include "csi/rest_cluster.h"

#include <fmt/format.h>

#include "control/rest_client.h"
#include "io/worker.h"

namespace fairlead::csi {
namespace {

using control::percent_encoded;
using control::RestMethod;
using control::RestRequest;

class RestCluster final : public ClusterApi {
 public:
  RestCluster(Reactor& home, control::ServerOptions options) : client_(std::move(options)), worker_(home, "csi-rest") {}

  Task<Outcome<Json>> get(std::string kind, std::string name) override {
    co_return co_await ask({.method = RestMethod::kGet, .path = path_of(kind, name)});
  }
  Task<Outcome<Json>> list(std::string kind, Query query) override {
    std::string path = fmt::format("/v1/{}", kind);
    char separator = '?';
    const auto add = [&](const char* name, const std::string& value) {
      if (value.empty()) return;
      path += fmt::format("{}{}={}", separator, name, percent_encoded(value));
      separator = '&';
    };
    add("volume", query.volume);
    add("continue", query.after);
    if (query.limit != 0) add("limit", fmt::format("{}", query.limit));
    co_return co_await ask({.method = RestMethod::kGet, .path = std::move(path)});
  }
  Task<Outcome<Json>> create(std::string kind, Json document) override {
    co_return co_await ask(
        {.method = RestMethod::kPost, .path = fmt::format("/v1/{}", kind), .body = std::move(document)});
  }
  Task<Outcome<Json>> update(std::string kind, std::string name, Json patch, uint64_t revision) override {
    co_return co_await ask({.method = RestMethod::kPatch,
                            .path = path_of(kind, name),
                            .body = std::move(patch),
                            .revision = revision == 0 ? std::nullopt : std::optional(revision)});
  }
  Task<Outcome<void>> remove(std::string kind, std::string name) override {
    FL_CO_TRY_VOID(co_await ask({.method = RestMethod::kDelete, .path = path_of(kind, name)}));
    co_return Outcome<void>();
  }
  Task<Outcome<void>> answer_freeze(std::string volume, std::string request, control::FreezeAnswer answer) override {
    FL_CO_TRY_VOID(co_await ask({.method = RestMethod::kPost,
                                 .path = path_of("volumes", volume) + "/frozen",
                                 .body = {{"request", request}, {"state", control::name_of(answer)}}}));
    co_return Outcome<void>();
  }

 private:
  static std::string path_of(const std::string& kind, const std::string& name) {
    return fmt::format("/v1/{}/{}", kind, percent_encoded(name));
  }
  Task<Outcome<Json>> ask(RestRequest request) {
    Outcome<Json> answer = co_await worker_.run([this, &request] { return client_.call(request); });
    // Not the caller's fault, whatever the code says to whoever wrote the options.
    if (!answer && answer.error().error.code == Code::kProtocol) answer.error().error.code = Code::kUnreachable;
    co_return answer;
  }

  control::RestClient client_;  // used on the worker's thread
  Worker worker_;
};

}  // namespace

std::unique_ptr<ClusterApi> make_rest_cluster(Reactor& home, control::ServerOptions options) {
  return std::make_unique<RestCluster>(home, std::move(options));
}

}  // namespace fairlead::csi
