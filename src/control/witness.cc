#include "control/witness.h"

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>
#include <tuple>

#include "base/check.h"
#include "control/json.h"
#include "control/resources.h"

namespace fairlead::control {
namespace {

// Terms as they are ordered. Ids are compared as text: lower-case, it is in the order of their bytes.
auto order(const api::Term& term) { return std::tuple<uint64_t, const std::string&>(term.number(), term.writer()); }
auto order(const api::Stamp& stamp) {
  return std::tuple_cat(order(stamp.term()), std::tuple<uint64_t>(stamp.generation()));
}

bool is_id(const std::string& text) {
  const Result<Uuid> id = parse_uuid(text);
  return id && to_string(*id) == text;
}
bool is_term(const api::Term& term) { return term.number() > 0 && (term.writer().empty() || is_id(term.writer())); }

bool is_record(const api::Record& record) {
  constexpr int kMembersMax = 8;
  const auto are_ids = [](const auto& ids) { return ids.size() <= kMembersMax && std::ranges::all_of(ids, is_id); };
  return is_term(record.at().term()) && record.members_size() > 0 && are_ids(record.members()) &&
         are_ids(record.prior()) && (!record.has_last_snapshot() || is_id(record.last_snapshot().id()));
}

}  // namespace

struct WitnessService::Vote {
  uint64_t last_term = 0;  // that was given out, or heard of
  api::WitnessReply vote;

