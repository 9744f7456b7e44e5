#!/usr/bin/env python3
"""Clusters as they are run, each process on a node of a network of its own, under a verified load: nodes are cordoned,
drained, upgraded, cut off; the control plane, its store and etcd's leader are lost. No request fails, no byte is wrong.

  cluster_test.py --fairlead PROGRAM [ClusterTest.test_drain …]

Prints for each load the longest time in which none of its requests ended.
"""

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
import unittest

import network
from load import Load
from managed import ManagedCluster, wait_until

MIB = 1 << 20
VOLUME = "db"
VOLUME_MIB = 32
LOAD_MIB = 4
LOAD_DEPTH = 4
LOAD_SECONDS_MAX = 600  # it is told to end
LOST_AFTER_SECONDS = 2  # control's default

fairlead = None
keeps_folders = False


class ClusterCase(unittest.TestCase):
    """Its tests share a cluster. Each finds all well, and leaves it so."""

    def setUp(self):
        begun = time.monotonic()
        self.addCleanup(lambda: self.report(f"took {time.monotonic() - begun:.1f} s"))

    @classmethod
    def start(cls, **options):
        folder = tempfile.mkdtemp(prefix="cluster-")
        if not keeps_folders:
            cls.addClassCleanup(shutil.rmtree, folder)
        cls.cluster = ManagedCluster(fairlead, folder, **options)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.command("volume", "create", VOLUME, "--size", f"{VOLUME_MIB}MiB", "--replicas", 3)
        cls.cluster.await_well(VOLUME)

    @contextlib.contextmanager
    def load(self):
        """Verified, all the time that the body takes; all is well before and after it."""
        self.cluster.await_well(VOLUME)
        load = Load(self.cluster, VOLUME, "--rw", "randrw", "--mix", 50, "--bs", "4k", "--qd", LOAD_DEPTH, "--size",
                    f"{LOAD_MIB}MiB", "--verify", "--runtime", f"{LOAD_SECONDS_MAX}s")
        try:
            load.await_io()
            yield load
            self.cluster.await_well(VOLUME)
            load.await_io()
            load.end()
            result = load.finish()
        finally:
            load.close()
        self.assertGreater(result["verified_reads"], 0)
        print(f"{self._testMethodName}: {result['operations']} requests, {result['verified_reads']} verified reads; "
              f"longest pause {result['longest_silence_ns'] / 1e6:.0f} ms", flush=True)

    def report(self, text):
        print(f"{self._testMethodName}: {text}", flush=True)

    def target(self):
        return self.cluster.volume(VOLUME)["status"]["target"]

    def nodes_with_replicas(self):
        return sorted(replica["node"] for replica in self.cluster.volume(VOLUME)["status"]["replicas"])

    def pools(self):
        return sorted((pool["name"], pool["id"], pool["spec"]["node"], pool["spec"]["disks"])
                      for pool in self.cluster.get("/v1/pools")["items"])

    def times_lost(self):
        return sum(event["reason"] == "Lost" for event in self.cluster.get("/v1/events")["items"])

    def await_target(self, other_than):
        """Who serves the volume instead."""
        def found():
            volume = self.cluster.volume(VOLUME)
            status = volume["status"] if volume is not None else {}
            is_served = any(path["state"] == "serving" for path in status.get("paths", ()))
            return is_served and status["target"] not in ("", other_than) and status["target"]
        return wait_until(found, lambda: f"nobody takes over from {other_than}: {self.cluster.volume(VOLUME)}")

    def await_members(self, count):
        """Until so many replicas of the volume take part in its writes."""
        def are_there():
            volume = self.cluster.volume(VOLUME)
            return volume is not None and sum(
                replica["state"] == "member" for replica in volume["status"]["replicas"]) == count
        wait_until(are_there, lambda: f"not {count} members: {self.cluster.volume(VOLUME)}")


