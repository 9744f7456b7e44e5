#include "mirror/control.h"

#include <array>
#include <type_traits>
#include <utility>

#include "base/byte_codec.h"

namespace fairlead::mirror {
namespace {

// What begins each message and state: version (2 bytes), what it is (1), the kind of body (1), reserved (4).
constexpr uint16_t kVersion = 1;
enum class What : uint8_t { kRequest = 1, kReply = 2, kState = 3, kSnapshot = 4 };
// More than all fields but the ranges and extents take.
constexpr size_t kFixedBytesMax = 1024;
constexpr size_t kSnapshotBytes = 56;

// The numbers of the codes on the wire: places in this list, from 1 on. Append only.
constexpr std::array kWireCodes = {Code::kInvalidArgument,
                                   Code::kNotFound,
                                   Code::kAlreadyExists,
                                   Code::kPermissionDenied,
                                   Code::kIsDirectory,
                                   Code::kNotSupported,
                                   Code::kBusy,
                                   Code::kReadOnly,
                                   Code::kOutOfRange,
                                   Code::kNoSpace,
                                   Code::kResourceExhausted,
                                   Code::kIo,
                                   Code::kCorrupt,
                                   Code::kProtocol,
                                   Code::kConnectionLost,
                                   Code::kUnreachable,
                                   Code::kTimedOut,
                                   Code::kCancelled,
                                   Code::kShuttingDown,
                                   Code::kMiscompare,
                                   Code::kFenced,
                                   Code::kInternal};
constexpr size_t wire_code(Code code) {
  return static_cast<size_t>(std::ranges::find(kWireCodes, code) - kWireCodes.begin()) + 1;
}
static_assert([] {
  for (int i = 0; i < kCodeCount; ++i) {
    if (wire_code(static_cast<Code>(i)) > kWireCodes.size()) return false;
  }
  return kWireCodes.size() == kCodeCount;
}());

class Encoder {
 public:
  explicit Encoder(size_t room) : bytes_(room), writer_(bytes_) {}

  template <typename T>
  void field(const T& value) {
    writer_.field(value);
  }
  void reserved(size_t size) { writer_.reserved(size); }
  void flag(bool value) {
    field(value ? uint8_t{1} : uint8_t{0});
    reserved(7);
  }
  void members(const MemberSet& set) {
    field(static_cast<uint8_t>(set.size()));
    reserved(7);
    for (const ReplicaId& id : set.ids()) field(id);
  }
  void code(Code value) { field(static_cast<uint8_t>(wire_code(value))); }
  void since(const std::optional<Stamp>& stamp) {
    flag(stamp.has_value());
    field(stamp.value_or(Stamp{}));
  }
  void extents(const std::vector<uint64_t>& list) {
    FL_CHECK(list.size() <= kStampsMax);
    field(static_cast<uint32_t>(list.size()));
    reserved(4);
    for (const uint64_t extent : list) field(extent);
  }
  void snapshots(const std::vector<Snapshot>& list) {
    FL_CHECK(list.size() <= kSnapshotsMax);
    field(static_cast<uint32_t>(list.size()));
    reserved(4);
    for (const Snapshot& snapshot : list) field(snapshot);
  }
  void ranges(const std::vector<ByteSpan>& list, uint64_t next) {
    FL_CHECK(list.size() <= kRangesMax);
    field(static_cast<uint32_t>(list.size()));
    reserved(4);
    uint64_t end = 0;
    for (const ByteSpan& range : list) {
      FL_CHECK(range.begin >= end && range.begin < range.end);
      end = range.end;
      field(range.begin);
      field(range.end);
    }
    FL_CHECK(next == 0 || next >= end);
    field(next);
  }
  std::vector<std::byte> finish() {
    bytes_.resize(bytes_.size() - writer_.room());
    return std::move(bytes_);
  }

 private:
  std::vector<std::byte> bytes_;
  ByteWriter writer_;
};

// As ByteReader, behind an end or a fault all is zero; problem() is the first one.
class Decoder {
 public:
  explicit Decoder(std::span<const std::byte> bytes) : reader_(bytes) {}

