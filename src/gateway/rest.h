// Rest: the control plane as REST, under /v1. api/openapi.yaml has every route and document; GET /v1 lists the routes.
// One shard, that of the control plane.
//
// Errors are problem+json documents, whose detail says what to do. A process that does not lead answers 503, and names
// the one that does when that is known. Changes are idempotent by name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "control/control.h"
#include "control/store.h"
#include "gateway/http.h"
#include "gateway/watch.h"

namespace fairlead::gateway {

struct RestOptions {
  std::string version;  // of the program, for people
  std::string address;  // of this process, as the store knows it
};

class Rest final : public HttpHandler {
 public:
  // Borrowed for life: the store is that of `control`.
  Rest(Shard& home, control::Control& control, control::Store& store, RestOptions options);

  Task<HttpResponse> handle(HttpRequest request) override;
  // Ends what goes on without an end, so that the server can stop. Idempotent.
  Task<void> close() {
    is_closing_ = true;
    return watches_.close();
  }

  // "GET /v1/volumes/{name}"
  std::vector<std::string> routes() const;

 private:
  struct Call {
    HttpRequest request;
    std::string_view kind;
    std::string name;
  };
  using Answer = Task<Outcome<HttpResponse>>;
  struct Route {
    std::string_view method;
    std::string path;
    std::string_view kind;
    std::vector<std::string_view> parameters;  // of the query
    Answer (Rest::*run)(Call call);
  };

  void define();
  void define_kind(std::string_view kind);
  HttpResponse refuse_address(const HttpRequest& request) const;
  Task<HttpResponse> explain(Problem problem);
  Task<void> await_leader();
  Task<Outcome<std::string>> find_leader();

  Answer live(Call call);
  Answer ready(Call call);
  Answer metrics(Call call);
  Answer index(Call call);
  Answer overview(Call call);
  Answer recover(Call call);
  Answer settings(Call call);
  Answer change_settings(Call call);
  Answer events(Call call);
  Answer watch(Call call);
  Answer list(Call call);
  Answer get(Call call);
  Answer why(Call call);
  Answer create(Call call);
  Answer update(Call call);
  Answer remove(Call call);
  Answer force(Call call);
  Answer frozen(Call call);
  bool is_there(std::string_view kind, const std::string& name) const;

  Shard& home_;
  control::Control& control_;
  control::Store& store_;
  const RestOptions options_;
  Watches watches_;
  std::vector<Route> routes_;
  bool is_closing_ = false;
};

}  // namespace fairlead::gateway
