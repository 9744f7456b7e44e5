// What the commands for pools print: for people, in lines, and as one JSON object.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "pool/check.h"
#include "pool/pool.h"

namespace fairlead::cli {

// An object with what takes a question to know.
struct ObjectLine {
  pool::ObjectInfo info;
  std::optional<uint64_t> unique_bytes;  // of extents that nobody else sees
  std::string origin;                    // its name; empty: none, or it was deleted
};

struct PoolView {
  std::string name;
  Uuid id;
  std::vector<std::string> disks;
  pool::PoolStatistics statistics;
  std::vector<ObjectLine> objects;
};
std::string to_text(const PoolView& view);
std::string to_json(const PoolView& view);

// A table of the objects of one kind, or of all. As JSON an array.
std::string objects_to_text(const std::vector<ObjectLine>& objects);
std::string objects_to_json(const std::vector<ObjectLine>& objects);
// On one line: what a served pool answers.
struct ServedLine {
  ObjectLine object;
  uint32_t nsid = 0;  // 0: it is not served
};
std::string served_to_json(const std::vector<ServedLine>& objects);
std::string statistics_to_json(const pool::PoolStatistics& statistics);

// What pool list tells of a disk.
struct DiskLine {
  std::string path;
  std::optional<pool::Superblock> superblock;  // none: `trouble` says why
  std::string trouble;
};
std::string to_text(const std::vector<DiskLine>& disks);
std::string to_json(const std::vector<DiskLine>& disks);

// pool check: the findings and a summary.
std::string check_to_text(const pool::CheckReport& report);
std::string check_to_json(const pool::CheckReport& report);
// pool inspect: everything that is there.
std::string inspection_to_text(const pool::CheckReport& report);
std::string inspection_to_json(const pool::CheckReport& report);

// "key=value", with nothing that a terminal would obey: labels are any bytes.
std::string to_text(const pool::Label& label);
// Three figures and a unit: "1.23 GiB".
std::string about(uint64_t bytes);

}  // namespace fairlead::cli
