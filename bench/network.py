"""A network of one's own: loopback and nothing else.

On the system's loopback, rules of a firewall, connection tracking and a congestion control that paces (bbr) would be
measured too, on both sides alike, and drown what differs: with bbr the floor moves 128 KiB blocks at anything from a
third to a half of the rate it reaches with reno. So the benchmarks run in a network namespace with reno, which every
kernel has.
"""

import os
import subprocess
import sys

_MARK = "FAIRLEAD_BENCH_NETWORK"
_CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"


def enter():
    """Starts this program anew in a network of its own; returns inside it. Where that is refused it says so, and stays."""
    if os.environ.get(_MARK) == "own":
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        with open(_CONGESTION, "w") as setting:
            setting.write("reno")
        return
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    possible = subprocess.run([*unshare, "true"], stderr=subprocess.PIPE, text=True)
    if possible.returncode != 0:
        print(f"in the system's network, for another is refused: {possible.stderr.strip()}", file=sys.stderr)
        return
    os.environ[_MARK] = "own"
    os.execvp(unshare[0], [*unshare, sys.executable, *sys.orig_argv[1:]])


def describe():
    with open(_CONGESTION) as setting:
        congestion = setting.read().strip()
    return f"{'a network of its own' if os.environ.get(_MARK) == 'own' else 'the network of the system'}, {congestion}"
