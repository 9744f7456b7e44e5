"""The kernel's own target (nvmet) in the guest itself, with the face of target.py's.

`run.py --reference` runs the cases against it. A case that fails there has a fault of its own; one that passes there
and fails with Fairlead has found one of Fairlead's.
"""

import itertools
import uuid

from target import MIB, Listener, Unsupported

_CONFIGFS = "/sys/kernel/config/nvmet"
_numbers = itertools.count(1)


class KernelTarget:
    """A subsystem of nvmet, with a file in the guest's memory as each namespace. Its port n has ANA group n."""

    def __init__(self, guest, size_mib=64, listeners=("127.0.0.1",), memory=False, read_only=False, hosts=(), nqn=None,
                 file=None, options=(), in_capsule_bytes=None):
        if read_only or file or options or any(":" in address for address in listeners):
            raise Unsupported("not of the reference target")
        self._guest = guest
        self._number = next(_numbers)
        self.nqn = nqn or f"nqn.2026-01.io.fairlead:reference-{self._number}"
        self._subsystem = f"{_CONFIGFS}/subsystems/{self.nqn}"
        self._ports = [f"{_CONFIGFS}/ports/{self._number * 10 + index}" for index, _ in enumerate(listeners)]
        self.listeners = [Listener(address, 4000 + self._number * 10 + index)
                          for index, address in enumerate(listeners)]
        guest.sh(f"modprobe -a nvmet nvmet_tcp && mkdir {self._subsystem} && "
                 f"echo {int(not hosts)} >{self._subsystem}/attr_allow_any_host")
        for host in hosts:
            guest.sh(f"mkdir -p {_CONFIGFS}/hosts/{host}; ln -s {_CONFIGFS}/hosts/{host} "
                     f"{self._subsystem}/allowed_hosts/")
        self._files = {}
        self.add(1, size_mib)
        in_capsule = "" if in_capsule_bytes is None else f"echo {in_capsule_bytes} >param_inline_data_size && "
        guest.sh(" && ".join(
            f"mkdir {port} && cd {port} && echo tcp >addr_trtype && echo ipv4 >addr_adrfam && {in_capsule}"
            f"echo {listener.address} >addr_traddr && echo {listener.port} >addr_trsvcid && "
            f"ln -s {self._subsystem} subsystems/" for port, listener in zip(self._ports, self.listeners)))

    @property
    def listener(self):
        return self.listeners[0]

    # What is said of hosts, read from the host's side

    def mark(self):
        return 0

    def wait_connected(self, host_nqn, seconds_max=30, since=0):
        return int(self._guest.sh(
            f"for c in /sys/class/nvme/*; do [ $(cat $c/subsysnqn) = {self.nqn} ] && cat $c/queue_count; done | "
            "tail -1")) - 1

    def wait_disconnected(self, host_nqn, seconds_max=30, since=0):
        pass

    # The backing file

    def allocated_bytes(self):
        return int(self._guest.sh(f"stat -c %b {self._files[1]}")) * 512

    def grow(self, size_mib):
        self.resize(1, size_mib)

    def read(self, offset, length):
        raise Unsupported("its file is in the guest")

    def crash(self):
        raise Unsupported("the kernel cannot be killed")

    stop = crash

    # Steering

    def ana(self, listener, state):
        self._guest.sh(f"echo {state} >{self._ports[listener]}/ana_groups/1/ana_state")

    def take(self, listener):
        """Takes the subsystem from a port: its controllers there end, and the port listens no more."""
        self._guest.sh(f"rm {self._ports[listener]}/subsystems/{self.nqn}")

    def give(self, listener):
        self._guest.sh(f"ln -s {self._subsystem} {self._ports[listener]}/subsystems/")

    def refer(self, listener, address, port):
        """Lets the discovery controller of a port refer hosts to another one."""
        self._guest.sh(f"mkdir {self._ports[listener]}/referrals/other && cd {self._ports[listener]}/referrals/other && "
                       f"echo tcp >addr_trtype && echo ipv4 >addr_adrfam && echo {address} >addr_traddr && "
                       f"echo {port} >addr_trsvcid && echo 1 >enable")

    def add(self, nsid, size_mib):
        file = self._files[nsid] = f"/tmp/reference-{self._number}-{nsid}"
        self._guest.sh(f"truncate -s {size_mib * MIB} {file} && mkdir {self._subsystem}/namespaces/{nsid} && "
                       f"cd {self._subsystem}/namespaces/{nsid} && echo -n {file} >device_path && "
                       f"echo {uuid.uuid4()} >device_nguid && "
                       "echo 1 >buffered_io && echo 1 >enable")

    def remove(self, nsid):
        self._guest.sh(f"echo 0 >{self._subsystem}/namespaces/{nsid}/enable && "
                       f"rmdir {self._subsystem}/namespaces/{nsid} && rm {self._files.pop(nsid)}")

    def resize(self, nsid, size_mib):
        self._guest.sh(f"truncate -s {size_mib * MIB} {self._files[nsid]}; "
                       f"echo 1 >{self._subsystem}/namespaces/{nsid}/revalidate_size")

    def close(self):
        commands = [f"rm -f {port}/subsystems/*; rmdir {port}/referrals/*; rmdir {port}" for port in self._ports]
        commands += [f"rm -f {self._subsystem}/allowed_hosts/*", f"rmdir {self._subsystem}/namespaces/*",
                     f"rmdir {self._subsystem}", f"rm -f /tmp/reference-{self._number}-*"]
        self._guest.sh("; ".join(commands))
