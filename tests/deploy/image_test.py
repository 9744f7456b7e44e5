"""deploy/image/build: the image is what OCI says an image is, the same each time, and what is in it runs."""

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SECONDS_MAX = 540
# 52 MB when this was written: what makes it much larger is to be noticed.
SIZE_MAX = 80e6
# Program: how it is asked, and a word of its answer. Those that the CSI node and the chart's scripts use.
PROGRAMS = {
    "mkfs.ext4": ("-V", "mke2fs"), "e2fsck": ("-V", "e2fsck"), "resize2fs": ("-V", "resize2fs"), "mkfs.xfs": ("-V", "mkfs.xfs"),
    "xfs_growfs": ("-V", "xfs_growfs"), "xfs_repair": ("-V", "xfs_repair"), "mkfs.btrfs": ("--version", "btrfs"),
    "btrfs": ("--version", "btrfs"), "mount": ("--version", "util-linux"), "umount": ("--version", "util-linux"),
    "blkid": ("--version", "util-linux"), "lsblk": ("--version", "util-linux"), "findmnt": ("--version", "util-linux"),
    "fsfreeze": ("--version", "util-linux"), "wipefs": ("--version", "util-linux"), "modprobe": ("--version", "kmod"),
    "nvme": ("version", "nvme version"), "openssl": ("version", "OpenSSL"), "sh": ("-c", ""), "sleep": ("0", ""),
}

fairlead = None
in_root = None  # how a command is begun in a root of its own


def build(folder, cache, *options):
    return subprocess.run([ROOT / "deploy" / "image" / "build", "--fairlead", fairlead, "--output", folder / "image.tar", "--cache", cache,
                           *options], capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
                          env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})


class ImageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.folder = pathlib.Path(directory.name)
        cls.root = cls.folder / "root"
        cls.cache = fairlead.parent / "image-packages"
        cls.done = build(cls.folder, cls.cache, "--unpack", cls.root)
        if "'apt-get update'" in cls.done.stderr:
            print(f"skipped: no packages can be had: {cls.done.stderr}")
            sys.exit(77)
        if cls.done.returncode:
            raise AssertionError(cls.done.stderr)
        with tarfile.open(cls.folder / "image.tar") as tar:
            cls.files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
            cls.members = tar.getmembers()

    def blob(self, descriptor):
        data = self.files["blobs/" + descriptor["digest"].replace(":", "/")]
        self.assertEqual(len(data), descriptor["size"])
        self.assertEqual("sha256:" + hashlib.sha256(data).hexdigest(), descriptor["digest"])
        return data

    def inside(self, *command):
        return subprocess.run([*in_root, self.root, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60, check=False)

    def test_it_is_an_oci_layout(self):
        self.assertEqual(json.loads(self.files["oci-layout"]), {"imageLayoutVersion": "1.0.0"})
        manifest = json.loads(self.blob(json.loads(self.files["index.json"])["manifests"][0]))
        config = json.loads(self.blob(manifest["config"]))
        self.assertEqual(config["config"]["Entrypoint"], ["/usr/bin/fairlead"])
        layers = [gzip.decompress(self.blob(layer)) for layer in manifest["layers"]]
        self.assertEqual(config["rootfs"]["diff_ids"], ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers])
        self.assertLess(sum(map(len, layers)), SIZE_MAX)
        self.assertIn(f"{sum(map(len, layers)) / 1e6:.1f} MB", self.done.stdout)
        for layer in layers:
            with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
                for member in tar:
                    self.assertEqual((member.uid, member.gid, member.mtime), (0, 0, 1700000000), member.name)
                    self.assertFalse(member.mode & 0o6000, f"{member.name} would run as another user")

    def test_other_tools_find_the_same_image(self):
        manifest = json.loads(self.blob(json.loads(self.files["index.json"])["manifests"][0]))
        other = json.loads(self.files["manifest.json"])[0]
        self.assertEqual(other["Config"], "blobs/" + manifest["config"]["digest"].replace(":", "/"))
        self.assertEqual(other["Layers"], ["blobs/" + layer["digest"].replace(":", "/") for layer in manifest["layers"]])

    def test_the_program_runs_in_it(self):
        expected = subprocess.run([fairlead, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
        done = self.inside("/usr/bin/fairlead", "--version")
        self.assertEqual((done.returncode, done.stdout), (0, expected), done.stderr)
        done = self.inside("/usr/bin/fairlead", "control", "--store", "sqlite:/tmp/c.db", "--check-config")
        self.assertEqual((done.returncode, done.stdout), (0, "the settings are right\n"), done.stderr)

    def test_what_it_starts_runs_in_it(self):
        for program, (argument, word) in PROGRAMS.items():
            done = self.inside("/usr/bin/env", program, argument, *(["true"] if program == "sh" else []))
            said = done.stdout + done.stderr
            self.assertIn(word, said, program)
            self.assertNotIn("not found", said, program)
            self.assertNotIn("shared librar", said, program)

    def test_a_file_system_is_made_in_it(self):
        (self.root / "proc" / "self").mkdir()
        (self.root / "proc" / "self" / "mounts").write_text("")
        for kind in ("ext4", "xfs", "btrfs"):
            with open(self.root / "disk", "wb") as disk:
                disk.truncate(320 << 20)
            done = self.inside("/usr/bin/env", f"mkfs.{kind}", "/disk")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn(f'TYPE="{kind}"', self.inside("/usr/sbin/blkid", "-p", "/disk").stdout)

    def test_it_trusts_whom_debian_trusts(self):
        done = self.inside("/usr/bin/env", "sh", "-c", "grep -c BEGIN /usr/lib/ssl/cert.pem")
        self.assertGreater(int(done.stdout), 100, done.stderr)

    def test_it_is_the_same_each_time(self):
        with tempfile.TemporaryDirectory() as again:
            done = build(pathlib.Path(again), self.cache)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(hashlib.sha256((pathlib.Path(again) / "image.tar").read_bytes()).hexdigest(),
                             hashlib.sha256((self.folder / "image.tar").read_bytes()).hexdigest())

    def test_a_program_that_is_not_there_is_told_of(self):
        done = subprocess.run([ROOT / "deploy" / "image" / "build", "--fairlead", self.folder / "none"], capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("'./dev build' makes it", done.stderr)


def check_machine():
    """Ends with 77 where no image can be made."""
    global in_root
    missing = [name for name in ("apt-get", "dpkg-deb", "readelf", "strip", "tar") if not shutil.which(name)]
    if missing:
        print(f"skipped: {', '.join(missing)} not found; the image is made on Debian")
        sys.exit(77)
    for in_root in (["chroot"], ["unshare", "--user", "--map-root-user", "chroot"]):
        if subprocess.run([*in_root, "/", "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return
    print("skipped: no other root directory can be taken")
    sys.exit(77)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    arguments, others = parser.parse_known_args()
    fairlead = arguments.fairlead.resolve()
    check_machine()
    unittest.main(argv=[sys.argv[0], *others])
