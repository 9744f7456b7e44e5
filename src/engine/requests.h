// What requests of the control plane are made of, checked: every function's error is a sentence that says what was
// wrong with it, and what it should be.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "api/engine/v1/engine.pb.h"
#include "async/time.h"
#include "base/problem.h"
#include "base/uuid.h"
#include "engine/engine.h"

namespace fairlead::engine {

// `what`: "the volume", for people.
Outcome<Uuid> parse_id(std::string_view what, const std::string& text);
// Of a volume or replica: a multiple of 4 KiB, not 0.
Outcome<void> check_size(std::string_view what, uint64_t size_bytes);
// 0: 30 seconds. Ten minutes at most.
Outcome<Duration> parse_limit(uint64_t limit_ms);
Outcome<void> check_pool_name(const std::string& name);
// Absolute paths, none twice.
Outcome<std::vector<std::string>> parse_paths(const google::protobuf::RepeatedPtrField<std::string>& disks);
Outcome<void> check_file_size(uint64_t size_bytes);
Outcome<std::map<std::string, std::string>> parse_labels(const google::protobuf::Map<std::string, std::string>& labels);

Outcome<NewReplica> parse(const v1::CreateReplicaRequest& request);
Outcome<NewVolume> parse(const v1::OpenVolumeRequest& request);

}  // namespace fairlead::engine
