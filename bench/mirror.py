"""What mirroring a volume costs, how long it is away when its target dies, and how quickly a replica is brought back.

Engines are processes, steered by commands; what the host does is `fairlead bench`.
"""

import contextlib
import json
import pathlib
import re
import signal
import sys
import time

from harness import Result, benchmark, paired
from loads import Load, run_floor, run_ours, run_raw
from pool import EXTENT, REPLICA, prepare, the_file
from target import details, iops, p50_us

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "engine"))
from engines import VOLUME, Cluster, Engine, run_tool  # noqa: E402

RAW = "bare io_uring on the same file"
LIMITS = "latency=80us,iops=400k"  # an NVMe disk
MIB = 1 << 20
TAKEOVERS = 50
SNAPSHOTS = 10
TOUCHES = 40_000  # ten for each MiB of 4 GiB
AWAY_SECONDS = 60
JOINED_MIB = 1024
CHANGED_MIB = 64
QUICK_NOTES = ("--shards", 1, "--checkpoint-interval", "1s")


# ---- One replica, here: what the target of a volume costs

@benchmark
def mirror1_overhead(bench):
    """IOPS: a volume of one local replica, served; 4 KiB random, 32 in flight, and 128 KiB sequential, 8"""
    path, size = the_file(bench), "4GiB"
    results = []
    for load in (Load("read"), Load("write"), Load("read", "128k", 8, sequential=True),
                 Load("write", "128k", 8, sequential=True)):
        ours, raw = paired(bench.runs, lambda: _one_replica(bench, path, size, load),
                           lambda: run_raw(bench, path, load, size))
        results.append(Result(f"mirror1-overhead-{load.pattern}-{load.block}", "IOPS", iops(ours), iops(raw), RAW,
                              at_least=0.91, details=details(ours, raw)))
    return results


def _one_replica(bench, path, size, load):
    """The pool is new, and mapped, as for the benchmarks of pools; its replica becomes a volume by a person's word."""
    prepare(bench, path, "--size", size, "--extent", EXTENT, "--map")
    run_tool(bench.fairlead, "offline", "replica", "set", REPLICA, "--volume-id", VOLUME, "--pool", path)
    engine = Engine(bench.fairlead, bench.directory, 0, disk=path, options=("--shards", 1), cpu=bench.target_cpu)
    with contextlib.closing(engine):
        engine.start()
        engine.replica = json.loads(engine.ask("replica list"))[0]["replica"]
        nqn = engine.ask(f"volume open {VOLUME} {size} {engine.replica}@local")
        engine.ask(f"volume serve {VOLUME}")
        engine.ask(f"volume force {VOLUME} {engine.replica}")
        while json.loads(engine.ask(f"volume status {VOLUME}"))["state"] != "serving":
            time.sleep(0.01)
        url = f"nvme+tcp://{engine.address}/{nqn}?ns=1"
        if load.op == "write":
            _touch(bench, url)
        measured = run_ours(bench, url, load, engine.pid)
        engine.quit()
    return measured


def _touch(bench, url):
    """Random writes to all but a few extents: the first one after a take-over waits until the extent's stamp is on stable
    storage."""
    operations = 0
    while operations < TOUCHES:
        operations += run_ours(bench, url, Load("write"))["operations"]


# ---- Three replicas

def _cluster(bench, engines, **more):
    return Cluster(bench.fairlead, bench.directory, engines=engines, **more)


def _on_memory(bench, load, *, engines, size="256MiB", options=(), cpus=(None,) * 8):
    """One run against a volume whose pools are in memory, which was written before."""
    with _cluster(bench, engines, size=size, disk="memory:512MiB", options=("--shards", 1, *options), cpus=cpus) as made:
        target = made.engines[0]
        made.serve_on(target)
        made.await_members(target, engines)
        _write_all(bench, made.url(target), 256)
        return run_ours(bench, made.url(target), load, target.pid)


def _write_all(bench, url, mib):
    """Extents that were written before cost no metadata."""
    load, seconds = Load("write", "1m", 4, sequential=True), 2
    while run_ours(bench, url, load, seconds=seconds)["operations"] < mib:
        seconds *= 2


@benchmark
def mirror_latency(bench):
    """Latency: 4 KiB writes one at a time to three replicas on three engines, whose disks take 80 us"""
    load, limits = Load("write", depth=1), ("--limit", LIMITS)
    ours, alone = paired(bench.runs, lambda: _on_memory(bench, load, engines=3, options=limits),
                         lambda: run_ours(bench, "memory:256MiB", load, more=limits))
    more = [mine - its for mine, its in zip(p50_us(ours), p50_us(alone), strict=True)]
    return [Result("mirror-latency", "us p50 more", more, 60, "the promise: at most 60 us more than such a disk alone",
                   at_most=1, details=details(ours, alone))]