class ClusterTest(ClusterCase):
    """Four nodes, and control with its store in a file."""

    @classmethod
    def setUpClass(cls):
        cls.start()
        # All of it is written: a copy of everything is told from one of what changed.
        Load(cls.cluster, VOLUME, "--rw", "write", "--bs", "256k", "--qd", 4, "--runtime", "2s").finish()

    def resynced_bytes(self, node):
        replicas = self.cluster.await_well(VOLUME)["status"]["replicas"]
        return next(replica["resynced_bytes"] for replica in replicas if replica["node"] == node)

    def assert_only_changes_are_copied(self, node):
        copied = self.resynced_bytes(node)
        self.assertGreater(copied, 0)
        self.assertLessEqual(copied, LOAD_MIB * MIB)
        return copied

    def test_cordon(self):
        cluster = self.cluster
        cluster.await_well(VOLUME)
        cluster.command("node", "cordon", "b")
        cluster.command("volume", "create", "elsewhere", "--size", "16MiB", "--replicas", 3)
        replicas = cluster.volume("elsewhere")["status"]["replicas"]
        self.assertEqual(sorted(replica["node"] for replica in replicas), ["a", "c", "d"])
        cluster.command("volume", "create", "everywhere", "--size", "16MiB", "--replicas", 4, "--no-wait")
        self.assertIn("node b is cordoned", wait_until(
            lambda: next((said for said in [cluster.command("why", "volume/everywhere")] if "cordoned" in said), None),
            "nobody says why there is no place"))
        cluster.command("node", "uncordon", "b")
        cluster.command("wait", "volume/everywhere", "--timeout", "60s")
        for name in ("elsewhere", "everywhere"):
            cluster.command("volume", "delete", name)
        cluster.await_well(VOLUME)

    def test_drain(self):
        with self.load() as load:
            drained = self.target()
            self.cluster.command("node", "drain", drained, "--timeout", "60s")
            node = self.cluster.get(f"/v1/nodes/{drained}")
            self.assertEqual((node["status"]["targets"], node["status"]["replicas"]), (0, 0))
            self.assertNotIn(drained, self.nodes_with_replicas())
            self.assertEqual(json.loads(self.cluster.command("replica", "list", "--node", drained, "-o", "json")), [])
            load.await_io()
            self.cluster.command("node", "uncordon", drained)

    def test_rolling_restart(self):
        copied = []
        with self.load() as load:
            for engine in self.cluster.engines:
                load.await_io()
                self.assertEqual(engine.terminate(), 0)
                load.await_io()
                engine.start()
                self.cluster.await_nodes()
                self.cluster.command("wait", f"volume/{VOLUME}", "--timeout", "60s")
                self.assertIn("All is well", self.cluster.command("status"))
                if engine.name in self.nodes_with_replicas():
                    copied.append(self.assert_only_changes_are_copied(engine.name))
        self.assertEqual(len(copied), 3)
        self.report(f"copied {', '.join(f'{each / MIB:.1f}' for each in copied)} MiB of {VOLUME_MIB}")

    def lose_the_target(self, cut):
        lost = self.target()
        node = self.cluster.engine(lost).node
        with self.load() as load:
            begun = time.monotonic()
            for way in cut:
                way(node)
            self.await_target(other_than=lost)
            load.await_io()
            self.report(f"another serves after {time.monotonic() - begun:.1f} s")
            self.cluster.net.heal()
            self.cluster.await_well(VOLUME)
            copied = self.assert_only_changes_are_copied(lost)
        self.report(f"copied {copied / MIB:.1f} MiB of {VOLUME_MIB}")

    def test_node_is_cut_off(self):
        self.lose_the_target((self.cluster.net.mute, self.cluster.net.deafen))

    def test_node_is_not_heard(self):
        self.lose_the_target((self.cluster.net.mute,))

    def test_node_hears_nothing(self):
        self.lose_the_target((self.cluster.net.deafen,))

    def test_control_is_lost(self):
        cluster = self.cluster
        with self.load() as load:
            status = cluster.volume(VOLUME)["status"]
            target = cluster.engine(status["target"])
            other = cluster.engine(next(path["node"] for path in status["paths"] if path["state"] == "standby"))
            cluster.controls[0].kill()
            load.await_io()
            # Two of three replicas decide by themselves that they go on.
            other.kill()
            load.await_io()
            other.start()
            load.await_io()
            # Nobody tells another engine to serve: hosts wait.
            target.kill()
            cluster.start_control()
            self.assertNotEqual(self.await_target(other_than=target.name), target.name)
            load.await_io()
            target.start()

    def test_control_is_paused(self):
        """Engines that it did not hear because it stood still are not lost."""
        cluster = self.cluster
        with self.load() as load:
            target = self.target()
            lost = self.times_lost()
            resume = time.monotonic() + 2 * LOST_AFTER_SECONDS
            with cluster.control_paused():
                wait_until(lambda: time.monotonic() > resume, "time stands still")
            load.await_io()
            cluster.await_well(VOLUME)
            # Whoever was silent for so long since then would be lost by now.
            resume = time.monotonic() + LOST_AFTER_SECONDS
            wait_until(lambda: time.monotonic() > resume, "time stands still")
            self.assertEqual(self.times_lost(), lost)
            self.assertEqual(self.target(), target)

    def test_store_is_lost(self):
        cluster = self.cluster
        cluster.await_well(VOLUME)
        cluster.command("snapshot", "create", "monday", "--volume", VOLUME)
        cluster.command("volume", "set", VOLUME, "--label", "tier=gold")
        before = cluster.await_well(VOLUME)
        pools = self.pools()
        with self.load() as load:
            cluster.controls[0].kill()
            for file in cluster.store_file.parent.glob("control.db*"):
                file.unlink()
            load.await_io()
            cluster.start_control()
            cluster.await_nodes()
            wait_until(lambda: len(self.pools()) == len(pools), "the pools are not found")
            self.assertIsNone(cluster.volume(VOLUME))
            load.await_io()
            self.assertIn(VOLUME, cluster.command("recover"))
            after = cluster.await_well(VOLUME)
        for what in ("id", "labels", "spec"):
            self.assertEqual(after[what], before[what])
        self.assertEqual(*({(replica["id"], replica["node"]) for replica in volume["status"]["replicas"]}
                           for volume in (before, after)))
        self.assertEqual(self.pools(), pools)
        snapshots = cluster.get("/v1/snapshots")["items"]
        self.assertEqual([(each["spec"]["volume"], each["status"]["state"]) for each in snapshots], [(VOLUME, "ready")])
        # The witness of the new store votes again: the volume is served on without its target.
        target = cluster.engine(self.target())
        with self.load() as load:
            target.kill()
            self.await_target(other_than=target.name)
            load.await_io()
            target.start()
        cluster.command("snapshot", "delete", snapshots[0]["name"])


