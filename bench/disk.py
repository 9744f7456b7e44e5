"""What serving a file costs, next to bare io_uring on the same file."""

import os

from harness import Result, benchmark, paired
from loads import Load, run_ours, run_raw
from target import details, iops, serve

RAW = "bare io_uring on the same file"
SIZE = 1 << 30


@benchmark
def file_overhead(bench):
    """IOPS: a file on disk, served and opened by itself; 4 KiB random, 32 in flight, and 128 KiB sequential, 8"""
    path = bench.directory / "disk.img"
    _make(path)
    results = []
    for load in (Load("read"), Load("write"), Load("read", "128k", 8, sequential=True),
                 Load("write", "128k", 8, sequential=True)):
        served, local, raw = paired(
            bench.runs, lambda: _served(bench, path, load), lambda: run_ours(bench, path, load, cpu=bench.target_cpu),
            lambda: run_raw(bench, path, load))
        name = f"file-overhead-{load.pattern}-{load.block}"
        results.append(Result(name, "IOPS", iops(served), iops(raw), RAW, at_least=0.92, details=details(served, raw)))
        results.append(Result(f"{name}-local", "IOPS", iops(local), iops(raw), RAW + "; ours without a network",
                              details=details(local)))
    return results


def _served(bench, path, load):
    with serve(bench, path) as served:
        return run_ours(bench, served.url, load, served.pid)


def _make(path):
    """Written in full: a file system answers for holes and for what was only reserved, and no disk is asked."""
    piece = os.urandom(1 << 20)
    with open(path, "wb") as file:
        for _ in range(SIZE // len(piece)):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