@benchmark
def mirror3_write(bench):
    """IOPS: 4 KiB random writes to three replicas in memory on three engines, next to one of them"""
    load, cpus = Load("write"), (bench.target_cpu,) * 3
    three, one = paired(bench.runs, lambda: _on_memory(bench, load, engines=3, cpus=cpus),
                        lambda: _on_memory(bench, load, engines=1, cpus=cpus))
    return [Result("mirror3-write", "IOPS", iops(three), [each / 3 for each in iops(one)],
                   "one replica by the same path, divided by 3 for the work; all engines share a processor", at_least=0.8,
                   details=details(three, one))]


@benchmark
def mirror_snapshot(bench):
    """Time: how long hosts are held, and wait, 32 writes in flight, while snapshots of three replicas are taken"""
    # Memory that is kept: a pool gives back what deleted snapshots had, and the kernel would clear it anew when extents
    # are written to for the first time after the next one.
    with _cluster(bench, 3, size="64MiB", disk="resident-memory:1GiB", options=("--shards", 1)) as made:
        target = made.engines[0]
        made.serve_on(target)
        made.await_members(target, 3)
        _write_all(bench, made.url(target), 64)
        during, before = [], []
        for _ in range(bench.runs):
            before.append(_longest_waits(made))
            during.append(_longest_waits(made, lambda: _take_snapshots(made, target)))
            _delete_snapshots(made, target, SNAPSHOTS)
        log = (bench.directory / f"engine{target.number}.log").read_text()
        held = [int(found) / 1000 for found in re.findall(r"mirror\.snapshot .*held_us=(\d+)", log)]
    promise = f"the promise: below 20 ms, with {SNAPSHOTS} taken in 2 s"

    def result(name, unit, which):
        without = [waits[which] for waits in before]
        return Result(name, unit, [waits[which] for waits in during], 20,
                      f"{promise}; {min(without):.1f} to {max(without):.1f} ms without any", at_most=1)

    return [Result("mirror-snapshot-held", "ms", held, 20, promise, at_most=1),
            result("mirror-snapshot-silence", "ms max", 0), result("mirror-snapshot-wait", "ms max", 1)]


def _longest_waits(made, meanwhile=lambda: None):
    """Of a load of 3 s: the longest time in which no write was answered, and the longest wait of a write, in ms."""
    load = made.load("--rw", "randwrite", "--bs", "4k", "--qd", 32, "--runtime", "3s")
    time.sleep(0.5)
    meanwhile()
    said, complained = load.communicate(timeout=60)
    result = json.loads(said)
    if load.returncode != 0 or result["errors"]:
        raise RuntimeError(f"the load failed: {said}{complained}")
    return result["longest_silence_ns"] / 1e6, result["write"]["latency_ns"]["max"] / 1e6


def _snapshot(number):
    return f"00000000-0000-4000-8000-{number + 1:012x}"


def _take_snapshots(made, target):
    for number in range(SNAPSHOTS):
        target.ask(f"volume snapshot {made.volume} {_snapshot(number)}")
        time.sleep(2 / SNAPSHOTS)


def _delete_snapshots(made, target, count):
    for number in range(count):
        target.ask(f"volume delete-snapshot {made.volume} {_snapshot(number)}")
    time.sleep(1)  # their room comes back in the background


# ---- When one is lost

@benchmark
def takeover(bench):
    """Time: from the SIGKILL of a volume's target under load until its host's I/O goes on at the standby"""
    pauses = []
    with _cluster(bench, 3, size="64MiB", options=QUICK_NOTES) as made:
        target, standby, other = made.engines
        made.serve_on(target)
        made.await_members(target, 3)
        for _ in range(TAKEOVERS):
            pauses.append(_pause(made, target, standby))
            made.restart(target)
            made.await_members(standby, 3)
            target, standby, other = standby, other, target
    promise = "the promise: below"
    return [Result("takeover", "ms", pauses, 600, f"{promise} 600 ms at p50", at_most=1),
            Result("takeover-max", "ms", [max(pauses)], 1200, f"{promise} 1.2 s", at_most=1)]


