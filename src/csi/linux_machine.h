// LinuxMachine: the machine that this process runs on. One shard; each call has a thread of its own while it lasts, so
// that none waits for another's.
#pragma once

#include <memory>
#include <string>

#include "async/reactor.h"
#include "csi/machine.h"

namespace fairlead::csi {

// `host_nqn`: whose connections are looked at.
std::unique_ptr<Machine> make_linux_machine(Reactor& home, std::string host_nqn);

}  // namespace fairlead::csi
