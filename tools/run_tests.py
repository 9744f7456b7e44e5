#!/usr/bin/env python3
"""Runs the steps of ./dev test and adds up what their runners counted. Called by ./dev, which installs what it needs.

Each step is a list of stages; the commands of a stage run side by side, a stage begins when the one before it has
passed. Whatever a command prints is kept in build/test/STEP.log; when it fails the end of that is shown. A runner that
breaks off, or that counts no test, is a failure of its own. The last line is the sum: N passed, N failed.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "test"
LINES_SHOWN = 60
SIM_SEEDS = 200
SIM_SEEDS_ASAN = 20
SIM_SEEDS_HOST = 300
SIM_SEEDS_POOL = 1000
SIM_SEEDS_MIRROR = 600
SIM_SEEDS_ENGINES = 300
SIM_SEEDS_CONTROL = 300
# Module: which of its tests. Those of the pool run on one thread, in simulation, but for a few. None of rpc: gRPC's
# library is not instrumented, so what its locks order would look like races.
TSAN_TESTS = {"async": "*", "io": "*", "pool": "ThreadsTest.*", "mirror": "ThreadsTest.*", "host": "*", "target": "*"}
# Without the command line, and what drives whole programs: much to compile, and little of it about memory.
ASAN_MODULES = sorted({test.parent.name for test in (ROOT / "src").glob("*/*_test.cc")} - {"cli"})
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
    "ASAN_SYMBOLIZER_PATH": "/usr/bin/llvm-symbolizer-19",
    "TSAN_SYMBOLIZER_PATH": "/usr/bin/llvm-symbolizer-19",
}


@dataclasses.dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other):
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self):
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


# How each runner says what it counted: output -> Count, or None when it does not say.

def no_count(output):
    return Count()


def one(output):
    return Count(1)


def closing_line(output):
    """N passed, N failed[, N skipped]: ours."""
    found = re.findall(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?", output)
    return Count(*(int(number or 0) for number in found[-1])) if found else None


def ctest(output):
    found = re.findall(r"tests passed, (\d+) tests? failed out of (\d+)", output)
    if not found:
        return None
    failed, total = map(int, found[-1])
    skipped = len(re.findall(r"\*\*\*(?:Skipped|Not Run \(Disabled\))", output))
    return Count(total - failed - skipped, failed, skipped)


def googletest(output):
    passed = re.findall(r"\[  PASSED  \] (\d+) tests?\.", output)
    failed = re.findall(r"^ ?(\d+) FAILED TESTS?", output, re.MULTILINE)
    skipped = re.findall(r"\[  SKIPPED \] (\d+) tests?, listed below", output)
    return Count(int(passed[-1]), int((failed or [0])[-1]), int((skipped or [0])[-1])) if passed else None


@dataclasses.dataclass
class Command:
    arguments: list
    counter: object = no_count


@dataclasses.dataclass
class Step:
    name: str
    what: str
    stages: list
    limit_s: int


def build(preset, *targets):
    return [Command(["./dev", "build", preset, *targets])]


def run_ctest(preset, *options):
    return [Command(["ctest", "--test-dir", f"build/{preset}", "--parallel", str(os.cpu_count()), "--no-tests=error",
                     "--output-on-failure", *options], ctest)]


def simulate(preset, seeds, scenario="chaos"):
    return [Command([f"build/{preset}/tests/sim/fairlead-sim", "--seeds", str(seeds), "--scenario", scenario],
                    closing_line)]


def steps(options):
    python = [sys.executable, "-B"]
    return [
        Step("lint", "layers, banned calls, sizes, form", [[Command([*python, "tools/lint.py"], one)]], 60),
        Step("model", "the quick sizes of the replication models, with each rule dropped once",
             [[Command([*python, "models/run.py", "--quick"], closing_line)]], 1800),
        Step("unit", "unit tests and kept fuzz inputs, release build",
             [build("release"), run_ctest("release")], 2400),
        Step("sim", f"{SIM_SEEDS} simulated seeds, {SIM_SEEDS_HOST} of our own hosts, {SIM_SEEDS_POOL} of pools, "
             f"{SIM_SEEDS_MIRROR} of mirrored volumes, {SIM_SEEDS_ENGINES} of engines, {SIM_SEEDS_CONTROL} of whole clusters",
             [build("release", "fairlead-sim"), simulate("release", SIM_SEEDS),
              simulate("release", SIM_SEEDS_HOST, "host"), simulate("release", SIM_SEEDS_POOL, "pool"),
              simulate("release", SIM_SEEDS_MIRROR, "mirror"),
              simulate("release", SIM_SEEDS_ENGINES, "engines"), simulate("release", SIM_SEEDS_CONTROL, "control")], 1500),
        Step("asan", f"the unit tests but the command line's and {SIM_SEEDS_ASAN} seeds with the address and undefined behaviour sanitizers",
             [build("asan", *(f"{name}_test" for name in ASAN_MODULES), "sim_scenario_test", "fuzzers", "fairlead-sim"),
              run_ctest("asan", "--tests-regex", rf"^({'|'.join(ASAN_MODULES)}|sim|fuzz)\.", "--exclude-regex",
                        r"Mutant|Defect|^engine\.[a-z]"),
              simulate("asan", SIM_SEEDS_ASAN), simulate("asan", SIM_SEEDS_ASAN, "host"),
              simulate("asan", SIM_SEEDS_ASAN, "pool"), simulate("asan", SIM_SEEDS_ASAN, "mirror")], 2400),
        Step("tsan", f"the tests of {', '.join(TSAN_TESTS)} with the thread sanitizer",
             [build("tsan", *(f"{name}_test" for name in TSAN_TESTS)),
              *([Command([f"build/tsan/src/{name}/{name}_test", f"--gtest_filter={tests}"], googletest)]
                for name, tests in TSAN_TESTS.items())], 900),
        Step("fuzz", f"each fuzzer for {options.fuzz_seconds} s",
             [build("fuzz", "fuzzers"),
              [Command([*python, "tools/run_fuzzers.py", "--seconds", str(options.fuzz_seconds)], closing_line)]],
             900 + 10 * options.fuzz_seconds),
        Step("vm", "Debian's kernel in QEMU as the host",
             [build("release"),
              [Command([*python, "tests/vm/run.py", "--fairlead", "build/release/src/cli/fairlead",
                        "--steered", "build/release/tests/vm/steered_target"], closing_line)]], 2400),
    ]


class Running:
    """A command under way, in a session of its own, so that its children end with it."""

    def __init__(self, command, log):
        self.command = command
        self.log = log
        with open(log, "wb") as output:
            output.write(f"$ {' '.join(command.arguments)}\n".encode())
            output.flush()
            try:
                self.process = subprocess.Popen(command.arguments, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
                                                stderr=subprocess.STDOUT, start_new_session=True,
                                                env={**SANITIZER_OPTIONS, **os.environ})
            except OSError as error:
                self.process = None
                output.write(f"{error}\n".encode())

    def finish(self, deadline):
        """Waits; returns what was counted and what went wrong, if anything."""
        if self.process is None:
            return Count(failed=1), "could not be started"
        try:
            status = self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            return Count(failed=1), "took too long"
        count = self.command.counter(self.log.read_text(encoding="utf-8", errors="replace"))
        if status == 0 and count is None:
            return Count(failed=1), "did not say what it counted"
        if status == 0 and self.command.counter is not no_count and count.passed + count.failed == 0:
            return Count(failed=1), "ran no test"
        if status == 0 and count.failed == 0:
            return count, None
        if count is None or count.failed == 0:
            # It broke off: what it had counted is not worth much.
            count = Count(failed=1)
        return count, f"exit code {status}" if status >= 0 else f"ended by {signal.Signals(-status).name}"

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def run_step(step):
    """Runs the stages until one fails; returns the sum."""
    total = Count()
    deadline = time.monotonic() + step.limit_s
    for number, stage in enumerate(step.stages):
        logs = [LOGS / f"{step.name}.{number}{chr(ord('a') + index)}.log" for index in range(len(stage))]
        running = []
        trouble = False
        try:
            running += [Running(command, log) for command, log in zip(stage, logs)]
            for one_of_them in running:
                count, wrong = one_of_them.finish(deadline)
                total += count
                if wrong:
                    trouble = True
                    show_failure(one_of_them, wrong)
        finally:
            for one_of_them in running:
                one_of_them.kill()
        if trouble and stage is not step.stages[-1]:
            break
    return total


def show_failure(running, wrong):
    lines = running.log.read_text(encoding="utf-8", errors="replace").splitlines()
    print(f"--- {' '.join(running.command.arguments)}: {wrong}; the end of {running.log.relative_to(ROOT)}:")
    print("\n".join(lines[-LINES_SHOWN:]))
    print("---", flush=True)


def main(arguments):
    parser = argparse.ArgumentParser(prog="./dev test", description="Runs every test, or the named steps.")
    parser.add_argument("names", nargs="*", metavar="STEP")
    parser.add_argument("--list", action="store_true", help="list the steps")
    parser.add_argument("--fuzz-seconds", type=int, default=10, metavar="N", help="time for each fuzzer (10)")
    options = parser.parse_args(arguments)
    known = {step.name: step for step in steps(options)}
    if options.list:
        for step in known.values():
            print(f"{step.name:6} {step.what}")
        return 0
    for name in options.names:
        if name not in known:
            parser.error(f"there is no step '{name}': {' '.join(known)}")

    LOGS.mkdir(parents=True, exist_ok=True)
    total = Count()
    started = time.monotonic()
    for step in known.values():
        if options.names and step.name not in options.names:
            continue
        print(f"{step.name:6} {step.what} …", flush=True)
        step_started = time.monotonic()
        count = run_step(step)
        total += count
        print(f"{step.name:6} {count} in {time.monotonic() - step_started:.1f} s", flush=True)
    print(f"All steps took {time.monotonic() - started:.0f} s.")
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
