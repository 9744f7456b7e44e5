#!/usr/bin/env python3
"""Runs real-kernel cases: Debian's kernel in QEMU is the host and Fairlead the target, or the other way round.

See README.md.

    python3 tests/vm/run.py                       all cases
    python3 tests/vm/run.py ext4 digests          those
    python3 tests/vm/run.py --list                names and what they show
    python3 tests/vm/run.py --reference           against the kernel's own target: is it the case's fault?
"""

import argparse
import collections
import pathlib
import re
import shutil
import sys
import threading
import time
import traceback

import cases_cluster  # noqa: F401  (these eight register the cases)
import cases_commands  # noqa: F401
import cases_csi  # noqa: F401
import cases_data  # noqa: F401
import cases_faults  # noqa: F401
import cases_host  # noqa: F401
import cases_mirror  # noqa: F401
import cases_pool  # noqa: F401
import context as contexts
import guest as guests
import image as images
import target as targets

BUILD = images.BUILD.parent
LOGS = images.BUILD / "logs"
LOG_LINES_SHOWN = 25
GUESTS = 2  # side by side: one alone leaves a processor idle half of the time
REASON_LENGTH_MAX = 200


def main():
    options = parse_arguments()
    known = contexts.cases()
    if options.list:
        for name, function in known.items():
            print(f"{name:30} {function.__doc__.strip().splitlines()[0]}")
        return 0
    unknown = [name for name in options.names if name not in known]
    if unknown:
        sys.exit(f"vm: no such case: {' '.join(unknown)} (see --list)")
    if not options.reference:
        for program in (options.fairlead, options.steered, *map(options.steered.with_name, ("steered_host", "csi_call"))):
            if not program.is_file():
                sys.exit(f"vm: {program} is not there: build it first, or name another")
    functions = [known[name] for name in options.names or known]
    report = Report(options, functions)
    image = images.ensure()
    runners = [Runner(options, image, report) for _ in range(min(options.guests, len(functions)))]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    return report.summary()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases to run; all if none is named")
    parser.add_argument("--fairlead", type=pathlib.Path, default=BUILD / "release/src/cli/fairlead")
    parser.add_argument("--steered", type=pathlib.Path, default=BUILD / "release/tests/vm/steered_target",
                        help="the steered target; the steered host and csi_call are beside it")
    parser.add_argument("--reference", action="store_true", help="run against the kernel's own target instead")
    parser.add_argument("--guests", type=int, default=GUESTS, metavar="N", help=f"how many side by side ({GUESTS})")
    parser.add_argument("--list", action="store_true", help="list the cases")
    return parser.parse_args()


class Report:
    """The cases that are left, and what became of the others. The runners share it."""

    def __init__(self, options, functions):
        self._functions = list(reversed(functions))
        self._total = len(functions)
        self._given = collections.Counter()
        self._lock = threading.Lock()
        self._counts = {"passed": 0, "failed": 0, "skipped": 0}
        self._failures = []
        self._boots = 0
        self._started = time.monotonic()
        self.logs = LOGS / ("reference" if options.reference else "fairlead")
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)

    def next_case(self):
        """A case and a directory for it; None when there is none left."""
        with self._lock:
            if not self._functions:
                return None
            function = self._functions.pop()
            name = function.__name__
            self._given[name] += 1
            directory = self.logs / (f"{name}.{self._given[name]}" if self._given[name] > 1 else name)
            directory.mkdir()
            return function, directory

    def next_boot(self):
        with self._lock:
            self._boots += 1
            return self._boots

    def add(self, name, seconds, reason, skipped, remark, directory):
        with self._lock:
            if reason:
                self._counts["failed"] += 1
                self._failures.append((name, reason))
                print(f"FAIL {name} {seconds:.1f}s")
                print("".join(f"     {line}\n" for line in reason.rstrip().splitlines()), end="")
                show_logs(directory)
            elif skipped:
                self._counts["skipped"] += 1
                print(f"skip {name}: {skipped}")
            else:
                self._counts["passed"] += 1
                print(f"ok   {name} {seconds:.1f}s" + (f": {remark}" if remark else ""))
                shutil.rmtree(directory)
            sys.stdout.flush()

    def say(self, line):
        with self._lock:
            print(line, flush=True)

    def summary(self):
        print(f"vm: {time.monotonic() - self._started:.0f} s in all, {self._boots} boots")
        for name, reason in self._failures:
            print(f"vm: {name} failed: {in_one_line(reason)}")
        lost = self._total - sum(self._counts.values())
        if lost:
            self._counts["failed"] += lost
            print(f"vm: {lost} cases did not come to their end")
        skipped = f", {self._counts['skipped']} skipped" if self._counts["skipped"] else ""
        print(f"vm: {self._counts['passed']} passed, {self._counts['failed']} failed{skipped}")
        return 1 if self._counts["failed"] else 0


