"""The targets that the cases run against: `fairlead serve`, the steered target, and the kernel's own as a reference.

All three have the same face, so a case does not know which it has; what one cannot do raises Unsupported.
"""

import dataclasses
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

import guest as guests

MIB = 1 << 20
EXIT_SECONDS_MAX = 30


class TargetError(Exception):
    """A target did not do what was asked, or in time."""


class Refused(TargetError):
    """A steered program answered with an error."""


class Unsupported(Exception):
    """This target cannot do that: the case is skipped."""


@dataclasses.dataclass
class Listener:
    """Where a host reaches a target."""
    address: str
    port: int

    @staticmethod
    def parse(text):
        """From "10.0.2.2:4420" or "[fec0::2]:4420"."""
        address, port = text.rsplit(":", 1)
        return Listener(address.strip("[]"), int(port))

    @property
    def arguments(self):
        return f"-t tcp -a {self.address} -s {self.port}"


class LineProcess:
    """A child process that is spoken to in lines. What it says is kept and written to a log as well."""

    def __init__(self, command, log):
        self._name = pathlib.Path(command[0]).name
        self._log = open(log, "ab", buffering=0)
        self._log.write(f"--- {' '.join(map(str, command))}\n".encode())
        self._process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=self._log,
                                         preexec_fn=guests.die_with_parent)
        self._lines = []
        self._ended = False
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def alive(self):
        return self._process.poll() is None

    def _read(self):
        for line in self._process.stdout:
            self._log.write(line)
            with self._said:
                self._lines.append(line.decode(errors="replace").rstrip())
                self._said.notify_all()
        with self._said:
            self._ended = True
            self._said.notify_all()

    def mark(self):
        """The number of lines said so far: wait_for(..., since=mark) looks only at later ones."""
        with self._said:
            return len(self._lines)

    def lines(self):
        with self._said:
            return list(self._lines)

    def wait_for(self, pattern, seconds_max, since=0):
        """Waits for a line in which the pattern is found and returns the match."""
        deadline = time.monotonic() + seconds_max * guests.PATIENCE
        with self._said:
            while True:
                for line in self._lines[since:]:
                    if found := re.search(pattern, line):
                        return found
                since = len(self._lines)
                left = deadline - time.monotonic()
                if self._ended:
                    raise TargetError(f"{self._name} ended with status {self._process.wait()} and did not say "
                                      f"'{pattern}': {' / '.join(self._lines[-3:])}")
                if left <= 0:
                    raise TargetError(f"{self._name} did not say '{pattern}' in {seconds_max * guests.PATIENCE} s, last: "
                                      f"{' / '.join(self._lines[-3:])}")
                self._said.wait(left)

    def ask(self, line, seconds_max=30):
        """Says a line to a steered program and returns its answer: what follows "ok". "error …" raises Refused."""
        since = self.mark()
        self.say(line)
        answer = self.wait_for("^(ok|error)(?: (.*))?$", seconds_max, since)
        if answer[1] == "error":
            raise Refused(f"{line}: {answer[2]}")
        return answer[2] or ""

    def say(self, line):
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def signal(self, number):
        self._process.send_signal(number)

    def wait(self, seconds_max=EXIT_SECONDS_MAX):
        """Waits for the end and returns the exit status."""
        try:
            status = self._process.wait(seconds_max * guests.PATIENCE)
        except subprocess.TimeoutExpired:
            raise TargetError(f"{self._name} did not end in {seconds_max * guests.PATIENCE} s") from None
        self._reader.join()
        return status

    def kill(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdin.close()
        self._process.stdout.close()
        self._log.close()


class ServeTarget:
    """`fairlead serve` on a file of its own (or on memory), as users run it."""

    def __init__(self, program, directory, size_mib=64, listeners=("127.0.0.1",), memory=False, read_only=False,
                 hosts=(), nqn=None, file=None, options=()):
        self.directory = pathlib.Path(directory)
        self._program = program
        self._log = self.directory / "target.log"
        self.file = file
        if not memory and file is None:
            self.file = self.directory / f"disk-{len(list(self.directory.iterdir()))}"
            self.file.touch()
            os.truncate(self.file, size_mib * MIB)
        self._command = ["--memory", f"{size_mib}MiB"] if memory else [self.file]
        self._command += ["--nqn", nqn] if nqn else []
        self._command += ["--read-only"] if read_only else []
        for host in hosts:
            self._command += ["--host", host]
        self._command += options
        self._bind = [(address, 0) for address in listeners]
        self.listeners = []
        self.start()

    def start(self):
        """Starts it; again on the same ports, if it ran before."""
        command = [self._program, "serve", *self._command]
        for address, port in self._bind:
            reached = f"[{guests.HOST_ADDRESS6}]" if ":" in address else guests.HOST_ADDRESS
            command += ["--listen", f"{f'[{address}]' if ':' in address else address}:{port},advertise={reached}"]
        self.command_line = " ".join(map(str, command))
        self.process = LineProcess(command, self._log)
        self.process.wait_for(r"^ready", 20)
        said = self.process.lines()
        listening = [re.match(r"listening on \S+:(\d+) \(advertised as (\S+)\)", line) for line in said]
        listening = [found for found in listening if found]
        if len(listening) != len(self._bind):
            raise TargetError(f"{len(self._bind)} listeners asked for, said: {said}")
        self._bind = [(address, int(found[1])) for (address, _), found in zip(self._bind, listening)]
        self.listeners = [Listener.parse(found[2]) for found in listening]
        self.nqn = self.process.wait_for(r"^serving .* as (\S+) nsid 1,", 1)[1]
        self.connect_line = self.process.wait_for(r"^(nvme connect .*)", 1)[1]

    @property
    def listener(self):
        return self.listeners[0]

    def mark(self):
        return self.process.mark()

    def wait_connected(self, host_nqn, seconds_max=30, since=0):
        """Waits until a host with all its queues is there and returns the number of its I/O queues."""
        return int(self.process.wait_for(rf"^host {re.escape(host_nqn)} connected \((\d+) I/O queue", seconds_max,
                                         since)[1])

    def wait_disconnected(self, host_nqn, seconds_max=30, since=0):
        self.process.wait_for(rf"^host {re.escape(host_nqn)} disconnected", seconds_max, since)

    def allocated_bytes(self):
        """How much of the disk's file is really there."""
        return os.stat(self.file).st_blocks * 512

    def grow(self, size_mib):
        os.truncate(self.file, size_mib * MIB)

    def read(self, offset, length):
        """What the file holds, past all caches but the machine's."""
        with open(self.file, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def crash(self):
        """kill -9. Returns when its ports can be listened to again: the kernel takes apart a dead ring by and by."""
        self.process.kill()
        deadline = time.monotonic() + EXIT_SECONDS_MAX
        for address in self._bind:
            while not _is_free(address):
                if time.monotonic() > deadline:
                    raise TargetError(f"{address} is still in use")
                time.sleep(0.01)

    def stop(self):
        """Ends it as an administrator would and checks that it drained."""
        self.process.signal(signal.SIGTERM)
        status = self.process.wait()
        if status or self.process.lines()[-1] != "stopped":
            raise TargetError(f"SIGTERM: status {status}, last line '{self.process.lines()[-1]}'")

    def close(self):
        self.process.kill()


def _is_free(address):
    """Whether an address can be listened to."""
    try:
        socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET).close()
    except OSError:
        return False
    return True


class SteeredTarget:
    """The target of steered_target.cc: one subsystem, told at run time to change ANA states and namespaces."""

    def __init__(self, program, directory, size_mib=64, listeners=("127.0.0.1",),
                 nqn="nqn.2026-01.io.fairlead:steered"):
        self.directory = pathlib.Path(directory)
        self.nqn = nqn
        self._files = {}
        self.process = LineProcess([program], self.directory / "target.log")
        self.process.wait_for("^ready", 20)
        self.process.ask(f"subsystem {nqn}")
        self.listeners = []
        for address in listeners:
            _, advertised = self.process.ask(f"listen {address} {guests.HOST_ADDRESS}").split()
            self.listeners.append(Listener.parse(advertised))
        self.add(1, size_mib)

    @property
    def listener(self):
        return self.listeners[0]

    def add(self, nsid, size_mib):
        file = self._files[nsid] = self.directory / f"disk-of-namespace-{nsid}"
        file.touch()
        os.truncate(file, size_mib * MIB)
        self.process.ask(f"add {self.nqn} {nsid} {file}")

    def remove(self, nsid):
        self.process.ask(f"remove {self.nqn} {nsid}")
        self._files.pop(nsid).unlink()

    def resize(self, nsid, size_mib):
        os.truncate(self._files[nsid], size_mib * MIB)
        self.process.ask(f"rescan {self.nqn} {nsid}")

    def ana(self, listener, state):
        """How hosts see all namespaces through that listener."""
        self.process.ask(f"ana {self.nqn} {listener} {state}")

    def close(self):
        self.process.kill()
