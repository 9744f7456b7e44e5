#include "mirror/control.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <random>

#include "base/xoshiro.h"
#include "mirror/test_samples.h"

namespace fairlead::mirror {
namespace {

using Bytes = std::vector<std::byte>;

// Of the encoding: where things are.
constexpr size_t kHead = 8;
constexpr size_t kTerm = 24;
constexpr size_t kStamp = 32;
constexpr size_t kRequestBody = kHead + 16 + 16 + kTerm + 8;
constexpr size_t kSet = 8;  // a member set without its members

std::string hex(const Bytes& bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", static_cast<uint8_t>(byte));
  return text;
}

// Draws values; members, lists and flags of all sizes.
class Draw {
 public:
  explicit Draw(uint64_t seed) : random_(seed) {}
  uint64_t below(uint64_t bound) { return random_.next() % bound; }
  uint64_t number() { return random_.next() >> below(64); }
  bool flag() { return below(2) == 0; }
  Uuid uuid() {
    const uint64_t high = random_.next();
    return uuid_from_random(high, random_.next());
  }
  Term term() { return {.number = number(), .writer = uuid()}; }
  Stamp stamp() { return {.term = term(), .generation = number()}; }
  MemberSet members() {
    MemberSet set;
    for (uint64_t left = below(kMembersMax + 1); left > 0; --left) set.add(uuid());
    return set;
  }
  Record record() {
    const Stamp at = stamp();
    const MemberSet members_now = members();
    const MemberSet prior = members();
    return {.at = at, .members = members_now, .prior = prior, .last_snapshot = snapshot()};
  }
  Snapshot snapshot() {
    const Uuid id = uuid();
    const Stamp cut = stamp();
    return {.id = id, .cut = cut, .size_bytes = number()};
  }
  Session session() { return {.term = term(), .number = number(), .boot_id = uuid()}; }
  ReplicaState state() {
    return {.promise = term(), .record = record(), .session = session(), .note = stamp(), .is_cold = flag()};
  }
  RequestBody body() {
    switch (below(13)) {
      case 0:
        return PrepareRequest{term()};
      case 1:
        return RecordRequest{record()};
      case 2:
        return GenerationRequest{number()};
      case 3:
        return NoteRequest{stamp()};
      case 4:
        return LevelledRequest{};
      case 5:
        return LeaseRequest{number()};
      case 6:
        return ChangedRequest{
            .since = flag() ? std::optional(stamp()) : std::nullopt, .offset = number(), .base = uuid(), .of = uuid()};
      case 7:
        return SnapshotRequest{snapshot()};
      case 8:
        return DeleteSnapshotRequest{uuid()};
      case 9:
        return SnapshotsRequest{};
      case 10:
        return ShowSnapshotRequest{uuid()};
      case 11:
        return GrowRequest{number()};
      default: {
        StampRequest stamps;
        for (uint64_t left = below(kStampsMax + 1); left > 0; --left) stamps.extents.push_back(number());
        return stamps;
      }
    }
  }
  Request request() {
    return {.volume = uuid(), .replica = uuid(), .term = term(), .session = number(), .body = body()};
  }
  Reply reply() {
    switch (below(6)) {
      case 0:
        return Done{};
      case 1:
        return Fenced{term()};
      case 2:
        return Prepared{.record = record(),
                        .newest = stamp(),
                        .note = stamp(),
                        .is_cold = flag(),
                        .session = session(),
                        .size_bytes = number(),
                        .last_snapshot = snapshot()};
      case 3: {
        Ranges ranges;
        uint64_t at = 0;
        for (uint64_t left = below(kRangesMax + 1); left > 0; --left) {
          const uint64_t begin = at + below(1 << 20);
          at = begin + 1 + below(1 << 20);
          ranges.ranges.push_back({begin, at});
        }
        ranges.next = flag() ? 0 : at + below(1 << 20);
        return ranges;
      }
      case 4: {
        Snapshots snapshots;
        for (uint64_t left = below(kSnapshotsMax + 1); left > 0; --left) snapshots.list.push_back(snapshot());
        std::ranges::sort(snapshots.list, {}, &Snapshot::cut);
        return snapshots;
      }
      default:
        return Failed{static_cast<Code>(below(static_cast<uint64_t>(kCodeCount)))};
    }
  }