  std::string to_text() const {
    std::string text;
    FL_CHECK(google::protobuf::util::MessageToJsonString(vote, &text).ok());
    return control::to_text(Json{{"last_term", last_term}, {"vote", Json::parse(text)}});
  }
  static Outcome<Vote> parse(const Entry& entry) {
    FL_TRY(const Json json, parse_json(entry.value));
    Vote vote;
    if (json.is_object() && json.contains("last_term") && json["last_term"].is_number_unsigned() &&
        json.contains("vote")) {
      vote.last_term = json["last_term"].get<uint64_t>();
      if (google::protobuf::util::JsonStringToMessage(json["vote"].dump(), &vote.vote).ok()) return vote;
    }
    return problem(Code::kCorrupt, fmt::format("the store's {} is no vote", entry.key));
  }
};

struct WitnessService::Held {
  explicit Held(Reactor& reactor) : mutex(reactor) {}
  Mutex mutex;
  Vote vote;
  uint64_t revision = 0;
  bool is_doubtful = false;  // what the store has is not known
};

Task<Outcome<void>> WitnessService::load(uint32_t epoch) {
  votes_.clear();
  epoch_ = uint64_t{epoch} << 32;
  FL_CO_TRY(const std::vector<Entry> entries, co_await store_.list(key_of(kKind, "")));
  for (const Entry& entry : entries) {
    FL_CO_TRY(Vote vote, Vote::parse(entry));
    const auto held = std::make_shared<Held>(home_.reactor);
    held->vote = std::move(vote);
    held->revision = entry.revision;
    votes_[entry.key.substr(kKind.size() + 1)] = held;
  }
  co_return Outcome<void>();
}

Write WitnessService::first_vote(const Uuid& volume, const api::Record& record) {
  Vote vote;
  vote.last_term = record.at().term().number();
  *vote.vote.mutable_promise() = record.at().term();
  *vote.vote.mutable_record() = record;
  return {.key = key_of(kKind, to_string(volume)), .value = vote.to_text(), .expected = 0};
}

Write WitnessService::abstention(const Uuid& volume) {
  Vote vote;
  vote.vote.set_abstains(true);
  return {.key = key_of(kKind, to_string(volume)), .value = vote.to_text(), .expected = 0};
}

Write WitnessService::removal(const Uuid& volume) {
  return {.key = key_of(kKind, to_string(volume)), .value = std::nullopt, .expected = std::nullopt};
}

// One that was made since this store was read, or changed by a write whose outcome is not known, is read first. Its
// mutex is the caller's to take.
Task<Outcome<WitnessService::Held*>> WitnessService::find(std::string volume) {
  if (!is_id(volume)) co_return problem(Code::kInvalidArgument, fmt::format("'{}' is no id of a volume", volume));
  const auto found = votes_.find(volume);
  if (found != votes_.end() && !found->second->is_doubtful) co_return found->second.get();
  const std::string key = key_of(kKind, volume);
  FL_CO_TRY(const std::vector<Entry> entries, co_await store_.list(key));
  if (entries.empty()) co_return problem(Code::kNotFound, fmt::format("there is no volume {}", volume));
  FL_CO_TRY(Vote vote, Vote::parse(entries.front()));
  std::shared_ptr<Held>& held = votes_[volume];
  if (held == nullptr) held = std::make_shared<Held>(home_.reactor);
  held->vote = std::move(vote);
  held->revision = entries.front().revision;
  held->is_doubtful = false;
  co_return held.get();
}

Task<Outcome<void>> WitnessService::save(Held& held, std::string volume, Vote next) {
  const Outcome<uint64_t> done =
      co_await store_.commit({{.key = key_of(kKind, volume), .value = next.to_text(), .expected = held.revision}});
  if (!done) {
    held.is_doubtful = true;
    co_return std::unexpected(done.error());
  }
  held.revision = *done;
  held.vote = std::move(next);
  co_return Outcome<void>();
}

Task<Outcome<api::NextTermReply>> WitnessService::next_term(api::NextTermRequest request) {
  FL_CO_TRY_VOID(co_await find(request.volume()));
  // shared_ptr: it may be forgotten meanwhile.
  const std::shared_ptr<Held> held = votes_.at(request.volume());
  const Mutex::Guard guard = co_await held->mutex.lock();
  if (held->is_doubtful) co_return problem(Code::kUnreachable, "the store is being read again: try again");
  Vote next = held->vote;
  next.last_term = std::max(next.last_term, epoch_) + 1;
  FL_CO_TRY_VOID(co_await save(*held, request.volume(), std::move(next)));
  api::NextTermReply reply;
  reply.set_number(held->vote.last_term);
  co_return reply;
}

Task<Outcome<api::WitnessReply>> WitnessService::prepare(api::PrepareRequest request) {
  if (!is_term(request.term())) co_return problem(Code::kInvalidArgument, "that is no term");
  FL_CO_TRY_VOID(co_await find(request.volume()));
  const std::shared_ptr<Held> held = votes_.at(request.volume());
  const Mutex::Guard guard = co_await held->mutex.lock();
  if (held->is_doubtful) co_return problem(Code::kUnreachable, "the store is being read again: try again");
  if (order(request.term()) > order(held->vote.vote.promise())) {
    Vote next = held->vote;
    *next.vote.mutable_promise() = request.term();
    next.last_term = std::max(next.last_term, request.term().number());
    FL_CO_TRY_VOID(co_await save(*held, request.volume(), std::move(next)));
  }
  co_return held->vote.vote;
}

Task<Outcome<api::WitnessReply>> WitnessService::keep(api::KeepRequest request) {
  const api::Record& record = request.record();
  if (!is_record(record)) co_return problem(Code::kInvalidArgument, "that is no record");
  FL_CO_TRY_VOID(co_await find(request.volume()));
  const std::shared_ptr<Held> held = votes_.at(request.volume());
  const Mutex::Guard guard = co_await held->mutex.lock();
  if (held->is_doubtful) co_return problem(Code::kUnreachable, "the store is being read again: try again");
  const api::WitnessReply& vote = held->vote.vote;
  const api::Term& term = record.at().term();
  if (order(term) < order(vote.promise())) co_return vote;
  Vote next = held->vote;
  *next.vote.mutable_promise() = term;
  next.last_term = std::max(next.last_term, term.number());
  if (order(record.at()) > order(vote.record().at())) *next.vote.mutable_record() = record;
  if (request.is_in_force() && term.number() > epoch_) next.vote.set_abstains(false);
  if (next.to_text() != held->vote.to_text()) {
    FL_CO_TRY_VOID(co_await save(*held, request.volume(), std::move(next)));
  }
  co_return held->vote.vote;
}

}  // namespace fairlead::control
