"""What a target costs while nobody uses it."""

import time

from harness import Result, benchmark
from host import IdleHost
from served import Served


@benchmark
def idle(bench):
    """Processor, memory and wake-ups of `fairlead serve` with a connected, idle host (two I/O queues, keep-alive 5 s)."""
    cpu, memory, wakes = [], [], []
    for _ in range(bench.runs):
        backing = bench.directory / "idle.img"
        with Served(bench.fairlead, str(backing), "--size", "1GiB") as served:
            with IdleHost(served.address, served.nqn):
                time.sleep(0.5)  # what connecting costs is not idleness
                cpu_before, wakes_before, start = served.cpu_seconds(), served.wakeups(), time.monotonic()
                time.sleep(bench.seconds)
                elapsed = time.monotonic() - start
                cpu.append((served.cpu_seconds() - cpu_before) / elapsed * 100)
                wakes.append((served.wakeups() - wakes_before) / elapsed)
                memory.append(served.resident_mib())
        backing.unlink()
    return [
        Result("idle-cpu", "% of a core", cpu, 1, "the promise: below 1 % of a core"),
        Result("idle-resident", "MiB", memory, 64, "the promise: below 64 MiB"),
        Result("idle-wakeups", "/s", wakes, 1.4, "what there is to do: a look at the file's size a second, a keep-alive every 2.5 s"),
    ]
