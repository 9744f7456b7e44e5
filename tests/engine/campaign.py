#!/usr/bin/env python3
"""Rounds of faults against a volume of three replicas on three engine processes, under a verified load with a path to
each. Faults come in the order that the seed says, one heals before the next. After each round the replicas must hold
the same bytes.

  campaign.py --fairlead PROGRAM --rounds 20 --seed 1

Each engine and the load have a network namespace of their own. Prints a summary: rounds, faults by kind, requests,
verified reads. Exit code 0: no request failed, no byte was wrong; 1: something was, and the folder with logs and disks
is kept.
"""

import argparse
import collections
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

import network
from engines import Cluster, EngineError
from load import Load

OPTIONS = ("--shards", 1, "--lease", "200ms", "--checkpoint-interval", "1s", "--stall-limit", "2s", "--faulty")
LOAD = ("--rw", "randrw", "--mix", 50, "--bs", "4k", "--qd", 16, "--size", "8MiB", "--verify")
LOAD_SECONDS_MAX = 600  # it is told to end
SECONDS_MAX = 40  # until a volume is whole again
BAD_READS = "read:error=io,probability=0.05"
BAD_WRITES = "write:error=io,probability=0.02"
BAD_DISK = "any:error=io"


class Campaign:
    def __init__(self, cluster, net, seed):
        self._cluster = cluster
        self._net = net
        self._random = random.Random(seed)
        self._bag = []
        self._load = None
        self._target = cluster.engines[0]
        self.counts = collections.Counter()
        self.doing = "at rest"
        self.fired = 0  # requests to disks that failed
        self.requests = 0
        self.verified_reads = 0

    def round(self, seconds):
        """Faults begin for so long, one at least."""
        self._cluster.serve_on(self._target)
        self._whole()
        self._load = Load(self._cluster, *LOAD, "--runtime", f"{LOAD_SECONDS_MAX}s")
        try:
            begun = time.monotonic()
            while True:
                self._load.await_io()
                fault = self._draw()
                self.doing = fault.__doc__
                fault(self)
                self.doing = "at rest"
                self.counts[fault.__doc__] += 1
                if time.monotonic() > begun + seconds:
                    break
            self._load.end()
            result = self._load.finish()
        finally:
            self._load.close()
        self.requests += result["operations"]
        self.verified_reads += result["verified_reads"]
        self._compare()

    def _draw(self):
        """Each kind once, in any order, before one comes again."""
        if not self._bag:
            self._bag = list(self.KINDS)
            self._random.shuffle(self._bag)
        return self._bag.pop()

    def _compare(self):
        """At rest all replicas have the same bytes."""
        self._target.ask(f"volume stand-by {self._cluster.volume}")
        for engine in self._cluster.engines:
            if code := engine.quit():
                raise AssertionError(f"engine {engine.number} ends with exit code {code}")
        sums = [engine.checksum() for engine in self._cluster.engines]
        if len(set(sums)) != 1:
            raise AssertionError(f"the replicas differ: {sums}")
        for engine in self._cluster.engines:
            engine.start()
        for engine in self._cluster.engines:
            self._cluster.show_on(engine)

    # What faults are made of.

    def _others(self):
        others = [engine for engine in self._cluster.engines if engine is not self._target]
        self._random.shuffle(others)
        return others

    def _take_over(self):
        """By another engine than the target, which cannot be asked."""
        old, self._target = self._target, self._others()[0]
        self._cluster.serve_on(self._target)
        self._serves_without_one()
        return old

    def _serves_without_one(self):
        self._cluster.await_members(self._target, 2, SECONDS_MAX)
        self._load.await_io()

    def _whole(self):
        self._cluster.await_members(self._target, 3, SECONDS_MAX)
        for engine in self._others():
            self._until(lambda engine=engine: self._cluster.status(engine)["state"] == "standby",
                        f"engine {engine.number} does not stand by")

    def _until(self, holds, complaint):
        deadline = time.monotonic() + SECONDS_MAX
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(complaint)
            time.sleep(0.01)  # between two looks; nothing tells us

    def _set_faults(self, engine, rules):
        self.fired += int(engine.ask(f"disk faults {rules}"))

    def _restart(self, engine):
        engine.kill()
        self._cluster.restart(engine)

    # Faults; the first line of each is its name.

    def kill_target(self):
        """target killed"""
        old = self._target
        old.kill()
        self._take_over()
        self._cluster.restart(old)
        self._whole()

    def kill_replica(self):
        """replica killed"""
        replica = self._others()[0]
        replica.kill()
        self._serves_without_one()
        self._cluster.restart(replica)
        self._whole()

    def stop_target(self):
        """target stopped"""
        old = self._target
        old.signal(signal.SIGSTOP)
        self._take_over()
        old.signal(signal.SIGCONT)
        self._whole()

    def stop_replica(self):
        """replica stopped"""
        replica = self._others()[0]
        replica.signal(signal.SIGSTOP)
        self._serves_without_one()
        replica.signal(signal.SIGCONT)
        self._whole()

    def mute_target(self):
        """target cut off: what it sends"""
        self._net.mute(self._target.node)
        self._take_over()
        self._net.heal()
        self._whole()

    def deafen_target(self):
        """target cut off: what it is sent"""
        self._net.deafen(self._target.node)
        self._take_over()
        self._net.heal()
        self._whole()

    def cut_from_host(self):
        """host's way to the target cut: what the host sends"""
        self._net.cut(self._cluster.host_node, self._target.node)
        self._move()
        self._load.await_io()
        self._net.heal()
        self._whole()

    def mute_replica(self):
        """replica cut off from the target: what it sends"""
        self._net.cut(self._others()[0].node, self._target.node)
        self._serves_without_one()
        self._net.heal()
        self._whole()

    def deafen_replica(self):
        """replica cut off from the target: what it is sent"""
        self._net.cut(self._target.node, self._others()[0].node)
        self._serves_without_one()
        self._net.heal()
        self._whole()

    def bad_reads(self):
        """target's disk: some reads fail"""
        self._set_faults(self._target, BAD_READS)
        for _ in range(10):
            self._load.await_io()
        self._set_faults(self._target, "none")
        self._whole()

    def bad_writes_at_target(self):
        """target's disk: some writes fail"""
        self._set_faults(self._target, BAD_WRITES)
        self._serves_without_one()
        self._set_faults(self._target, "none")
        old = self._target
        self._move()
        self._restart(old)
        self._whole()

    def bad_writes_at_replica(self):
        """replica's disk: some writes fail"""
        replica = self._others()[0]
        self._set_faults(replica, BAD_WRITES)
        self._serves_without_one()
        self._set_faults(replica, "none")
        self._restart(replica)
        self._whole()

    def dead_disk(self):
        """replica's disk: everything fails"""
        replica = self._others()[0]
        self._set_faults(replica, BAD_DISK)
        self._serves_without_one()
        self._set_faults(replica, "none")
        self._restart(replica)
        self._whole()

    def move(self):
        """planned move"""
        self._move()
        self._whole()

    def _move(self):
        self._target.ask(f"volume stand-by {self._cluster.volume}")
        self._target = self._others()[0]
        self._cluster.serve_on(self._target)
        self._until(lambda: self._cluster.status(self._target)["state"] == "serving", "it is not served")
        self._load.await_io()

    OF_PROCESSES = (kill_target, kill_replica, stop_target, stop_replica, bad_reads, bad_writes_at_target,
                    bad_writes_at_replica, dead_disk, move)
    OF_NETWORKS = (mute_target, deafen_target, cut_from_host, mute_replica, deafen_replica)
    KINDS = OF_PROCESSES + OF_NETWORKS