 private:
  Xoshiro random_;
};

// Whatever has the same bytes is equal: each field is in them once.
TEST(ControlTest, WhatIsEncodedDecodesToTheSame) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  Draw draw(seed);
  for (int i = 0; i < 500; ++i) {
    const Bytes request = encode(draw.request());
    EXPECT_LE(request.size(), kRequestBytesMax);
    const auto request_again = decode_request(request);
    ASSERT_TRUE(request_again.has_value()) << request_again.error().what;
    ASSERT_EQ(encode(*request_again), request);

    const Bytes reply = encode(draw.reply());
    EXPECT_LE(reply.size(), kReplyBytesMax);
    const auto reply_again = decode_reply(reply);
    ASSERT_TRUE(reply_again.has_value()) << reply_again.error().what;
    ASSERT_EQ(encode(*reply_again), reply);

    const ReplicaState state = draw.state();
    const auto state_again = decode_replica_state(encode(state));
    ASSERT_TRUE(state_again.has_value()) << state_again.error().what;
    ASSERT_EQ(*state_again, state);

    const Snapshot snapshot = draw.snapshot();
    ASSERT_EQ(decode_snapshot(encode(snapshot)), snapshot);
  }
}

TEST(ControlTest, FieldsComeBackInTheirPlaces) {
  using namespace samples;
  const auto request_again = decode_request(encode(request(bodies()[6]))).value();
  EXPECT_EQ(request_again.volume, uuid(7));
  EXPECT_EQ(request_again.replica, uuid(3));
  EXPECT_EQ(request_again.term, term());
  EXPECT_EQ(request_again.session, 9U);
  EXPECT_EQ(std::get<ChangedRequest>(request_again.body).since, stamp());
  EXPECT_EQ(std::get<ChangedRequest>(request_again.body).offset, 3U << 20);
  EXPECT_EQ(std::get<StampRequest>(decode_request(encode(request(bodies()[7])))->body).extents,
            (std::vector<uint64_t>{1, 2, 40}));
  EXPECT_EQ(std::get<RecordRequest>(decode_request(encode(request(bodies()[1])))->body).record, record());

  const Reply reply_again = decode_reply(encode(replies()[2])).value();
  const auto& prepared = std::get<Prepared>(reply_again);
  EXPECT_EQ(prepared.record, record());
  EXPECT_EQ(prepared.newest, stamp());
  EXPECT_EQ(prepared.note, stamp());
  EXPECT_TRUE(prepared.is_cold);
  EXPECT_EQ(prepared.session, session());
  EXPECT_EQ(prepared.size_bytes, 1U << 30);
  EXPECT_EQ(prepared.last_snapshot, snapshot());
  EXPECT_EQ(std::get<ChangedRequest>(request_again.body).base, uuid(8));
  EXPECT_EQ(std::get<ChangedRequest>(request_again.body).of, uuid(9));
  EXPECT_EQ(std::get<SnapshotRequest>(decode_request(encode(request(bodies()[8])))->body).snapshot, snapshot());
  const Reply snapshots_again = decode_reply(encode(replies()[5])).value();
  EXPECT_EQ(std::get<Snapshots>(snapshots_again).list, std::vector<Snapshot>{snapshot()});
  const Reply ranges_again = decode_reply(encode(replies()[3])).value();
  EXPECT_EQ(std::get<Ranges>(ranges_again).ranges, (std::vector<ByteSpan>{{0, 4096}, {1 << 20, 3 << 20}}));
  EXPECT_EQ(std::get<Ranges>(ranges_again).next, 5U << 20);
  for (int code = 0; code < kCodeCount; ++code) {
    const Reply failed = decode_reply(encode(Failed{static_cast<Code>(code)})).value();
    EXPECT_EQ(std::get<Failed>(failed).code, static_cast<Code>(code));
  }
}

TEST(ControlTest, EachLimitCanBeReached) {
  StampRequest stamps;
  stamps.extents.assign(kStampsMax, ~uint64_t{0});
  const Bytes request = encode(samples::request(stamps));
  EXPECT_LE(request.size(), kRequestBytesMax);
  EXPECT_TRUE(decode_request(request).has_value());
  Ranges ranges;
  for (uint64_t i = 0; i < kRangesMax; ++i) ranges.ranges.push_back({2 * i, 2 * i + 1});
  const Bytes reply = encode(Reply(ranges));
  EXPECT_LE(reply.size(), kReplyBytesMax);
  EXPECT_TRUE(decode_reply(reply).has_value());
  Snapshots snapshots;
  for (uint64_t i = 0; i < kSnapshotsMax; ++i) {
    snapshots.list.push_back({.id = samples::uuid(1), .cut = {.term = {}, .generation = i}, .size_bytes = 1});
  }
  EXPECT_LE(encode(Reply(snapshots)).size(), kReplyBytesMax);
  EXPECT_TRUE(decode_reply(encode(Reply(snapshots))).has_value());
  std::swap(snapshots.list[3], snapshots.list[4]);
  EXPECT_EQ(decode_reply(encode(Reply(snapshots))).error().code, Code::kProtocol) << "not ascending";
  ranges.ranges = {{0, 1}, {1, 2}};  // they may touch
  EXPECT_TRUE(decode_reply(encode(Reply(ranges))).has_value());
}

TEST(ControlTest, TheStateOnTheDiskIsThatOfVersionOne) {
  const std::string term =
      "0807060504030201"
      "0111213141516171"
      "8191a1b1c1d1e1f1";
  const std::string stamp = term + "1817161514131211";
  const auto id = [](int number) {
    std::string text;
    for (int i = 0; i < 16; ++i) text += fmt::format("{:02x}", number + 16 * i);
    return text;
  };
  const std::string expected =
      "0100"
      "03"
      "00"
      "00000000" +
      term + stamp + "0200000000000000" + id(3) + id(4) + "0300000000000000" + id(3) + id(4) + id(5) + id(8) + stamp +
      "0000002000000000" + term + "0900000000000000" + id(6) + stamp + "0100000000000000";
  EXPECT_EQ(hex(encode(samples::state())), expected);
}

// ---- What is refused.

struct Violation {
  const char* name;
  Bytes bytes;
};
// A copy with one byte changed.
Bytes with(Bytes bytes, size_t at, uint8_t value) {
  EXPECT_LT(at, bytes.size());
  EXPECT_NE(bytes[at], std::byte{value}) << "nothing would change at " << at;
  bytes[at] = std::byte{value};
  return bytes;
}
Bytes cut(Bytes bytes, size_t by) {
  bytes.resize(bytes.size() - by);
  return bytes;
}
Bytes longer(Bytes bytes, size_t by) {
  bytes.resize(bytes.size() + by);
  return bytes;
}

template <typename Decode>
void expect_refused(Decode decode, Code code, const std::vector<Violation>& table) {
  for (const Violation& violation : table) {
    const auto decoded = decode(violation.bytes);
    EXPECT_FALSE(decoded.has_value()) << violation.name;
    if (decoded) continue;
    EXPECT_EQ(decoded.error().code, code) << violation.name;
    EXPECT_STRNE(decoded.error().what, "") << violation.name;
  }
}

TEST(ControlTest, RequestsThatAreNotAreRefused) {
  using namespace samples;
  const Bytes prepare = encode(request(PrepareRequest{term()}));
  const Bytes kept = encode(request(RecordRequest{record()}));
  const Bytes changed = encode(request(ChangedRequest{}));
  const Bytes stamps = encode(request(StampRequest{.extents = {1, 2}}));
  const size_t members = kRequestBody + kStamp;
  Bytes twice = kept;
  std::copy_n(twice.begin() + members + kSet, 16, twice.begin() + members + kSet + 16);
  expect_refused(decode_request, Code::kProtocol,
                 {{"nothing", {}},
                  {"another version", with(prepare, 0, 2)},
                  {"a reply", with(prepare, 2, 2)},
                  {"no kind", with(prepare, 3, 0)},
                  {"an unknown kind", with(prepare, 3, 9)},
                  {"a reserved byte of the head", with(prepare, 7, 1)},
                  {"the body of another kind", with(prepare, 3, 2)},
                  {"a byte too short", cut(prepare, 1)},
                  {"a byte too long", longer(prepare, 1)},
                  {"longer than any", longer(prepare, kRequestBytesMax)},
                  {"a member more than there is", with(kept, members, 3)},
                  {"too many members", with(kept, members, kMembersMax + 1)},
                  {"a reserved byte of the members", with(kept, members + 7, 1)},
                  {"members that descend", with(kept, members + kSet, 5)},
                  {"a member twice", twice},
                  {"a flag of two", with(changed, kRequestBody, 2)},
                  {"a reserved byte of a flag", with(changed, kRequestBody + 1, 1)},
                  {"a stamp that is not there", with(changed, kRequestBody + 8, 1)},
                  {"an extent more than there is", with(stamps, kRequestBody, 3)},
                  {"an extent fewer than there are", with(stamps, kRequestBody, 1)},
                  {"too many extents", with(longer(stamps, 512), kRequestBody + 1, 2)},
                  {"very many extents", with(stamps, kRequestBody + 3, 0xff)},
                  {"a reserved byte of the extents", with(stamps, kRequestBody + 4, 1)}});
}

TEST(ControlTest, RepliesThatAreNotAreRefused) {
  const Bytes failed = encode(Reply(Failed{Code::kIo}));
  const Bytes ranges = encode(Reply(Ranges{.ranges = {{16, 32}, {48, 64}}, .next = 64}));
  const Bytes prepared = encode(samples::replies()[2]);
  const size_t first = kHead + 8;
  expect_refused(decode_reply, Code::kProtocol,
                 {{"nothing", {}},
                  {"another version", with(failed, 1, 1)},
                  {"a request", with(failed, 2, 1)},
                  {"no kind", with(failed, 3, 0)},
                  {"an unknown kind", with(failed, 3, 6)},
                  {"a reserved byte of the head", with(failed, 4, 1)},
                  {"no code", with(failed, kHead, 0)},
                  {"an unknown code", with(failed, kHead, kCodeCount + 1)},
                  {"a reserved byte behind the code", with(failed, kHead + 1, 1)},
                  {"a byte too short", cut(prepared, 1)},
                  {"a byte too long", longer(prepared, 1)},
                  {"longer than any", longer(prepared, kReplyBytesMax)},
                  {"a range that is empty", with(ranges, first, 32)},
                  {"a range that ends before it begins", with(ranges, first + 8, 8)},
                  {"ranges over each other", with(ranges, first + 16, 31)},
                  {"a range more than there is", with(ranges, kHead, 3)},
                  {"too many ranges", with(longer(ranges, 61440), kHead + 1, 16)},
                  {"very many ranges", with(ranges, kHead + 3, 0xff)},
                  {"a reserved byte of the ranges", with(ranges, kHead + 7, 1)},
                  {"it goes on before its end", with(ranges, first + 32, 63)}});
}

TEST(ControlTest, StatesThatAreNotAreCorrupt) {
  const Bytes state = encode(samples::state());
  expect_refused(decode_replica_state, Code::kCorrupt,
                 {{"nothing", {}},
                  {"another version", with(state, 0, 0)},
                  {"a request", with(state, 2, 1)},
                  {"a kind", with(state, 3, 1)},
                  {"a reserved byte", with(state, 5, 1)},
                  {"too many members", with(state, kHead + kTerm + kStamp, kMembersMax + 1)},
                  {"members that descend", with(state, kHead + kTerm + kStamp + kSet, 9)},
                  {"a flag of two", with(state, state.size() - 8, 2)},
                  {"a reserved byte of the flag", with(state, state.size() - 1, 1)},
                  {"a byte too short", cut(state, 1)},
                  {"a byte too long", longer(state, 1)}});
}

TEST(ControlTest, EveryBeginningIsRefused) {
  for (const RequestBody& body : samples::bodies()) {
    const Bytes bytes = encode(samples::request(body));
    for (size_t by = 1; by <= bytes.size(); ++by) EXPECT_FALSE(decode_request(cut(bytes, by)).has_value()) << by;
  }
  for (const Reply& reply : samples::replies()) {
    const Bytes bytes = encode(reply);
    for (size_t by = 1; by <= bytes.size(); ++by) EXPECT_FALSE(decode_reply(cut(bytes, by)).has_value()) << by;
  }
}

}  // namespace
}  // namespace fairlead::mirror
