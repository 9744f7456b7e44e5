#!/usr/bin/env python3
"""A guest under QEMU's software emulation, and commands run in it.

    with Guest(image.ensure()) as guest:
        print(guest.sh("nvme list"))

Commands travel over a virtio serial port, so they need no network in the guest. The guest reaches the machine's
127.0.0.1 as HOST_ADDRESS. It ends with the process that made it, however that ends.

    python3 tests/vm/guest.py COMMAND...      runs each command in one guest
"""

import base64
import contextlib
import ctypes
import itertools
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import image as images

ADDRESS = "10.0.2.15"
HOST_ADDRESS = "10.0.2.2"
HOST_ADDRESS6 = "fec0::2"
CPUS_MAX = 4
PROGRAMS = "/run/programs"  # of the machine's, in the guest
PATIENCE = 3  # every bound is as many times what a machine needs that does nothing else

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class GuestError(Exception):
    """A command failed, or the guest did not answer in time, or is gone."""


def die_with_parent():
    """For Popen's preexec_fn: the child is killed when the process that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def shortened(output, lines_max=16):
    """The beginning and the end of a long output."""
    lines = output.rstrip().splitlines()
    if len(lines) <= lines_max:
        return "\n".join(lines)
    return "\n".join([*lines[:lines_max // 2], "...", *lines[-lines_max // 2:]])


class Job:
    """A command that runs in the guest."""

    def __init__(self, guest, number, command):
        self.guest = guest
        self.number = number
        self.command = command
        self.status = None
        self.output = ""
        self._ended = threading.Event()

    @property
    def ended(self):
        return self._ended.is_set()

    def wait_ended(self, seconds_max):
        """Waits for the end; whether it came."""
        return self._ended.wait(seconds_max)

    def wait(self, seconds_max, check=True):
        """Waits for the end and returns the output; a status other than 0 is an error unless check is False."""
        if not self._ended.wait(seconds_max * PATIENCE):
            raise GuestError(f"no answer in {seconds_max * PATIENCE} s: {self.command}")
        if self.status is None:
            raise GuestError(f"the guest went down during: {self.command}\n{self.guest.console()[-2000:]}")
        if check and self.status:
            raise GuestError(f"status {self.status}: {self.command}\n{shortened(self.output)}")
        return self.output

    def kill(self):
        """Kills the command and what it started."""
        if not self.ended:
            self.guest.sh(f"kill -9 -- -$(cat /run/commands/{self.number}.pid)", check=False)

    def finish(self, status, output):
        self.status = status
        self.output = output
        self._ended.set()


class Guest:
    """One virtual machine: from the constructor, which starts it, to off() or kill(). Use it in a with statement.

    It begins with one virtual processor, which is the quickest where QEMU has to emulate it; more can be brought up by
    set_cpus().
    """

    def __init__(self, image, name="guest", memory_mib=768, log_directory=None):
        self.name = name
        self.uuid = str(uuid.uuid4())
        self.host_nqn = f"nqn.2014-08.org.nvmexpress:uuid:{self.uuid}"
        self._temporary = tempfile.TemporaryDirectory(prefix="fairlead-vm-")
        self._directory = pathlib.Path(self._temporary.name)  # a short path: those of sockets are limited
        self._programs = self._directory / "programs"
        (self._programs / "lib").mkdir(parents=True)
        self._console = pathlib.Path(log_directory or self._directory) / f"{name}.console"
        self._numbers = itertools.count(1)
        self._jobs = {}
        self._lock = threading.Lock()
        self._image = image
        self._started = time.monotonic()
        self._qemu = self._start_qemu(memory_mib)
        self._commands = self._connect(self._directory / "commands")
        threading.Thread(target=self._read_answers, daemon=True).start()

    def _start_qemu(self, memory_mib):
        kernel_parameters = (
            "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check mitigations=off rcupdate.rcu_expedited=1 "
            f"random.trust_cpu=on maxcpus=1 nvme_core.multipath=Y guest.name={self.name} guest.uuid={self.uuid} "
            f"guest.address={ADDRESS}/24 guest.gateway={HOST_ADDRESS} guest.address6=fec0::15/64")
        command = [
            "qemu-system-x86_64", "-name", self.name, "-nodefaults", "-no-reboot", "-display", "none",
            "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max",
            "-m", str(memory_mib), "-smp", str(CPUS_MAX),
            "-kernel", self._image.kernel, "-initrd", self._image.initrd, "-append", kernel_parameters,
            "-serial", f"file:{self._console}",
            "-qmp", f"unix:{self._directory}/qmp,server=on,wait=off",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=commands,path={self._directory}/commands,server=on,wait=off",
            "-device", "virtserialport,chardev=commands,name=commands",
            "-virtfs", f"local,path={self._image.root},mount_tag=root,security_model=none,readonly=on,multidevs=remap",
            "-virtfs", f"local,path={self._programs},mount_tag=programs,security_model=none,readonly=on,multidevs=remap",
            "-netdev", f"user,id=network,ipv4=on,ipv6=on,ipv6-prefix=fec0::,ipv6-host={HOST_ADDRESS6}",
            "-device", "virtio-net-pci,id=nic,netdev=network,romfile="]
        with open(self._directory / "qemu.out", "w") as out:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                    preexec_fn=die_with_parent)

    def _connect(self, path):
        """Connects to a socket of QEMU's, which may still have to make it."""
        deadline = time.monotonic() + 20
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(path))
                return connection
            except OSError as error:
                connection.close()
                if self._qemu.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    said = (self._directory / "qemu.out").read_text()
                    raise GuestError(f"QEMU does not run: {said.strip() or error}") from error
                time.sleep(0.02)

    def _read_answers(self):
        with contextlib.suppress(OSError), self._commands.makefile("rb") as answers:
            for line in answers:
                number, status, *encoded = line.split()
                job = self._jobs.pop(int(number), None)
                if job:
                    job.finish(int(status), base64.b64decode(b"".join(encoded)).decode(errors="replace"))
        with self._lock:
            jobs, self._jobs = self._jobs, None
        for job in jobs.values():
            job.finish(None, "")

    # Commands

    def start(self, command):
        """Starts a bash command line in the guest and returns its Job."""
        with self._lock:
            if self._jobs is None:
                raise GuestError(f"the guest is down\n{self.console()[-2000:]}")
            job = Job(self, next(self._numbers), command)
            self._jobs[job.number] = job
            encoded = base64.b64encode(command.encode()).decode()
            try:
                self._commands.sendall(f"{job.number} {encoded}\n".encode())
            except OSError as error:
                raise GuestError(f"the guest is down: {error}") from error
        return job

    def sh(self, command, seconds_max=60, check=True):
        """Runs a bash command line in the guest and returns its output, standard error included."""
        return self.start(command).wait(seconds_max, check)

    def status(self, command, seconds_max=60):
        """Runs a bash command line in the guest and returns its status."""
        job = self.start(command)
        job.wait(seconds_max, check=False)
        return job.status

    def ready(self, seconds_max=120):
        """Waits until the guest answers and returns the seconds since its start."""
        self.sh("true", seconds_max)
        return time.monotonic() - self._started

    def set_cpus(self, number):
        """Brings that many virtual processors up and the others down."""
        online = int(self.sh("".join(
            f"grep -q {int(cpu < number)} /sys/devices/system/cpu/cpu{cpu}/online || "
            f"echo {int(cpu < number)} >/sys/devices/system/cpu/cpu{cpu}/online; "
            for cpu in range(1, CPUS_MAX)) + "nproc"))
        if online != number:
            raise GuestError(f"{online} processors are up, not {number}")

    def console(self):
        """What the kernel and the first process wrote."""
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def install(self, program):
        """Brings a program of the machine's into the guest, with its libraries. Returns the words that start it there."""
        program = pathlib.Path(program)
        if not (self._programs / program.name).exists():
            for library in images.copy_elf(program, self._programs / program.name):
                if not (self._programs / "lib" / library.name).exists():
                    shutil.copy(library, self._programs / "lib")
            self.sh(f"""mkdir -p {PROGRAMS}
                        mountpoint -q {PROGRAMS} ||
                          mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro programs {PROGRAMS}""")
        return f"env LD_LIBRARY_PATH={PROGRAMS}/lib {PROGRAMS}/{program.name}"

    def share_loopback(self):
        """From now on 127.0.0.1 is the machine's, not the guest's own: an address that both know by the same name."""
        self.sh(f"""echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet
                    ip addr del 127.0.0.1/8 dev lo && ip route add 127.0.0.1 via {HOST_ADDRESS} src {ADDRESS}""")

    def unshare_loopback(self):
        self.sh("ip route del 127.0.0.1 && ip addr add 127.0.0.1/8 dev lo")

    # The machine

    def qmp(self, command, **arguments):
        """One command of the QEMU Machine Protocol; returns its result."""
        with self._connect(self._directory / "qmp") as connection, connection.makefile("rw") as stream:
            connection.settimeout(20)
            stream.readline()  # the greeting
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                answer = {}
                while "return" not in answer:
                    answer = json.loads(stream.readline())
                    if "error" in answer:
                        raise GuestError(f"{command}: {answer['error']['desc']}")
            return answer["return"]

    def stop(self):
        """Freezes the guest: its processors and its clock stand still."""
        self.qmp("stop")

    def cont(self):
        self.qmp("cont")

    def set_link(self, up):
        """Plugs the guest's network cable in or out."""
        self.qmp("set_link", name="nic", up=up)

    def forward(self, port):
        """Makes a TCP port of the guest reachable from the machine; returns the port of 127.0.0.1 that leads there."""
        self._monitor(f"hostfwd_add network tcp:127.0.0.1:0-:{port}")
        found = re.search(rf"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+{port}\b", self._monitor("info usernet"))
        if not found:
            raise GuestError(f"port {port} is not forwarded")
        return int(found[1])

    def unforward(self, host_port):
        """Takes a forward() back; connections that are there go on."""
        self._monitor(f"hostfwd_remove network tcp:127.0.0.1:{host_port}")

    def _monitor(self, command):
        """One command of QEMU's monitor for people, for what QMP does not have; returns what it says."""
        return self.qmp("human-monitor-command", **{"command-line": command})

    def off(self):
        """Powers the guest off."""
        with contextlib.suppress(GuestError):
            self.start("sync; poweroff -f")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._qemu.wait(10)
        self.kill()

    def kill(self):
        if self._qemu.poll() is None:
            self._qemu.kill()
        self._qemu.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.kill()
        self._commands.close()
        self._temporary.cleanup()


def main():
    with Guest(images.ensure()) as guest:
        print(f"ready after {guest.ready():.1f} s")
        for command in sys.argv[1:]:
            started = time.monotonic()
            job = guest.start(command)
            print(f"$ {command}\n{job.wait(600, check=False).rstrip()}")
            print(f"    status {job.status}, {time.monotonic() - started:.2f} s", flush=True)
        guest.off()


if __name__ == "__main__":
    main()
