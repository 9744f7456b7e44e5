"""What a pool costs, next to bare io_uring on the same file; and what its imports and snapshots take."""

import atexit
import json
import os
import subprocess

import harness
from harness import Result, benchmark, paired
from loads import Load, run_raw
from target import details, iops

RAW = "bare io_uring on the same file"
GIB = 1 << 30
FILE = 5 * GIB
EXTENT = "1MiB"
UNITS = {"4k": "4KiB", "16k": "16KiB", "64k": "64KiB"}  # of copy-on-write; the first is the default
REPLICA = "bench"
_files = {}


def the_file(bench):
    """One for all benchmarks of a run, written in full: a file system answers for holes, and no disk is asked."""
    if bench.directory.parent not in _files:
        path = bench.directory.parent / f"pool-{os.getpid()}.img"
        atexit.register(lambda: path.unlink(missing_ok=True))
        piece = os.urandom(1 << 20)
        with open(path, "wb") as file:
            for _ in range(FILE // len(piece)):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        _files[bench.directory.parent] = path
    return _files[bench.directory.parent]


def _tool(bench, command, path, *arguments):
    """A run of pool_tool on the target's processor; what it says."""
    line = [str(word) for word in (bench.references / "pool_tool", command, path, "--cpu", bench.target_cpu, *arguments)]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(line)}: exit code {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def prepare(bench, path, *arguments):
    return _tool(bench, "prepare", path, *arguments)


def _run(bench, path, load):
    """`fairlead bench` on the replica, with the bytes that the process had written to the disk, its import and the
    checkpoint at its end among them."""
    command = [bench.fairlead, "bench", f"pool:{path}/{REPLICA}", "--rw", load.pattern, "--bs", load.block,
               "--qd", load.depth, "--cpus", bench.target_cpu, "--runtime", f"{bench.seconds * 1000:.0f}ms", "--json"]
    command = [str(word) for word in command + (["--overwrite"] if load.op == "write" else [])]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}: {said.strip()}")
    measured = json.loads(said)
    if measured["errors"] or not measured["operations"]:
        raise RuntimeError(f"{' '.join(command)}: {measured['operations']} operations, {measured['errors']} errors")
    return measured | {"written_bytes": usage.ru_oublock * 512}


def _beside_raw(bench, load, size, *, unit=UNITS["4k"], how=()):
    """Pairs of runs; ours begins with a new pool each time, so that the reference may write where it likes."""
    path = the_file(bench)

    def ours():
        _tool(bench, "prepare", path, "--size", size, "--extent", EXTENT, "--unit", unit, *how)
        return _run(bench, path, load)

    return paired(bench.runs, ours, lambda: run_raw(bench, path, load, size))


def _throughput(name, load, size, must, how=()):
    def run(bench):
        ours, raw = _beside_raw(bench, load, size, how=how)
        return [Result(name, "IOPS", iops(ours), iops(raw), RAW, at_least=must, details=_details(ours, raw, load))]

    return run


def _details(ours, raw, load):
    found = details(ours, raw)
    if load.op == "write":
        found["ours"]["written_bytes_per_operation"] = round(_median(_written_each(ours)))
    return found


def _written_each(measured):
    return [run["written_bytes"] / run["operations"] for run in measured]


