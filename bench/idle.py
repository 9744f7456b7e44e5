"""What a target costs while nobody uses it, how long it takes to wake, and how much memory connections take."""

import concurrent.futures
import contextlib
import time

from harness import Result, benchmark, paired
from host import IdleHost
from loads import Load, run_floor, run_ours
from served import Served
from target import FLOOR, NULL, details, one_run, p50_us, serve

HOSTS = 20
IO_QUEUES = 9  # of each, beside its admin queue
USED_CONNECTIONS = 100


@benchmark
def idle(bench):
    """Processor and wake-ups with a connected, idle host (two I/O queues, keep-alive 5 s); the first I/O after idleness"""
    cpu, wakes = [], []
    for _ in range(bench.runs):
        backing = bench.directory / "idle.img"
        with Served(bench.fairlead, str(backing), "--size", "1GiB") as served:
            with IdleHost(served.address, served.nqn):
                time.sleep(0.5)  # what connecting costs is not idleness
                cpu_before, wakes_before, start = served.cpu_seconds(), served.wakeups(), time.monotonic()
                time.sleep(max(bench.seconds, 5))
                elapsed = time.monotonic() - start
                cpu.append((served.cpu_seconds() - cpu_before) / elapsed * 100)
                wakes.append((served.wakeups() - wakes_before) / elapsed)
        backing.unlink()
    return [
        Result("idle-cpu", "% of a core", cpu, 1, "the promise: below 1 % of a core", at_most=1),
        Result("idle-wakeups", "/s", wakes, 1.4,
               "what there is to do: a look at the file's size a second, a keep-alive every 2.5 s"),
        *_first_io(bench),
    ]


def _first_io(bench):
    """100 reads a second leave 10 ms between them, of which a target polls 50 us and sleeps the rest."""
    rare, busy = Load("read", depth=1, rate=100), Load("read", depth=1)
    first, next_one, floor_first, floor_next = paired(
        bench.runs, lambda: one_run(bench, NULL, rare), lambda: one_run(bench, NULL, busy),
        lambda: run_floor(bench, rare), lambda: run_floor(bench, busy))
    wake = [after - before for after, before in zip(p50_us(first), p50_us(next_one))]
    floor_wake = [after - before for after, before in zip(p50_us(floor_first), p50_us(floor_next))]
    return [
        Result("idle-wake", "us p50", wake, 50, "the promise: below 50 us", at_most=1, details=details(first, next_one)),
        Result("idle-wake-floor", "us p50", wake, floor_wake, FLOOR + ", asleep in poll()"),
    ]


@benchmark
def memory(bench):
    """Resident memory: idle, for each connection, idle and used, and after a load"""
    resident, idle_each, used_each, after = [], [], [], []
    for _ in range(bench.runs):
        with serve(bench, *NULL) as served:
            with IdleHost(served.address, served.nqn):
                time.sleep(0.2)
                resident.append(served.resident_mib())
                with contextlib.ExitStack() as connected:
                    for _ in range(HOSTS):
                        connected.enter_context(IdleHost(served.address, served.nqn, io_queues=IO_QUEUES))
                    idle_each.append((served.resident_mib() - resident[-1]) / (HOSTS * (IO_QUEUES + 1)))
        few, many = _resident_under_load(bench, 1), _resident_under_load(bench, 1 + USED_CONNECTIONS)
        used_each.append((many - few) / USED_CONNECTIONS)
        with serve(bench, *NULL) as served:
            run_ours(bench, served.url, Load("write", "128k", 128, connections=4), seconds=1)
            after.append(served.resident_mib())
    promised = "the promise: below 1 MiB more for each connection"
    return [
        Result("memory-idle", "MiB", resident, 64, "the promise: below 64 MiB", at_most=1),
        Result("memory-connection-idle", "MiB", idle_each, 1, promised, at_most=1),
        Result("memory-connection-used", "MiB", used_each, 1, promised + ", here with 8 writes of 4 KiB in flight",
               at_most=1),
        Result("memory-after-load", "MiB", after, 64, "the promise for idleness, after 128 KiB writes, 128 in flight"),
    ]


def _resident_under_load(bench, connections):
    """What the target has resident in the middle of a load on so many connections."""
    load = Load("write", depth=8 * connections, connections=connections)
    with serve(bench, *NULL) as served, concurrent.futures.ThreadPoolExecutor(1) as executor:
        run = executor.submit(run_ours, bench, served.url, load, seconds=2)
        time.sleep(1)
        resident = served.resident_mib()
        run.result()
        return resident