def run(arguments, folder):
    net = network.Network(4)
    with Cluster(arguments.fairlead, folder, options=OPTIONS, network=net) as cluster:
        campaign = Campaign(cluster, net, arguments.seed)
        done = 0
        try:
            for done in range(1, arguments.rounds + 1):
                campaign.round(arguments.seconds)
                print(f"round {done}: {sum(campaign.counts.values())} faults, {campaign.verified_reads} verified reads",
                      flush=True)
        except (AssertionError, EngineError) as error:
            raise AssertionError(f"{campaign.doing}: {error}") from error
        finally:
            print(f"{done} rounds, seed {arguments.seed}, {sum(campaign.counts.values())} faults:")
            for name, count in sorted(campaign.counts.items()):
                print(f"  {count:4} {name}")
            print(f"{campaign.fired} requests to disks failed; hosts: {campaign.requests} requests, "
                  f"{campaign.verified_reads} verified reads", flush=True)
    net.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=12, help="for which faults begin in a round (default 12)")
    arguments = parser.parse_args()
    network.become_root()
    if trouble := network.may_have_namespaces():
        print(f"skipped: {trouble}")
        return 77
    folder = tempfile.mkdtemp(prefix="campaign-")
    try:
        run(arguments, folder)
    except AssertionError as error:
        print(f"FAILED: {error}\nlogs and disks: {folder}")
        return 1
    shutil.rmtree(folder)
    print("no request failed, no byte was wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
