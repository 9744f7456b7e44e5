"""Fairlead as the host: the steered host (steered_host.cc), and what it is let loose on.

The two far targets have the same face, so a case does not know which it has: the kernel's own target in the guest,
reached by forwarded ports, and Fairlead's on the machine itself, reached by relays that can be cut.
"""

import contextlib
import json
import re
import signal
import time

import guest as guests
import reference
import relay
import target as targets

KEEP_ALIVE_MS = 5000  # more than usual: a guest is slow
NIC_ADDRESS = "10.0.2.15"  # of the guest, where forwarded ports lead


class KernelFar:
    """nvmet in the guest."""

    kind = "kernel"

    def __init__(self, guest, directory, program, paths=2, **options):
        self._guest = guest
        self._forwarded = []
        self.target = reference.KernelTarget(guest, listeners=(NIC_ADDRESS,) * paths, **options)
        self.nqn = self.target.nqn
        self._forwarded = [guest.forward(listener.port) for listener in self.target.listeners]
        self.addresses = [f"127.0.0.1:{port}" for port in self._forwarded]

    def take(self, path):
        """Makes one path fail, until give()."""
        self.target.take(path)

    def give(self, path):
        self.target.give(path)

    @contextlib.contextmanager
    def frozen(self):
        """Meanwhile it answers nothing, and its connections stay."""
        self._guest.stop()
        try:
            yield
        finally:
            self._guest.cont()

    def close(self):
        for port in self._forwarded:
            self._guest.unforward(port)
        self.target.close()


class FairleadFar:
    """The steered target, with a relay before each of its listeners."""

    kind = "fairlead"

    def __init__(self, guest, directory, program, paths=2, **options):
        self.target = targets.SteeredTarget(program, directory, listeners=("127.0.0.1",) * paths, **options)
        self.nqn = self.target.nqn
        self._relays = [relay.Relay(listener.port) for listener in self.target.listeners]
        self.addresses = [f"127.0.0.1:{each.port}" for each in self._relays]

    def take(self, path):
        self._relays[path].cut()

    def give(self, path):
        self._relays[path].restore()

    @contextlib.contextmanager
    def frozen(self):
        self.target.process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.target.process.signal(signal.SIGCONT)

    def close(self):
        for each in self._relays:
            each.close()
        self.target.close()


FARS = {far.kind: far for far in (KernelFar, FairleadFar)}


class SteeredHost:
    """A process that holds one subsystem over some paths, and perhaps one namespace of it."""

    def __init__(self, program, log):
        self.process = targets.LineProcess([program], log)
        self.process.wait_for("^ready", 20)
        self.ask = self.process.ask

    def connect(self, nqn, addresses, **options):
        """Options as steered_host.cc has them, with _ for -."""
        options = {"keep_alive_ms": KEEP_ALIVE_MS, **options}
        words = [f"{key.replace('_', '-')}={value}" for key, value in options.items()]
        self.ask(" ".join(["connect", nqn, ",".join(addresses), *words]), 60)

    def refusal(self, line, seconds_max=30):
        """What it says to a line that it must refuse."""
        try:
            answer = self.ask(line, seconds_max)
        except targets.Refused as refused:
            return str(refused)
        raise targets.TargetError(f"'{line}' was not refused: ok {answer}")

    def paths(self):
        return json.loads(self.ask("status"))["paths"]

    def device(self):
        return json.loads(self.ask("status"))["device"]

    def wait(self, what, condition, seconds_max=30):
        """Waits until the condition holds for the list of paths, as last said, and returns that."""
        deadline = time.monotonic() + seconds_max * guests.PATIENCE
        while True:
            mark = self.process.mark()
            said = [line for line in self.process.lines()[:mark] if line.startswith("state ")]
            paths = json.loads(said[-1].removeprefix("state ")) if said else []
            if condition(paths):
                return paths
            left = deadline - time.monotonic()
            try:
                self.process.wait_for("^state ", max(left, 0), mark)
            except targets.TargetError as error:
                raise targets.TargetError(f"not {what} in {seconds_max} s: {said[-1:] or error}") from None

    def wait_live(self, count, seconds_max=30):
        return self.wait(f"{count} live paths", lambda paths: len(live(paths)) == count, seconds_max)

    def wait_ana(self, *states):
        """Waits until namespace 1 has these states, by path."""
        return self.wait(f"namespace 1 {' and '.join(states)}", lambda paths: len(paths) == len(states) and all(
            path["namespaces"].get("1", {}).get("state") == state for path, state in zip(paths, states)))

    def disconnect(self):
        self.ask("close")
        self.ask("disconnect")

    def close(self):
        self.process.kill()


def live(paths):
    return [path for path in paths if path["state"] == "live"]


def port_of(address):
    return int(re.search(r":(\d+)$", address)[1])
