"""A network of its own for tests that need addresses and fixed ports: nothing in it is seen outside."""

import os
import subprocess
import sys

NODES = {"a": "192.0.2.1", "b": "192.0.2.2", "c": "192.0.2.3"}
SERVICES = ["192.0.2.100", "192.0.2.101", "192.0.2.102", "192.0.2.110"]


def add(addresses):
    for address in addresses:
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)


def enter():
    """Runs this program anew in a network namespace that has the addresses of NODES and SERVICES. Ends with 77 where that
    cannot be."""
    if "FAIRLEAD_IN_NAMESPACE" in os.environ:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        add([*NODES.values(), *SERVICES])
        return
    os.environ["FAIRLEAD_IN_NAMESPACE"] = "1"
    for unshare in (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"]):
        if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            os.execvp("unshare", [*unshare, sys.executable, "-B", *sys.argv])
    print("skipped: no network namespace can be made")
    sys.exit(77)