  template <typename T>
  void field(T& value) {
    reader_.field(value);
  }
  void reserved(size_t size) { reader_.reserved(size); }
  void flag(bool& value) {
    const auto byte = reader_.take_integer<uint8_t>();
    if (byte > 1) fault("a flag is neither 0 nor 1");
    value = byte == 1;
    reserved(7);
  }
  void members(MemberSet& set) {
    const auto count = reader_.take_integer<uint8_t>();
    reserved(7);
    if (count > kMembersMax) return fault("too many members");
    ReplicaId last;
    for (uint8_t i = 0; i < count && !reader_.is_short(); ++i) {
      ReplicaId id;
      field(id);
      if (i > 0 && id <= last) return fault("the members are not ascending");
      set.add(id);
      last = id;
    }
  }
  void code(Code& value) {
    const auto number = reader_.take_integer<uint8_t>();
    if (number == 0 || number > kWireCodes.size()) return fault("an unknown code");
    value = kWireCodes[number - 1];
  }
  void since(std::optional<Stamp>& stamp) {
    bool has = false;
    flag(has);
    Stamp value;
    field(value);
    if (has) {
      stamp = value;
    } else if (value != Stamp{}) {
      fault("a stamp that is not there");
    }
  }
  void extents(std::vector<uint64_t>& list) {
    const size_t count = list_size(kStampsMax, sizeof(uint64_t));
    list.resize(count);
    for (uint64_t& extent : list) field(extent);
  }
  void snapshots(std::vector<Snapshot>& list) {
    list.resize(list_size(kSnapshotsMax, kSnapshotBytes));
    for (size_t i = 0; i < list.size(); ++i) {
      field(list[i]);
      if (i > 0 && list[i].cut <= list[i - 1].cut) return fault("the snapshots are not ascending");
    }
  }
  void ranges(std::vector<ByteSpan>& list, uint64_t& next) {
    const size_t count = list_size(kRangesMax, 2 * sizeof(uint64_t));
    list.resize(count);
    uint64_t end = 0;
    for (ByteSpan& range : list) {
      field(range.begin);
      field(range.end);
      if (range.begin < end || range.begin >= range.end) return fault("the ranges are not ascending");
      end = range.end;
    }
    field(next);
    if (next != 0 && next < end) fault("it goes on before its end");
  }

  void fault(const char* problem) {
    if (problem_ == nullptr) problem_ = problem;
  }
  // Null: none. After all fields.
  const char* problem() {
    if (reader_.is_short()) fault("too short");
    if (reader_.remaining() > 0) fault("bytes behind the end");
    if (reader_.has_reserved()) fault("a reserved byte is not zero");
    return problem_;
  }

 private:
  // A count that the rest can hold: no more is set aside than came.
  size_t list_size(size_t max, size_t element) {
    const auto count = reader_.take_integer<uint32_t>();
    reserved(4);
    if (count > max) fault("a list is too long");
    if (count <= max && count * element <= reader_.remaining()) return count;
    fault("too short");
    return 0;
  }

