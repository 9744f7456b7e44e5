"""What the chart renders: by lint, by what its objects say of each other, and run: its pods become processes on three nodes, in the
root of the image, and have to become a cluster that serves a volume."""

import argparse
import base64
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest

import chart
import go_programs
import pod
import space
import yaml

SECONDS_MAX = 240
fairlead = None


def names(objects, kind):
    return {each["metadata"]["name"] for each in objects if each["kind"] == kind}


class LintTest(unittest.TestCase):
    def test_helm_finds_nothing(self):
        for name, values in chart.VALUES.items():
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                yaml.safe_dump(values, file)
                file.flush()
                done = chart.helm("lint", "--strict", "--kube-version", chart.VERSION, "--values", file.name, chart.CHART)
            self.assertEqual(done.returncode, 0, f"{name}: {done.stdout}{done.stderr}")

    def test_a_mistake_is_told_of(self):
        for values, complaint in (({"engine": {"prot": 1}}, "prot"), ({"control": {"replicas": 3}}, "needs control.store=etcd"),
                                  ({"control": {"store": "etcd"}}, "etcd.endpoints"), ({"etcd": {"create": True}}, "only control.store=etcd"),
                                  ({"networkPolicy": {"create": True}}, "networkPolicy.nodeNetworks"),
                                  ({"control": {"store": "etcd"}, "etcd": {"create": True, "nodes": ["a"]}}, "one for each")):
            done = chart.attempt(values)
            self.assertNotEqual(done.returncode, 0, values)
            self.assertIn(complaint, done.stderr)

    def test_older_kubernetes_is_refused(self):
        done = chart.helm("template", "fairlead", chart.CHART, "--kube-version", "1.33.0")
        self.assertIn("incompatible with Kubernetes", done.stderr)

    def test_the_pages_values_are_right(self):
        shown = chart.values_in(go_programs.ROOT / "docs" / "kubernetes.md")
        self.assertGreater(len(shown), 1)
        for values in shown:
            chart.template(values)

    def test_names_follow_the_release(self):
        for release, expected in (("fairlead", "fairlead-engine"), ("store", "store-fairlead-engine"), ("my-fairlead", "my-fairlead-engine")):
            done = chart.helm("template", release, chart.CHART, "--kube-version", chart.VERSION)
            self.assertIn(expected, names([each for each in yaml.safe_load_all(done.stdout) if each], "DaemonSet"))


