"""Programs in Go that conformance tests drive: each is pinned by a go.mod in tests/conformance/go, and built once into
build/conformance."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
MODULES = ROOT / "tests" / "conformance" / "go"
BUILT = ROOT / "build" / "conformance"
BUILD_SECONDS_MAX = 5400
# Program: its module's folder and its package.
PROGRAMS = {
    "csi-sanity": ("sanity", "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"),
    "helm": ("helm", "helm.sh/helm/v3/cmd/helm"),
    "kube-apiserver": ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": ("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kubectl": ("kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    "csi-attacher": ("sidecars", "github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher"),
    "csi-provisioner": ("sidecars", "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"),
    "csi-resizer": ("sidecars", "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer"),
    "csi-snapshotter": ("sidecars", "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter"),
    "snapshot-controller": ("sidecars", "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller"),
}


class GoError(Exception):
    """It cannot be built; the message says why, and what to do."""


def go(folder, *words, seconds=BUILD_SECONDS_MAX):
    if not shutil.which("go"):
        raise GoError("these tests build programs in Go, which is not here: install Go 1.21 or later; it fetches what is newer itself")
    done = subprocess.run(["go", *words], cwd=MODULES / folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
                          env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}, check=False)
    if done.returncode:
        raise GoError(f"go {' '.join(words)}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def version_flags(folder):
    """Kubernetes' programs are told by who builds them which version they are."""
    found = re.search(r"k8s\.io/kubernetes (v1\.(\d+)\.\d+)", (MODULES / folder / "go.mod").read_text())
    if found is None:
        return ""
    values = {"gitVersion": found[1], "gitMajor": "1", "gitMinor": found[2]}
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())


def build(name):
    """Where the program is. It is built when its module has changed since, or it is not there."""
    folder, package = PROGRAMS[name]
    program = BUILT / "bin" / name
    mark = BUILT / f"{name}.sum"
    pinned = hashlib.sha256(b"".join((MODULES / folder / file).read_bytes() for file in ("go.mod", "go.sum"))).hexdigest()
    if not program.exists() or not mark.exists() or mark.read_text() != pinned:
        program.parent.mkdir(parents=True, exist_ok=True)
        flags = f"-ldflags=-s -w {version_flags(folder)}"
        go(folder, "build", "-mod=readonly", "-trimpath", flags, "-o", str(program), package)
        mark.write_text(pinned)
    return program


def module_folder(folder, module):
    """Where the files of a module are that tests/conformance/go/`folder` pins; it is downloaded when it is not there."""
    go(folder, "mod", "download", module, seconds=600)
    return pathlib.Path(json.loads(go(folder, "list", "-m", "-json", module, seconds=60))["Dir"])
