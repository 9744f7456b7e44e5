"""A cluster with its control plane, as processes: engines, control and etcd, each on a node of a network (network.py), or
engines and control on the loopback."""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from engines import Engine, EngineError, prepare_child, start_load
from network import Network

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
from control_process import ControlProcess  # noqa: E402

NAMES = "abcdefgh"
SECONDS_MAX = 60
# Each node has all ports for itself.
MANAGEMENT_PORT = 7401
ETCD_PORT = 2379


def wait_until(condition, complaint, seconds_max=SECONDS_MAX):
    """Returns what the condition gave when it was true. `complaint` is a text, or gives one."""
    deadline = time.monotonic() + seconds_max
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise EngineError(f"after {seconds_max} s: {complaint() if callable(complaint) else complaint}")
        time.sleep(0.01)  # between two looks; nothing tells us
    return found


class ManagedEngine(Engine):
    """One that control gives orders to. `name` is its node's in the cluster."""

    def __init__(self, fairlead, directory, number, node, controls):
        self.name = NAMES[number]
        self._state = pathlib.Path(directory) / f"state-{self.name}"
        self._controls = ",".join(controls)
        super().__init__(fairlead, directory, number, disk=pathlib.Path(directory) / f"disk-{self.name}", host="127.0.0.1",
                         node=node)

    def command(self):
        return [str(self._fairlead), "engine", "--node", self.name, "--state-dir", str(self._state), "--control",
                self._controls, "--management", f"{self.host}:0", "--listen", self.address, "--insecure", "--shards", "1"]

    @contextlib.contextmanager
    def paused(self):
        """Meanwhile it is silent, and its connections stay."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def open_files(self):
        """How many it has open, connections included."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class EtcdMember:
    """A life of it after the other."""

    def __init__(self, directory, number, nodes):
        self.node = nodes[number]
        self.url = f"http://{self.node.address}:{ETCD_PORT}"
        name = f"etcd{number + 1}"
        peers = [f"http://{node.address}:{ETCD_PORT + 1}" for node in nodes]
        self._command = ["etcd", "--name", name, "--data-dir", str(pathlib.Path(directory) / name),
                         "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                         "--listen-peer-urls", peers[number], "--initial-advertise-peer-urls", peers[number],
                         "--initial-cluster", ",".join(f"etcd{i + 1}={peer}" for i, peer in enumerate(peers))]
        self._log = open(pathlib.Path(directory) / f"{name}.log", "ab")
        self._process = None

    def start(self):
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                                         preexec_fn=lambda: prepare_child(self.node))

    def status(self):
        """None: it does not answer, or knows no leader."""
        with self.node.inside():
            done = subprocess.run(["etcdctl", "--endpoints", self.url, "endpoint", "status", "-w", "json"],
                                  env={"ETCDCTL_API": "3", "PATH": "/usr/bin"}, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, timeout=SECONDS_MAX)
        status = json.loads(done.stdout)[0]["Status"] if done.returncode == 0 else {}
        return status if status.get("leader") else None

    def leads(self):
        status = self.status()
        return status is not None and status["leader"] == status["header"]["member_id"]

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self):
        self.kill()
        self._log.close()