def _pause(made, target, standby):
    """What a host waits longest for: I/O that was under way when the target died, or came after."""
    load = made.load("--rw", "randrw", "--mix", 50, "--bs", "4k", "--qd", 8, "--runtime", "2500ms")
    time.sleep(1)  # of the load's 2.5 s
    target.kill()
    made.serve_on(standby)
    said, complained = load.communicate(timeout=60)
    result = json.loads(said)
    if load.returncode != 0 or result["errors"]:
        raise RuntimeError(f"the load failed: {said}{complained}")
    return max(result[side]["latency_ns"]["max"] for side in ("read", "write")) / 1e6


@benchmark
def resync_changed(bench):
    """Bytes: copied to a replica that was away during 60 s of random writes to a part of the volume"""
    results = []
    for size in ("256MiB", "4GiB"):
        with _cluster(bench, 3, size=size, disk="memory:5GiB", options=QUICK_NOTES) as made:
            target, _, away = made.engines
            made.serve_on(target)
            made.await_members(target, 3)
            _write_all(bench, made.url(target), 256)
            target.ask(f"volume stand-by {made.volume}")
            made.serve_on(target)
            made.await_members(target, 3)
            away.signal(signal.SIGSTOP)  # it is away; its memory stays
            load = Load("write", rate=1000)
            run_ours(bench, made.url(target), load, seconds=AWAY_SECONDS, more=("--size", f"{CHANGED_MIB}MiB"))
            made.await_members(target, 2)
            away.signal(signal.SIGCONT)
            made.await_members(target, 3, seconds_max=120)
            copied = made.replica_status(target, away)["copied_bytes"] / MIB
        results.append(Result(f"resync-changed-{size}", "MiB", [copied], CHANGED_MIB, "the extents that were changed",
                              at_most=1.5, details={"volume": size}))
    return results


@benchmark
def resync_speed(bench):
    """Rate: bytes a second to a new replica in memory; and what hosts wait meanwhile"""
    block = 128 * 1024
    rates, bare = paired(
        bench.runs, lambda: _bring_in(bench),
        lambda: run_floor(bench, Load("write", "128k", 4), memory=JOINED_MIB * MIB)["iops"] * block)
    under_load = [_bring_in_under(bench, Load("write", depth=4, rate=1000)) for _ in range(bench.runs)]
    during, before = map(list, zip(*under_load, strict=True))
    return [Result("resync-speed", "B/s", rates, bare, "the same bytes from memory to memory over one bare socket",
                   at_least=0.7),
            Result("resync-foreground", "us p99", during, before, "the same load after a take-over without a copy",
                   at_most=2)]


@contextlib.contextmanager
def _full_volume_of_two(bench):
    """And an engine with a new replica of it, whose memory the kernel has given out already."""
    with _cluster(bench, 3, size=f"{JOINED_MIB}MiB", disk=f"resident-memory:{JOINED_MIB + 256}MiB",
                  options=("--shards", 1), members=2) as made:
        target = made.engines[0]
        made.serve_on(target)
        made.await_members(target, 2)
        _write_all(bench, made.url(target), JOINED_MIB)
        yield made


def _take_over(made, among):
    target = made.engines[0]
    target.ask(f"volume close {made.volume}")
    made.show_on(target, among)
    made.serve_on(target)
    while made.status(target)["state"] != "serving":
        time.sleep(0.001)


def _bring_in(bench):
    """Bytes a second at which the third replica joins."""
    with _full_volume_of_two(bench) as made:
        _take_over(made, made.engines)
        rate = 0
        while len((status := made.status(made.engines[0])).get("members", ())) < 3:
            rate = max(rate, *(each["copy_bytes_per_second"] for each in status["replicas"]))
            time.sleep(0.01)
        return rate


def _bring_in_under(bench, load):
    """The p99 of a load while the third replica joins, and that of one after the same take-over before, in us."""
    with _full_volume_of_two(bench) as made:
        before = _p99_after(made, load, made.engines[:2])
        during = _p99_after(made, load, made.engines)
        if len(made.status(made.engines[0])["members"]) == 3:
            raise RuntimeError("the copy ended before the load did")
        return during, before


def _p99_after(made, load, among):
    _take_over(made, among)
    # Shorter than the copy.
    host = made.load("--rw", load.pattern, "--bs", load.block, "--qd", load.depth, "--rate", load.rate, "--poll", "always",
                     "--runtime", "1500ms")
    said, complained = host.communicate(timeout=60)
    result = json.loads(said)
    if host.returncode != 0 or result["errors"]:
        raise RuntimeError(f"the load failed: {said}{complained}")
    return result["write"]["latency_ns"]["p99"] / 1000
