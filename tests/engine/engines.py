"""`fairlead engine` as processes: a mirrored volume on several of them, steered by commands."""

import ctypes
import json
import os
import pathlib
import queue
import random
import re
import signal
import socket
import subprocess
import threading
import time
import uuid

ANSWER_SECONDS_MAX = 60
POOL_SIZE = "256MiB"  # of those in files
VOLUME = str(uuid.UUID(int=0x4000_8000_0000_0000_ffff_0000))
_libc = ctypes.CDLL(None, use_errno=True)


class EngineError(Exception):
    """An engine did not do what was asked, or in time."""


def die_with_parent():
    """For a child, before it becomes another program: it is killed when we end, however that comes."""
    _libc.prctl(1, signal.SIGKILL)


def run_tool(*command):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60)
    if done.returncode != 0:
        raise EngineError(f"{' '.join(map(str, command))}: exit code {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def start_load(fairlead, nqn, addresses, node, *arguments):
    """`fairlead bench` as a host with a path to each address, under way. Its result is JSON on its output."""
    first, *others = addresses
    more = [word for address in others for word in ("--path", address)]
    command = [fairlead, "bench", f"nvme+tcp://{first}/{nqn}?ns=1", *more, "--quiesce", "0s", "--overwrite", "--json",
               *arguments]
    return subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, preexec_fn=lambda: prepare_child(node))


def prepare_child(node):
    """Before it becomes another program, on the node if there is one."""
    die_with_parent()
    if node is not None:
        node.enter()


def lasting_port(host):
    """A free one that stays so while its engine is away: the system gives it to nobody's outgoing connection."""
    first_given = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(2048, first_given)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port