def in_one_line(reason):
    """What a reason begins with; of a Python error what it ends with."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    if lines[0].startswith("Traceback"):
        lines = lines[-1:]
    line = " / ".join(lines)
    if len(line) <= REASON_LENGTH_MAX:
        return line
    half = REASON_LENGTH_MAX // 2
    return f"{line[:half]} ... {line[-half:]}"


def show_logs(directory):
    for log in sorted(directory.glob("*")):
        if log.name in ("dmesg", "target.log", "host.log") or re.fullmatch(r"(engine\d+|csi-\w+)\.log", log.name):
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            print(f"     --- {log.relative_to(BUILD.parent)}, last {len(lines)} lines")
            print("".join(f"     {line}\n" for line in lines), end="")
        elif log.name.startswith("disk") or log.suffix == ".img":
            log.unlink()


class Runner(threading.Thread):
    """Runs cases, one after the other, in a guest of its own, which is replaced when a case leaves it unusable.

    What it starts is killed when it ends: such is the kernel's way with the children of a thread.
    """

    def __init__(self, options, image, report):
        super().__init__(daemon=True)
        self._options = options
        self._image = image
        self._report = report
        self._guest = None

    def run(self):
        try:
            while case := self._report.next_case():
                self._run_case(*case)
        finally:
            self._drop_guest()

    def _run_case(self, function, directory):
        started = time.monotonic()
        reason = None
        skipped = None
        context = None
        try:
            guest = self._ready_guest() if getattr(function, "needs_guest", True) else None
            context = contexts.Context(guest, directory, self._options.fairlead, self._options.steered,
                                       self._options.reference)
            context.begin()
            function(context)
            context.check_kernel_log()
        except targets.Unsupported as unsupported:
            skipped = str(unsupported)
        except (contexts.CaseFailed, targets.TargetError, guests.GuestError, contexts.engines.EngineError) as error:
            reason = str(error)
        except Exception:  # a fault of the case itself must not end the others
            reason = traceback.format_exc()
        if reason and context and context.guest:
            self._keep_kernel_log(directory)
        reason = self._end(context, reason)
        remark = context.remark if context else ""
        self._report.add(function.__name__, time.monotonic() - started, reason, skipped, remark, directory)

    def _end(self, context, reason):
        """Cleans up and returns the reason for failure: an unclean end is one."""
        try:
            if context:
                context.end()
        except Exception as error:
            self._drop_guest()
            return reason or f"cleaning up: {error}"
        return reason

    def _ready_guest(self):
        if self._guest is None:
            guest = guests.Guest(self._image, f"guest{self._report.next_boot()}", log_directory=self._report.logs)
            self._guest = guest
            self._report.say(f"vm: {guest.name} is up after {guest.ready():.1f} s")
        return self._guest

    def _drop_guest(self):
        if self._guest:
            self._guest.__exit__()
            self._guest = None

    def _keep_kernel_log(self, directory):
        try:
            (directory / "dmesg").write_text(self._guest.sh("dmesg", 20))
        except guests.GuestError as error:
            (directory / "dmesg").write_text(f"{error}\n{self._guest.console()}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except images.ImageError as error:
        sys.exit(f"vm image: {error}")
