"""Nodes in network namespaces of their own, behind one router: every way between two of them can be cut, one direction
at a time, and neither end is told.
"""

import contextlib
import ctypes
import errno
import os
import subprocess
import sys
import threading

_NEW_NET = 0x40000000  # CLONE_NEWNET
_libc = ctypes.CDLL(None, use_errno=True)


def may_have_namespaces():
    """None, or why not. Whoever is not root may still be root of a user namespace: see become_root()."""
    try:
        os.close(_make_namespace())
    except OSError as error:
        return f"no network namespace can be made: {error.strerror}"
    return None


def become_root():
    """Runs this program anew in a user namespace where that gives what is missing here; else returns."""
    if may_have_namespaces() is None or "FAIRLEAD_IN_NAMESPACE" in os.environ:
        return
    if subprocess.run(["unshare", "-Urn", "true"], stderr=subprocess.DEVNULL).returncode == 0:
        os.environ["FAIRLEAD_IN_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "-Ur", sys.executable, "-B", *sys.argv])


def _make_namespace():
    """A descriptor that keeps a new namespace. This process stays where it is."""
    made = []

    def make():  # a thread can leave alone
        if _libc.unshare(_NEW_NET) != 0:
            made.append(OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno())))
        else:
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _enter(namespace):
    if _libc.setns(namespace, _NEW_NET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Node:
    def __init__(self, number):
        self.namespace = _make_namespace()
        self.gateway = f"192.0.2.{4 * number + 1}"
        self.address = f"192.0.2.{4 * number + 2}"

    def enter(self):
        """For a child, before it becomes another program."""
        _enter(self.namespace)

    @contextlib.contextmanager
    def inside(self):
        """For this thread: sockets that it makes meanwhile are of the node, and stay so."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self.namespace)
            yield
        finally:
            _enter(home)
            os.close(home)


class Network:
    """Its end is that of a `with`, or close()."""

    NODES_MAX = 63

    def __init__(self, count):
        if count > self.NODES_MAX:
            raise OSError(errno.EINVAL, "too many nodes")
        self._router = _make_namespace()
        self.nodes = []
        self._cuts = set()
        self._in(self._router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        for number in range(count):
            self.nodes.append(Node(number))
            self._connect(self.nodes[-1], f"node{number}")

    def _connect(self, node, name):
        self._ip(self._router, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns",
                 f"/proc/{os.getpid()}/fd/{node.namespace}")
        for namespace, device, address in ((self._router, name, node.gateway), (node.namespace, "eth0", node.address)):
            self._ip(namespace, "address", "add", f"{address}/30", "dev", device)
            self._ip(namespace, "link", "set", device, "up")
        self._ip(node.namespace, "link", "set", "lo", "up")
        self._ip(node.namespace, "route", "add", "default", "via", node.gateway)

    def cut(self, source, to):
        """Nothing that `source` sends reaches `to` any more."""
        self._cuts.add((source, to))
        self._rule("add", source, to)

    def mute(self, node):
        """Nothing that the node sends arrives."""
        for other in self._others(node):
            self.cut(node, other)

    def deafen(self, node):
        """Nothing that is sent to the node arrives."""
        for other in self._others(node):
            self.cut(other, node)

    def _others(self, node):
        return [other for other in self.nodes if other is not node]

    def heal(self):
        for source, to in self._cuts:
            self._rule("delete", source, to)
        self._cuts.clear()

    def _rule(self, verb, source, to):
        self._ip(self._router, "rule", verb, "from", source.address, "to", to.address, "blackhole")

    def _ip(self, namespace, *words):
        self._in(namespace, "ip", *words)

    def _in(self, namespace, *command):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, preexec_fn=lambda: _libc.setns(namespace, _NEW_NET))
        if done.returncode != 0:
            raise OSError(errno.EIO, f"{' '.join(command)}: {done.stdout.strip()}")

    def close(self):
        for descriptor in [self._router, *(node.namespace for node in self.nodes)]:
            os.close(descriptor)
