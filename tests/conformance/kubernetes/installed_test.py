"""The chart in a real API server of Kubernetes: taken by helm and kubectl with validation by the server, rights of each account, what
an upgrade keeps, and the rules of the resource DiskPool."""

import argparse
import json
import pathlib
import sys
import tempfile
import unittest

import api_server
import chart
import go_programs
import space
import yaml

NAMESPACE = "fairlead"
SNAPSHOTTER = "github.com/kubernetes-csi/external-snapshotter/client/v8"
PROMETHEUS = "github.com/prometheus-operator/prometheus-operator"
# Sidecar's account in short: what it has to be able to do, and what it must not.
MAY = {
    "csi-controller": ["create persistentvolumes", "patch persistentvolumes", "delete persistentvolumes", "watch persistentvolumeclaims",
                       "patch persistentvolumeclaims/status", "watch storageclasses.storage.k8s.io", "watch csinodes.storage.k8s.io",
                       "watch nodes", "patch volumeattachments.storage.k8s.io", "patch volumeattachments.storage.k8s.io/status",
                       "watch volumeattributesclasses.storage.k8s.io", "create events",
                       "watch volumesnapshots.snapshot.storage.k8s.io", "update volumesnapshots.snapshot.storage.k8s.io",
                       "patch volumesnapshotcontents.snapshot.storage.k8s.io", "patch volumesnapshotcontents.snapshot.storage.k8s.io/status",
                       "watch volumesnapshotclasses.snapshot.storage.k8s.io", "list volumesnapshots.snapshot.storage.k8s.io"],
    "operator": ["list diskpools.fairlead.dev", "watch diskpools.fairlead.dev", "patch diskpools.fairlead.dev", "patch diskpools.fairlead.dev/status",
                 "get nodes", "get persistentvolumes", "get persistentvolumeclaims", "get events", "create events", "patch events"],
}
MAY_IN_NAMESPACE = {
    "csi-controller": ["create leases.coordination.k8s.io", "update leases.coordination.k8s.io", "create csistoragecapacities.storage.k8s.io",
                       "get pods", "get replicasets.apps"],
    "operator": ["create leases.coordination.k8s.io", "get leases.coordination.k8s.io fairlead-operator",
                 "patch leases.coordination.k8s.io fairlead-operator"],
}
# Of one account alone, though others write to the API server too.
MAY_NOT = {"operator": ["patch persistentvolumeclaims", "patch nodes", "delete diskpools.fairlead.dev", "create diskpools.fairlead.dev",
                        "patch leases.coordination.k8s.io another"]}
NOBODY_MAY = ["get secrets", "list secrets", "create pods", "delete nodes", "update nodes", "create clusterroles.rbac.authorization.k8s.io",
              "impersonate users", "delete persistentvolumeclaims", "get configmaps", "create pods/exec", "create serviceaccounts/token"]
ACCOUNTS = ("control", "engine", "etcd", "csi-controller", "csi-node", "operator")

server = None


def pool(name="p1", **spec):
    return {"apiVersion": "fairlead.dev/v1", "kind": "DiskPool", "metadata": {"name": name}, "spec": {"node": "a", "disks": ["/dev/sdb"], **spec}}