class ObjectsTest(unittest.TestCase):
    """Facts about all objects, for each set of values."""

    def each(self):
        for name, values in chart.VALUES.items():
            with self.subTest(values=name):
                yield values, chart.render(values, *chart.WITH_SNAPSHOTS)

    def test_what_is_named_is_there(self):
        for values, objects in self.each():
            secrets = names(objects, "Secret") | {"my-token", "my-ca", "etcd-tls"}
            for each, template in chart.pods(objects):
                spec, where = template["spec"], each["metadata"]["name"]
                self.assertIn(spec["serviceAccountName"], names(objects, "ServiceAccount"), where)
                volumes = {volume["name"]: volume for volume in spec["volumes"]}
                claims = {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
                mounted = {mount["name"] for container in chart.containers(template) for mount in container.get("volumeMounts", [])}
                self.assertEqual(mounted, (set(volumes) | claims) - ({"modules"} - mounted), where)
                for volume in volumes.values():
                    if "secret" in volume:
                        self.assertIn(volume["secret"]["secretName"], secrets, where)
                    if "persistentVolumeClaim" in volume:
                        self.assertIn(volume["persistentVolumeClaim"]["claimName"], names(objects, "PersistentVolumeClaim"), where)

    def test_selectors_find_pods(self):
        for _, objects in self.each():
            labels = [template["metadata"]["labels"] for _, template in chart.pods(objects)]
            for each in objects:
                selector = {"Service": lambda spec: spec["selector"], "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
                            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"]}.get(each["kind"])
                if selector:
                    wanted = selector(each["spec"])
                    self.assertTrue(any(wanted.items() <= one.items() for one in labels), each["metadata"]["name"])
            for each, template in chart.pods(objects):
                self.assertLessEqual(each["spec"]["selector"]["matchLabels"].items(), template["metadata"]["labels"].items())

    def test_ports_are_open(self):
        for _, objects in self.each():
            for service in (each for each in objects if each["kind"] == "Service"):
                ports = {port["name"] for _, template in chart.pods(objects)
                         if service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
                         for container in template["spec"]["containers"] for port in container.get("ports", [])}
                for port in service["spec"]["ports"]:
                    self.assertIn(port["targetPort"], ports, service["metadata"]["name"])

    def test_containers_are_given_what_they_need_and_no_more(self):
        privileged = set()
        for _, objects in self.each():
            for each, template in chart.pods(objects):
                self.assertEqual("token" in str(template["spec"].get("automountServiceAccountToken")), False)
                for container in chart.containers(template):
                    where = f"{each['metadata']['name']}/{container['name']}"
                    security = container["securityContext"]
                    self.assertTrue(security["readOnlyRootFilesystem"], where)
                    if security.get("privileged"):
                        privileged.add(where)
                    else:
                        self.assertEqual(security["capabilities"]["drop"], ["ALL"], where)
                        self.assertFalse(security["allowPrivilegeEscalation"], where)
                    if container["name"] != "owner":
                        self.assertIn("memory", container["resources"]["requests"], where)
        self.assertEqual(privileged, {"fairlead-engine/engine", "fairlead-csi-node/driver"})

    def test_engines_are_privileged_for_block_devices_only(self):
        for values, is_privileged in (({}, False), ({"engine": {"blockDevices": True}}, True), ({"pools": {"disks": ["/dev/sdb"]}}, True),
                                      ({"pools": {"nodes": {"a": ["/dev/sdb"]}}}, True), ({"pools": {"nodes": {"a": []}}}, False)):
            engine = chart.find(chart.render(values), "DaemonSet", "fairlead-engine")["spec"]["template"]["spec"]
            container = next(each for each in engine["containers"] if each["name"] == "engine")
            self.assertEqual(container["securityContext"].get("privileged", False), is_privileged, values)
            self.assertEqual("devices" in {each["name"] for each in engine["volumes"]}, is_privileged, values)

    def test_the_cas_key_is_shown_to_those_who_sign_only(self):
        for _, objects in self.each():
            for each, template in chart.pods(objects):
                volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
                for container in chart.containers(template):
                    if any(mount["name"] == "ca" for mount in container["volumeMounts"]) and not volumes["ca"]["secret"].get("items"):
                        self.assertEqual(container["name"], "certificate", each["metadata"]["name"])


class ProgramTest(unittest.TestCase):
    """What containers are told, held against the program."""

    def test_commands_and_their_options_are_there(self):
        seen = set()
        for values in chart.VALUES.values():
            for _, template in chart.pods(chart.render(values, *chart.WITH_SNAPSHOTS)):
                for container in template["spec"]["containers"]:
                    words = container.get("args", [])
                    command = [word for word in words if not word.startswith("--")]
                    if container["image"].startswith("fairlead:") and command:
                        seen.add(" ".join(command))
                        self.check(command, words)
        self.assertEqual(seen, {"engine", "control", "csi controller", "csi node", "operator"})

    def check(self, command, words):
        done = subprocess.run([fairlead, *command, "--help"], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, f"the program has no command {command}")
        for word in words:
            if word.startswith("--"):
                self.assertRegex(done.stdout, rf"(?m)^  (-\S, ?)?{word.partition('=')[0]}\b", command)

    def test_classes_say_what_the_driver_knows(self):
        text = (go_programs.ROOT / "src" / "csi" / "parameters.cc").read_text()
        for storage_class in (each for each in chart.render({}) if each["kind"] == "StorageClass"):
            for name in storage_class["parameters"]:
                self.assertIn(f'"{name}"', text)


class PodsTest(unittest.TestCase):
    """Pods of a chart as processes."""

    @classmethod
    def make(cls, values):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.folder = pathlib.Path(directory.name)
        root = cls.folder / "image"
        done = subprocess.run([go_programs.ROOT / "deploy" / "image" / "build", "--fairlead", fairlead, "--output", cls.folder / "image.tar",
                               "--cache", fairlead.parent / "image-packages", "--unpack", root], capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise AssertionError(done.stderr)
        cls.objects = chart.render(values)
        cls.services = dict(zip(("fairlead-control-0", "fairlead", "fairlead-etcd-0.fairlead-etcd"), space.SERVICES))
        cls.cluster = pod.Cluster(cls.folder, root, cls.objects, cls.services)
        cls.pods = {}
        cls.started = 0
        cls.addClassCleanup(lambda: [each.stop() for each in cls.pods.values()])

    @classmethod
    def start(cls, name, which, node, address, *containers):
        """Starts a pod of a Deployment, DaemonSet or StatefulSet; another one of that name has ended."""
        found = chart.find(cls.objects, *which)["spec"]
        claims = [claim["metadata"]["name"] for claim in found.get("volumeClaimTemplates", [])]
        cls.started += 1
        own_name = f"{which[1]}-0" if which[0] == "StatefulSet" else f"{name}-{cls.started}"
        cls.pods[name] = pod.Pod(cls.cluster, found["template"], own_name, node, address, claims)
        cls.pods[name].run(*containers)

    def cli(self, *words):
        """As kubectl exec deploy/fairlead-control-0 does."""
        return self.pods["control"].execute("control", "fairlead", *words)

    def says(self, *words):
        """The same; nothing while it fails."""
        try:
            return self.cli(*words)
        except AssertionError:
            return ""

    def until(self, what, condition):
        deadline = time.monotonic() + SECONDS_MAX
        while not condition():
            for name, each in self.pods.items():
                for container, process in each.processes.items():
                    self.assertIsNone(process.poll(), f"{name}/{container} has ended:\n{each.log(container)}")
            self.assertLess(time.monotonic(), deadline, f"not {what}: " + "".join(
                f"\n{name}/{container}: {each.log(container)[-600:]}" for name, each in self.pods.items() for container in each.processes))


class ClusterTest(PodsTest):
    """The default chart, with three nodes."""

    @classmethod
    def setUpClass(cls):
        cls.make({"csi": {"node": {"loadModule": False}}})
        cls.start("control", ("Deployment", "fairlead-control-0"), "a", space.SERVICES[0], "control")
        for node, address in space.NODES.items():
            cls.start(f"engine-{node}", ("DaemonSet", "fairlead-engine"), node, address, "engine", "pool")

    def test_1_nodes_join_and_get_pools(self):
        self.until("all nodes have a pool", lambda: len(re.findall(r"pool-[abc] +[abc] +online", self.says("pool", "list"))) == 3)
        self.assertEqual(len(re.findall(r"(?m)^[abc] +ready", self.cli("node", "list"))), 3)
        size = (self.folder / "nodes/a/var/lib/fairlead/pools/pool").stat().st_size
        self.assertEqual(size, 20 << 30)

    def test_2_a_volume_is_served(self):
        self.assertIn("volume/db is online", self.cli("volume", "create", "db", "--size", "64MiB", "--replicas", "3"))
        self.assertIn("All is well.", self.cli("status"))
        shown = self.cli("volume", "attach", "db")
        for address in space.NODES.values():
            self.assertIn(f"--traddr={address} --trsvcid=4420", shown)

    def test_3_an_engine_starts_again(self):
        self.assertEqual(self.pods["engine-b"].stop(), {"engine": 0, "pool": 0})
        self.start("engine-b", ("DaemonSet", "fairlead-engine"), "b", space.NODES["b"], "engine", "pool")
        self.until("all is well", lambda: "All is well." in self.says("status"))
        self.assertEqual(len(self.cli("pool", "list", "-o", "name").split()), 3)

    def test_4_the_control_plane_starts_again(self):
        self.assertEqual(self.pods["control"].stop(), {"control": 0})
        self.start("control", ("Deployment", "fairlead-control-0"), "a", space.SERVICES[0], "control")
        self.until("all is well", lambda: "All is well." in self.says("status"))

    def test_5_the_csi_controller_listens(self):
        self.start("csi-controller", ("Deployment", "fairlead-csi-controller"), "a", space.NODES["a"], "driver")
        self.until("listening", (self.pods["csi-controller"].volumes["socket"] / "csi.sock").is_socket)

    def test_5_the_csi_node_listens_where_the_kubelet_looks(self):
        self.start("csi-node", ("DaemonSet", "fairlead-csi-node"), "b", space.NODES["b"], "driver")
        self.until("listening", (self.folder / "nodes/b/var/lib/kubelet/plugins/fairlead.dev/csi.sock").is_socket)

    def test_6_certificates_name_the_pods_addresses(self):
        for name, expected in (("engine-a", "IP Address:192.0.2.1"), ("control", "IP Address:192.0.2.100"), ("control", "DNS:fairlead.fairlead.svc")):
            file = self.pods[name].volumes["tls"] / "cert.pem"
            done = subprocess.run(["openssl", "x509", "-in", file, "-noout", "-ext", "subjectAltName"], capture_output=True, text=True, timeout=60,
                                  check=False)
            self.assertIn(expected, done.stdout)

    def test_7_strangers_are_refused(self):
        with self.assertRaises(AssertionError) as refused:
            self.pods["control"].execute("control", "fairlead", "status", "--token-file", "/tls/ca.pem")
        self.assertIn("token", str(refused.exception))

    def test_8_prometheus_may_read(self):
        """As the ServiceMonitor says: who is trusted, which name the server has, which token."""
        monitor = chart.find(chart.render({"monitoring": {"serviceMonitor": {"create": True}}}), "ServiceMonitor", "fairlead")
        endpoint = monitor["spec"]["endpoints"][0]
        token = self.cluster.secrets[endpoint["authorization"]["credentials"]["name"]][endpoint["authorization"]["credentials"]["key"]]
        trusted = self.cluster.secrets[endpoint["tlsConfig"]["ca"]["secret"]["name"]][endpoint["tlsConfig"]["ca"]["secret"]["key"]]
        context = ssl.create_default_context(cadata=base64.b64decode(trusted).decode())
        with socket.create_connection((space.SERVICES[0], 7400), timeout=60) as plain, \
             context.wrap_socket(plain, server_hostname=endpoint["tlsConfig"]["serverName"]) as connection:
            connection.sendall(f"GET {endpoint['path']} HTTP/1.0\r\nHost: fairlead\r\nAuthorization: Bearer "
                               f"{base64.b64decode(token).decode()}\r\n\r\n".encode())
            said = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        self.assertIn("200 OK", said.splitlines()[0])
        self.assertIn('fairlead_volume_state{volume="db",state="online"} 1', said)

    def test_9_all_end_in_order(self):
        for name in list(self.pods):
            self.assertEqual(set(self.pods[name].stop().values()), {0}, name)


class EtcdTest(PodsTest):
    """The control plane with an etcd of the chart's: one member here, as all pods share one network. Debian's etcd stands for the
    image's."""

    def test_the_store_is_etcd(self):
        self.make({"control": {"store": "etcd"}, "etcd": {"create": True, "replicas": 1}})
        shutil.copy(shutil.which("etcd"), self.cluster.image_root / "usr" / "bin" / "etcd")
        self.start("etcd", ("StatefulSet", "fairlead-etcd"), "a", space.SERVICES[2], "etcd")
        self.start("control", ("Deployment", "fairlead-control-0"), "a", space.SERVICES[0], "control")
        self.until("leading", lambda: "control.leads" in self.pods["control"].log("control"))
        self.cli("node", "list")
        self.assertFalse((self.folder / "claims" / "fairlead-control").exists())
        self.assertTrue((self.folder / "claims" / "data-fairlead-etcd-0" / "etcd" / "member").is_dir())
        self.assertEqual(self.pods["control"].stop(), {"control": 0})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    arguments, others = parser.parse_known_args()
    fairlead = arguments.fairlead.resolve()
    go_programs.build("helm")
    space.enter()
    unittest.main(argv=[sys.argv[0], *others])
