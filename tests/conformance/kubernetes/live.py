"""A cluster of Kubernetes that lives: its own control plane, three nodes, and the chart installed in it. What no image is at hand
for is left out: livenessprobe and node-driver-registrar."""

import base64
import pathlib
import shutil
import subprocess
import tempfile
import time

import api_server
import chart
import go_programs
import kubelet
import pod
import rest
import space
import yaml

SECONDS_MAX = 240
LOOK_SECONDS = 1  # at what tells nobody when it changes
NODES = {name: (address, "north" if name == "a" else "south") for name, address in space.NODES.items()}
SIDECARS = ("csi-attacher", "csi-provisioner", "csi-resizer", "csi-snapshotter")
SNAPSHOT_MODULE = "github.com/kubernetes-csi/external-snapshotter/client/v8"
CORE = "/api/v1"
STORAGE = "/apis/storage.k8s.io/v1"
SNAPSHOTS = "/apis/snapshot.storage.k8s.io/v1"
GROUPS = "/apis/groupsnapshot.storage.k8s.io/v1"
WATCHED = [f"{CORE}/pods", f"{CORE}/persistentvolumeclaims", f"{CORE}/persistentvolumes", f"{CORE}/events",
           f"{STORAGE}/volumeattachments", f"{STORAGE}/csistoragecapacities", f"{SNAPSHOTS}/volumesnapshots",
           f"{GROUPS}/volumegroupsnapshots"]


def ok(done):
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    return done.stdout


class Cluster:
    """Lives as long as its process. `fairlead` is the program, `values` are the chart's."""

    def __init__(self, folder, fairlead, values):
        self.folder = pathlib.Path(folder)
        space.add([api_server.ADDRESS])
        self.server = api_server.ApiServer(self.folder)
        try:
            self._start(fairlead, values)
        except BaseException:
            self.server.stop()
            raise

    def _start(self, fairlead, values):
        self.rest = rest.Rest(api_server.ADDRESS, api_server.PORTS["api"], self.server.token, self.server.ca().read_text())
        self.server.start_controllers()
        self._define_snapshots()
        self._install(values)
        self.pods = self._cluster_of_pods(fairlead)
        self.kubelets = kubelet.Kubelets(self.rest, self.pods, NODES)
        self.changes = rest.Changes(self.rest, WATCHED)
        secret = {name: base64.b64decode(self.pods.secrets[f"fairlead-{name}"][key]).decode()
                  for name, key in (("token", "admin"), ("ca", "ca.crt"))}
        self.control = rest.Rest(self.pods.services["fairlead-control-0"], 7400, secret["token"], secret["ca"])

    def _define_snapshots(self):
        for file in sorted((go_programs.module_folder("crds", SNAPSHOT_MODULE) / "config" / "crd").glob("*snapshot.storage.k8s.io_*.yaml")):
            ok(self.server.kubectl("apply", "--server-side", "-f", file))
        ok(self.server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"))
        self.server.start_snapshot_controller()

    def _install(self, values):
        """As docs/kubernetes.md says."""
        ok(self.server.kubectl("create", "namespace", pod.NAMESPACE))
        ok(self.server.kubectl("label", "namespace", pod.NAMESPACE, "pod-security.kubernetes.io/enforce=privileged"))
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(values, file)
            file.flush()
            ok(chart.helm("install", "fairlead", chart.CHART, "--namespace", pod.NAMESPACE, "--values", file.name,
                          env=self.server.environment()))

    def _cluster_of_pods(self, fairlead):
        root = self.folder / "image"
        ok(subprocess.run([go_programs.ROOT / "deploy" / "image" / "build", "--fairlead", fairlead, "--output", self.folder / "image.tar",
                           "--cache", fairlead.parent / "image-packages", "--unpack", root], capture_output=True, text=True, timeout=600, check=False))
        for sidecar in SIDECARS:
            shutil.copy(go_programs.build(sidecar), root / "usr" / "bin" / sidecar)
        services = {each["metadata"]["name"]: each["spec"]["clusterIP"] for each in self.rest.items(f"{CORE}/namespaces/{pod.NAMESPACE}/services")}
        space.add(services.values())
        secrets = [{**each, "kind": "Secret"} for each in self.rest.items(f"{CORE}/namespaces/{pod.NAMESPACE}/secrets") if "data" in each]
        return pod.Cluster(self.folder, root, secrets, {**services, "kubernetes": api_server.ADDRESS}, self._account_files)

    def _account_files(self, each):
        """What a kubelet gives a pod that may use the API server."""
        account = f"{CORE}/namespaces/{pod.NAMESPACE}/serviceaccounts/{each['spec']['serviceAccountName']}"
        bound = {"kind": "Pod", "apiVersion": "v1", "name": each["metadata"]["name"], "uid": each["metadata"]["uid"]}
        token = self.rest.must("POST", f"{account}/token", {"spec": {"boundObjectRef": bound, "expirationSeconds": 7200}})["status"]["token"]
        trusted = self.rest.get(f"{CORE}/namespaces/{pod.NAMESPACE}/configmaps/kube-root-ca.crt")["data"]["ca.crt"]
        return {"token": token, "ca.crt": trusted, "namespace": pod.NAMESPACE}

    def pools(self):
        try:
            return self.control.items("/v1/pools")
        except (OSError, AssertionError):  # it is not up yet
            return []

    def until(self, what, condition, seconds=SECONDS_MAX):
        """What the condition gives as soon as it is anything; kubelets work meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            self.server.check()
            self.kubelets.work()
            found = condition()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"not {what}: {self.kubelets.logs()}")
            self.changes.wait(LOOK_SECONDS)

    def stop(self):
        try:
            self.kubelets.stop()
        finally:
            self.server.stop()
