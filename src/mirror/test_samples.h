// One valid value of each message and of a replica's state, for tests and the fuzzer's corpus. They never change: their
// bytes are compared with those of version 1.
#pragma once

#include <vector>

#include "mirror/control.h"

namespace fairlead::mirror::samples {

inline Uuid uuid(uint8_t number) {
  Uuid uuid;
  for (size_t i = 0; i < uuid.bytes.size(); ++i) uuid.bytes[i] = static_cast<uint8_t>(number + 16 * i);
  return uuid;
}
inline Term term() { return {.number = 0x0102030405060708, .writer = uuid(1)}; }
inline Stamp stamp() { return {.term = term(), .generation = 0x1112131415161718}; }
inline Snapshot snapshot() { return {.id = uuid(8), .cut = stamp(), .size_bytes = 1 << 29}; }
inline Record record() {
  return {
      .at = stamp(), .members = {uuid(3), uuid(4)}, .prior = {uuid(3), uuid(4), uuid(5)}, .last_snapshot = snapshot()};
}
inline Session session() { return {.term = term(), .number = 9, .boot_id = uuid(6)}; }
inline ReplicaState state() {
  return {.promise = term(), .record = record(), .session = session(), .note = stamp(), .is_cold = true};
}

// One of each kind, in their order.
inline std::vector<RequestBody> bodies() {
  return {PrepareRequest{term()},
          RecordRequest{record()},
          GenerationRequest{7},
          NoteRequest{stamp()},
          LevelledRequest{},
          LeaseRequest{500'000'000},
          ChangedRequest{.since = stamp(), .offset = 3 << 20, .base = uuid(8), .of = uuid(9)},
          StampRequest{.extents = {1, 2, 40}},
          SnapshotRequest{snapshot()},
          DeleteSnapshotRequest{uuid(8)},
          SnapshotsRequest{},
          ShowSnapshotRequest{uuid(8)},
          GrowRequest{1 << 30}};
}
inline Request request(RequestBody body) {
  return {.volume = uuid(7), .replica = uuid(3), .term = term(), .session = 9, .body = std::move(body)};
}
inline std::vector<Reply> replies() {
  return {Done{},
          Fenced{term()},
          Prepared{.record = record(),
                   .newest = stamp(),
                   .note = stamp(),
                   .is_cold = true,
                   .session = session(),
                   .size_bytes = 1 << 30,
                   .last_snapshot = snapshot()},
          Ranges{.ranges = {{0, 4096}, {1 << 20, 3 << 20}}, .next = 5 << 20},
          Failed{Code::kNoSpace},
          Snapshots{{snapshot()}}};
}

}  // namespace fairlead::mirror::samples