class ServerTest(unittest.TestCase):
    def kubectl(self, *words, text=None, fails=False):
        done = server.kubectl(*words, text=text)
        self.assertEqual(done.returncode != 0, fails, f"kubectl {' '.join(map(str, words))}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def helm(self, *words):
        done = chart.helm(*words, "--namespace", NAMESPACE, env=server.environment())
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def with_values(self, *words, values=None):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(values or {}, file)
            file.flush()
            return self.helm(*words, "--values", file.name)


class ValidationTest(ServerTest):
    def test_the_server_takes_all_that_is_rendered(self):
        for name, values in chart.VALUES.items():
            with self.subTest(values=name):
                text = chart.template({**values, "crds": {"create": False}}, *chart.WITH_SNAPSHOTS)
                said = self.kubectl("apply", "--dry-run=server", "--validate=strict", "--namespace", NAMESPACE, "-f", "-", text=text)
                self.assertNotIn("Warning", said)
                self.assertGreater(said.count("(server dry run)"), 7)

    def test_it_would_refuse_a_field_that_there_is_not(self):
        text = chart.template({}).replace("terminationGracePeriodSeconds", "terminationGraceSeconds")
        self.assertIn("unknown field", self.kubectl("apply", "--dry-run=server", "--validate=strict", "--namespace", NAMESPACE, "-f", "-",
                                                    text=text, fails=True))


class ReleaseTest(ServerTest):
    @classmethod
    def setUpClass(cls):
        cls().with_values("install", "fairlead", chart.CHART, values=chart.VALUES["all"])

    @classmethod
    def tearDownClass(cls):
        cls().helm("uninstall", "fairlead")

    def secret(self, name):
        return json.loads(self.kubectl("get", "secret", name, "-n", NAMESPACE, "-o", "json"))["data"]

    def may(self, account, what, *options):
        verb, resource, *name = what.split()
        resource, _, part = resource.partition("/")
        done = server.kubectl("auth", "can-i", verb, "/".join([resource, *name]), f"--subresource={part}", f"--as=system:serviceaccount:{NAMESPACE}:fairlead-{account}", *options)
        return done.stdout.strip() == "yes"

    def test_each_account_may_do_what_it_has_to(self):
        for account, rights in MAY.items():
            for right in rights:
                self.assertTrue(self.may(account, right, "--all-namespaces"), f"{account}: {right}")
            for right in MAY_IN_NAMESPACE[account]:
                self.assertTrue(self.may(account, right, "-n", NAMESPACE), f"{account}: {right}")
                self.assertFalse(self.may(account, right, "-n", "default"), f"{account}: {right}")

    def test_nobody_may_do_more(self):
        for account in ACCOUNTS:
            for right in NOBODY_MAY:
                self.assertFalse(self.may(account, right, "-n", NAMESPACE), f"{account}: {right}")
        for account, rights in MAY_NOT.items():
            for right in rights:
                self.assertFalse(self.may(account, right, "-n", NAMESPACE), f"{account}: {right}")
        for account in set(ACCOUNTS) - set(MAY):
            for right in (*sum(MAY.values(), []), *sum(MAY_IN_NAMESPACE.values(), [])):
                self.assertFalse(self.may(account, right, "-n", NAMESPACE), f"{account}: {right}")

    def test_an_upgrade_keeps_tokens_and_the_ca(self):
        before = {name: self.secret(name) for name in ("fairlead-token", "fairlead-ca")}
        self.assertEqual(set(before["fairlead-token"]), {"tokens", "admin", "host", "viewer"})
        self.assertEqual(set(before["fairlead-ca"]), {"ca.crt", "tls.crt", "tls.key"})
        self.with_values("upgrade", "fairlead", chart.CHART, values={**chart.VALUES["all"], "image": {"tag": "9.9.9"}})
        self.assertEqual({name: self.secret(name) for name in before}, before)
        image = self.kubectl("get", "daemonset", "fairlead-engine", "-n", NAMESPACE, "-o", "jsonpath={.spec.template.spec.containers[0].image}")
        self.assertEqual(image, "fairlead:9.9.9")

    def test_services_have_the_addresses_that_engines_are_told(self):
        for index in range(3):
            address = self.kubectl("get", "service", f"fairlead-control-{index}", "-n", NAMESPACE, "-o", "jsonpath={.spec.clusterIP}")
            self.assertRegex(address, r"^10\.0\.\d+\.\d+$")

    def test_it_says_what_comes_next(self):
        notes = self.helm("get", "notes", "fairlead")
        self.assertIn("fairlead status", notes)
        self.assertIn("storageClassName: fast", notes)


class PodTest(ServerTest):
    """Pods, as controllers would make them of what the chart says."""

    def setUp(self):
        self.objects = chart.render({"topologyLabels": ["zone"]})
        accounts = "\n---\n".join(yaml.safe_dump(each) for each in self.objects if each["kind"] == "ServiceAccount")
        self.kubectl("apply", "-f", "-", text=accounts)

    def pod(self, kind, name):
        template = chart.find(self.objects, kind, name)["spec"]["template"]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": name, "namespace": NAMESPACE}, "spec": template["spec"]}

    def test_only_those_on_nodes_need_more_than_a_guarded_namespace_gives(self):
        for level, refused in (("privileged", set()), ("baseline", {"fairlead-engine", "fairlead-csi-node"}),
                               ("restricted", {"fairlead-engine", "fairlead-csi-node"})):
            self.kubectl("label", "--overwrite", "namespace", NAMESPACE, f"pod-security.kubernetes.io/enforce={level}")
            for kind, name in (("DaemonSet", "fairlead-engine"), ("DaemonSet", "fairlead-csi-node"), ("Deployment", "fairlead-control-0"),
                               ("Deployment", "fairlead-csi-controller"), ("Deployment", "fairlead-operator")):
                self.kubectl("create", "--dry-run=server", "-f", "-", text=yaml.safe_dump(self.pod(kind, name)), fails=name in refused)
        self.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce-")

    def test_a_pod_learns_its_nodes_zone(self):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "north"}}}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "fairlead-engine", "namespace": NAMESPACE},
                   "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}}
        engine = self.pod("DaemonSet", "fairlead-engine")
        self.kubectl("create", "-f", "-", text=yaml.safe_dump(node))
        self.kubectl("create", "-f", "-", text=yaml.safe_dump(engine))
        self.kubectl("create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/fairlead-engine/binding", "-f", "-", text=json.dumps(binding))
        found = json.loads(self.kubectl("get", "pod", "fairlead-engine", "-n", NAMESPACE, "-o", "json"))
        self.assertEqual(found["metadata"]["labels"]["topology.kubernetes.io/zone"], "north")
        asked = {variable["name"]: variable for variable in engine["spec"]["containers"][0]["env"]}["ZONE"]
        self.assertEqual(asked["valueFrom"]["fieldRef"]["fieldPath"], "metadata.labels['topology.kubernetes.io/zone']")
        self.assertIn("--label=topology.kubernetes.io/zone=$(ZONE)", engine["spec"]["containers"][0]["args"])

    def tearDown(self):
        self.kubectl("delete", "pod", "--all", "-n", NAMESPACE, "--force", "--grace-period=0")
        self.kubectl("delete", "node", "--all")
        self.kubectl("delete", "serviceaccounts", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=fairlead")


class DiskPoolTest(ServerTest):
    @classmethod
    def setUpClass(cls):
        definition = chart.template({"crds": {"create": True}}, "--show-only", "templates/crd-diskpool.yaml")
        case = cls()
        case.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=definition)
        case.kubectl("wait", "--for=condition=Established", "crd/diskpools.fairlead.dev", "--timeout=60s")
        case.assertNotIn("NonStructuralSchema", case.kubectl("get", "crd", "diskpools.fairlead.dev", "-o", "yaml"))

    @classmethod
    def tearDownClass(cls):
        cls().kubectl("delete", "crd", "diskpools.fairlead.dev")  # helm takes over only what it has made

    def tearDown(self):
        self.kubectl("delete", "diskpools", "--all")

    def apply(self, document, **options):
        return self.kubectl("apply", "--validate=strict", "-f", "-", text=yaml.safe_dump(document), **options)

    def test_good_ones_are_taken(self):
        self.apply(pool())
        self.apply(pool("p2", disks=["/a/b.img"], fileSize="100Gi", labels={"tier": "fast"}, evacuating=True))
        self.apply(pool("p3", disks=["/a/b.img"], fileSize=1073741824))
        self.assertIn("p2", self.kubectl("get", "dsp"))

    def test_bad_ones_are_refused_in_our_words(self):
        for document, message in (
                (pool("p" * 64), "a pool's name has 63 characters at most"),
                (pool(disks=["sdb"]), "each disk is an absolute path"), (pool(disks=["/dev/sdb", "/dev/sdb"]), "each disk is named once"),
                (pool(fileSize="much"), "a quantity of bytes greater than 0"), (pool(fileSize="0"), "a quantity of bytes greater than 0"),
                (pool(fileSize=-1), "a quantity of bytes greater than 0"), (pool(disks=[]), "should have at least 1 items"),
                (pool(node=""), "at least 1 chars long"), (pool(disk="/dev/sdb"), 'unknown field "spec.disk"')):
            self.assertIn(message, self.apply(document, fails=True))

    def test_what_stays_cannot_be_changed(self):
        self.apply(pool(fileSize="1Gi"))
        for change, message in (({"node": "b"}, "a pool stays on its node"), ({"disks": ["/dev/sdc"]}, "the disks of a pool cannot be changed"),
                                ({"fileSize": "2Gi"}, "the size of a pool's files cannot be changed"),
                                ({"fileSize": None}, "the size of a pool's files cannot be changed")):
            said = self.kubectl("patch", "diskpool", "p1", "--type=merge", "-p", json.dumps({"spec": change}), fails=True)
            self.assertIn(message, said)
        self.kubectl("patch", "diskpool", "p1", "--type=merge", "-p", '{"spec": {"evacuating": true, "labels": {"a": "b"}}}')

    def test_its_status_is_its_own(self):
        self.apply(pool())
        status = {"observedGeneration": 1, "state": "online", "capacity": "100Gi", "used": "1Gi", "free": "99Gi", "replicas": 2,
                  "conditions": [{"type": "Ready", "status": "True", "reason": "Online", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
        self.kubectl("patch", "diskpool", "p1", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
        row = self.kubectl("get", "diskpool", "p1", "-o", "wide")
        for word in ("NODE", "STATE", "CAPACITY", "online", "100Gi", "99Gi", "Online", '["/dev/sdb"]'):
            self.assertIn(word, row)
        self.assertIn("online", self.kubectl("get", "fairlead"))  # the category
        self.kubectl("wait", "--for=condition=Ready", "diskpool/p1", "--timeout=30s")
        self.kubectl("patch", "diskpool", "p1", "--type=merge", "-p", '{"status": {"state": "failed"}}')
        self.assertIn("online", self.kubectl("get", "diskpool", "p1", "-o", "jsonpath={.status.state}"))
        refused = self.kubectl("patch", "diskpool", "p1", "--subresource=status", "--type=merge", "-p", '{"status": {"state": "odd"}}', fails=True)
        self.assertIn("status.state", refused)

    def test_each_field_is_explained(self):
        for field, words in (("", "storage that a node offers"), (".spec.disks", "Paths of block devices"), (".status.conditions.reason", "Why, in one word")):
            self.assertIn(words, " ".join(self.kubectl("explain", f"diskpool{field}").split()))


def install_definitions():
    """Those of other projects, which the chart uses."""
    folders = [(go_programs.module_folder("crds", SNAPSHOTTER) / "config" / "crd", "*snapshot.storage.k8s.io_*.yaml"),
               (go_programs.module_folder("crds", PROMETHEUS) / "example" / "prometheus-operator-crd", "*_prometheusrules.yaml"),
               (go_programs.module_folder("crds", PROMETHEUS) / "example" / "prometheus-operator-crd", "*_servicemonitors.yaml")]
    for folder, pattern in folders:
        for file in sorted(folder.glob(pattern)):
            done = server.kubectl("apply", "--server-side", "-f", file)
            if done.returncode:
                raise AssertionError(done.stderr)
    done = server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    if done.returncode:
        raise AssertionError(done.stderr)


def main():
    global server
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path)
    _, others = parser.parse_known_args()
    for program in ("helm", "kubectl", "kube-apiserver"):
        go_programs.build(program)
    for module in (SNAPSHOTTER, PROMETHEUS):
        go_programs.module_folder("crds", module)
    space.enter()
    with tempfile.TemporaryDirectory() as folder:
        server = api_server.ApiServer(folder)
        try:
            install_definitions()
            if server.kubectl("create", "namespace", NAMESPACE).returncode:
                raise AssertionError("the namespace cannot be made")
            return unittest.main(argv=[sys.argv[0], *others], exit=False).result
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(0 if main().wasSuccessful() else 1)
