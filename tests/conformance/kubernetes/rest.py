"""JSON over HTTPS, by a connection that is kept: of an API server of Kubernetes, and of our control plane."""

import http.client
import json
import select
import ssl

SECONDS_MAX = 120


class Rest:
    def __init__(self, host, port, token, ca):
        self.address = (host, port)
        self.token = token
        self.context = ssl.create_default_context(cadata=ca)
        self.connection = None

    def ask(self, method, path, body=None, kind="application/json"):
        """Status and document."""
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = kind
        for is_last in (False, True):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPSConnection(*self.address, context=self.context, timeout=SECONDS_MAX)
                self.connection.request(method, path, None if body is None else json.dumps(body), headers)
                response = self.connection.getresponse()
                text = response.read()
                return response.status, json.loads(text) if text else None
            except (http.client.HTTPException, OSError):  # the other side has closed what was kept
                self.connection.close()
                self.connection = None
                if is_last:
                    raise
        return None

    def get(self, path):
        """None: there is no such thing."""
        status, document = self.ask("GET", path)
        if status == 404:
            return None
        if status != 200:
            raise AssertionError(f"GET {path}: {status} {document}")
        return document

    def items(self, path):
        return self.get(path)["items"]

    def must(self, method, path, body=None, kind="application/json"):
        status, document = self.ask(method, path, body, kind)
        if status not in (200, 201, 202):
            raise AssertionError(f"{method} {path}: {status} {document}")
        return document

    def patch(self, path, body):
        return self.must("PATCH", path, body, "application/merge-patch+json")


class Changes:
    """Tells when anything changes below some paths of an API server, not what."""

    def __init__(self, rest, paths):
        self.rest, self.paths = rest, paths
        self.sockets = {}

    def wait(self, seconds):
        """Until something has changed, at most so long."""
        for path in self.paths:
            if path not in self.sockets:
                connection = http.client.HTTPSConnection(*self.rest.address, context=self.rest.context, timeout=SECONDS_MAX)
                connection.request("GET", f"{path}?watch=1", headers={"Authorization": f"Bearer {self.rest.token}"})
                connection.sock.setblocking(False)
                self.sockets[path] = connection.sock
        changed, _, _ = select.select(self.sockets.values(), [], [], seconds)
        for path, socket in [each for each in self.sockets.items() if each[1] in changed]:
            try:
                while socket.recv(1 << 16):
                    pass
                self.sockets.pop(path).close()  # it has ended: another one takes its place
            except ssl.SSLWantReadError:
                pass