class Engine:
    """One engine, life after life: its pool, its address, and its process while there is one.

    Each has a loopback address of its own if none is said, or lives on a node of a network. Its port is chosen in its
    first life, and kept. `advertise` is what hosts reach it as, if not by its address. `disk` is what it
    takes as its pool; when there is none a pool is made in a file.
    """

    def __init__(self, fairlead, directory, number, *, disk=None, options=(), cpu=None, pool_size=POOL_SIZE,
                 host=None, advertise=None, node=None):
        self._fairlead = fairlead
        self._advertise = f",advertise={advertise}" if advertise else ""
        self._options = [str(option) for option in options]
        self._cpu = cpu
        self.node = node
        self._log = open(pathlib.Path(directory) / f"engine{number}.log", "ab")
        self._process = None
        self.number = number
        self.host = node.address if node else host or f"127.0.0.{10 + number}"
        # Others connect from an address that is said, too.
        self.port = lasting_port(host) if host and not node else 0
        self.disk = disk or pathlib.Path(directory) / f"engine{number}.img"
        self.replica = str(uuid.UUID(int=0x4000_8000_0000_0000_0000 + number + 1))
        if not disk:
            run_tool(fairlead, "offline", "pool", "create", f"pool{number}", self.disk, "--size", pool_size)

    @property
    def pid(self):
        return self._process.pid

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def command(self):
        return [str(self._fairlead), "engine", "--pool", str(self.disk), "--listen", self.address + self._advertise,
                "--commands", *self._options]

    def start(self):
        self._process = subprocess.Popen(
            self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            preexec_fn=self._prepare)
        self._answers = queue.Queue()
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        if not self._ready.wait(ANSWER_SECONDS_MAX) or self._process.poll() is not None:
            raise EngineError(f"engine {self.number} does not become ready: exit code {self._process.poll()}")

    def _prepare(self):
        prepare_child(self.node)
        if self._cpu is not None:
            os.sched_setaffinity(0, {self._cpu})

    def _read(self, stdout):
        for line in stdout:
            self._log.write(line.encode())
            if found := re.match(r"listening on \S+:(\d+)\s", line):
                self.port = int(found[1])
            elif line == "ready\n":
                self._ready.set()
            elif re.match(r"(ok|error)( |$)", line):
                self._answers.put(line.rstrip("\n"))
        self._ready.set()
        self._answers.put("error the engine has ended")

    def tell(self, command):
        """Says a command; its answer is to be taken by answer()."""
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answer(self, command, seconds_max=ANSWER_SECONDS_MAX):
        try:
            said = self._answers.get(timeout=seconds_max)
        except queue.Empty:
            raise EngineError(f"engine {self.number}: no answer to '{command}' in {seconds_max} s") from None
        if not said.startswith("ok"):
            raise EngineError(f"engine {self.number}: {command}: {said}")
        return said[3:]

    def ask(self, command, seconds_max=ANSWER_SECONDS_MAX):
        self.tell(command)
        return self.answer(command, seconds_max)

    def kill(self):
        self._process.kill()
        self._collect()

    def quit(self):
        """In order. Returns the exit code."""
        self.tell("quit")
        return self._collect()

    def terminate(self):
        """In order, as a service is stopped. Returns the exit code."""
        self.signal(signal.SIGTERM)
        return self._collect()

    def signal(self, number):
        self._process.send_signal(number)

    def _collect(self):
        process, self._process = self._process, None
        try:
            code = process.wait(ANSWER_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise EngineError(f"engine {self.number} does not end") from None
        self._reader.join()
        process.stdin.close()
        process.stdout.close()
        return code

    def checksum(self):
        """Of its replica; while it does not run."""
        return run_tool(self._fairlead, "offline", "replica", "checksum", "db", "--pool", self.disk).strip()

    def close(self):
        if self._process is not None:
            self._process.kill()
            self._collect()
        self._log.close()


class Cluster:
    """Engines with one volume, a replica on each; all show it. Its end is that of a `with`."""

    def __init__(self, fairlead, directory, *, engines=3, size="64MiB", disk=None, options=(), cpus=(None,) * 8,
                 members=None, pool_size=POOL_SIZE, host=None, advertise=None, network=None):
        """The volume begins with the replicas of the first `members` engines, of all if not said; others may join.
        `network`: one more node than engines; the last is the load's.
        """
        self._fairlead = fairlead
        self.volume = VOLUME
        self.nqn = f"nqn.2026-01.io.fairlead:volume:{self.volume}"
        self._size = size
        nodes = network.nodes if network else [None] * (engines + 1)
        self.host_node = nodes[engines]
        self.engines = []
        try:
            for number in range(engines):
                ids = ("--controller-ids", f"{1 + 1000 * number}-{1000 * (number + 1)}")
                self.engines.append(
                    Engine(fairlead, directory, number, disk=disk, options=[*options, *ids], cpu=cpus[number],
                           pool_size=pool_size, host=host, advertise=advertise, node=nodes[number]))
            first = self.engines[:members]
            names = ",".join(engine.replica for engine in first)
            for engine in self.engines:
                engine.start()
                engine.ask(f"replica create db {size} {self.volume} {engine.replica} {names if engine in first else ''}")
            for engine in first:
                self.show_on(engine, first)
        except BaseException:
            self.close()
            raise

    def show_on(self, engine, among=None):
        """Replicas are on `among`, on all if not said."""
        places = " ".join(f"{each.replica}@{'local' if each is engine else each.address}"
                          for each in among or self.engines)
        engine.ask(f"volume open {self.volume} {self._size} {places}")

    def serve_on(self, engine):
        engine.ask(f"volume serve {self.volume}")

    def status(self, engine):
        return json.loads(engine.ask(f"volume status {self.volume}"))

    def replica_status(self, engine, of):
        """What the target, `engine`, says of the replica of another."""
        return next(each for each in self.status(engine)["replicas"] if each["replica"] == of.replica)

    def await_members(self, engine, count, seconds_max=90):
        """Until the volume is served there with so many members, nothing is left to level, and all that is on record."""
        deadline = time.monotonic() + seconds_max
        while True:
            status = self.status(engine)
            if (status["state"] == "serving" and len(status["members"]) == count and status["is_settled"]
                    and status["unlevel_bytes"] == 0):
                return status
            if time.monotonic() > deadline:
                raise EngineError(f"no {count} members in {seconds_max} s: {status}")
            time.sleep(0.01)  # between two looks; nothing tells us

    def restart(self, engine):
        engine.start()
        self.show_on(engine)

    def url(self, engine):
        return f"nvme+tcp://{engine.address}/{self.nqn}?ns=1"

    def load(self, *arguments):
        """See start_load()."""
        addresses = [engine.address for engine in self.engines]
        return start_load(self._fairlead, self.nqn, addresses, self.host_node, *arguments)

    def close(self):
        for engine in self.engines:
            engine.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
