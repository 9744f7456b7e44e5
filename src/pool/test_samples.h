// One valid value of each structure of the format, for tests and the fuzzer's corpus. They never change: their bytes
// are compared with those of version 1.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "pool/format.h"

namespace fairlead::pool::samples {

inline Uuid uuid(uint8_t number) {
  Uuid uuid;
  for (size_t i = 0; i < uuid.bytes.size(); ++i) uuid.bytes[i] = static_cast<uint8_t>(number + 16 * i);
  return uuid;
}

// Two disks, three segments, a journal area on each disk.
inline Superblock superblock() {
  Superblock superblock;
  superblock.pool_id = uuid(1);
  superblock.name = "fast-0";
  superblock.created_ms = 1'700'000'000'123;
  superblock.extent_bytes = 1 << 20;
  superblock.logical_block = 4096;
  superblock.unit_bytes = 16 * 1024;
  superblock.disks = {{uuid(2), 64 * kMiB}, {uuid(3), 100 * kMiB}};
  superblock.segments = {{Place(1), 40, 0, 4}, {Place(41), 60, 1, 9}, {Place(101), 20, 0, 44}};
  superblock.journal = {JournalArea{0, 1 * kMiB}, JournalArea{1, 2 * kMiB}};
  superblock.journal_bytes = 3 * kMiB;
  superblock.disk_index = 1;
  superblock.generation = 0x1122334455667788;
  superblock.incarnation = 0x8877665544332211;
  superblock.boot_id = uuid(4);
  superblock.is_exported = true;
  superblock.next_sequence = Sequence(77);
  superblock.journal_position = 8192;
  superblock.chain = 0xdeadbeef;
  superblock.directory_bytes = kMiB + 1;
  superblock.directory_crc = 0xcafef00d;
  superblock.directory = {{{Place(7), Place(120)}, {Place(41), Place(8), Place(9)}}};
  return superblock;
}

inline ObjectState replica() {
  ObjectState object;
  object.id = uuid(10);
  object.name = "db.1";
  object.kind = ObjectKind::kReplica;
  object.is_thick = true;
  object.layer = LayerId(3);
  object.size_bytes = 10 * kGiB;
  object.created_ms = 1'700'000'000'456;
  object.origin = uuid(9);
  object.volume_id = uuid(8);
  object.stamp = StampOrdinal(5);
  object.labels = {{"app", "shop"}, {"zone", ""}};
  object.properties = {{1, {std::byte{1}, std::byte{2}, std::byte{3}}}, {7, {}}};
  return object;
}

inline ObjectState snapshot() {
  ObjectState object;
  object.id = uuid(11);
  object.name = "db.1_monday";
  object.kind = ObjectKind::kSnapshot;
  object.layer = LayerId(2);
  object.size_bytes = 10 * kGiB;
  object.created_ms = 1'700'000'000'789;
  object.origin = uuid(10);
  return object;
}

inline std::vector<Record> records() {
  return {
      EntryRecord{LayerId(3), ExtentIndex(1000), {Place(17), StampOrdinal(5), UnitSet::range(8, 200)}},
      LayerRecord{LayerId(4), LayerId(3)},
      LayerRemoval{LayerId(2)},
      ObjectRecord{replica()},
      ObjectRemoval{uuid(11)},
      StampRecord{StampOrdinal(6), uuid(10), {12, uuid(20), 34}},
      RestampRecord{LayerId(3), ExtentIndex(256), 256, StampOrdinal(6)},
  };
}

// Of a batch that holds records(), but for records and payload_bytes.
inline BatchHeader batch_header() {
  BatchHeader header;
  header.incarnation = 0x8877665544332211;
  header.sequence = Sequence(77);
  header.chain = 0xdeadbeef;
  header.durable = Sequence(75);
  return header;
}

inline std::vector<std::byte> batch() {
  std::vector<std::byte> payload;
  BatchHeader header = batch_header();
  for (const Record& record : records()) {
    append_record(payload, record);
    ++header.records;
  }
  header.payload_bytes = static_cast<uint32_t>(payload.size());
  std::vector<std::byte> batch(batch_bytes(payload.size()));
  std::ranges::copy(payload, batch.begin() + kBatchHeaderBytes);
  (void)seal_batch(batch, header);
  return batch;
}

inline Directory directory() {
  Directory directory;
  directory.pool_id = uuid(1);
  directory.sequence = Sequence(76);
  directory.next_layer = 9;
  directory.next_stamp = 6;
  directory.page_extents = {{{Place(10), Place(60)}}, {}, {{Place(61), Place(11)}}};
  directory.stamps = {{StampOrdinal(2), uuid(10), {11, uuid(20), 33}}, {StampOrdinal(5), uuid(10), {12, uuid(20), 34}}};
  directory.layers = {{LayerId(2), LayerId(0), {{0, 1, 0x11111111, 256}, {39, 0, 0x22222222, 1}}},
                      {LayerId(3), LayerId(7), {}},
                      {LayerId(7), LayerId(2), {{3, 513, 0x33333333, 0}}}};
  directory.objects = {replica(), snapshot()};
  return directory;
}

}  // namespace fairlead::pool::samples
