"""deploy/kubectl/package: the archive is what its manifest says, and what is in it is the plugin. What the plugin does is looked at
by tests/conformance, which has kubectl and an API server."""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import unittest

try:
    import yaml
except ImportError as missing:
    print(f"skipped: {missing}; ./dev installs it")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SECONDS_MAX = 600

fairlead = None


def run(*words, **options):
    return subprocess.run(list(map(str, words)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
                          **options)


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.folder = pathlib.Path(directory.name)
        done = run(sys.executable, "-B", ROOT / "deploy" / "kubectl" / "package", "--fairlead", fairlead, "--output", cls.folder)
        if done.returncode:
            raise AssertionError(done.stderr)
        with tarfile.open(cls.folder / "kubectl-fairlead.tar.gz") as tar:
            cls.names = tar.getnames()
        (cls.folder / "bin").mkdir()
        done = run("tar", "-xzf", cls.folder / "kubectl-fairlead.tar.gz", "-C", cls.folder / "bin")
        if done.returncode:
            raise AssertionError(done.stderr)

    def plugin(self, *words, program="kubectl-fairlead", **environment):
        done = run(self.folder / "bin" / program, *words, env={**os.environ, "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", **environment})
        return done.returncode, done.stdout + done.stderr

    def test_the_manifest_names_the_archive(self):
        manifest = yaml.safe_load((self.folder / "fairlead.yaml").read_text())
        platform, = manifest["spec"]["platforms"]
        self.assertEqual(platform["sha256"], hashlib.sha256((self.folder / "kubectl-fairlead.tar.gz").read_bytes()).hexdigest())
        self.assertIn(platform["bin"], self.names)
        self.assertEqual(manifest["spec"]["version"], "v" + run(fairlead, "--version").stdout.split()[-1])
        self.assertLessEqual(len(manifest["spec"]["shortDescription"]), 50)

    def test_it_knows_by_its_name_what_it_is(self):
        code, said = self.plugin("--help")
        self.assertEqual(code, 0)
        self.assertIn("Usage: kubectl fairlead", said)
        self.assertIn("--context", said)
        code, said = self.plugin("node", "list", PATH="/nowhere")
        self.assertEqual(code, 5)
        self.assertIn("kubectl cannot be run", said)
        self.assertNotIn("kubectl fairlead", run(fairlead, "--help").stdout)

    def test_it_completes(self):
        def complete(*words):
            return self.plugin(*words, program="kubectl_complete-fairlead")[1].split()

        self.assertEqual(complete("volume", "cre"), ["create", ":4"])
        self.assertIn("--replicas", complete("volume", "create", "--repl"))
        self.assertIn("volume", complete(""))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    arguments, others = parser.parse_known_args()
    fairlead = arguments.fairlead.resolve()
    unittest.main(argv=[sys.argv[0], *others])
