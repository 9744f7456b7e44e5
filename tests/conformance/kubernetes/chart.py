"""The chart as helm renders it."""

import functools
import json
import pathlib
import subprocess
import tempfile

import go_programs
import yaml

CHART = go_programs.ROOT / "deploy" / "helm" / "fairlead"
VERSION = "1.36.0"
SECONDS_MAX = 120
WITH_SNAPSHOTS = ("--api-versions", "snapshot.storage.k8s.io/v1")
# Name: values, as sets of what people choose together.
VALUES = {
    "default": {},
    "no csi": {"csi": {"enabled": False}},
    "no operator": {"operator": {"enabled": False}, "crds": {"create": False}},
    "node": {"control": {"sqlite": {"node": "a"}}},
    "etcd": {"control": {"store": "etcd", "replicas": 3}, "etcd": {"create": True}},
    "etcd on nodes": {"control": {"store": "etcd", "replicas": 3}, "etcd": {"create": True, "nodes": ["a", "b", "c"]}},
    "etcd outside": {"control": {"store": "etcd"}, "etcd": {"endpoints": ["https://192.0.2.9:2379"], "tlsSecret": "etcd-tls"}},
    "disks": {"pools": {"disks": ["/dev/sdb"], "nodes": {"a": ["/dev/sdc", "/dev/sdd"], "b": []}}},
    "own secrets": {"token": {"existingSecret": "my-token"}, "tls": {"existingSecret": "my-ca"}},
    "all": {
        "operator": {"replicas": 2}, "topologyLabels": ["zone", "region"], "commonLabels": {"team": "storage"}, "imagePullSecrets": ["pull"],
        "control": {"store": "etcd", "replicas": 3, "settings": {"lost-after": "3s"}}, "etcd": {"create": True},
        "engine": {"shards": 2, "settings": {"lease": "300ms", "label": ["rack=7"]}, "updateStrategy": "RollingUpdate"},
        "csi": {"enabled": True, "storageCapacity": True, "controller": {"replicas": 2, "settings": {"volumes-per-node": 32}}, "node": {"settings": {"io-queues": 4}}},
        "snapshotClass": {"default": True},
        "storageClasses": [{"name": "fast", "replicas": 2, "default": True, "fsType": "xfs", "reclaimPolicy": "Retain",
                            "bindingMode": "Immediate", "mountOptions": ["noatime"], "parameters": {"thin": "true"}}],
        "networkPolicy": {"create": True, "nodeNetworks": ["192.0.2.0/24"], "clients": [{"namespaceSelector": {}}]},
        "monitoring": {"serviceMonitor": {"create": True}, "prometheusRule": {"create": True}, "dashboard": {"create": True}}},
}


def helm(*words, seconds=SECONDS_MAX, **options):
    return subprocess.run([go_programs.build("helm"), *map(str, words)], capture_output=True, text=True, timeout=seconds, check=False,
                          **options)


def template(values, *options):
    """What helm template prints; AssertionError when it refuses."""
    return rendered(json.dumps(values), options)


@functools.cache
def rendered(values, options):
    done = attempt(json.loads(values), *options)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def attempt(values, *options):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        return helm("template", "fairlead", CHART, "--namespace", "fairlead", "--kube-version", VERSION, "--values", file.name, *options)


def render(values, *options):
    """Objects, in the order of the output."""
    return [each for each in yaml.safe_load_all(template(values, *options)) if each]


def pods(objects):
    """(object, pod template) of everything that makes pods."""
    return [(each, each["spec"]["template"]) for each in objects if each["kind"] in ("Deployment", "DaemonSet", "StatefulSet")]


def find(objects, kind, name):
    return next(each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))


def containers(pod):
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def documents_in(page, heading):
    """The resources that a part of a page shows, in blocks ```yaml."""
    part = pathlib.Path(page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [document for block in part.split("```yaml\n")[1:] for document in yaml.safe_load_all(block.partition("```")[0])]


def values_in(page):
    """The values that a page shows, each in a block ```yaml that begins with # values.yaml."""
    text = pathlib.Path(page).read_text()
    return [yaml.safe_load(block.partition("```")[0]) for block in text.split("```yaml\n# values.yaml\n")[1:]]
