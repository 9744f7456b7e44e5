#!/usr/bin/env python3
"""Runs the fuzzers of the fuzz preset, as many at a time as there are cores. ./dev fuzz builds them first.

A fuzzer is tests/fuzz/NAME_fuzz.cc; its kept inputs are in tests/fuzz/corpus/NAME. New ones
gather in build/fuzz/corpus/NAME. An input that breaks it goes to build/fuzz/artifacts: put it into the kept corpus
together with the mend.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "fuzz"
LINES_SHOWN = 60
INPUT_SECONDS_MAX = 10
MEMORY_MIB_MAX = 2048


def all_fuzzers():
    return sorted(path.stem.removesuffix("_fuzz") for path in (ROOT / "tests" / "fuzz").glob("*_fuzz.cc"))


def run(name, seconds):
    """Returns (passed, what to print)."""
    gathered = BUILD / "corpus" / name
    artifacts = BUILD / "artifacts"
    gathered.mkdir(parents=True, exist_ok=True)
    artifacts.mkdir(parents=True, exist_ok=True)
    command = [str(BUILD / "tests" / "fuzz" / f"{name}_fuzz"), f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS_MAX}",
               f"-rss_limit_mb={MEMORY_MIB_MAX}", f"-artifact_prefix={artifacts}/{name}-", "-print_final_stats=1",
               str(gathered), str(ROOT / "tests" / "fuzz" / "corpus" / name)]
    try:
        # A fuzzer that hangs outside of an input does not stop by itself.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=seconds + 120, cwd=BUILD)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"{name}: {error}"
    output = done.stdout.decode(errors="replace")
    runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    if done.returncode == 0 and runs and int(runs.group(1)) > 0:
        covered = re.findall(r"cov: (\d+)", output)
        return True, f"{name}: {int(runs.group(1)):,} runs in {seconds} s, {(covered or ['?'])[-1]} edges covered"
    end = "\n".join(output.splitlines()[-LINES_SHOWN:])
    return False, f"{end}\n{name}: FAILED with exit code {done.returncode}; its input is in {artifacts}"


def main(arguments):
    parser = argparse.ArgumentParser(prog="./dev fuzz", description="Runs the fuzzers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="those to run; all if none is named")
    parser.add_argument("--seconds", type=int, default=300, metavar="N", help="time for each (300)")
    parser.add_argument("--list", action="store_true", help="list the fuzzers")
    options = parser.parse_args(arguments)
    known = all_fuzzers()
    if options.list:
        print("\n".join(known))
        return 0
    for name in options.names:
        if name not in known:
            parser.error(f"there is no fuzzer '{name}': {' '.join(known)}")
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for good, text in pool.map(lambda name: run(name, options.seconds), options.names or known):
            passed += good
            failed += not good
            print(text, flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
