// Service: what can be called, by name. One shard.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/check.h"
#include "rpc/channel.h"

namespace fairlead::rpc {

class Service {
 public:
  // `object` is borrowed for life. Requires: there is no such method yet.
  template <typename Object, typename Request, typename Reply>
  void add(std::string method, Object& object, Task<Outcome<Reply>> (Object::*function)(Request)) {
    FL_CHECK(!methods_.contains(method));
    methods_[std::move(method)] = std::make_unique<Bound<Object, Request, Reply>>(object, function);
  }

  // Errors: kNotSupported (no such method), kProtocol (the request cannot be decoded); those of the method.
  Task<Outcome<std::string>> handle(std::string method, std::string request) const;

 private:
  class Method {
   public:
    virtual ~Method() = default;
    virtual Task<Outcome<std::string>> handle(std::string bytes) = 0;
  };
  template <typename Object, typename Request, typename Reply>
  class Bound final : public Method {
   public:
    using Function = Task<Outcome<Reply>> (Object::*)(Request);
    Bound(Object& object, Function function) : object_(object), function_(function) {}
    Task<Outcome<std::string>> handle(std::string bytes) override {
      Request request;
      if (!request.ParseFromString(bytes)) co_return problem(Code::kProtocol, "the request cannot be decoded");
      FL_CO_TRY(const Reply reply, co_await (object_.*function_)(std::move(request)));
      co_return reply.SerializeAsString();
    }

   private:
    Object& object_;
    const Function function_;
  };

  std::map<std::string, std::unique_ptr<Method>> methods_;
};

}  // namespace fairlead::rpc
