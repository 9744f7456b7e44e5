#!/usr/bin/env python3
"""`fairlead control` as a process: where options come from, tokens and TLS, systemd's socket, a stand-by that takes
over, and that what was asked for is there after a restart.

  control_test.py --fairlead PROGRAM
"""

import argparse
import http.client
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import unittest

from control_process import ControlProcess

ADMIN = "0123456789abcdef-admin"
VIEWER = "0123456789abcdef-viewer"
VOLUME = {"name": "db", "spec": {"size_bytes": 1 << 20}}
SECONDS_MAX = 60

fairlead = None


class ControlTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def start(self, *options, environment=None):
        control = ControlProcess(fairlead, self.folder, *options, environment={**os.environ, **(environment or {})})
        self.addCleanup(control.stop)
        return control

    def refused(self, *options, environment=None):
        """What it says instead of starting."""
        done = subprocess.run([fairlead, "control", *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=SECONDS_MAX,
                              env={**os.environ, **(environment or {})})
        return done.returncode, done.stdout

    def await_status(self, control, path, status):
        while True:
            found, _, answer = control.ask("GET", path)
            if found == status:
                return answer

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def test_what_was_asked_for_is_there_after_a_restart(self):
        control = self.start()
        self.await_status(control, "/readyz", 200)
        _, _, made = control.ask("POST", "/v1/volumes", VOLUME)
        self.assertEqual(control.stop(), 0)
        control = self.start()
        self.await_status(control, "/readyz", 200)
        _, _, found = control.ask("GET", "/v1/volumes/db")
        self.assertEqual((found["id"], found["spec"]), (made["id"], made["spec"]))

    def test_one_that_stands_by_takes_over_at_once(self):
        first = self.start()
        self.await_status(first, "/readyz", 200)
        second = self.start()
        self.assertIn(first.url, self.await_status(second, "/readyz", 200))
        status, _, answer = second.ask("POST", "/v1/volumes", VOLUME)
        self.assertEqual(status, 503)
        self.assertEqual(answer["leader"], first.url)
        self.assertEqual(first.ask("POST", "/v1/volumes", VOLUME)[0], 201)
        # Somebody who watches does not hold it up.
        watching = http.client.HTTPConnection(first.host, first.port, timeout=SECONDS_MAX)
        self.addCleanup(watching.close)
        watching.request("GET", "/v1/watch")
        stream = watching.getresponse()
        self.assertEqual(stream.readline(), b"event: resource\n")
        self.assertEqual(first.stop(), 0)
        stream.read()
        self.await_status(second, "/v1/volumes/db", 200)

    def test_a_leader_that_was_killed_is_replaced(self):
        first = self.start()
        self.await_status(first, "/readyz", 200)
        second = self.start()
        self.await_status(second, "/readyz", 200)
        first.process.send_signal(signal.SIGKILL)
        while not second.ask("GET", "/v1")[2]["leading"]:
            pass

    def test_tokens_have_roles(self):
        control = self.start("--token-file", self.write("tokens", f"# ours\n{ADMIN} admin\n{VIEWER} viewer\n"))
        self.await_status(control, "/readyz", 200)
        self.assertEqual(control.ask("GET", "/v1/volumes")[0], 401)
        viewer = {"Authorization": f"Bearer {VIEWER}"}
        self.assertEqual(control.ask("GET", "/v1/volumes", headers=viewer)[0], 200)
        self.assertEqual(control.ask("POST", "/v1/volumes", VOLUME, viewer)[0], 403)
        admin = {"Authorization": f"Bearer {ADMIN}"}
        self.assertEqual(control.ask("POST", "/v1/volumes", VOLUME, admin)[0], 201)

    @unittest.skipUnless(shutil.which("openssl"), "needs openssl")
    def test_it_is_served_by_tls(self):
        certificate, key = self.folder / "own.pem", self.folder / "own.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "2", "-subj", "/CN=control", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout",
                        str(key), "-out", str(certificate)], check=True, capture_output=True, timeout=SECONDS_MAX)
        control = self.start("--tls-certificate", str(certificate), "--tls-key", str(key))
        self.assertEqual(control.scheme, "https")
        context = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection(control.host, control.port, timeout=SECONDS_MAX, context=context)
        self.addCleanup(connection.close)
        status = 0
        while status != 200:
            status, _, _ = control.ask("GET", "/readyz", connection=connection)
        self.assertEqual(control.ask("POST", "/v1/volumes", VOLUME, connection=connection)[0], 201)
        # Whoever speaks in the clear gets nothing.
        with self.assertRaises((http.client.HTTPException, OSError)):
            control.ask("GET", "/livez", connection=http.client.HTTPConnection(control.host, control.port, timeout=60))

    def test_what_would_be_open_to_others_is_refused(self):
        store = ("--store", f"sqlite:{self.folder}/x.db")
        code, words = self.refused(*store, "--listen", "0.0.0.0:0", "--advertise", "c.example")
        self.assertEqual(code, 2)
        self.assertIn("give --token-file, --tls-certificate and --tls-key, or listen on 127.0.0.1", words)
        code, words = self.refused(*store, "--listen", "127.0.0.1:0", "--management", "0.0.0.0:0")
        self.assertEqual(code, 2)
        self.assertIn("--insecure", words)
        code, words = self.refused(*store, "--token-file", self.write("tokens", "short admin\n"))
        self.assertEqual(code, 2)
        self.assertIn("line 1: the token is too easy to guess", words)

    def test_what_cannot_be_had_is_said(self):
        code, words = self.refused("--store", f"sqlite:{self.folder}/none/x.db", "--listen", "127.0.0.1:0",
                                   "--management", "127.0.0.1:0")
        self.assertEqual(code, 1, words)
        self.assertIn(f"{self.folder}/none", words)
        control = self.start()
        code, words = self.refused("--store", f"sqlite:{self.folder}/y.db", "--listen", f"127.0.0.1:{control.port}",
                                   "--management", "127.0.0.1:0")
        self.assertEqual(code, 1, words)
        self.assertIn("in use", words)

    def test_options_come_from_a_file_and_from_the_environment(self):
        tokens = self.write("tokens", f"{ADMIN} admin\n")
        control = self.start(environment={"FAIRLEAD_CONTROL_TOKEN_FILE": tokens})
        self.assertEqual(control.ask("GET", "/v1/volumes")[0], 401)
        self.assertEqual(control.stop(), 0)
        config = self.write("fairlead.toml", f'[control]\ntoken-file = "{tokens}"\nlost-after = "3s"\n')
        control = self.start("--config", config)
        self.assertEqual(control.ask("GET", "/v1/volumes")[0], 401)
        bad = self.write("bad.toml", '[control]\ntokenfile = "x"\n')
        code, words = self.refused("--config", bad)
        self.assertEqual(code, 2, words)
        self.assertIn("tokenfile", words)

    def test_systemd_is_told(self):
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(told.close)
        told.bind(str(self.folder / "notify"))
        told.settimeout(SECONDS_MAX)
        control = self.start(environment={"NOTIFY_SOCKET": str(self.folder / "notify")})
        self.assertEqual(told.recv(100), b"READY=1")
        self.assertEqual(control.stop(), 0)
        self.assertEqual(told.recv(100), b"STOPPING=1")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", required=True)
    options, rest = parser.parse_known_args()
    fairlead = options.fairlead
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
