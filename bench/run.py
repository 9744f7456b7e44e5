#!/usr/bin/env python3
"""Runs benchmarks by name and writes build/bench/NAME.json: a list of
{"name","unit","ours","reference","reference_is","ratio","runs","min","max",…}, `ours` being the median of the runs,
min and max theirs, `ratio` the median of the ratios of paired runs. README.md beside this file tells more.
"""

import argparse
import os
import pathlib
import sys
import tempfile

import control  # noqa: F401  these register their benchmarks
import disk  # noqa: F401
import harness
import idle  # noqa: F401
import mirror  # noqa: F401
import network
import pool  # noqa: F401
import target  # noqa: F401

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUSY = 0.1  # of all processors: above it the machine is not quiet


def parse():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="which to run, or 'all'; without one: lists them")
    parser.add_argument("--fairlead", type=pathlib.Path, default=ROOT / "build/release/src/cli/fairlead")
    parser.add_argument("--references", type=pathlib.Path, default=ROOT / "build/release/bench",
                        help="the folder of the reference programs")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs of each (default 5)")
    parser.add_argument("--seconds", type=float, default=2, help="how long a run takes (default 2)")
    parser.add_argument("--network", choices=("own", "system"), default="own",
                        help="own: a network namespace without firewall and pacing (default)")
    arguments = parser.parse_args()
    if "all" in arguments.names:
        arguments.names = list(harness.BENCHMARKS)
    unknown = [name for name in arguments.names if name not in harness.BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(harness.BENCHMARKS)}")
    for program in (arguments.fairlead, arguments.references / "floor") if arguments.names else ():
        if not program.exists():
            parser.error(f"{program} is not there: run './dev build' first")
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two processors are needed: one for the target, one for the initiator")
    return arguments


def main():
    arguments = parse()
    if not arguments.names:
        for name, benchmark in harness.BENCHMARKS.items():
            print(f"{name:<26} {benchmark.summary}")
        return 0
    if arguments.network == "own":
        network.enter()
    output = ROOT / "build/bench"
    output.mkdir(parents=True, exist_ok=True)
    target_cpu, initiator_cpu = sorted(os.sched_getaffinity(0))[:2]
    print(f"{arguments.runs} runs of {arguments.seconds:g} s; target on processor {target_cpu}, initiator on "
          f"{initiator_cpu}; {network.describe()}")
    failed = False
    for name in arguments.names:
        if (busy := harness.busy_share()) > BUSY:
            print(f"{name}: the machine is not quiet, {busy:.0%} of it is busy: figures will suffer", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=output) as directory:
            bench = harness.Bench(arguments.fairlead, arguments.references, arguments.runs, arguments.seconds,
                                  pathlib.Path(directory), target_cpu, initiator_cpu)
            try:
                results = harness.BENCHMARKS[name].function(bench)
            except RuntimeError as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed = True
                continue
        harness.write(output / f"{name}.json", results)
        print("\n".join(harness.table(results)), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
