"""`fairlead engine` as a member of a cluster: options from three places, its state directory, systemd's socket, its end."""

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

SECONDS_MAX = 60


class MembershipTest(unittest.TestCase):
    fairlead = None

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.bind(str(self.directory / "notify"))
        self.socket.settimeout(SECONDS_MAX)

    def start(self, *options, **environment):
        process = subprocess.Popen(
            [str(self.fairlead), "engine", *map(str, options)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "NOTIFY_SOCKET": str(self.directory / "notify"), **environment})
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        return process

    def said(self):
        return self.socket.recv(100).decode()

    def end(self, process):
        """In order. Returns what it said."""
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.said(), "STOPPING=1")
        output, _ = process.communicate(timeout=SECONDS_MAX)
        self.assertEqual(process.returncode, 0, output)
        return output

    def node_id(self):
        return json.loads((self.directory / "state" / "node.json").read_text())["id"]

    def test_a_node_is_the_same_one_after_a_restart(self):
        state = self.directory / "state"
        process = self.start("--node", "a", "--state-dir", state, "--listen", "127.0.0.1:0", "--management",
                             "127.0.0.1:0", "--shards", 1)
        self.assertEqual(self.said(), "READY=1")
        second = self.start("--state-dir", state, "--listen", "127.0.0.1:0", "--management", "127.0.0.1:0")
        output, _ = second.communicate(timeout=SECONDS_MAX)
        self.assertEqual(second.returncode, 1)
        self.assertIn("another process has it", output)
        self.assertRegex(self.end(process), r"management on 127\.0\.0\.1:\d+\n")
        node_id = self.node_id()

        # The same by a file and by the environment; a control plane that is not there keeps nobody waiting for long.
        config = self.directory / "engine.toml"
        config.write_text(f'[engine]\nnode = "a"\nstate-dir = "{state}"\nlisten = ["127.0.0.1:0", "[::1]:0"]\n'
                          'control = ["127.0.0.1:1"]\nlabel = ["rack=7"]\n')
        process = self.start("--config", config, FAIRLEAD_MANAGEMENT="127.0.0.1:0", FAIRLEAD_SHARDS="1")
        self.assertEqual(self.said(), "READY=1")
        output = self.end(process)
        self.assertIn("listening on [::1]:", output)
        self.assertEqual(self.node_id(), node_id)

    def test_what_is_wrong_is_said(self):
        config = self.directory / "engine.toml"
        config.write_text('[engine]\nnodes = "a"\n')
        for options, words in (((), "give the pool's disks"),
                               (("--management", "127.0.0.1:0"), "--state-dir DIR"),
                               (("--config", config), "nodes"),
                               (("--config", self.directory / "none.toml"), "none.toml")):
            process = self.start(*options)
            output, _ = process.communicate(timeout=SECONDS_MAX)
            self.assertEqual(process.returncode, 2, output)
            self.assertIn(words, output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    arguments, rest = parser.parse_known_args()
    MembershipTest.fairlead = arguments.fairlead
    unittest.main(argv=[sys.argv[0], *rest])
