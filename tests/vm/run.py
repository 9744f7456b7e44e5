#!/usr/bin/env python3
"""Runs real-kernel cases: Debian's kernel in QEMU is the host and Fairlead the target, or the other way round.

See README.md.

    python3 tests/vm/run.py                       all cases
    python3 tests/vm/run.py ext4 digests          those
    python3 tests/vm/run.py --list                names and what they show
    python3 tests/vm/run.py --reference           against the kernel's own target: is it the case's fault?
"""

import argparse
import pathlib
import shutil
import sys
import time
import traceback

import cases_commands  # noqa: F401  (these five register the cases)
import cases_data  # noqa: F401
import cases_faults  # noqa: F401
import cases_host  # noqa: F401
import cases_pool  # noqa: F401
import context as contexts
import guest as guests
import image as images
import target as targets

BUILD = images.BUILD.parent
LOGS = images.BUILD / "logs"
LOG_LINES_SHOWN = 25


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
        for program in (options.fairlead, options.steered, options.steered.with_name("steered_host")):
            if not program.is_file():
                sys.exit(f"vm: {program} is not there: build it first, or name another")
    runner = Runner(options, images.ensure())
    try:
        for name in options.names or known:
            runner.run(known[name])
    finally:
        runner.close()
    return runner.summary()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases to run; all if none is named")
    parser.add_argument("--fairlead", type=pathlib.Path, default=BUILD / "release/src/cli/fairlead")
    parser.add_argument("--steered", type=pathlib.Path, default=BUILD / "release/tests/vm/steered_target",
                        help="the steered target; the steered host is beside it")
    parser.add_argument("--reference", action="store_true", help="run against the kernel's own target instead")
    parser.add_argument("--list", action="store_true", help="list the cases")
    return parser.parse_args()


class Runner:
    """Runs cases in one guest, which is replaced when a case leaves it unusable."""

    def __init__(self, options, image):
        self._options = options
        self._image = image
        self._guest = None
        self._boots = 0
        self._counts = {"passed": 0, "failed": 0, "skipped": 0}
        self._started = time.monotonic()
        self._logs = LOGS / ("reference" if options.reference else "fairlead")
        shutil.rmtree(self._logs, ignore_errors=True)
        self._logs.mkdir(parents=True)

    def run(self, function):
        name = function.__name__
        directory = self._logs / name
        directory.mkdir()
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
        except (contexts.CaseFailed, targets.TargetError, guests.GuestError) as error:
            reason = str(error)
        except Exception:  # a fault of the case itself must not end the others
            reason = traceback.format_exc()
        if reason and context and context.guest:
            self._keep_kernel_log(directory)
        reason = self._end(context, reason)
        self._report(name, time.monotonic() - started, reason, skipped, directory)

    def _end(self, context, reason):
        """Cleans up and returns the reason for failure: an unclean end is one."""
        try:
            if context:
                context.end()
        except Exception as error:
            self._drop_guest()
            return reason or f"cleaning up: {error}"
        return reason

    def _report(self, name, seconds, reason, skipped, directory):
        if reason:
            self._counts["failed"] += 1
            print(f"FAIL {name} {seconds:.1f}s")
            print("".join(f"     {line}\n" for line in reason.rstrip().splitlines()), end="")
            self._show_logs(directory)
        elif skipped:
            self._counts["skipped"] += 1
            print(f"skip {name}: {skipped}")
        else:
            self._counts["passed"] += 1
            print(f"ok   {name} {seconds:.1f}s")
            shutil.rmtree(directory)
        sys.stdout.flush()

    def _ready_guest(self):
        if self._guest is None:
            self._boots += 1
            guest = guests.Guest(self._image, f"guest{self._boots}", log_directory=self._logs)
            self._guest = guest
            print(f"vm: guest is up after {guest.ready():.1f} s", flush=True)
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

    def _show_logs(self, directory):
        for log in sorted(directory.glob("*")):
            if log.name in ("dmesg", "target.log", "host.log"):
                lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
                print(f"     --- {log.relative_to(BUILD.parent)}, last {len(lines)} lines")
                print("".join(f"     {line}\n" for line in lines), end="")
            elif log.name.startswith("disk"):
                log.unlink()

    def close(self):
        self._drop_guest()

    def summary(self):
        skipped = f", {self._counts['skipped']} skipped" if self._counts["skipped"] else ""
        print(f"vm: {time.monotonic() - self._started:.0f} s in all, {self._boots} boots")
        print(f"vm: {self._counts['passed']} passed, {self._counts['failed']} failed{skipped}")
        return 1 if self._counts["failed"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except images.ImageError as error:
        sys.exit(f"vm image: {error}")
