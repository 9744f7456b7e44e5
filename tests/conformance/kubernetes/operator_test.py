"""The operator as a process, with the rights of its account in a real API server, a real control plane and two engines: DiskPools
become pools, are followed, and go; it is killed anywhere; of two one acts; what happens is told by Events."""

import argparse
import http.client
import json
import pathlib
import random
import re
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

sys.path.append(str(go_programs.ROOT / "tests" / "engine"))
from managed import ManagedCluster  # noqa: E402

NAMESPACE = "fairlead"
SECONDS_MAX = 120
LEASE_SECONDS = 15
KILLS = 6

fairlead = server = cluster = folder = None


def kubectl(*words, text=None):
    done = server.kubectl(*words, text=text)
    if done.returncode:
        raise AssertionError(f"kubectl {' '.join(map(str, words))}: {done.stdout}{done.stderr}")
    return done.stdout


def ask(port, path):
    """Status and text of a GET; no status: nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except OSError:
        return None, ""
    finally:
        connection.close()


class Operator:
    count = 0

    def __init__(self):
        Operator.count += 1
        kubeconfig = yaml.safe_load(server.kubeconfig.read_text())
        self.log = open(folder / f"operator-{Operator.count}.log", "ab")
        self.process = subprocess.Popen(
            [fairlead, "operator", "--control", cluster.controls[0].url, "--kube-server", kubeconfig["clusters"][0]["cluster"]["server"],
             "--kube-ca", folder / "server" / "certificates" / "apiserver.crt", "--kube-token-file", folder / "token",
             "--namespace", NAMESPACE, "--identity", f"operator-{Operator.count}", "--listen", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True, preexec_fn=api_server.die_with_parent)
        said = self.process.stdout.readline()
        found = re.match(r"listening on port (\d+)", said)
        if not found:
            raise AssertionError(f"the operator does not start: {said}{pathlib.Path(self.log.name).read_text()}")
        self.port = int(found[1])

    def leads(self):
        return ask(self.port, "/readyz") == (200, "leads\n")

    def stands_by(self):
        return ask(self.port, "/readyz") == (200, "stands by\n")

    def end(self, number=signal.SIGTERM):
        """Its exit code."""
        if self.process.stdout.closed:
            return self.process.returncode
        self.process.send_signal(number)
        self.process.send_signal(signal.SIGCONT)
        self.process.stdout.read()
        self.process.stdout.close()
        self.log.close()
        return self.process.wait(60)


def disk_pool(name, node="a", disk=None, **spec):
    return {"apiVersion": "fairlead.dev/v1", "kind": "DiskPool", "metadata": {"name": name},
            "spec": {"node": node, "disks": [str(disk or folder / f"disk-of-{name}")], **({} if disk else {"fileSize": "128Mi"}), **spec}}


class OperatorTest(unittest.TestCase):
    def start(self):
        operator = Operator()
        self.addCleanup(operator.end)
        return operator

    def apply(self, *documents):
        kubectl("apply", "--validate=strict", "-f", "-", text="\n---\n".join(map(yaml.safe_dump, documents)))
        for each in documents:
            self.addCleanup(server.kubectl, "delete", "--wait=false", each["kind"].lower(), each["metadata"]["name"], "--ignore-not-found")

    def until(self, what, condition):
        deadline = time.monotonic() + SECONDS_MAX
        while not (found := condition()):
            self.assertLess(time.monotonic(), deadline, f"not {what}: {kubectl('get', 'diskpools', '-o', 'yaml')}")
            time.sleep(0.1)  # between two looks; nothing tells us
        return found

    def until_ready(self, name):
        kubectl("wait", "--for=condition=Ready", f"diskpool/{name}", f"--timeout={SECONDS_MAX}s")

    def until_reason(self, name, reason):
        kubectl("wait", f'--for=jsonpath={{.status.conditions[?(@.type=="Ready")].reason}}={reason}', f"diskpool/{name}",
                f"--timeout={SECONDS_MAX}s")

    def get(self, kind, name):
        return json.loads(kubectl("get", kind, name, "-o", "json"))

    def edit(self, name, **spec):
        kubectl("patch", "diskpool", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def pool(self, name):
        return cluster.get(f"/v1/pools/{name}")

    def events(self, kind, name, namespace="default"):
        """Reason: how often."""
        listed = json.loads(kubectl("get", "events", "-n", namespace, "-o", "json", "--field-selector",
                                    f"involvedObject.kind={kind},involvedObject.name={name}"))["items"]
        found = {}
        for each in listed:
            found[each["reason"]] = found.get(each["reason"], 0) + each["count"]
        return found

    def test_a_disk_pool_becomes_a_pool_is_followed_and_goes(self):
        operator = self.start()
        self.apply(disk_pool("fast", labels={"tier": "fast"}))
        self.until_ready("fast")
        made, found = self.pool("fast"), self.get("diskpool", "fast")
        self.assertEqual(made["labels"], {"tier": "fast"})
        self.assertEqual(found["status"]["id"], made["id"])
        self.assertEqual(found["status"]["observedGeneration"], found["metadata"]["generation"])
        self.assertRegex(kubectl("get", "dsp", "fast"), r"fast +a +online +\S+i +\S+ +\S+i +0 ")
        self.assertEqual((folder / "disk-of-fast").stat().st_size, 128 << 20)
        self.edit("fast", evacuating=True, labels={"tier": None, "rack": "7"})
        self.until_reason("fast", "Evacuated")
        self.assertEqual(self.pool("fast")["labels"], {"rack": "7"})
        self.assertTrue(self.pool("fast")["spec"]["evacuating"])
        self.edit("fast", evacuating=False)
        self.until_ready("fast")
        self.until("told of", lambda: self.events("DiskPool", "fast").get("Ready"))
        kubectl("delete", "diskpool", "fast", f"--timeout={SECONDS_MAX}s")
        self.assertIsNone(self.pool("fast"))
        self.assertIn("fairlead_operator_leader 1", ask(operator.port, "/metrics")[1])
        self.assertEqual(operator.end(), 0)

    def test_a_pool_that_is_there_is_taken_on_and_kept_while_it_is_used(self):
        self.start()
        before = self.pool("pool-a")["id"]
        self.apply(disk_pool("pool-a", disk=cluster.engine("a").disk), disk_pool("pool-b", "b", disk=cluster.engine("b").disk))
        for name in ("pool-a", "pool-b"):
            self.until_ready(name)
        self.assertEqual(self.get("diskpool", "pool-a")["status"]["id"], before)
        cluster.command("volume", "create", "db", "--size", "16MiB", "--replicas", "2")
        self.until("made", lambda: self.pool("pool-a")["status"]["replicas"] == 1)
        kubectl("delete", "diskpool", "pool-a", "--wait=false")
        self.until_reason("pool-a", "NotEmpty")
        self.assertIn("evacuate it first", kubectl("get", "diskpool", "pool-a", "-o", "jsonpath={.status.conditions[*].message}"))
        cluster.command("volume", "delete", "db")
        kubectl("wait", "--for=delete", "diskpool/pool-a", f"--timeout={SECONDS_MAX}s")
        self.assertIsNone(self.pool("pool-a"))

    def test_what_cannot_be_says_why(self):
        self.start()
        self.apply(disk_pool("nowhere", "nobody"), disk_pool("missing", disk=folder / "there-is-none"))
        self.until_reason("nowhere", "NoSuchNode")
        self.until("told of", lambda: "there-is-none" in kubectl("get", "diskpool", "missing", "-o", "jsonpath={.status.conditions[*].message}"))
        for name in ("nowhere", "missing"):
            kubectl("delete", "diskpool", name, f"--timeout={SECONDS_MAX}s")

    def test_it_goes_on_wherever_it_was_killed(self):
        seed = random.SystemRandom().randrange(1 << 32)
        print(f"seed {seed}", flush=True)
        chance = random.Random(seed)
        for number in range(KILLS):
            name = f"killed-{number}"
            operator = self.start()
            self.until("leads", operator.leads)
            self.apply(disk_pool(name))
            steps = [lambda: self.until_ready(name), lambda: self.edit(name, evacuating=True), lambda: self.until_reason(name, "Evacuated"),
                     lambda: kubectl("delete", "diskpool", name, "--wait=false")]
            for step in steps[:chance.randrange(len(steps) + 1)]:
                step()
            time.sleep(chance.random() * 0.3)  # anywhere is what is meant
            operator.end(signal.SIGKILL)
            successor = self.start()
            if self.is_there(name):
                if "deletionTimestamp" not in self.get("diskpool", name)["metadata"]:
                    self.edit(name, evacuating=True)
                    self.until_reason(name, "Evacuated")
                    kubectl("delete", "diskpool", name, "--wait=false")
                kubectl("wait", "--for=delete", f"diskpool/{name}", f"--timeout={SECONDS_MAX}s")
            self.assertIsNone(self.pool(name))
            successor.end()

    def is_there(self, name):
        return bool(kubectl("get", "diskpool", name, "--ignore-not-found", "-o", "name"))

    def test_of_two_one_acts(self):
        first = self.start()
        self.until("leads", first.leads)
        second = self.start()
        self.until("stands by", second.stands_by)
        holder = self.get_lease()["spec"]["holderIdentity"]
        first.process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        self.until("leads", second.leads)
        self.assertGreater(time.monotonic() - begun, LEASE_SECONDS - 10)
        lease = self.get_lease()["spec"]
        self.assertNotEqual(lease["holderIdentity"], holder)
        self.assertEqual(lease["leaseDurationSeconds"], LEASE_SECONDS)
        first.process.send_signal(signal.SIGCONT)
        self.until("knows it", first.stands_by)
        self.assertTrue(second.leads())
        self.apply(disk_pool("led"))
        self.until_ready("led")
        self.assertIn("fairlead_operator_status_writes_total 0\n", ask(first.port, "/metrics")[1])
        kubectl("delete", "diskpool", "led", f"--timeout={SECONDS_MAX}s")
        self.assertEqual(second.end(), 0)
        begun = time.monotonic()
        self.until("leads", first.leads)
        self.assertLess(time.monotonic() - begun, LEASE_SECONDS)

    def get_lease(self):
        return json.loads(kubectl("get", "lease", "fairlead-operator", "-n", NAMESPACE, "-o", "json"))

    def test_claims_volumes_and_nodes_tell_what_happened(self):
        operator = self.start()
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "default"},
                 "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}, "volumeName": "pvc-1"}}
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pvc-1"},
                  "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "16Mi"},
                           "csi": {"driver": "fairlead.dev", "volumeHandle": "pvc-1"}}}
        nodes = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}} for name in "ab"]
        self.apply(claim, volume, *nodes)
        labels = {"fairlead.dev/pvc": "data", "fairlead.dev/pvc-namespace": "default", "fairlead.dev/pv": "pvc-1"}
        status, _, _ = cluster.leader().ask("POST", "/v1/volumes", {"name": "pvc-1", "labels": labels,
                                                                   "spec": {"size_bytes": 16 << 20, "replicas": 1}})
        self.assertEqual(status, 201)
        for kind, name in (("PersistentVolumeClaim", "data"), ("PersistentVolume", "pvc-1")):
            self.until("told of", lambda: self.events(kind, name).get("Created") == 1)
        self.until("told of", lambda: "Created" in kubectl("describe", "pvc", "data"))
        cluster.engine("b").kill()
        self.until("told of", lambda: self.events("Node", "b").get("Lost") == 1)
        operator.end(signal.SIGKILL)
        successor = self.start()
        self.until("leads", successor.leads)
        cluster.engine("b").start()
        self.until("told of", lambda: self.events("Node", "b").get("Ready"))
        self.assertEqual(self.events("Node", "b")["Lost"], 1)
        self.assertEqual(self.events("PersistentVolume", "pvc-1")["Created"], 1)
        cluster.command("volume", "delete", "pvc-1")
        self.until("told of", lambda: self.events("PersistentVolumeClaim", "data").get("Deleted") == 1)

    def test_a_token_that_is_renewed_is_taken(self):
        operator = self.start()
        self.until("leads", operator.leads)
        (folder / "token").write_text("stale")
        self.until("not ready", lambda: ask(operator.port, "/readyz")[0] == 503)
        write_token()
        self.until("leads again", operator.leads)


def write_token():
    (folder / "token").write_text(kubectl("create", "token", "fairlead-operator", "-n", NAMESPACE, "--duration=2h"))


def install():
    """What the chart gives the operator, and no more."""
    kubectl("create", "namespace", NAMESPACE)
    wanted = [each for each in chart.render({}) if each["kind"] == "CustomResourceDefinition" or
              each["metadata"]["name"] == "fairlead-operator" and each["kind"] in
              ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")]
    kubectl("apply", "-f", "-", text="\n---\n".join(map(yaml.safe_dump, wanted)))
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    write_token()


def main():
    global fairlead, server, cluster, folder
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
            cluster = ManagedCluster(fairlead, folder, engines=2, has_network=False)
            try:
                return unittest.main(argv=[sys.argv[0], *others], exit=False).result
            finally:
                cluster.close()
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(0 if main().wasSuccessful() else 1)
