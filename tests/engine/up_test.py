"""What ./dev up does, with a store in a file and with etcd: a volume is made, used, outlives its engine, and all ends."""

import argparse
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

TOOL = pathlib.Path(__file__).resolve().parent.parent.parent / "tools" / "up.py"
SECONDS_MAX = 120


def are_free(ports):
    sockets = []
    try:
        for port in ports:
            sockets.append(socket.socket())
            sockets[-1].bind(("127.0.0.1", port))
    except OSError:
        return False
    finally:
        for each in sockets:
            each.close()
    return True


def free_offset():
    """Ports that nobody has just now, outside those that the system gives away."""
    while True:
        offset = random.randrange(1000, 20000, 37)
        ports = [7400, 7401, 7410, 7411, 7420, 7421, 7440, 7441, 7442, 4420, 4421, 4422, 2379, 2380]
        if are_free([port + offset for port in ports]):
            return offset


class UpTest(unittest.TestCase):
    fairlead = None

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = pathlib.Path(directory.name) / "up"
        self.addCleanup(self.run_tool, "down")

    def run_tool(self, *words):
        return subprocess.run([sys.executable, "-B", str(TOOL), "--folder", str(self.folder), *words], capture_output=True,
                              text=True, timeout=SECONDS_MAX, check=False)

    def up(self, *options):
        done = self.run_tool("up", "--fairlead", str(self.fairlead), "--offset", str(free_offset()), *options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr + self.logs())
        return done.stdout

    def logs(self):
        return "".join(f"\n== {log.name}\n{log.read_text()[-2000:]}" for log in sorted(self.folder.glob("*.log")))

    def down(self, processes):
        done = self.run_tool("down")
        self.assertEqual(done.stdout, f"{processes} processes were ended\n", done.stderr)
        self.assertFalse(self.folder.exists())

    def test_a_cluster_outlives_an_engine(self):
        said = self.up()
        self.assertIn("no error, and each byte is what was written", said)
        self.assertIn("All is well", said)
        again = self.run_tool("up", "--fairlead", str(self.fairlead))
        self.assertEqual(again.returncode, 1)
        self.assertIn("the cluster is up already", again.stderr)
        self.down(4)

    @unittest.skipUnless(shutil.which("etcd"), "etcd is not installed")
    def test_three_control_processes_keep_what_they_know_in_etcd(self):
        self.assertIn("All is well", self.up("--etcd", "--fast"))
        self.down(7)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    arguments, others = parser.parse_known_args()
    UpTest.fairlead = os.path.abspath(arguments.fairlead)
    unittest.main(argv=[sys.argv[0], *others])
