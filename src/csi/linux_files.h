// What LinuxMachine asks of the system, one blocking call each: the kernel's NVMe controllers, devices, mounts, and the
// tools of file systems. Any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "csi/machine.h"

namespace fairlead::csi::linux_host {

// ---- NVMe over fabrics, by the kernel's own files. (libnvme asks each namespace that it lists to identify itself, and
// waits as long as a volume is suspended.)

Outcome<void> check();
// Connections as `host_nqn`.
Outcome<Attachment> find(const std::string& nqn, const std::string& host_nqn);
Outcome<void> connect(const ConnectRequest& request);
Outcome<void> disconnect(const std::string& controller);
Outcome<void> set_io_timeout(const std::string& device, uint32_t seconds);
Outcome<void> set_access(const std::string& device, Access access);
Outcome<uint64_t> size_of(const std::string& device);
// What is written to the kernel for a connection. Error kInvalidArgument: the address is none.
Outcome<std::string> connect_line(const ConnectRequest& request);
// "10.0.0.1:4420" of "traddr=10.0.0.1,trsvcid=4420,src_addr=…"; empty: it is no such text.
std::string address_of(std::string_view attribute);

// ---- Devices and file systems

Outcome<DeviceContent> look_into(const std::string& device);
using CommandLine = std::vector<std::string>;
CommandLine format_command(const std::string& device, const std::string& fs_type,
                           const std::vector<std::string>& options);
// Errors: kNotFound (no such program), kIo (what it said).
Outcome<int> run(const CommandLine& command);
Outcome<void> freeze(const std::string& target);
Outcome<void> thaw(const std::string& target);

// ---- Mounts

Outcome<std::vector<Mounted>> mounts();
Outcome<std::optional<Mounted>> mounted_at(const std::string& target);
Outcome<void> mount(const MountRequest& request);
Outcome<void> bind(const std::string& source, const std::string& target, Access access);
Outcome<void> unmount(const std::string& target);
Outcome<void> make_folder(const std::string& path);
Outcome<void> make_file(const std::string& path);
Outcome<void> remove(const std::string& path);
Outcome<Usage> usage(const std::string& path);

}  // namespace fairlead::csi::linux_host