class ManagedCluster:
    """Engines a, b, c … with a pool each, one control process with its store in a file or, with `etcd`, three of both,
    and a node more for hosts. Without a network all are on the loopback, with ports that the system chooses. Its end is
    close()."""

    def __init__(self, fairlead, directory, *, engines=4, etcd=False, pool_size="256MiB", has_network=True):
        self._fairlead = str(fairlead)
        self._directory = pathlib.Path(directory)
        controls = 3 if etcd else 1
        self.net = Network(engines + controls + 1) if has_network else None
        nodes = self.net.nodes if has_network else [None] * (engines + controls + 1)
        self._control_nodes = nodes[engines:engines + controls]
        self.host_node = nodes[-1]
        self.etcd = [EtcdMember(directory, i, self._control_nodes) for i in range(controls)] if etcd else []
        self.controls = [None] * controls
        self._led_last = None
        self.engines = []
        try:
            self._start(nodes[:engines], pool_size)
        except BaseException:
            self.close()
            raise

    def _start(self, nodes, pool_size):
        for member in self.etcd:
            member.start()
        for member in self.etcd:
            wait_until(member.status, f"{member.url} does not join")
        for number in range(len(self.controls)):
            self.start_control(number)
        managements = [control.management for control in self.controls]
        for number, node in enumerate(nodes):
            self.engines.append(ManagedEngine(self._fairlead, self._directory, number, node, managements))
            self.engines[-1].start()
        self.await_nodes()
        for engine in self.engines:
            self.command("pool", "create", f"pool-{engine.name}", "--node", engine.name, engine.disk, "--size", pool_size)

    # Control

    @property
    def store_file(self):
        return self._directory / "control.db"

    def start_control(self, number=0):
        node = self._control_nodes[number]
        store = f"etcd:{','.join(member.url for member in self.etcd)}" if self.etcd else f"sqlite:{self.store_file}"
        self.controls[number] = ControlProcess(
            self._fairlead, self._directory, "--insecure", "--replace-after", "1h", store=store, node=node,
            name=f"control{number + 1}", management=f"{node.address}:{MANAGEMENT_PORT}" if node else "127.0.0.1:0")

    @contextlib.contextmanager
    def control_paused(self):
        """Meanwhile nobody decides anything. There is one control process."""
        self.controls[0].process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.controls[0].process.send_signal(signal.SIGCONT)

    def leading(self):
        """The control process that leads, of those that answer; None: none."""
        for control in sorted(self.controls, key=lambda each: each is not self._led_last):
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(control.connect(2)) as link:
                if control.ask("GET", "/v1", connection=link)[2]["leading"]:
                    self._led_last = control
                    return control
        return None

    def leader(self):
        return wait_until(self.leading, "no control process leads")

    def get(self, path):
        """A document of the REST API; None: it is not to be had now."""
        control = self.leading()
        status, _, document = control.ask("GET", path) if control is not None else (0, {}, None)
        return document if status == 200 else None

    def _run(self, words):
        """A command of fairlead, to the leader, on its node."""
        control = self.leader()
        return subprocess.run([self._fairlead, *map(str, words), "--server", control.url], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=2 * SECONDS_MAX,
                              preexec_fn=lambda: prepare_child(control.node))

    def does(self, *words):
        return self._run(words).returncode == 0

    def command(self, *words):
        """What it said. It is an EngineError when it fails."""
        done = self._run(words)
        if done.returncode != 0:
            raise EngineError(f"fairlead {' '.join(map(str, words))}: exit code {done.returncode}: {done.stdout.strip()}")
        return done.stdout

    # What there is

    def await_nodes(self):
        def are_ready():
            nodes = self.get("/v1/nodes")
            return nodes and sum(node["status"]["state"] == "ready" for node in nodes["items"]) == len(self.engines)
        wait_until(are_ready, lambda: f"not all nodes are ready: {self.get('/v1/nodes')}")

    def volume(self, name):
        return self.get(f"/v1/volumes/{name}")

    def await_well(self, name):
        """Until nothing is left to be done, anywhere. Returns the volume."""
        def is_well():
            overview, volume = self.get("/v1/overview"), self.volume(name)
            if overview is None or volume is None or not overview["well"]:
                return None
            if overview["nodes"]["ready"] != len(self.engines) or overview["pools"]["online"] != len(self.engines):
                return None
            status = volume["status"]
            roles = sorted(path["state"] for path in status["paths"])
            are_met = all(condition["met"] for condition in status["conditions"])
            return volume if are_met and roles == ["serving", "standby", "standby"] else None
        return wait_until(is_well, lambda: f"all is not well: {self.get('/v1/overview')} {self.volume(name)}")

    def engine(self, name):
        return next(engine for engine in self.engines if engine.name == name)

    def load(self, name, *arguments):
        """A host with a path to every engine; see start_load()."""
        status = self.volume(name)["status"]
        engines = sorted(self.engines, key=lambda engine: engine.name != status["target"])
        return start_load(self._fairlead, status["nqn"], [engine.address for engine in engines], self.host_node,
                          *arguments)

    def close(self):
        for engine in self.engines:
            engine.close()
        for control in self.controls:
            if control is not None:
                control.kill()
        for member in self.etcd:
            member.close()
        if self.net is not None:
            self.net.close()
