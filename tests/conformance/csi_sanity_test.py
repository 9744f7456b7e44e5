"""csi-sanity, the conformance suite of the Container Storage Interface: its specs against our plugins, with a real cluster. The
node plugin and csi-sanity itself run in a guest whose kernel has nvme-tcp, so that volumes are truly connected and mounted.

csi-sanity could also run beside the controller plugin and look at the guest's paths by commands of ours. In the guest it looks
with its own eyes, and nothing stands between it and the node plugin that could be wrong instead; it is one file, without
libraries.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import unittest
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path += [str(ROOT / "tests" / "vm"), str(ROOT / "tests" / "conformance" / "kubernetes")]
import context as contexts  # noqa: E402
import go_programs  # noqa: E402
import guest as guests  # noqa: E402
import image as images  # noqa: E402
import kubelet as kubelets  # noqa: E402
import relay  # noqa: E402
from target import MIB  # noqa: E402

LOGS = go_programs.BUILT / "logs" / "sanity"
SECONDS_MAX = 600
VOLUMES_MAX = 4  # of a node: one spec asks for more
# Specs that do not run, by a part of their names, and why. Any other one that is left out is a failure.
LEFT_OUT = {
    "pagination should detect volumes added between pages": "pending in csi-sanity itself: it is not finished",
}
fairlead = None


class SanityTest(unittest.TestCase):
    def run_sanity(self, name, mib, access, parameters):
        directory = LOGS / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        with guests.Guest(images.ensure(), memory_mib=1024, log_directory=directory) as guest:
            guest.ready()
            context = contexts.Context(guest, directory, fairlead, fairlead.parents[2] / "tests" / "vm" / "steered_target", False)
            context.begin()
            try:
                self.run_specs(context, name, mib, access, parameters)
            finally:
                context.end()
                for disk in directory.glob("disk-*"):
                    disk.unlink()
        shutil.rmtree(directory)  # it is kept of what failed

    def run_specs(self, context, name, mib, access, parameters):
        kubelet = kubelets.Kubelet(context, pool_size="4GiB", volumes_max=VOLUMES_MAX)
        # The controller plugin's socket is on the machine.
        entry = relay.Relay(kubelet.controller_socket)
        context.on_end(entry.close)
        here = kubelets.PLUGIN
        words = " ".join(f"printf '{key}: \"{value}\"\\n' >>{here}/parameters;" for key, value in parameters.items())
        sanity = context.guest.install(go_programs.build("csi-sanity"))
        job = context.guest.start(
            f"{words} printf 'replicas: \"2\"\\n' >{here}/mutable; {sanity} "
            f"--csi.endpoint {here}/node.sock --csi.controllerendpoint dns:///127.0.0.1:{entry.port} "
            f"--csi.mountdir {kubelets.FOLDER}/mounted --csi.stagingdir {kubelets.FOLDER}/staged "
            f"--csi.testvolumesize {mib * MIB} --csi.testvolumeexpandsize {2 * mib * MIB} --csi.testvolumeaccesstype {access} "
            f"--csi.testvolumeparameters {here}/parameters --csi.testvolumemutableparameters {here}/mutable "
            f"--csi.testnodevolumeattachlimit --ginkgo.no-color --ginkgo.junit-report={here}/report.xml >{here}/sanity.log 2>&1; "
            f"status=$?; grep -E 'FAIL|desc =|Passed' {here}/sanity.log | sort | uniq -c | head -c 20000; exit $status")
        said = job.wait(SECONDS_MAX, check=False)
        (context.directory / "sanity.log").write_text(said)
        self.check_specs(name, context.guest.sh(f"cat {here}/report.xml"))
        self.assertEqual(job.status, 0, said)
        kubelet.check_nothing_left(f"after the specs for {name}")
        context.check_kernel_log()

    def check_specs(self, name, report):
        specs = xml.etree.ElementTree.fromstring(report).findall(".//testcase[@status]")
        specs = [spec for spec in specs if spec.get("name").startswith("[It]")]
        failed = [spec for spec in specs if spec.get("status") in ("failed", "panicked", "timedout", "interrupted")]
        self.assertFalse(failed, "\n".join(f"{spec.get('name')}: {' '.join(spec.itertext())}" for spec in failed))
        left_out = [spec.get("name") for spec in specs if spec.get("status") != "passed"]
        for part in LEFT_OUT:
            self.assertTrue(any(part in spec for spec in left_out), f"{part}: ran, or is not there")
        unknown = [spec for spec in left_out if not any(part in spec for part in LEFT_OUT)]
        self.assertEqual(unknown, [])
        self.assertGreater(len(specs), 90)
        print(f"\nremark: {name}: {len(specs) - len(left_out)} of {len(specs)} specs passed", flush=True)

    def test_ext4(self):
        self.run_sanity("ext4", 64, "mount", {"repl": 3, "fsType": "ext4", "protocol": "nvmf", "ioTimeout": 45})

    def test_xfs(self):
        self.run_sanity("xfs", 320, "mount", {"replicas": 3, "fsType": "xfs"})

    def test_btrfs(self):
        self.run_sanity("btrfs", 256, "mount", {"replicas": 3, "fsType": "btrfs"})

    def test_raw(self):
        self.run_sanity("raw", 64, "block", {"replicas": 3, "ioQueues": 1})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    options, rest = parser.parse_known_args()
    fairlead = options.fairlead.resolve()
    unittest.main(argv=[sys.argv[0], *rest], warnings="ignore")
