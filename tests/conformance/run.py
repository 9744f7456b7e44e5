#!/usr/bin/env python3
"""Runs the conformance tests that need programs in Go, which are built first: ./dev conformance. The last line sums up."""

import argparse
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER / "kubernetes"))
import go_programs  # noqa: E402

SECONDS_MAX = 2400
# Name: what it does, its file, the programs in Go that it needs.
STEPS = {
    "rendered": ("the chart by helm lint, and its pods run as processes of three nodes", "kubernetes/rendered_test.py", ["helm"]),
    "installed": ("the chart, rights of accounts and DiskPool in a real API server", "kubernetes/installed_test.py",
                  ["helm", "kubectl", "kube-apiserver"]),
    "plugin": ("kubectl-fairlead with kubectl, a release in a real API server, and a control process", "kubernetes/plugin_test.py",
               ["helm", "kubectl", "kube-apiserver"]),
    "sanity": ("csi-sanity, all specs, raw and each file system, with a real cluster and a real kernel", "csi_sanity_test.py", ["csi-sanity"]),
    "operator": ("the operator between a real API server and real engines", "kubernetes/operator_test.py",
                 ["helm", "kubectl", "kube-apiserver"]),
    "claims": ("claims in a real control plane of Kubernetes: the chart with its sidecars", "kubernetes/claims_test.py",
               ["helm", "kubectl", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "csi-attacher", "csi-provisioner",
                "csi-resizer", "csi-snapshotter", "snapshot-controller"]),
}


def build(names):
    for program in sorted({program for name in names for program in STEPS[name][2]}):
        begun = time.monotonic()
        path = go_programs.build(program)
        print(f"{program:16} {path.stat().st_size / 1e6:6.1f} MB  {time.monotonic() - begun:6.1f} s", flush=True)


def run(name, fairlead):
    """How many tests passed, failed and were skipped."""
    what, file, _ = STEPS[name]
    print(f"\n{name}: {what}", flush=True)
    process = subprocess.Popen([sys.executable, "-B", FOLDER / file, "--fairlead", fairlead], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        said = process.communicate(timeout=SECONDS_MAX)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said = process.communicate()[0] + f"\nit did not end within {SECONDS_MAX} s"
    if process.returncode == 77:
        print(said.strip())
        return 0, 0, 1
    ran = re.search(r"^Ran (\d+) tests? in (\S+)", said, re.MULTILINE)
    failed = sum(map(int, re.findall(r"(?:failures|errors)=(\d+)", said.rpartition("\n\n")[2])))
    if process.returncode or ran is None:
        print(said)
        failed = max(failed, 1)
    for remark in re.findall(r"^remark: (.*)", said, re.MULTILINE):
        print(remark)
    total = int(ran[1]) if ran else 0
    print(f"{max(total - failed, 0)} passed, {failed} failed, {ran[2] if ran else '?'}")
    return max(total - failed, 0), failed, 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    parser.add_argument("--list", action="store_true", help="lists the steps")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="only these")
    options = parser.parse_args()
    if options.list:
        for name, (what, _, programs) in STEPS.items():
            print(f"{name:12} {what} ({', '.join(programs)})")
        return 0
    if unknown := [name for name in options.steps if name not in STEPS]:
        parser.error(f"there is no step {unknown[0]}: {', '.join(STEPS)}")
    names = options.steps or list(STEPS)
    try:
        build(names)
    except (go_programs.GoError, subprocess.TimeoutExpired) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    passed, failed, skipped = map(sum, zip(*(run(name, options.fairlead.resolve()) for name in names)))
    print(f"\n{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
