#!/usr/bin/env python3
"""Searches the models with spin; ./dev model is the way to call it. See README.md.

A size is a model with its constants. Each size is compiled once and searched without a mutation (the control, which must be
clean) and then with each of its mutations, which drop one rule each and must be caught. The last line is the sum.
"""

import argparse
import collections
import dataclasses
import os
import pathlib
import re
import resource
import shlex
import signal
import subprocess
import sys

from sizes import SIZES

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
BUILD = ROOT / "build" / "model"
MEMORY_MIB_MAX = 6000
DEPTH_MAX = 100_000
TRACE_DEPTH_MAX = 2_000
PREPROCESSOR = "clang-19 -E -x c"
COMPILER = ["clang-19", "-O2", "-w", "-DNOREDUCE", "-DVECTORSZ=2048", f"-DMEMLIM={MEMORY_MIB_MAX}"]
# How states are stored. Hash compaction (-DHC4) lost up to 0.6% of a few million states here, so it is not offered.
STORES = {
    "exact": [],             # as they are
    "bits": ["-DBITSTATE"],  # as three bits each in a field of 4 GiB: a small share may be taken for known
}
FIELD_BITS_LOG2 = 35
BITS_A_STATE = 3
# Dropped without harm at every size: README.md says what that means.
NOT_CAUGHT = {"no_restamp_source"}
COLUMNS = "{:34} {:>12} {:>8} {:>7}  {:16} {}"


@dataclasses.dataclass
class Result:
    run: str
    states: int
    seconds: float
    mebibytes: float
    coverage: str
    verdict: str
    passed: bool

    def __str__(self):
        return COLUMNS.format(self.run, f"{self.states:,}", f"{self.seconds:.1f} s", f"{self.mebibytes:.0f}",
                              self.coverage, self.verdict)


