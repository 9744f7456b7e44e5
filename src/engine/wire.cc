#include "engine/wire.h"

namespace fairlead::engine {
namespace {

// Empty: none.
Result<Uuid> parse_id(const std::string& text) {
  if (text.empty()) return Uuid{};
  const Result<Uuid> id = parse_uuid(text);
  if (!id) return fail(Code::kProtocol, "an id is no UUID");
  return *id;
}

Result<mirror::MemberSet> parse_members(const google::protobuf::RepeatedPtrField<std::string>& texts) {
  mirror::MemberSet members;
  for (const std::string& text : texts) {
    FL_TRY(const Uuid id, parse_id(text));
    if (id.is_nil() || members.has(id) || members.is_full()) return fail(Code::kProtocol, "members that cannot be");
    members.add(id);
  }
  return members;
}

}  // namespace

v1::Term to_wire(const mirror::Term& term) {
  v1::Term wire;
  wire.set_number(term.number);
  if (!term.writer.is_nil()) wire.set_writer(to_string(term.writer));
  return wire;
}

v1::Stamp to_wire(const mirror::Stamp& stamp) {
  v1::Stamp wire;
  *wire.mutable_term() = to_wire(stamp.term);
  wire.set_generation(stamp.generation);
  return wire;
}

v1::Snapshot to_wire(const mirror::Snapshot& snapshot) {
  v1::Snapshot wire;
  wire.set_id(to_string(snapshot.id));
  *wire.mutable_cut() = to_wire(snapshot.cut);
  wire.set_size_bytes(snapshot.size_bytes);
  return wire;
}

v1::Record to_wire(const mirror::Record& record) {
  v1::Record wire;
  if (record.members.empty()) return wire;
  *wire.mutable_at() = to_wire(record.at);
  for (const mirror::ReplicaId& id : record.members.ids()) wire.add_members(to_string(id));
  for (const mirror::ReplicaId& id : record.prior.ids()) wire.add_prior(to_string(id));
  if (!record.last_snapshot.id.is_nil()) *wire.mutable_last_snapshot() = to_wire(record.last_snapshot);
  return wire;
}

Result<mirror::Term> from_wire(const v1::Term& wire) {
  mirror::Term term{.number = wire.number(), .writer = {}};
  FL_TRY(term.writer, parse_id(wire.writer()));
  return term;
}

Result<mirror::Stamp> from_wire(const v1::Stamp& wire) {
  mirror::Stamp stamp{.term = {}, .generation = wire.generation()};
  FL_TRY(stamp.term, from_wire(wire.term()));
  return stamp;
}

Result<mirror::Snapshot> from_wire(const v1::Snapshot& wire) {
  mirror::Snapshot snapshot{.id = {}, .cut = {}, .size_bytes = wire.size_bytes()};
  FL_TRY(snapshot.id, parse_id(wire.id()));
  FL_TRY(snapshot.cut, from_wire(wire.cut()));
  return snapshot;
}

Result<mirror::Record> from_wire(const v1::Record& wire) {
  mirror::Record record;
  FL_TRY(record.at, from_wire(wire.at()));
  FL_TRY(record.members, parse_members(wire.members()));
  FL_TRY(record.prior, parse_members(wire.prior()));
  FL_TRY(record.last_snapshot, from_wire(wire.last_snapshot()));
  return record;
}

}  // namespace fairlead::engine
