#include "engine/control_witness.h"

#include "api/engine/v1/engine.pb.h"
#include "base/log.h"
#include "engine/wire.h"

namespace fairlead::engine {
namespace {

// As a target knows them: not done, or perhaps done.
std::unexpected<Error> no_answer(const Problem& problem) {
  const Code code = problem.error.code;
  if (code == Code::kTimedOut || code == Code::kConnectionLost) {
    return fail(Code::kTimedOut, "the control plane does not answer");
  }
  if (code != Code::kUnreachable) log_warn("witness.refused", {{"error", to_string(problem)}});
  return fail(Code::kUnreachable, "the control plane cannot be asked");
}

Result<mirror::WitnessAnswer> answer_of(const Outcome<v1::WitnessReply>& reply) {
  if (!reply) return no_answer(reply.error());
  mirror::WitnessAnswer answer;
  answer.abstains = reply->abstains();
  const Result<mirror::Term> promise = from_wire(reply->promise());
  const Result<mirror::Record> record = from_wire(reply->record());
  if (!promise || !record) return no_answer({.error = {.code = Code::kProtocol, .what = "its answer makes no sense"}});
  answer.promise = *promise;
  answer.record = *record;
  return answer;
}

}  // namespace

Task<Result<uint64_t>> ControlWitness::next_term(Uuid volume) {
  v1::NextTermRequest request;
  request.set_volume(to_string(volume));
  const auto reply =
      co_await control_.call<v1::NextTermReply>("/fairlead.engine.v1.Control/NextTerm", std::move(request), kLimit);
  if (!reply) co_return no_answer(reply.error());
  co_return reply->number();
}

Task<Result<mirror::WitnessAnswer>> ControlWitness::prepare(Uuid volume, mirror::Term term) {
  v1::PrepareRequest request;
  request.set_volume(to_string(volume));
  *request.mutable_term() = to_wire(term);
  co_return answer_of(
      co_await control_.call<v1::WitnessReply>("/fairlead.engine.v1.Control/Prepare", std::move(request), kLimit));
}

Task<Result<mirror::WitnessAnswer>> ControlWitness::keep(Uuid volume, mirror::Record record, Standing standing) {
  v1::KeepRequest request;
  request.set_volume(to_string(volume));
  *request.mutable_record() = to_wire(record);
  request.set_is_in_force(standing == Standing::kInForce);
  co_return answer_of(
      co_await control_.call<v1::WitnessReply>("/fairlead.engine.v1.Control/Keep", std::move(request), kLimit));
}

}  // namespace fairlead::engine
