// The words of the replication protocol, as api/engine/v1 says them, and back. Any thread.
#pragma once

#include "api/engine/v1/engine.pb.h"
#include "base/error.h"
#include "mirror/types.h"

namespace fairlead::engine {

v1::Term to_wire(const mirror::Term& term);
v1::Stamp to_wire(const mirror::Stamp& stamp);
v1::Snapshot to_wire(const mirror::Snapshot& snapshot);
// One without members is left empty, and a snapshot without an id away.
v1::Record to_wire(const mirror::Record& record);

// Errors: kProtocol (no UUIDs, too many members, one twice).
Result<mirror::Term> from_wire(const v1::Term& term);
Result<mirror::Stamp> from_wire(const v1::Stamp& stamp);
Result<mirror::Snapshot> from_wire(const v1::Snapshot& snapshot);
Result<mirror::Record> from_wire(const v1::Record& record);

}  // namespace fairlead::engine
