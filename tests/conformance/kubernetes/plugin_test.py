"""kubectl-fairlead with a real kubectl, a real API server that has a release of the chart, and a real control process behind its
Service. Only the way there is a stand-in: `kubectl port-forward` needs a kubelet. The stand-in looks at its words, asks the API
server whether the user may, and forwards bytes."""

import argparse
import base64
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import api_server
import chart
import go_programs
import space
import yaml

sys.path.append(str(go_programs.ROOT / "tests" / "conformance"))
from control_process import ControlProcess  # noqa: E402

NAMESPACE = "storage"
SECONDS_MAX = 120
# In place of kubectl: all but port-forward is the real one's.
STAND_IN = """#!{python} -B
import os, pathlib, socket, subprocess, sys, threading
folder = pathlib.Path("{folder}")
words = sys.argv[1:]
options = [word for word in words if word.startswith(("--context=", "--kubeconfig="))]
rest = [word for word in words if word not in options]
with open(folder / "asked", "a") as asked:
    asked.write(f"{{os.getpid()}} {{' '.join(words)}}\\n")
if rest[0] != "port-forward":
    os.execv("{kubectl}", ["kubectl", *words])
if rest[1:] != ["-n", "{namespace}", "--address=127.0.0.1", "service/fairlead-control-0", ":7400"]:
    sys.exit(f"stand-in: port-forward {{rest}}")
may = [["get", "service/fairlead-control-0"], ["list", "pods"], ["create", "pods", "--subresource=portforward"]]
for verb in may:
    if subprocess.run(["{kubectl}", *options, "auth", "can-i", *verb, "-n", "{namespace}"], stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"Error from server (Forbidden): {{verb}}")
if (folder / "broken").exists():
    sys.exit("error: unable to forward port because pod is not running")
server = socket.create_server(("127.0.0.1", 0))
print(f"Forwarding from 127.0.0.1:{{server.getsockname()[1]}} -> 7400", flush=True)
def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
while True:
    client = server.accept()[0]
    control = socket.create_connection(("127.0.0.1", int((folder / "port").read_text())))
    for pair in ((client, control), (control, client)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""

fairlead = server = folder = None


def kubectl(*words, text=None):
    done = server.kubectl(*words, text=text)
    if done.returncode:
        raise AssertionError(f"kubectl {' '.join(map(str, words))}: {done.stdout}{done.stderr}")
    return done.stdout


def secret(name, key):
    found = json.loads(kubectl("get", "secret", name, "-n", NAMESPACE, "-o", "json"))
    return base64.b64decode(found["data"][key]).decode()


def openssl(*words, **options):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, timeout=60, check=False, **options)
    if done.returncode:
        raise AssertionError(done.stderr)


def certificate(name, subject):
    """A key and a certificate of the release's CA."""
    key, request, signed = (folder / f"{name}.{suffix}" for suffix in ("key", "request", "pem"))
    for part in ("crt", "key"):
        (folder / f"tls.{part}").write_text(secret("fairlead-ca", f"tls.{part}"))
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=fairlead", "-addext",
            f"subjectAltName={subject}", "-keyout", key, "-out", request)
    openssl("x509", "-req", "-in", request, "-days", "1", "-copy_extensions", "copy", "-set_serial", "1", "-CA", folder / "tls.crt", "-CAkey",
            folder / "tls.key", "-out", signed)
    return "--tls-certificate", str(signed), "--tls-key", str(key)


