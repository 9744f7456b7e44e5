#!/usr/bin/env python3
"""Runs benchmarks by name and writes build/bench/NAME.json: a list of
{"name","unit","ours","reference","reference_is","ratio","runs","min","max"}, `ours` being the median of the runs.
"""

import argparse
import pathlib
import sys
import tempfile

import harness
import idle  # noqa: F401  registers its benchmarks

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="which to run; without one: lists them")
    parser.add_argument("--fairlead", type=pathlib.Path, default=ROOT / "build/release/src/cli/fairlead")
    parser.add_argument("--runs", type=int, default=3, help="how often each is run (default 3)")
    parser.add_argument("--seconds", type=float, default=10, help="how long a run takes (default 10)")
    arguments = parser.parse_args()
    if not arguments.names:
        for name, function in sorted(harness.BENCHMARKS.items()):
            print(f"{name:<20} {function.__doc__.splitlines()[0]}")
        return 0
    unknown = [name for name in arguments.names if name not in harness.BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(sorted(harness.BENCHMARKS))}")
    if not arguments.fairlead.exists():
        parser.error(f"{arguments.fairlead} is not there: run './dev build' first")
    output = ROOT / "build/bench"
    output.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=output) as directory:
            bench = harness.Bench(arguments.fairlead, arguments.runs, arguments.seconds, pathlib.Path(directory))
            results = harness.BENCHMARKS[name](bench)
        harness.write(output / f"{name}.json", results)
        print("\n".join(harness.table(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
