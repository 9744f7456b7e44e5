#!/usr/bin/env python3
"""The cluster of ./dev up and ./dev down: a control plane and three engines on this machine, with pools in files.

    python3 tools/up.py up --fairlead build/release/src/cli/fairlead [--etcd] [--fast]
    python3 tools/up.py down

Up starts the processes, makes a pool on each engine and a volume of three replicas, by the commands that it prints. Then
it writes to the volume over NVMe/TCP, verifies, kills the engine that serves under load, starts it again, and tells what
that meant. The cluster goes on in the background until down ends it. All that it makes is in build/up.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
UP = ROOT / "build" / "up"
NODES = ("a", "b", "c")
VOLUME = "demo"
VOLUME_SIZE = "1GiB"
POOL_SIZE = "4GiB"
PORTS = {"rest": 7400, "control": 7401, "management": 7440, "data": 4420, "etcd": 2379}
SECONDS_MAX = 60
LOAD_SECONDS = 8
AWAY_SECONDS = 1  # of the engine that is killed, while the volume is written to


class UpError(Exception):
    """It cannot go on; the message says why, and what to do."""


# ---- Processes that outlive this one

def began(pid):
    """When the process began, in ticks since the machine did: pids are used again. None: there is none, or it has ended."""
    try:
        words = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[19])


def read_processes():
    try:
        return json.loads((UP / "processes.json").read_text())
    except (OSError, ValueError):
        return {}


def kept_processes():
    """By name: those that run still."""
    return {name: pid for name, (pid, at) in read_processes().items() if began(pid) == at}


def keep(name, pid):
    (UP / "processes.json").write_text(json.dumps({**read_processes(), name: (pid, began(pid))}))


def wait_until(condition, what, seconds=SECONDS_MAX):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise UpError(f"{what} within {seconds} s; the logs are in {os.path.relpath(UP)}")
        time.sleep(0.02)


def stop(name, pid, number):
    """Ends a process that runs, by force when it does not obey."""
    os.kill(pid, number)
    try:
        wait_until(lambda: began(pid) is None, f"{name} did not end")
    except UpError:
        os.kill(pid, signal.SIGKILL)


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Cluster:
    def __init__(self, fairlead, controls, has_etcd):
        self.fairlead = os.path.abspath(fairlead)
        self.controls = controls
        self.has_etcd = has_etcd
        self.step_number = 0

    # What is shown

    def step(self, title):
        self.step_number += 1
        bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
        print(f"\n{bold}{self.step_number}. {title}{plain}", flush=True)

    @staticmethod
    def show(text):
        print("".join(f"     {line}\n" for line in text.rstrip().splitlines()), end="", flush=True)

    # What is run

    def start(self, name, command):
        self.show("$ " + " ".join(os.path.relpath(word, UP) if word.startswith(str(UP)) else word for word in command)
                  .replace(self.fairlead, "fairlead"))
        with open(UP / f"{name}.log", "ab") as log:
            process = subprocess.Popen(command, cwd=UP, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True)
        keep(name, process.pid)
        return process

    def command(self, *words, is_shown=True):
        """Runs a command of fairlead against the cluster; returns what it printed."""
        if is_shown:
            self.show("$ fairlead " + " ".join(words))
        done = subprocess.run([self.fairlead, *words], capture_output=True, text=True, cwd=UP, timeout=120,
                              env={**os.environ, "FAIRLEAD_SERVER": ",".join(self.servers())}, check=False)
        if done.returncode:
            raise UpError(f"fairlead {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        if is_shown:
            self.show(done.stdout)
        return done.stdout

    def resource(self, kind, name):
        return json.loads(self.command(kind, "show", name, "-o", "json", is_shown=False))

    def servers(self):
        return [f"http://127.0.0.1:{PORTS['rest'] + 10 * i}" for i in range(self.controls)]

    # The parts

    def start_etcd(self):
        peer = f"http://127.0.0.1:{PORTS['etcd'] + 1}"
        client = f"http://127.0.0.1:{PORTS['etcd']}"
        self.start("etcd", ["etcd", "--data-dir", str(UP / "etcd"), "--listen-client-urls", client,
                            "--advertise-client-urls", client, "--listen-peer-urls", peer,
                            "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"])

    def start_control(self, index):
        store = f"etcd:http://127.0.0.1:{PORTS['etcd']}" if self.has_etcd else "sqlite:control.db"
        self.start(f"control{index + 1}" if self.controls > 1 else "control",
                   [self.fairlead, "control", "--store", store, "--listen", f"127.0.0.1:{PORTS['rest'] + 10 * index}",
                    "--management", f"127.0.0.1:{PORTS['control'] + 10 * index}"])

    def start_engine(self, index):
        control = ",".join(f"127.0.0.1:{PORTS['control'] + 10 * i}" for i in range(self.controls))
        return self.start(f"engine-{NODES[index]}",
                          [self.fairlead, "engine", "--node", NODES[index], "--state-dir", f"state-{NODES[index]}",
                           "--control", control, "--management", f"127.0.0.1:{PORTS['management'] + index}",
                           "--listen", f"127.0.0.1:{PORTS['data'] + index}", "--shards", "1"])

    def nodes_ready(self):
        try:
            nodes = json.loads(self.command("node", "list", "-o", "json", is_shown=False))
        except (UpError, ValueError):
            return 0
        return sum(node["status"]["state"] == "ready" for node in nodes)


# ---- Up

def check_machine(cluster):
    if kept_processes():
        raise UpError("the cluster is up already: './dev down' ends it")
    ports = [PORTS['rest'] + 10 * i for i in range(cluster.controls)] + [PORTS['control'] + 10 * i for i in range(cluster.controls)]
    ports += [base + i for base in (PORTS['management'], PORTS['data']) for i in range(len(NODES))]
    ports += [PORTS['etcd'], PORTS['etcd'] + 1] if cluster.has_etcd else []
    busy = [str(port) for port in ports if not is_free(port)]
    if busy:
        raise UpError(f"other programs have ports {', '.join(busy)} of 127.0.0.1: end them first")
    shutil.rmtree(UP, ignore_errors=True)
    UP.mkdir(parents=True)


def bring_up(cluster):
    what = "three control processes, which keep what they know in etcd," if cluster.has_etcd else "a control plane"
    cluster.step(f"Start {what} and three engines")
    if cluster.has_etcd:
        cluster.start_etcd()
    for index in range(cluster.controls):
        cluster.start_control(index)
    for index in range(len(NODES)):
        cluster.start_engine(index)
    wait_until(lambda: cluster.nodes_ready() == len(NODES), "the engines did not join")
    cluster.step("Make a pool on each node, here in a file, and a volume of three replicas")
    for node in NODES:
        cluster.command("pool", "create", f"pool-{node}", "--node", node, str(UP / f"disk-{node}"), "--size", POOL_SIZE)
    begun = time.monotonic()
    cluster.command("volume", "create", VOLUME, "--size", VOLUME_SIZE, "--replicas", "3")
    cluster.show(f"(it took {(time.monotonic() - begun) * 1000:.0f} ms until hosts can use it)")


def start_load(cluster, volume, seconds, size):
    """A host of our own, with a path to every engine; it reads back and checks all that it wrote."""
    paths = [path["address"] for path in sorted(volume["status"]["paths"], key=lambda path: path["state"] != "serving")]
    command = [cluster.fairlead, "bench", f"nvme+tcp://{paths[0]}/{volume['status']['nqn']}?ns=1", "--rw", "randrw", "--qd", "16",
               "--verify", "--overwrite", "--runtime", f"{seconds}s", "--size", size, "--json", "--quiesce", "0s"]
    for path in paths[1:]:
        command += ["--path", path]
    cluster.show("$ " + " ".join(command).replace(cluster.fairlead, "fairlead"))
    return subprocess.Popen(command, cwd=UP, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end_load(load):
    output, errors = load.communicate(timeout=SECONDS_MAX + LOAD_SECONDS)
    if load.returncode:
        raise UpError(f"the load failed: {errors.strip() or output.strip()}")
    return json.loads(output)


def is_used(cluster):
    return any(path["state"] == "serving" and path["controllers"] for path in cluster.resource("volume", VOLUME)["status"]["paths"])


def demonstrate(cluster):
    cluster.step("Write and verify over NVMe/TCP")
    volume = cluster.resource("volume", VOLUME)
    result = end_load(start_load(cluster, volume, 3, "64MiB"))
    cluster.show(f"{result['iops']:.0f} reads and writes of 4 KiB a second; each byte was read back and is what was written")

    target = volume["status"]["target"]
    cluster.step(f"Kill engine {target}, which serves the volume, under load; start it again")
    wait_until(lambda: not is_used(cluster), "the first host stays")
    load = start_load(cluster, volume, LOAD_SECONDS, "64MiB")
    wait_until(lambda: is_used(cluster), "no host uses the volume")
    pid = kept_processes()[f"engine-{target}"]
    cluster.show(f"$ kill -9 {pid}   # engine {target}")
    stop(f"engine {target}", pid, signal.SIGKILL)
    wait_until(lambda: cluster.resource("volume", VOLUME)["status"]["target"] not in ("", target), "no other engine took over")
    time.sleep(AWAY_SECONDS)
    used = {replica["node"]: replica["allocated_bytes"] for replica in cluster.resource("volume", VOLUME)["status"]["replicas"]
            if "allocated_bytes" in replica}
    cluster.start_engine(NODES.index(target))
    result = end_load(load)
    wait_until(lambda: cluster.resource("volume", VOLUME)["status"]["state"] == "online", "the replica did not come back")
    volume = cluster.resource("volume", VOLUME)
    cluster.show(f"{volume['status']['target']} serves it now. Hosts waited for {result['longest_silence_ns'] / 1e6:.0f} ms at most; "
                 "no error, and each byte is what was written.")
    copied = max((replica.get("resynced_bytes", 0) for replica in volume["status"]["replicas"] if replica["node"] == target),
                 default=0)
    written = max(used.values(), default=0)
    if copied:
        cluster.show(f"To the replica that came back {copied / (1 << 20):.0f} MiB were copied, of {written / (1 << 20):.0f} MiB "
                     f"that are written, of {VOLUME_SIZE}.")
    else:
        cluster.show("The replica that came back missed nothing.")


def tell(cluster):
    cluster.step("How it is")
    cluster.command("status")
    cluster.command("volume", "list")
    cluster.step("Use it")
    cluster.show("A Linux host connects so (the kernel's own driver, as root):")
    cluster.command("volume", "attach", VOLUME)
    cluster.show(f"The API: {', '.join(cluster.servers())}. For commands in another folder:\n"
                 f"  export FAIRLEAD_SERVER={','.join(cluster.servers())}\n"
                 "The cluster runs in the background; './dev down' ends it and deletes what it made.")


def up(arguments):
    cluster = Cluster(arguments.fairlead, 3 if arguments.etcd else 1, arguments.etcd)
    check_machine(cluster)
    try:
        bring_up(cluster)
        if not arguments.fast:
            demonstrate(cluster)
        tell(cluster)
    except (UpError, OSError, subprocess.TimeoutExpired):
        end_all()
        raise


# ---- Down

def end_all():
    kept = kept_processes()
    for name in sorted(kept, key=lambda each: (not each.startswith("engine"), each == "etcd")):
        stop(name, kept[name], signal.SIGTERM)
    (UP / "processes.json").unlink(missing_ok=True)
    return len(kept)


def down(_):
    count = end_all()
    shutil.rmtree(UP, ignore_errors=True)
    print(f"{count} processes were ended" if count else "nothing was running")


def main():
    global UP
    parser = argparse.ArgumentParser(description="The cluster of ./dev up and ./dev down.")
    parser.add_argument("--folder", default=UP, type=pathlib.Path, help="where everything is made")
    commands = parser.add_subparsers(required=True)
    up_parser = commands.add_parser("up")
    up_parser.add_argument("--fairlead", required=True)
    up_parser.add_argument("--etcd", action="store_true", help="three control processes, which keep what they know in etcd")
    up_parser.add_argument("--fast", action="store_true", help="without the demonstration")
    up_parser.add_argument("--offset", type=int, default=0, help="added to the numbers of all ports")
    up_parser.set_defaults(run=up)
    down_parser = commands.add_parser("down")
    down_parser.set_defaults(run=down)
    arguments = parser.parse_args()
    UP = arguments.folder.resolve()
    for name in PORTS:
        PORTS[name] += getattr(arguments, "offset", 0)
    try:
        arguments.run(arguments)
    except UpError as error:
        sys.exit(f"up: {error}")


if __name__ == "__main__":
    main()
