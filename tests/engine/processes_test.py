#!/usr/bin/env python3
"""A volume of three replicas on three engine processes, under a verified load, while targets are killed, replicas are
stopped, and all come back: no byte is wrong, no request fails, and only what changed is copied.

  processes_test.py --fairlead PROGRAM
"""

import argparse
import signal
import sys
import tempfile
import time
import unittest

from engines import Cluster
from load import Load

MIB = 1 << 20
LOAD_MIB = 8  # of a volume of 64 MiB, all of which was written
LOAD_SECONDS = 20
ROUNDS_UNTIL_SECONDS = 13  # then no round begins
OPTIONS = ("--shards", 1, "--lease", "200ms", "--checkpoint-interval", "1s", "--stall-limit", "2s")

fairlead = None


class ProcessesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cluster = Cluster(fairlead, folder.name, options=OPTIONS)
        self.addCleanup(self.cluster.close)
        self.copied_bytes = 0

    def load(self, *arguments):
        load = Load(self.cluster, *arguments)
        self.addCleanup(load.close)
        return load

    def fill(self, target):
        """Writes all of the volume, and moves it: after that, in order, nothing is left to compare."""
        self.cluster.serve_on(self.cluster.engines[-1])
        self.cluster.await_members(self.cluster.engines[-1], 3)
        written, seconds = 0, 3
        while written < 64 * MIB:
            written = self.load("--rw", "write", "--bs", "256k", "--qd", 2, "--runtime", f"{seconds}s").finish()
            written, seconds = written["operations"] * MIB // 4, seconds * 2
        self.cluster.engines[-1].ask(f"volume stand-by {self.cluster.volume}")
        self.cluster.serve_on(target)
        self.cluster.await_members(target, 3)

    def assert_only_changes_were_copied(self, target, back):
        replica = self.cluster.replica_status(target, back)
        self.assertEqual(replica["standing"], "member")
        self.assertEqual(replica["copied_bytes"], replica["to_copy_bytes"])
        self.assertLessEqual(replica["to_copy_bytes"], LOAD_MIB * MIB)
        self.copied_bytes += replica["copied_bytes"]

    def lose_the_target(self, load, target, standby):
        target.kill()
        self.cluster.serve_on(standby)
        self.cluster.await_members(standby, 2)
        load.await_io()
        self.cluster.restart(target)
        self.cluster.await_members(standby, 3)
        self.assert_only_changes_were_copied(standby, target)
        load.await_io()

    def stop_a_replica(self, load, target, replica):
        replica.signal(signal.SIGSTOP)
        self.cluster.await_members(target, 2)
        load.await_io()
        replica.signal(signal.SIGCONT)
        self.cluster.await_members(target, 3)
        self.assert_only_changes_were_copied(target, replica)

    def test_targets_die_and_replicas_stop_under_load(self):
        engines = self.cluster.engines
        self.fill(engines[0])
        load = self.load("--rw", "randrw", "--mix", 50, "--bs", "4k", "--qd", 16, "--size", f"{LOAD_MIB}MiB", "--verify",
                         "--runtime", f"{LOAD_SECONDS}s")
        begun = time.monotonic()
        rounds = 0
        load.await_io()
        while rounds == 0 or time.monotonic() < begun + ROUNDS_UNTIL_SECONDS:
            target, standby, other = (engines[(rounds + i) % 3] for i in range(3))
            self.lose_the_target(load, target, standby)
            self.stop_a_replica(load, standby, other)
            rounds += 1
        result = load.finish()
        self.assertEqual(result["verify_errors"], 0)
        self.assertGreater(result["verified_reads"], 0)
        self.assertGreater(self.copied_bytes, 0)
        print(f"{rounds} rounds, {result['operations']} requests, {result['verified_reads']} verified reads")
        for engine in engines:
            self.assertEqual(engine.quit(), 0)

    def test_a_planned_move_fails_nothing(self):
        engines = self.cluster.engines
        self.cluster.serve_on(engines[0])
        self.cluster.await_members(engines[0], 3)
        load = self.load("--rw", "randrw", "--bs", "4k", "--qd", 8, "--size", "4MiB", "--verify", "--runtime", "4s")
        for move in range(4):
            load.await_io()
            engines[move % 3].ask(f"volume stand-by {self.cluster.volume}")
            self.cluster.serve_on(engines[(move + 1) % 3])
            self.cluster.await_members(engines[(move + 1) % 3], 3)
        self.assertEqual(load.finish()["verify_errors"], 0)

    def test_a_target_that_was_stopped_lets_go(self):
        old, new, _ = self.cluster.engines
        self.cluster.serve_on(old)
        self.cluster.await_members(old, 3)
        load = self.load("--rw", "randrw", "--bs", "4k", "--qd", 8, "--size", "4MiB", "--verify", "--runtime", "5s")
        load.await_io()
        old.signal(signal.SIGSTOP)
        self.cluster.serve_on(new)
        self.cluster.await_members(new, 2)
        old.signal(signal.SIGCONT)
        self.cluster.await_members(new, 3)
        self.assertEqual(load.finish()["verify_errors"], 0)
        self.assertEqual(self.cluster.status(old)["state"], "standby")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", required=True)
    options, rest = parser.parse_known_args()
    fairlead = options.fairlead
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
