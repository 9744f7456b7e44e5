"""Pods of the chart as processes, without a cluster: each container in the root of the image that deploy/image/build makes, with its
volumes mounted, its user, the capabilities that it is left, and its environment, as a kubelet would do."""

import base64
import ctypes
import os
import pathlib
import re
import resource
import signal
import subprocess
import threading

_libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
CAPABILITIES = {"CHOWN": 0, "FOWNER": 3, "IPC_LOCK": 14, "SYS_MODULE": 16}
MEMLOCK = 8 << 20  # what a container has when nobody says more
NAMESPACE = "fairlead"
SECONDS_MAX = 300


def call(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def mount(source, target, flags):
    call(_libc.mount(str(source).encode(), str(target).encode(), b"none", flags, None), f"mount {source} {target}")


def is_really_root():
    return os.geteuid() == 0 and pathlib.Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def program(image):
    """What the image of this name runs."""
    return "/usr/bin/" + re.split("[:@]", image.rpartition("/")[2])[0]


class Cluster:
    """What pods share: a folder for nodes and claims, Secrets, the addresses of Services. `account_files` gives the files, by path,
    by which a pod knows the API server and is known there."""

    def __init__(self, folder, image_root, objects, services, account_files=None):
        self.account_files = account_files
        self.folder = pathlib.Path(folder)
        self.image_root = image_root
        self.secrets = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "Secret"}
        self.services = services  # name: address
        self.hosts = self.folder / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}.fairlead.svc\n" for name, address in services.items()))

    def environment(self):
        return {"KUBERNETES_SERVICE_PORT": "443",
                **{f"{name.upper().replace('-', '_')}_SERVICE_HOST": address for name, address in self.services.items()}}

    def has_program(self, container):
        return (self.image_root / program(container["image"]).lstrip("/")).exists()