class PluginTest(unittest.TestCase):
    def setUp(self):
        self.serve("here", "IP:127.0.0.1")
        (folder / "asked").write_text("")

    def serve(self, name, subject):
        store = folder / f"store-{self.id()}-{name}"
        store.mkdir()
        (folder / "tokens").write_text(secret("fairlead-token", "tokens"))
        control = ControlProcess(fairlead, store, "--token-file", str(folder / "tokens"), *certificate(name, subject))
        self.addCleanup(control.stop)
        (folder / "port").write_text(str(control.port))

    def environment(self, **changes):
        return {**os.environ, "PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder), "KUBECONFIG": str(folder / "users"), **changes}

    def run_plugin(self, *words, **changes):
        done = subprocess.run([folder / "bin" / "kubectl-fairlead", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=SECONDS_MAX, env=self.environment(**changes), check=False)
        return done.returncode, done.stdout + done.stderr

    def plugin(self, *words, code=0, **options):
        found, said = self.run_plugin("-n", NAMESPACE, *words, **options)
        self.assertEqual(found, code, said)
        return said

    def children(self):
        """The stand-ins that still run."""
        asked = (folder / "asked").read_text().splitlines()
        found = []
        for number in (line.split()[0] for line in asked if "port-forward" in line):
            try:
                if "port-forward" in pathlib.Path(f"/proc/{number}/cmdline").read_text():
                    found.append(number)
            except FileNotFoundError:
                pass
        return found

    def test_an_admin_changes_and_a_viewer_looks(self):
        self.plugin("--context=admin", "volume", "create", "db", "--size", "1GiB", "--no-wait")
        self.assertIn("db", self.plugin("volume", "list", "--context", "viewer"))
        self.assertIn("viewer", self.plugin("volume", "delete", "db", "--no-wait", "--context=viewer", code=1))
        self.plugin("volume", "delete", "db", "--no-wait", "--context=admin")
        self.assertEqual(self.children(), [])
        self.assertNotIn("fairlead-token", (folder / "asked").read_text())

    def test_kubectl_calls_it(self):
        """As people type it."""
        said = self.plugin_by_kubectl("fairlead", "node", "list", "-n", NAMESPACE, "--context", "viewer", "-o", "json")
        self.assertEqual(json.loads(said), [])

    def plugin_by_kubectl(self, *words):
        done = subprocess.run([go_programs.build("kubectl"), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=SECONDS_MAX, env=self.environment(), check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_the_kubeconfig_may_be_named(self):
        self.plugin("node", "list", "--kubeconfig", str(folder / "users"), "--context=viewer", KUBECONFIG="/nowhere")

    def test_who_may_not_is_told_what_is_missing(self):
        said = self.plugin("--context=stranger", "node", "list", code=5)
        self.assertIn("cannot list resource \"services\"", said)
        said = self.plugin("--context=passer-by", "node", "list", code=5)
        self.assertIn("neither Secret fairlead-admin nor fairlead-viewer", said)

    def test_what_is_not_there_is_said(self):
        code, said = self.run_plugin("-n", "default", "node", "list", KUBECONFIG=str(server.kubeconfig))
        self.assertEqual(code, 5)
        self.assertIn("no Fairlead in namespace default", said)
        self.assertIn("kubectl cannot be run", self.plugin("node", "list", code=5, PATH="/nowhere"))
        self.assertIn("does not exist", self.plugin("--context=nobody-knows", "node", "list", code=5))
        self.assertIn("a value is missing", self.plugin("node", "list", "--context", code=2))

    def test_a_way_that_breaks_is_said(self):
        (folder / "broken").touch()
        self.addCleanup((folder / "broken").unlink)
        self.assertIn("pod is not running", self.plugin("--context=admin", "node", "list", code=5))
        self.assertEqual(self.children(), [])

    def test_a_server_of_another_name_is_not_trusted(self):
        self.serve("elsewhere", "DNS:elsewhere")
        self.assertIn("not trusted", self.plugin("--context=admin", "node", "list", code=5))

    def test_its_children_end_with_it(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            process = subprocess.Popen([folder / "bin" / "kubectl-fairlead", "-n", NAMESPACE, "--context=admin", "wait", "node/a", "--for", "ready",
                                        "--timeout", "1h"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       env=self.environment())
            self.until("a way is there", self.children)
            process.send_signal(number)
            process.wait(SECONDS_MAX)
            self.until("they have ended", lambda: not self.children())

    def until(self, what, condition):
        deadline = time.monotonic() + SECONDS_MAX
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"not {what}")
            time.sleep(0.02)  # between two looks; nothing tells us

def install():
    """A release, and people: bound to one of its Roles, to another one, to none."""
    kubectl("create", "namespace", NAMESPACE)
    done = chart.helm("install", "fairlead", chart.CHART, "--namespace", NAMESPACE, env=server.environment())
    if done.returncode:
        raise AssertionError(done.stderr)
    kubectl("create", "role", "passer-by", "-n", NAMESPACE, "--verb=get,list", "--resource=services")
    users = yaml.safe_load(server.kubeconfig.read_text())
    users["contexts"], users["users"] = [], []
    for name, role in (("admin", "fairlead-admin"), ("viewer", "fairlead-viewer"), ("passer-by", "passer-by"), ("stranger", None)):
        kubectl("create", "serviceaccount", name, "-n", "default")
        if role:
            kubectl("create", "rolebinding", f"{name}-of-test", "-n", NAMESPACE, f"--role={role}", f"--serviceaccount=default:{name}")
        users["users"].append({"name": name, "user": {"token": kubectl("create", "token", name, "-n", "default").strip()}})
        users["contexts"].append({"name": name, "context": {"cluster": "test", "user": name}})
    users["current-context"] = "stranger"
    (folder / "users").write_text(yaml.safe_dump(users))
    programs = folder / "bin"
    programs.mkdir()
    (programs / "kubectl-fairlead").symlink_to(fairlead)
    (programs / "kubectl").write_text(STAND_IN.format(python=sys.executable, folder=folder, kubectl=go_programs.build("kubectl"),
                                                      namespace=NAMESPACE))
    (programs / "kubectl").chmod(0o755)


def main():
    global fairlead, server, folder
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    arguments, others = parser.parse_known_args()
    fairlead = arguments.fairlead.resolve()
    for program in ("helm", "kubectl", "kube-apiserver"):
        go_programs.build(program)
    space.enter()
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        (folder / "server").mkdir()
        server = api_server.ApiServer(folder / "server")
        try:
            install()
            return unittest.main(argv=[sys.argv[0], *others], exit=False).result
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(0 if main().wasSuccessful() else 1)
