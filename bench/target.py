"""What the target takes for itself, next to the floor: the same bytes over bare sockets."""

import statistics

import harness
from harness import Result, benchmark, paired
from loads import Load, run_floor, run_ours, system_calls_per_operation
from served import Served

FLOOR = "the floor: the same bytes over bare sockets"
MEMORY = 1 << 30


def serve(bench, *arguments):
    """A target with one shard, on its own processor."""
    return Served(bench.fairlead, *arguments, "--shards", "1", cpu=bench.target_cpu)


def one_run(bench, namespace, load):
    """One run against a target that was started for it: no two runs share the layout of its memory."""
    with serve(bench, *namespace) as served:
        if "--memory" in namespace:
            fill(bench, served.url)
        return run_ours(bench, served.url, load, served.pid)


def fill(bench, url):
    """Writes all of a namespace in memory: what was never written is read from one page of zeroes, which is quicker."""
    for seconds in (1, 2, 4, 8):
        written = run_ours(bench, url, Load("write", "128k", 16, sequential=True), seconds=seconds)
        if written["operations"] * 128 * 1024 >= MEMORY:
            return
    raise RuntimeError("filling the namespace takes too long")


def details(ours, references=None):
    """What explains a figure: latencies and processor time, medians."""
    def of(measured):
        median = {key: statistics.median(run["latency_ns"][key] for run in measured) / 1000 for key in ("p50", "p99")}
        values = {f"{key}_us": round(value, 2) for key, value in median.items()}
        for key in ("cpu_seconds_per_million", "target_cpu_seconds_per_million"):
            taken = [run[key] for run in measured if run.get(key) is not None]
            if taken:
                values[key] = round(statistics.median(taken), 4)
        return values

    return {"ours": of(ours)} | ({"reference": of(references)} if references else {})


def iops(measured):
    return [run["iops"] for run in measured]


def p50_us(measured):
    return [run["latency_ns"]["p50"] / 1000 for run in measured]


def beside_the_floor(name, namespace, load, must):
    """A benchmark of throughput."""
    def run(bench):
        ours, floor = paired(bench.runs, lambda: one_run(bench, namespace, load), lambda: run_floor(bench, load))
        result = Result(name, "IOPS", iops(ours), iops(floor), FLOOR, at_least=must, details=details(ours, floor))
        with serve(bench, *namespace) as served:
            calls = system_calls_per_operation(bench, served.url, load, served.pid)
        if calls is not None:
            result.details["ours"]["target_system_calls_per_operation"] = round(calls, 3)
        return [result]

    return run


def latency_beside_the_floor(name, load):
    def run(bench):
        ours, floor = paired(bench.runs, lambda: one_run(bench, NULL, load), lambda: run_floor(bench, load))
        return [Result(name, "us p50", p50_us(ours), p50_us(floor), FLOOR, at_most=1.25, details=details(ours, floor))]

    return run


NULL = ("--null", "8GiB")
IN_MEMORY = ("--memory", f"{MEMORY}")


def _register():
    for op in ("read", "write"):
        for depth in (32, 128):
            for kind, namespace, must in (("", NULL, 0.60), ("memory-", IN_MEMORY, 0.45)):
                name = f"target-{kind}{op}-qd{depth}"
                harness.register(
                    name, f"IOPS: 4 KiB random {op}s, {depth} in flight, {'memory' if kind else 'null'} namespace",
                    beside_the_floor(name, namespace, Load(op, depth=depth), must))
        name = f"target-{op}-qd1"
        harness.register(name, f"Latency: 4 KiB {op}s one at a time, null namespace",
                         latency_beside_the_floor(name, Load(op, depth=1)))
        name = f"target-{op}-128k-qd16"
        harness.register(name, f"IOPS: 128 KiB random {op}s, 16 in flight, null namespace",
                         beside_the_floor(name, NULL, Load(op, "128k", 16), 0.90))


_register()


@benchmark
def target_4conn(bench):
    """IOPS: four connections, 32 in flight in sum, next to one connection and to the floor"""
    results = []
    for op in ("read", "write"):
        four, one = Load(op, connections=4), Load(op)
        ours, single, floor = paired(
            bench.runs, lambda: one_run(bench, NULL, four), lambda: one_run(bench, NULL, one),
            lambda: run_floor(bench, four))
        results.append(Result(f"target-4conn-{op}", "IOPS", iops(ours), iops(single), "ours with one connection",
                              at_least=0.9, details=details(ours, single)))
        results.append(Result(f"target-4conn-{op}-floor", "IOPS", iops(ours), iops(floor), FLOOR + ", as many of them"))
    return results


@benchmark
def digest(bench):
    """IOPS: header and data digests on, 4 KiB, 32 in flight, null namespace, next to the same without"""
    results = []
    for op in ("read", "write"):
        ours, without = paired(
            bench.runs, lambda: one_run(bench, NULL, Load(op, digests=True)), lambda: one_run(bench, NULL, Load(op)))
        results.append(Result(f"digest-{op}", "IOPS", iops(ours), iops(without), "ours without digests", at_least=0.85,
                              details=details(ours, without)))
    return results
