"""`fairlead control` as a process: on free ports of the loopback, or on a node of a network (tests/engine/network.py)."""

import contextlib
import ctypes
import http.client
import json
import pathlib
import signal
import subprocess
import threading

_libc = ctypes.CDLL(None, use_errno=True)
START_SECONDS_MAX = 60


def die_with_parent():
    """For a child, before it becomes another program: it is killed when we end, however that comes."""
    _libc.prctl(1, signal.SIGKILL)


class ControlProcess:
    """One life of it. `options` go to the command line, `environment` replaces ours. Without `store` its store is a file
    in the directory. On a node its REST API is on the loopback of that: ask() goes there."""

    def __init__(self, fairlead, directory, *options, store=None, environment=None, node=None, name="control",
                 management="127.0.0.1:0"):
        self._log = open(pathlib.Path(directory) / f"{name}.log", "ab")
        self.node = node
        self.process = subprocess.Popen(
            [fairlead, "control", "--store", store or f"sqlite:{directory}/control.db", "--listen", "127.0.0.1:0",
             "--management", management, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._log, text=True, env=environment, preexec_fn=self._prepare)
        self.url = None
        guard = threading.Timer(START_SECONDS_MAX, self.process.kill)
        guard.start()
        for line in self.process.stdout:
            if line.startswith("REST on "):
                self.url = line.split()[-1]
            if line.startswith("management on "):
                self.management = line.split()[-1]
            if line.strip() == "ready":
                break
        guard.cancel()
        if self.url is None:
            raise RuntimeError(f"fairlead control did not start; see {self._log.name}")
        self.scheme, _, address = self.url.partition("://")
        self.host, _, port = address.rpartition(":")
        self.port = int(port)

    def _prepare(self):
        die_with_parent()
        if self.node is not None:
            self.node.enter()

    def connect(self, timeout=60):
        """A connection to its REST API."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        with self.node.inside() if self.node is not None else contextlib.nullcontext():
            connection.connect()
        return connection

    def ask(self, method, path, body=None, headers=None, connection=None):
        """Status, headers (names in lower case) and body; JSON bodies are decoded."""
        is_ours = connection is None
        if is_ours:
            connection = self.connect()
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        text = response.read().decode()
        if is_ours:
            connection.close()
        is_json = "json" in found.get("content-type", "")
        return response.status, found, json.loads(text) if is_json else text

    def stop(self):
        """Its exit code after SIGTERM."""
        return self._end(signal.SIGTERM)

    def kill(self):
        self._end(signal.SIGKILL)

    def _end(self, number):
        if self.process.stdout.closed:
            return self.process.returncode
        self.process.send_signal(number)
        self.process.stdout.read()
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        self._log.close()
        return code