def _median(values):
    return sorted(values)[len(values) // 2]


def _register():
    mapped = ("--map",)
    snapshotted = ("--map", "--snapshot")
    sequential = Load("write", "128k", 8, sequential=True)
    for name, what, load, size, must, how in (
            ("pool-read", "4 KiB random reads of mapped extents", Load("read"), "4GiB", 0.95, mapped),
            ("pool-overwrite", "4 KiB random writes to mapped extents", Load("write"), "4GiB", 0.95, mapped),
            ("pool-first-write", "4 KiB random writes to a new thin replica", Load("write"), "4GiB", 0.50, ()),
            ("pool-seq-128k", "128 KiB sequential writes to a new thin replica", sequential, "4GiB", 0.90, ())):
        harness.register(name, f"IOPS: {what}, {load.depth} in flight", _throughput(name, load, size, must, how))

    def after_snapshot(bench):
        load = Load("write")
        ours, raw = _beside_raw(bench, load, "2GiB", how=snapshotted)
        return [
            Result("pool-write-after-snapshot", "IOPS", iops(ours), iops(raw), RAW, at_least=0.40,
                   details=_details(ours, raw, load)),
            Result("pool-write-after-snapshot-bytes", "bytes", _written_each(ours), 65536,
                   "the promise: at most 64 KiB written for 4 KiB", at_most=1),
        ]

    harness.register("pool-write-after-snapshot", "IOPS: 4 KiB random writes after a snapshot, 32 in flight",
                     after_snapshot)


_register()


@benchmark
def pool_cow_unit(bench):
    """First writes, writes after a snapshot, what they write and what a map takes, with units of 4, 16 and 64 KiB"""
    load = Load("write")
    results = []
    for unit, unit_bytes in UNITS.items():
        for name, how in (("first-write", ()), ("write-after-snapshot", ("--map", "--snapshot"))):
            ours, raw = _beside_raw(bench, load, "2GiB", unit=unit_bytes, how=how)
            results.append(Result(f"pool-cow-unit-{unit}-{name}", "IOPS", iops(ours), iops(raw), RAW,
                                  details=_details(ours, raw, load)))
            results.append(Result(f"pool-cow-unit-{unit}-{name}-bytes", "bytes", _written_each(ours), 4096,
                                  "4 KiB that were asked for"))
        imports, facts = _imports(bench, unit_bytes, 1)
        results.append(Result(f"pool-cow-unit-{unit}-map", "MiB", [facts["metadata_bytes"] / 2 / (1 << 20)], 16,
                              "16 MiB; on disk, one copy of the map of 1 TiB"))
        results.append(Result(f"pool-cow-unit-{unit}-import", "s", [run["seconds"] for run in imports], 2,
                              "2 s; of 1 TiB mapped"))
    return results


def _imports(bench, unit, runs):
    """Of a pool with a map of 1 TiB in a sparse file, in which there is nothing else."""
    path = bench.directory / "tib.img"
    with open(path, "wb") as file:
        file.truncate(1056 * GIB)
    try:
        facts = _tool(bench, "prepare", path, "--size", "1TiB", "--extent", EXTENT, "--unit", unit, "--map")
        return [_tool(bench, "import", path, "--extent", EXTENT) for _ in range(runs)], facts
    finally:
        path.unlink()


@benchmark
def pool_import(bench):
    """Time and resident memory of the import of a pool with 1 TiB mapped"""
    imports, facts = _imports(bench, UNITS["4k"], bench.runs)
    mib = 1 << 20
    limit = "the promise: at most 16 MiB for a mapped TiB"
    return [
        Result("pool-import", "s", [run["seconds"] for run in imports], 2, "the promise: below 2 s", at_most=1,
               details={"cpu_seconds": _median([run["cpu_seconds"] for run in imports]), "map": facts}),
        Result("pool-import-memory", "MiB", [run["growth_bytes"] / mib for run in imports], 16, limit, at_most=1),
        Result("pool-import-memory-after-reads", "MiB", [run["growth_after_reads_bytes"] / mib for run in imports], 16,
               limit + ", here after a read in each page of the map", at_most=1,
               details={"cache_mib": imports[0]["cache_bytes"] / mib}),
    ]


@benchmark
def pool_snapshot(bench):
    """1,000 snapshots of a busy volume: the longest wait of a write meanwhile; reads at the end of the chain"""
    chained, plain = bench.directory / "chain.img", bench.directory / "plain.img"
    load = Load("read")
    for path in (chained, plain):
        with open(path, "wb") as file:
            file.truncate(1024 * GIB)
    # Few writes in flight: what the disk makes them wait for shall not hide what the snapshot does.
    taken = _tool(bench, "snapshots", chained, "--size", "256MiB", "--qd", 8, "--gap", 2)
    in_memory = _tool(bench, "snapshots", "memory:2TiB", "--size", "64MiB", "--qd", 8, "--gap", 2)
    _tool(bench, "snapshots", plain, "--size", "256MiB", "--count", 0)
    chain, none = paired(bench.runs, lambda: _run(bench, chained, load), lambda: _run(bench, plain, load))
    promise = "the promise: below 5 ms"
    results = []
    for name, measured in (("", taken), ("-memory", in_memory)):
        for part in ("p50", "p99", "max"):
            at = {key: each[part] / 1e6 for key, each in measured.items() if key.endswith("_ns")}
            results += [
                Result(f"pool-snapshot-pause{name}-{part}", "ms", [at["longest_write_ns"]], 5, promise, at_most=1,
                       details=measured),
                Result(f"pool-snapshot-pause{name}-{part}-beside", "ms", [at["longest_write_ns"]],
                       [at["longest_write_without_ns"]], "the longest wait of a write while none is taken"),
            ]
    results.append(Result("pool-snapshot-chain-read", "IOPS", iops(chain), iops(none), "ours without snapshots",
                          at_least=0.8, details=details(chain, none)))
    return results