class Pod:
    """`claims` are the names of the volumes that a StatefulSet makes."""

    def __init__(self, cluster, template, name, node, address, claims=()):
        self.cluster, self.name, self.node, self.address = cluster, name, node, address
        self.template = template
        self.spec = template["spec"]
        self.folder = cluster.folder / "pods" / name
        self.folder.mkdir(parents=True)
        claimed = [{"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-{name}"}} for claim in claims]
        self.volumes = {volume["name"]: self._make(volume) for volume in [*self.spec["volumes"], *claimed]}
        self.processes = {}

    def _make(self, volume):
        name = volume["name"]
        if "hostPath" in volume:
            path = pathlib.Path(volume["hostPath"]["path"])
            if path == pathlib.Path("/dev"):
                return path
            folder = self.cluster.folder / "nodes" / self.node / path.relative_to("/")
        elif "persistentVolumeClaim" in volume:
            folder = self.cluster.folder / "claims" / volume["persistentVolumeClaim"]["claimName"]
        else:
            folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        if "secret" in volume:
            data = self.cluster.secrets[volume["secret"]["secretName"]]
            items = volume["secret"].get("items") or [{"key": key, "path": key} for key in data]
            for item in items:
                file = folder / item["path"]
                file.write_bytes(base64.b64decode(data[item["key"]]))
                file.chmod(volume["secret"]["defaultMode"])
        if "projected" in volume:
            for path, text in self.cluster.account_files(self.template).items():
                (folder / path).write_text(text)
                (folder / path).chmod(0o640)
        group = self.spec.get("securityContext", {}).get("fsGroup")
        if group and "hostPath" not in volume and is_really_root():
            for path in (folder, *folder.iterdir()):
                os.chown(path, -1, group)
            if "emptyDir" in volume or "persistentVolumeClaim" in volume:
                folder.chmod(0o2770)
        return folder

    # A container

    def environment(self, container):
        facts = {"spec.nodeName": self.node, "status.hostIP": self.address, "status.podIP": self.address, "metadata.name": self.name,
                 "metadata.namespace": NAMESPACE}
        facts |= {f"metadata.labels['{key}']": value for key, value in self.template["metadata"]["labels"].items()}
        found = {"PATH": "/usr/sbin:/usr/bin", **self.cluster.environment()}
        for variable in container.get("env", []):
            found[variable["name"]] = variable["value"] if "value" in variable else facts[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        return found

    def words(self, container):
        """The command, with $(NAME) as the kubelet puts in."""
        words = [*container.get("command", [program(container["image"])]), *container.get("args", [])]
        environment = self.environment(container)
        return [re.sub(r"\$\(([A-Z0-9_]+)\)", lambda name: environment.get(name[1], name[0]), word) for word in words]

    def start(self, container, words=None):
        log = open(self.folder / f"{container['name']}.log", "ab")
        process = subprocess.Popen(words or self.words(container), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if words else log,
                                   stderr=subprocess.STDOUT, text=True, env=self.environment(container),
                                   preexec_fn=lambda: self._enter(container))
        log.close()
        return process

    def _enter(self, container):
        """In the child: another root, with what the container is given."""
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        root = self.cluster.image_root
        call(_libc.unshare(CLONE_NEWNS), "unshare")
        mount("none", "/", MS_REC | MS_PRIVATE)
        mount(root, root, MS_BIND)
        targets = [("/proc", root / "proc"), (self.cluster.hosts, root / "etc/hosts")]
        targets += [(f"/dev/{name}", root / "dev" / name) for name in ("null", "urandom", "zero")]
        targets += [(self.volumes[each["name"]], root / each["mountPath"].lstrip("/")) for each in container.get("volumeMounts", [])]
        for source, target in targets:
            if os.path.isdir(source):
                target.mkdir(parents=True, exist_ok=True)
            elif not target.exists():
                target.touch()
        security = container["securityContext"]
        if security.get("readOnlyRootFilesystem"):
            mount(root, root, MS_BIND | MS_REMOUNT | MS_RDONLY)
        for source, target in targets:
            mount(source, target, MS_BIND | (MS_REC if str(source) == "/proc" else 0))
        os.chroot(root)
        os.chdir("/")
        self._be_less(security)

    def _be_less(self, security):
        whole = {**self.spec.get("securityContext", {}), **security}
        if not security.get("privileged"):
            kept = {CAPABILITIES[name] for name in security["capabilities"].get("add", [])}
            for number in range(41):
                if number not in kept:
                    _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (MEMLOCK, MEMLOCK))
        if not security.get("allowPrivilegeEscalation", True):
            _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if is_really_root() and whole.get("runAsUser"):
            os.setgroups([whole["fsGroup"]] if "fsGroup" in whole else [])
            os.setresgid(whole["runAsGroup"], whole["runAsGroup"], whole["runAsGroup"])
            os.setresuid(whole["runAsUser"], whole["runAsUser"], whole["runAsUser"])

    # Its life

    def run_init_containers(self):
        for container in self.spec.get("initContainers", []):
            process = self.start(container)
            try:
                code = process.wait(SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            if code:
                raise AssertionError(f"{container['name']} of {self.name} ends with {code}:\n{self.log(container['name'])}")

    def run(self, *names):
        """Starts the pod: init containers to their end, then those containers that are named."""
        self.run_init_containers()
        for container in self.spec["containers"]:
            if container["name"] in names:
                self.processes[container["name"]] = self.start(container)
        return self

    def execute(self, name, *words):
        """Runs a command in a container; what it printed, AssertionError when it fails."""
        container = next(each for each in self.spec["containers"] if each["name"] == name)
        process = self.start(container, words)
        guard = threading.Timer(SECONDS_MAX, process.kill)
        guard.start()
        said = process.communicate()[0]
        guard.cancel()
        if process.returncode:
            raise AssertionError(f"{' '.join(words)} ends with {process.returncode}: {said}")
        return said

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()

    def stop(self, number=signal.SIGTERM):
        """Exit codes, by container."""
        codes = {}
        for name, process in self.processes.items():
            if process.poll() is None:
                process.send_signal(number)
        for name, process in self.processes.items():
            try:
                codes[name] = process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        self.processes = {}
        return codes