@unittest.skipUnless(shutil.which("etcd") and shutil.which("etcdctl"), "etcd is not installed")
class EtcdTest(ClusterCase):
    """Three nodes, and three control processes, each beside a member of etcd."""

    @classmethod
    def setUpClass(cls):
        cls.start(engines=3, etcd=True)

    def await_leader(self, other_than):
        begun = time.monotonic()
        leader = wait_until(lambda: (found := self.cluster.leading()) is not other_than and found,
                            "no other control process leads")
        self.report(f"another control process leads after {time.monotonic() - begun:.1f} s")
        return leader

    def kill_the_target(self, load):
        """What nobody but a control process that leads can mend."""
        target = self.cluster.engine(self.target())
        target.kill()
        self.await_target(other_than=target.name)
        load.await_io()
        target.start()
        self.cluster.await_well(VOLUME)

    def test_leader_is_killed(self):
        with self.load() as load:
            leader = self.cluster.leader()
            leader.kill()
            self.await_leader(other_than=leader)
            self.cluster.await_nodes()
            self.kill_the_target(load)
            self.cluster.start_control(self.cluster.controls.index(leader))

    def test_leader_that_was_paused_changes_nothing(self):
        cluster = self.cluster
        with self.load() as load:
            old = cluster.leader()
            revision = cluster.volume(VOLUME)["revision"]
            old.process.send_signal(signal.SIGSTOP)
            # It finds this when it wakes up, and takes itself for the leader.
            asked = old.connect()
            asked.request("PATCH", f"/v1/volumes/{VOLUME}", json.dumps({"labels": {"by": "old"}}),
                          {"Content-Type": "application/merge-patch+json"})
            new = self.await_leader(other_than=old)
            cluster.await_nodes()
            self.kill_the_target(load)
            old.process.send_signal(signal.SIGCONT)
            answer = asked.getresponse()
            said = answer.read()
            asked.close()
            self.assertGreaterEqual(answer.status, 500, said)
            wait_until(lambda: not old.ask("GET", "/v1")[2]["leading"], "the old leader does not give way")
            self.assertTrue(new.ask("GET", "/v1")[2]["leading"])
            found = cluster.await_well(VOLUME)
            self.assertEqual(found["labels"], {})
            self.assertGreater(found["revision"], revision)

    def test_leader_of_etcd_is_killed(self):
        cluster = self.cluster
        with self.load() as load:
            leader = wait_until(lambda: next((member for member in cluster.etcd if member.leads()), None),
                                "no member of etcd leads")
            leader.kill()
            begun = time.monotonic()
            # What was under way to the member that died may have been done or not: it is asked for again.
            wait_until(lambda: cluster.does("volume", "create", "next", "--size", "16MiB", "--replicas", 3),
                       "no volume can be made")
            self.report(f"a volume was made {time.monotonic() - begun:.1f} s after etcd's leader was killed")
            cluster.await_nodes()
            self.kill_the_target(load)
            leader.start()
            wait_until(leader.status, "the member of etcd does not come back")
            cluster.command("volume", "delete", "next")


def main():
    global fairlead, keeps_folders
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fairlead", required=True)
    parser.add_argument("--keep", action="store_true", help="logs and disks")
    options, rest = parser.parse_known_args()
    fairlead, keeps_folders = options.fairlead, options.keep
    network.become_root()
    if trouble := network.may_have_namespaces():
        print(f"skipped: {trouble}")
        return 77
    return not unittest.main(argv=[sys.argv[0], *rest], verbosity=2, exit=False).result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