  ByteReader reader_;
  const char* problem_ = nullptr;
};

// ---- The fields of each, for both directions. Append a version to change any.

template <typename T, typename Of>
concept Like = std::same_as<std::remove_const_t<T>, Of>;

void fields(auto& io, Like<Record> auto& record) {
  io.field(record.at);
  io.members(record.members);
  io.members(record.prior);
  io.field(record.last_snapshot);
}
void fields(auto& io, Like<Session> auto& session) {
  io.field(session.term);
  io.field(session.number);
  io.field(session.boot_id);
}
void fields(auto& io, Like<ReplicaState> auto& state) {
  io.field(state.promise);
  fields(io, state.record);
  fields(io, state.session);
  io.field(state.note);
  io.flag(state.is_cold);
}

void fields(auto& io, Like<PrepareRequest> auto& body) { io.field(body.term); }
void fields(auto& io, Like<RecordRequest> auto& body) { fields(io, body.record); }
void fields(auto& io, Like<GenerationRequest> auto& body) { io.field(body.generation); }
void fields(auto& io, Like<NoteRequest> auto& body) { io.field(body.note); }
void fields(auto& /*io*/, Like<LevelledRequest> auto& /*body*/) {}
void fields(auto& io, Like<LeaseRequest> auto& body) { io.field(body.lease_ns); }
void fields(auto& io, Like<ChangedRequest> auto& body) {
  io.since(body.since);
  io.field(body.offset);
  io.field(body.base);
  io.field(body.of);
}
void fields(auto& io, Like<StampRequest> auto& body) { io.extents(body.extents); }
void fields(auto& io, Like<SnapshotRequest> auto& body) { io.field(body.snapshot); }
void fields(auto& io, Like<DeleteSnapshotRequest> auto& body) { io.field(body.id); }
void fields(auto& /*io*/, Like<SnapshotsRequest> auto& /*body*/) {}
void fields(auto& io, Like<ShowSnapshotRequest> auto& body) { io.field(body.id); }
void fields(auto& io, Like<GrowRequest> auto& body) { io.field(body.size_bytes); }

void fields(auto& /*io*/, Like<Done> auto& /*body*/) {}
void fields(auto& io, Like<Fenced> auto& body) { io.field(body.promise); }
void fields(auto& io, Like<Prepared> auto& body) {
  fields(io, body.record);
  io.field(body.newest);
  io.field(body.note);
  io.flag(body.is_cold);
  fields(io, body.session);
  io.field(body.size_bytes);
  io.field(body.last_snapshot);
}
void fields(auto& io, Like<Ranges> auto& body) { io.ranges(body.ranges, body.next); }
void fields(auto& io, Like<Failed> auto& body) {
  io.code(body.code);
  io.reserved(7);
}
void fields(auto& io, Like<Snapshots> auto& body) { io.snapshots(body.list); }

void envelope(auto& io, Like<Request> auto& request) {
  io.field(request.volume);
  io.field(request.replica);
  io.field(request.term);
  io.field(request.session);
}

void write_head(Encoder& encoder, What what, size_t kind) {
  encoder.field(kVersion);
  encoder.field(static_cast<uint8_t>(what));
  encoder.field(static_cast<uint8_t>(kind));
  encoder.reserved(4);
}
// The kind.
uint8_t read_head(Decoder& decoder, What what) {
  uint16_t version = 0;
  uint8_t is_what = 0;
  uint8_t kind = 0;
  decoder.field(version);
  decoder.field(is_what);
  decoder.field(kind);
  decoder.reserved(4);
  if (version != kVersion) decoder.fault("an unknown version");
  if (is_what != static_cast<uint8_t>(what)) decoder.fault("something else than was expected");
  return kind;
}

// Kinds are the variant's indices, from 1 on.
template <typename Body>
void write_body(Encoder& encoder, const Body& body) {
  std::visit([&](const auto& alternative) { fields(encoder, alternative); }, body);
}
template <typename Body>
void read_body(Decoder& decoder, uint8_t kind, Body& body) {
  const auto read = [&]<size_t... I>(std::index_sequence<I...>) {
    return ((kind == I + 1 && (fields(decoder, body.template emplace<I>()), true)) || ...);
  };
  if (!read(std::make_index_sequence<std::variant_size_v<Body>>())) decoder.fault("an unknown kind");
}

// What a list in it takes.
size_t list_bytes(const RequestBody& body) {
  const auto* stamp = std::get_if<StampRequest>(&body);
  return stamp == nullptr ? 0 : stamp->extents.size() * sizeof(uint64_t);
}
size_t list_bytes(const Reply& reply) {
  if (const auto* ranges = std::get_if<Ranges>(&reply)) return ranges->ranges.size() * 2 * sizeof(uint64_t);
  if (const auto* snapshots = std::get_if<Snapshots>(&reply)) return snapshots->list.size() * kSnapshotBytes;
  return 0;
}
static_assert(kStampsMax * sizeof(uint64_t) + 256 <= kRequestBytesMax);
static_assert(kRangesMax * 2 * sizeof(uint64_t) + 256 <= kReplyBytesMax);
static_assert(kSnapshotsMax * kSnapshotBytes + 256 <= kReplyBytesMax);

}  // namespace

std::vector<std::byte> encode(const Request& request) {
  Encoder encoder(kFixedBytesMax + list_bytes(request.body));
  write_head(encoder, What::kRequest, request.body.index() + 1);
  envelope(encoder, request);
  write_body(encoder, request.body);
  return encoder.finish();
}

std::vector<std::byte> encode(const Reply& reply) {
  Encoder encoder(kFixedBytesMax + list_bytes(reply));
  write_head(encoder, What::kReply, reply.index() + 1);
  write_body(encoder, reply);
  return encoder.finish();
}

std::vector<std::byte> encode(const ReplicaState& state) {
  Encoder encoder(kFixedBytesMax);
  write_head(encoder, What::kState, 0);
  fields(encoder, state);
  return encoder.finish();
}

std::vector<std::byte> encode(const Snapshot& snapshot) {
  Encoder encoder(kFixedBytesMax);
  write_head(encoder, What::kSnapshot, 0);
  encoder.field(snapshot);
  return encoder.finish();
}

Result<Request> decode_request(std::span<const std::byte> bytes) {
  if (bytes.size() > kRequestBytesMax) return fail(Code::kProtocol, "a request of replication: too long");
  Decoder decoder(bytes);
  Request request;
  const uint8_t kind = read_head(decoder, What::kRequest);
  envelope(decoder, request);
  read_body(decoder, kind, request.body);
  if (const char* problem = decoder.problem()) return fail(Code::kProtocol, problem);
  return request;
}

Result<Reply> decode_reply(std::span<const std::byte> bytes) {
  if (bytes.size() > kReplyBytesMax) return fail(Code::kProtocol, "a reply of replication: too long");
  Decoder decoder(bytes);
  Reply reply;
  read_body(decoder, read_head(decoder, What::kReply), reply);
  if (const char* problem = decoder.problem()) return fail(Code::kProtocol, problem);
  return reply;
}

Result<ReplicaState> decode_replica_state(std::span<const std::byte> bytes) {
  Decoder decoder(bytes);
  ReplicaState state;
  if (read_head(decoder, What::kState) != 0) decoder.fault("an unknown kind");
  fields(decoder, state);
  if (const char* problem = decoder.problem()) return fail(Code::kCorrupt, problem);
  return state;
}

Result<Snapshot> decode_snapshot(std::span<const std::byte> bytes) {
  Decoder decoder(bytes);
  Snapshot snapshot;
  if (read_head(decoder, What::kSnapshot) != 0) decoder.fault("an unknown kind");
  decoder.field(snapshot);
  if (const char* problem = decoder.problem()) return fail(Code::kCorrupt, problem);
  return snapshot;
}

}  // namespace fairlead::mirror
