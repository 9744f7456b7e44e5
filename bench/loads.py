"""One run of a load: by `fairlead bench`, by the floor, or by bare io_uring. Each is a process that prints one JSON
object with the same keys, so that two of them can be set against each other.
"""

import dataclasses
import json
import shutil
import subprocess


@dataclasses.dataclass(frozen=True)
class Load:
    op: str  # "read" or "write"
    block: str = "4k"
    depth: int = 32  # in flight, over all connections
    connections: int = 1
    sequential: bool = False
    digests: bool = False
    rate: int = 0  # a second; 0: as many as can be

    @property
    def pattern(self):
        return self.op if self.sequential else f"rand{self.op}"


def run_ours(bench, target, load, pid=None, seconds=None, cpu=None, more=()):
    """`fairlead bench`, one thread, on the initiator's processor if none is named. `target` is what it takes as TARGET;
    `more` are other arguments."""
    return _run([*_ours(bench, target, load, pid, seconds, cpu), *more])


def run_floor(bench, load, memory=0):
    """`memory`: bytes that data comes from and goes to; else it stays in caches."""
    command = [bench.references / "floor", "--op", load.op, "--bs", load.block, "--qd", load.depth,
               "--connections", load.connections, "--seconds", bench.seconds,
               "--cpus", f"{bench.target_cpu},{bench.initiator_cpu}", "--json"]
    return _run(command + (["--rate", load.rate] if load.rate else []) + (["--memory", memory] if memory else []))


def run_raw(bench, path, load, size=None):
    """Bare io_uring on a file, or its first `size`, on the processor that a target would have."""
    limit = ["--size", size] if size else []
    return _run([bench.references / "raw_io", path, "--rw", load.pattern, "--bs", load.block, "--qd", load.depth,
                 "--seconds", bench.seconds, "--cpu", bench.target_cpu, "--json", *limit])


def system_calls_per_operation(bench, target, load, pid):
    """Of process `pid`, in a run of its own, for counting slows it; None where `perf` cannot count them."""
    if not shutil.which("perf"):
        return None
    with subprocess.Popen(_text(_ours(bench, target, load, pid, seconds=2)), stdout=subprocess.PIPE, text=True) as run:
        counted = subprocess.run(
            ["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", str(pid), "sleep", "1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = run.communicate()[0]
    count = counted.stderr.split(",")[0].strip()
    if counted.returncode != 0 or run.returncode != 0 or not count.isdigit():
        return None
    return int(count) / json.loads(said)["iops"]


def _ours(bench, target, load, pid, seconds, cpu=None):
    command = [bench.fairlead, "bench", target, "--rw", load.pattern, "--bs", load.block, "--qd", load.depth,
               "--queues", load.connections, "--shards", 1, "--cpus", bench.initiator_cpu if cpu is None else cpu,
               "--runtime", f"{(seconds or bench.seconds) * 1000:.0f}ms", "--json"]
    if load.op == "write":
        command += ["--overwrite"]
    if load.digests:
        command += ["--hdgst", "--ddgst"]
    if load.rate:
        # It never sleeps either: its own waking up is not what is measured.
        command += ["--rate", load.rate, "--poll", "always"]
    if pid:
        command += ["--target-pid", pid]
    return command


def _text(command):
    return [str(word) for word in command]


def _run(command):
    command = _text(command)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
    measured = json.loads(done.stdout)
    if measured["errors"] or not measured["operations"]:
        raise RuntimeError(f"{' '.join(command)}: {measured['operations']} operations, {measured['errors']} errors")
    return measured