def compile_size(size, folder, extra):
    """Returns None, or what went wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    for command in (["spin", f"-P{PREPROCESSOR}", "-a", *size.defines(), str(MODELS / f"{size.model}.pml")],
                    [*COMPILER, *([] if size.for_cycles() else ["-DSAFETY"]), *extra, "-o", "pan", "pan.c"]):
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0 or "Error" in done.stdout:
            return f"{shlex.join(command)}\n{done.stdout}"
    return None


def search(folder, mutation, limit_s, arguments):
    """Runs a compiled search; returns what it printed. An interrupt makes it stop and say how far it came."""
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, ((MEMORY_MIB_MAX + 1000) << 20,) * 2)
    process = subprocess.Popen(["./pan", "-E", *arguments], cwd=folder, env={**os.environ, "MUTATION": mutation},
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               preexec_fn=limit)
    try:
        return process.communicate(timeout=limit_s)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=30)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]
    except BaseException:
        process.kill()
        raise


def number(pattern, output):
    found = re.search(pattern, output)
    return float(found.group(1)) if found else 0.0


def judge(size, mutation, output, seconds):
    errors = re.search(r"errors: (\d+)", output)
    states = int(number(r"(\d+) states, stored", output))
    memory = number(r"([\d.]+)\s+total actual memory usage", output)
    depth = re.search(r"pan:1: (.*) \(at depth (\d+)\)", output)
    cause = depth.group(1) if depth else "an error"
    cut = "Search not completed" in output or "max search depth too small" in output or "out of memory" in output
    run = f"{size.name}/{mutation}" if mutation else size.name
    if not errors or states == 0:
        return Result(run, states, seconds, memory, "-", f"FAILED: did not run\n{output}", False)
    if int(errors.group(1)) > 0:
        where = f"depth {depth.group(2)}" if depth else "an unknown depth"
        if mutation:
            return Result(run, states, seconds, memory, "to the error", f"caught at {where}", True)
        return Result(run, states, seconds, memory, "to the error", f"FAILED: {cause} at {where}", False)
    coverage = ("cut" if cut else "all") + f", {size.store}"
    if size.store == "bits":
        # The share of new states that were taken for known, were the hashes perfect and all bits set from the start.
        missed = (BITS_A_STATE * states / 2**FIELD_BITS_LOG2) ** BITS_A_STATE
        coverage += f" {missed:.0e}"
    if mutation:
        return Result(run, states, seconds, memory, coverage, "FAILED: not caught", False)
    if cut and not size.may_be_cut:
        return Result(run, states, seconds, memory, coverage, "FAILED: not searched to the end", False)
    return Result(run, states, seconds, memory, coverage, "clean", True)


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_size(size, options):
    """Yields the results of the control and of the mutations."""
    folder = BUILD / size.name
    trouble = compile_size(size, folder, STORES[size.store])
    if trouble:
        yield Result(size.name, 0, 0.0, 0.0, "-", f"FAILED: does not compile\n{trouble}", False)
        return
    for mutation in options.mutation or ["", *size.mutations]:
        arguments = [f"-m{DEPTH_MAX}", *(["-a"] if size.for_cycles() else [])]
        if size.store == "bits":
            arguments += [f"-w{FIELD_BITS_LOG2}", f"-k{BITS_A_STATE}"]
        before = processor_seconds()
        output = search(folder, mutation, size.limit_s, arguments)
        yield judge(size, mutation, output, processor_seconds() - before)


def show_trace(size, mutation):
    """Prints the shortest counterexample, in the model's own words."""
    folder = BUILD / f"{size.name}-trace"
    trouble = compile_size(dataclasses.replace(size, constants=size.constants.replace("SYMMETRY", "")), folder, ["-DREACH"])
    if trouble:
        print(trouble)
        return 1
    for trail in folder.glob("*.trail"):
        trail.unlink()
    search(folder, mutation, size.limit_s, [f"-m{TRACE_DEPTH_MAX}", "-i", *(["-a"] if size.for_cycles() else [])])
    trail = folder / f"{size.model}.pml.trail"
    if not trail.exists():
        print("no counterexample")
        return 1
    replay = subprocess.run(["./pan", "-r", trail.name], cwd=folder, env={**os.environ, "MUTATION": mutation},
                            stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    steps = [line.strip() for line in replay.split("#processes")[0].splitlines()]
    steps = [line for line in steps if line and not re.match(r"\d+:\s+proc|spin:|D_STEP", line)]
    for count, line in enumerate(steps, 1):
        print(f"{count:3}  {line}")
    return 0


def write_log(path, results):
    lines = ["| run | constants | states | time | memory, MiB | coverage | verdict |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {result.run} | {size.constants} | {result.states:,} | {result.seconds:.1f} s | {result.mebibytes:.0f} "
              f"| {result.coverage} | {result.verdict.splitlines()[0]} |" for size, result in results]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments):
    parser = argparse.ArgumentParser(prog="./dev model", description="Searches the models of the replication protocol.")
    parser.add_argument("names", nargs="*", metavar="SIZE", help="those to run; all if none is named")
    parser.add_argument("--quick", action="store_true", help="only the quick sizes, those of ./dev check")
    parser.add_argument("--list", action="store_true", help="list the sizes and their mutations")
    parser.add_argument("--mutation", action="append", metavar="NAME", help="only this mutation, listed or not; '' is the control")
    parser.add_argument("--trace", action="store_true",
                        help="with one SIZE: the shortest counterexample of --mutation (or of the control), step by step")
    options = parser.parse_args(arguments)
    known = {size.name: size for size in SIZES}
    for name in options.names:
        if name not in known:
            parser.error(f"there is no size '{name}': {' '.join(known)}")
    chosen = [size for size in SIZES if (not options.names or size.name in options.names) and
              (size.quick or not options.quick)]
    if options.list:
        for size in chosen:
            print(f"{size.name:24} {size.model}: {size.constants} ({size.store})\n{'':24} {' '.join(size.mutations)}")
        return 0
    if options.trace:
        if len(chosen) != 1:
            parser.error("--trace needs one SIZE")
        return show_trace(chosen[0], (options.mutation or [""])[0])

    print(COLUMNS.format("run", "states", "time", "MiB", "coverage", "verdict"), flush=True)
    results = []
    for size in chosen:
        for result in run_size(size, options):
            print(result, flush=True)
            results.append((size, result))
    write_log(BUILD / ("quick.md" if options.quick else "log.md"), results)
    count = collections.Counter(result.passed for _, result in results)
    print(f"{count[True]} passed, {count[False]} failed")
    return 1 if count[False] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
