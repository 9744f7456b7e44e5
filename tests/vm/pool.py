"""A pool on files of the machine, and `fairlead serve --pool` that is told what to do with it while it serves it."""

import json
import os
import pathlib
import re
import time

from target import MIB, ServeTarget, TargetError

SETTLE_SECONDS_MAX = 90


class PoolTarget(ServeTarget):
    """`fairlead serve --pool --commands`: namespace 1 is the first of the replicas, 2 the second.

    `program` is called for the offline commands and for serving; `run` is Context.run_fairlead.
    """

    def __init__(self, program, directory, run, disks_mib=(256,), replicas=None, serves_all=False):
        """`replicas` has a size in MiB for each name, "thick" in the name of one makes it so.

        `serves_all`: after a start all that the pool has is served then, not these replicas alone.
        """
        self.directory = pathlib.Path(directory)
        self.files = [self.directory / f"disk-pool-{number}" for number in range(len(disks_mib))]
        for file, size_mib in zip(self.files, disks_mib):
            file.touch()
            os.truncate(file, size_mib * MIB)
        self._run = run
        self._must("offline", "pool", "create", "vm", *self.files)
        replicas = replicas or {"db": 64}
        disks = ",".join(map(str, self.files))
        for name, size_mib in replicas.items():
            self._must("offline", "replica", "create", name, "--size", f"{size_mib}MiB", "--pool", disks,
                       *(["--thick"] if "thick" in name else []))
        self._program = program
        self._log = self.directory / "target.log"
        self._command = ["--pool", disks, "--commands"]
        for name in [] if serves_all else replicas:
            self._command += ["--replica", name]
        self._bind = [("127.0.0.1", 0)]
        self.listeners = []
        self.start()

    def _must(self, *arguments):
        """Runs an offline command, which must succeed, and returns what it printed."""
        done = self._run(*map(str, arguments))
        if done.returncode:
            raise TargetError(f"fairlead {' '.join(map(str, arguments))}: status {done.returncode}: "
                              f"{done.stdout}{done.stderr}")
        return done.stdout

    # While it is served

    def ask(self, line):
        return self.process.ask(line)

    def snapshot(self, replica, name):
        self.ask(f"snapshot {replica} {name}")

    def serve(self, name):
        """Makes a namespace of a snapshot or replica and returns its number."""
        return int(self.ask(f"serve {name}").split()[-1])

    def clone(self, snapshot, name):
        """Makes a replica of a snapshot, and a namespace of that; returns its number."""
        return int(self.ask(f"clone {snapshot} {name}").split()[-1])

    def number(self, name):
        """Of the namespace that a snapshot or replica is."""
        return next(each["nsid"] for each in json.loads(self.ask("list")) if each["name"] == name)

    def statistics(self):
        return json.loads(self.ask("stats"))

    def used_bytes(self):
        return self.statistics()["used_bytes"]

    def wait_used_below(self, bytes_max):
        """Waits until the background has given back what it can, to the disks too, and at most that is used."""
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while (now := self.statistics())["used_bytes"] > bytes_max or now["releasing_bytes"] > 0:
            if time.monotonic() > deadline:
                raise TargetError(f"at most {bytes_max} used bytes expected: {now}; {self.ask('list')}")
            time.sleep(0.2)

    def allocated_bytes(self):
        """How much of the pool's files is really there."""
        return sum(os.stat(file).st_blocks * 512 for file in self.files)

    # While it is not

    def check(self):
        """`fairlead offline pool check`, which must find nothing."""
        self._must("offline", "pool", "check", *self.files)

    def check_after_crash(self):
        """`fairlead offline pool check`, which may find what the next import mends: a checkpoint may have been under way."""
        done = self._run("offline", "pool", "check", *map(str, self.files))
        if not re.search(r": clean$|: damage 0, repairs \d+, oddities 0$", done.stdout, re.MULTILINE):
            raise TargetError(f"fairlead offline pool check after a crash: {done.stdout}{done.stderr}")

    def show(self):
        return json.loads(self._must("offline", "pool", "show", *self.files, "--json"))

    def is_exported(self):
        return json.loads(self._must("offline", "pool", "list", *self.files, "--json"))["pools"][0]["exported"]
