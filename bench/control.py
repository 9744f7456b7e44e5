"""What a cluster with its control plane costs and how long it takes: volumes made, engines lost, many volumes at rest.

The processes are those of ./dev up; what the host does is `fairlead bench`.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

from harness import Result, benchmark

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
import up  # noqa: E402

CREATIONS = 30
FAILOVERS = 50
SILENCES = 5
VOLUMES = 200
IDLE_SECONDS = 10
FLEETS = 3
LOAD_SECONDS = 3.5
MIB = 1 << 20
PROMISE = "the promise: below"


class QuietCluster(up.Cluster):
    """That of ./dev up, without a word."""

    def step(self, title):
        pass

    @staticmethod
    def show(text):
        pass

    def ask(self, method, path, document=None):
        request = urllib.request.Request(self.servers()[0] + path, method=method,
                                         data=None if document is None else json.dumps(document).encode(),
                                         headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def volume(self, name):
        return self.ask("GET", f"/v1/volumes/{name}")

    def await_volume(self, name, state="online"):
        up.wait_until(lambda: self.volume(name)["status"]["state"] == state, f"volume {name} is not {state}")

    def pid(self, name):
        return up.kept_processes()[name]


@contextlib.contextmanager
def _cluster(bench):
    up.UP = bench.directory / "cluster"
    cluster = QuietCluster(str(bench.fairlead), 1, False)
    try:
        up.check_machine(cluster)
        up.bring_up(cluster)
        yield cluster
    except up.UpError as error:
        raise RuntimeError(str(error)) from error
    finally:
        up.end_all()


@benchmark
def volume_create(bench):
    """Time: `fairlead volume create` of a thin volume of three replicas, until hosts can use it"""
    times = []
    with _cluster(bench) as cluster:
        for number in range(CREATIONS):
            began = time.monotonic()
            cluster.command("volume", "create", f"v{number}", "--size", "1GiB", "--replicas", "3")
            times.append((time.monotonic() - began) * 1000)
    return [Result("volume-create", "ms", times, 300, f"{PROMISE} 300 ms at p50", at_most=1)]


@benchmark
def failover(bench):
    """Time: a host's longest wait when the engine that serves its volume is killed, and when it is paused"""
    with _cluster(bench) as cluster:
        killed = [_lose(cluster, signal.SIGKILL) for _ in range(FAILOVERS)]
        silent = [_lose(cluster, signal.SIGSTOP) for _ in range(SILENCES)]
    return [Result("failover-killed", "ms", killed, 900, f"{PROMISE} 0.9 s at p50", at_most=1),
            Result("failover-killed-max", "ms", [max(killed)], 2000, f"{PROMISE} 2 s", at_most=1),
            Result("failover-silent-max", "ms", [max(silent)], 5000, f"{PROMISE} 5 s", at_most=1)]


def _lose(cluster, number):
    """Under load; nobody but the control plane does anything about it."""
    volume = cluster.volume(up.VOLUME)
    target = volume["status"]["target"]
    load = up.start_load(cluster, volume, LOAD_SECONDS if number == signal.SIGKILL else LOAD_SECONDS + 5, "32MiB")
    time.sleep(1)
    pid = cluster.pid(f"engine-{target}")
    if number == signal.SIGKILL:
        up.stop(target, pid, number)
        time.sleep(1)
        cluster.start_engine(up.NODES.index(target))
    else:
        os.kill(pid, number)
        time.sleep(6)
        os.kill(pid, signal.SIGCONT)
    result = up.end_load(load)
    if result["errors"] or result["verify_errors"]:
        raise RuntimeError(f"the load failed: {result}")
    up.wait_until(lambda: cluster.nodes_ready() == len(up.NODES), f"node {target} did not come back")
    cluster.await_volume(up.VOLUME)
    return result["longest_silence_ns"] / 1e6


@benchmark
def many_volumes(bench):
    """At rest: 200 volumes of three replicas on three engines; then each engine in turn starts again"""
    with _cluster(bench) as cluster:
        for number in range(VOLUMES):
            cluster.ask("POST", "/v1/volumes", {"name": f"v{number}", "spec": {"size_bytes": 1 << 30, "replicas": 3}})
        up.wait_until(lambda: _online(cluster) == VOLUMES + 1, "the volumes are not online", 120)
        time.sleep(5)
        names = ["control", *(f"engine-{node}" for node in up.NODES)]
        before = {name: _processor_seconds(cluster.pid(name)) for name in names}
        time.sleep(IDLE_SECONDS)
        shares = {name: (_processor_seconds(cluster.pid(name)) - before[name]) / IDLE_SECONDS * 100 for name in names}
        resident = _resident_mib(cluster.pid("control"))
        restarts, copied = zip(*(_start_again(cluster, index) for index in range(len(up.NODES))), strict=True)
    return [Result("many-control-cpu", "% of a core", [shares.pop("control")], 5, PROMISE, at_most=1),
            Result("many-engine-cpu", "% of a core", list(shares.values()), 2, PROMISE, at_most=1),
            Result("many-control-memory", "MiB", [resident], 256, PROMISE, at_most=1),
            Result("many-restart", "ms", list(restarts), 3000, f"{PROMISE}: all replicas in step again", at_most=1),
            Result("many-restart-copied", "MiB", list(copied), 1, f"{PROMISE}: nothing, as nothing was written", at_most=0)]


def _start_again(cluster, index):
    """An engine. Returns how long it takes until all volumes are as before, and what was copied for that."""
    node = up.NODES[index]
    up.stop(node, cluster.pid(f"engine-{node}"), signal.SIGTERM)
    up.wait_until(lambda: cluster.nodes_ready() == len(up.NODES) - 1, "the engine is not missed")
    began = time.monotonic()
    cluster.start_engine(index)
    up.wait_until(lambda: _online(cluster) == VOLUMES + 1, "the volumes are not online", 120)
    took = (time.monotonic() - began) * 1000
    replicas = [replica for volume in cluster.ask("GET", "/v1/volumes")["items"] for replica in volume["status"]["replicas"]]
    return took, sum(replica.get("resynced_bytes", 0) for replica in replicas if replica["node"] == node) / MIB


@benchmark
def fleet(bench):
    """At rest, in the simulator: 1,000 volumes of three replicas on 20 engines that only answer"""
    runs = []
    for _ in range(FLEETS):
        done = subprocess.run([bench.references / "control_fleet"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              text=True, check=True)
        runs.append(json.loads(done.stdout))
    whole = f"{PROMISE}; engines and world included"
    return [Result("fleet-cpu", "% of a core", [run["idle_percent"] for run in runs], 5, whole, at_most=1),
            Result("fleet-memory", "MiB", [run["resident_mib"] for run in runs], 256, whole, at_most=1)]


def _online(cluster):
    volumes = cluster.ask("GET", "/v1/overview")["volumes"]
    return volumes["online"]


def _processor_seconds(pid):
    words = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0
