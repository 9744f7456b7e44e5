#!/usr/bin/env python3
"""Builds the guest: Debian's 6.12 kernel, a root directory with the tools the tests use, a small initial RAM disk.

Nothing is installed: the kernel's package is downloaded by apt from the machine's own sources and unpacked, the
tools are copied from the machine. The image is kept in build/vm/image-KEY, where KEY names the recipe and the
versions of the packages it is made of; it is built again only when KEY changes. Each image is built beside its place
and renamed, under a lock, so an interrupted build leaves nothing behind that a later one would trust.

    python3 tests/vm/image.py      builds it if need be, prints its directory
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "vm"
KERNEL = "linux-image-6.12-amd64"

# What has to be installed on the machine that builds the image and runs the guest.
PACKAGES = ("qemu-system-x86 busybox-static cpio lz4 xz-utils kmod nvme-cli fio e2fsprogs xfsprogs util-linux "
            "iproute2 coreutils bash strace btrfs-progs socat").split()

# Real programs of the guest; every other command is busybox.
PROGRAMS = ("bash nvme fio mkfs.ext4 e2fsck resize2fs mkfs.xfs xfs_repair xfs_growfs xfs_io modprobe ip ss strace "
            "mount umount mountpoint lsblk blkid blockdev blkdiscard fstrim dd flock setsid timeout base64 "
            "sha256sum truncate mkfs.btrfs btrfs socat").split()

# Loaded on demand; the crypto ones are in no other module's dependency list. nvmet is for the reference target.
MODULES = ("nvme_core nvme_fabrics nvme_tcp nvmet nvmet_tcp nvme_loop virtio_pci virtio_net virtio_blk "
           "virtio_console 9p 9pnet_virtio configfs ext4 xfs btrfs loop brd tls crc32c_generic crc32c_intel crc32_generic "
           "crc32_pclmul crct10dif_pclmul hmac sha256_generic sha512_generic sha256_ssse3 sha512_ssse3 dh_generic "
           "gcm ecb cbc ctr").split()
BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p")


class ImageError(Exception):
    """The image cannot be made; the message says what to do."""


@dataclasses.dataclass
class Image:
    """A finished image. It is not removed while this object lives, which holds a shared lock on it."""
    directory: pathlib.Path
    in_use: object

    @property
    def kernel(self):
        return self.directory / "vmlinuz"

    @property
    def initrd(self):
        return self.directory / "initrd"

    @property
    def root(self):
        return self.directory / "root"


def ensure(report=print):
    """Returns the Image for this recipe and these packages, building it if it is not there yet."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _ensure_locked(report)
        report("vm image: waiting for another build")
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _ensure_locked(report)


def _ensure_locked(report):
    kernel_package = _kernel_package(report)
    directory = BUILD / f"image-{_key(kernel_package)}"
    if not directory.exists():
        _remove_unused()
        started = time.monotonic()
        report(f"vm image: building {directory.name} with {kernel_package}")
        _remove_partial()
        partial = _partial("image")
        _build(partial, _kernel_tree(kernel_package, report))
        (partial / "in_use").touch()
        partial.rename(directory)
        report(f"vm image: built in {time.monotonic() - started:.0f} s")
    in_use = open(directory / "in_use")
    fcntl.flock(in_use, fcntl.LOCK_SH)
    return Image(directory, in_use)


def _partial(what):
    """A name for what is being made, of this process alone: a killed build's last program may still write to its own."""
    return BUILD / f"partial-{what}-{os.getpid()}"


def _remove_partial():
    """Removes what interrupted builds left. Under the lock, so nobody else is building."""
    for left in BUILD.glob("partial-*"):
        shutil.rmtree(left, ignore_errors=True)


def _remove_unused():
    """Removes the images of older recipes, but those that a running guest uses."""
    for directory in BUILD.glob("image-*"):
        with open(directory / "in_use") as in_use, contextlib.suppress(BlockingIOError):
            fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            removed = _partial("removed")  # renamed first: a half-removed image must not bear a valid name
            directory.rename(removed)
            shutil.rmtree(removed)


def _key(kernel_package):
    recipe = hashlib.sha256()
    for name in ("image.py", "guest_init.sh", "thin_init.sh"):
        recipe.update((HERE / name).read_bytes())
    recipe.update(kernel_package.encode())
    versions = subprocess.run(["dpkg-query", "--show", "libc6", *PACKAGES], capture_output=True, text=True)
    if versions.returncode:
        raise ImageError(f"packages are missing: {versions.stderr.strip()}\n"
                         f"apt-get install --no-install-recommends {' '.join(PACKAGES)}")
    recipe.update(versions.stdout.encode())
    return recipe.hexdigest()[:12]


# The kernel

def _kernel_package(report):
    """The name of the newest 6.12 kernel's package; one downloaded before will do where apt knows none."""
    name = _depends_of_kernel()
    kept = sorted(BUILD.glob("linux-image-*.deb"), key=lambda path: path.stat().st_mtime)
    if name is None and kept:
        return kept[-1].name.split("_")[0]
    if name is None:
        report(f"vm image: apt does not know {KERNEL} yet: apt-get update")
        root = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run([*root, "apt-get", "-q", "update"], check=False, stdout=subprocess.DEVNULL)
        name = _depends_of_kernel()
    if name is None:
        raise ImageError(f"apt does not know {KERNEL}: the security updates of Debian 12 have to be among its sources")
    return name


def _depends_of_kernel():
    answer = subprocess.run(["apt-cache", "depends", KERNEL], capture_output=True, text=True).stdout
    found = re.search(r"Depends: (linux-image-\S+)", answer)
    return found and found[1]


def _kernel_tree(package, report):
    """Unpacks the package's kernel and modules (not installed) and returns the directory, which _build removes."""
    kept = list(BUILD.glob(f"{package}_*.deb"))
    if not kept:
        download = _partial("download")
        download.mkdir()
        report(f"vm image: apt-get download {package} (about 107 MB)")
        got = subprocess.run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package], cwd=download,
                             capture_output=True, text=True)
        if got.returncode:
            raise ImageError(f"apt-get download {package} failed; apt-get update may help:\n{got.stderr.strip()}")
        for older in BUILD.glob("linux-image-*.deb"):
            older.unlink()
        for archive in download.glob("*.deb"):
            kept.append(archive.rename(BUILD / archive.name))
        download.rmdir()
    tree = _partial("kernel")
    tree.mkdir()
    unpack = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", kept[0]], stdout=subprocess.PIPE)
    _run("tar", "-x", "-C", tree, "./boot", "./lib/modules", stdin=unpack.stdout)
    if unpack.wait():
        kept[0].unlink()
        raise ImageError(f"{kept[0].name} is damaged and was removed; run this again")
    return tree


# The root

def _build(image, tree):
    version = next((tree / "lib" / "modules").iterdir()).name
    root = image / "root"
    for name in ("bin etc/nvme dev proc sys run tmp mnt root usr/bin usr/sbin lib64 var/tmp").split():
        (root / name).mkdir(parents=True)
    (root / "sbin").symlink_to("bin")
    _copy_busybox(root)
    _copy_programs(root)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc" / "mtab").symlink_to("/proc/mounts")
    shutil.copy(HERE / "guest_init.sh", root / "init")
    (root / "init").chmod(0o755)
    _run("depmod", "-b", tree, version)
    _copy_modules(tree, root, version)
    shutil.copy(tree / "boot" / f"vmlinuz-{version}", image / "vmlinuz")
    _pack_initrd(image, root, version)
    shutil.rmtree(tree)


def _copy_busybox(root):
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for applet in _run("/bin/busybox", "--list").split():
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")


def _copy_programs(root):
    libraries = set()
    for program in PROGRAMS:
        source = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
        if source is None:
            raise ImageError(f"{program} is missing: apt-get install --no-install-recommends {' '.join(PACKAGES)}")
        place = root / "bin" / program
        place.unlink(missing_ok=True)
        if pathlib.Path(source).read_bytes()[:2] == b"#!":  # xfs_growfs and others are scripts
            shutil.copy(source, place)
        else:
            libraries |= copy_elf(pathlib.Path(source).resolve(), place)
    engines = pathlib.Path("/usr/lib/x86_64-linux-gnu/fio")  # fio opens its I/O engines by name
    for engine in engines.glob("*.so"):
        if re.search("libaio|uring", engine.name):
            (root / engines.relative_to("/")).mkdir(parents=True, exist_ok=True)
            libraries |= copy_elf(engine, root / engine.relative_to("/"))
    for library in libraries:
        place = root / library.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)


def copy_elf(source, place):
    """Copies a program or library and returns the libraries it needs."""
    shutil.copy(source, place)
    needed = subprocess.run(["ldd", source], capture_output=True, text=True).stdout
    return {pathlib.Path(name) for name in re.findall(r"(/[^ ]+) \(0x", needed)}


def _module_files(tree, version, modules):
    """The files of the modules and all they depend on, in the order in which they are to be loaded."""
    files = {}
    for module in modules:
        # The machine's own /etc/modprobe.d must not leak in.
        shown = _run("modprobe", "-C", "/dev/null", "-d", tree, "-S", version, "--show-depends", "-i", module)
        files |= dict.fromkeys(re.findall(r"^insmod (\S+)", shown, re.MULTILINE))
    return [pathlib.Path(name) for name in files]


def _copy_modules(tree, root, version):
    place = root / "lib" / "modules" / version
    place.mkdir(parents=True)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(tree / "lib" / "modules" / version / name, place)
    for source in _module_files(tree, version, MODULES):
        target = place / source.relative_to(tree / "lib" / "modules" / version)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        if source.suffix == ".xz":
            _run("xz", "-d", target)
    _run("depmod", "-b", root, version)


def _pack_initrd(image, root, version):
    thin = image / "thin"
    for name in ("bin", "modules", "dev", "proc", "sys", "root"):
        (thin / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", thin / "bin")
    files = _module_files(root, version, BOOT_MODULES)
    for module in files:
        shutil.copy(module, thin / "modules")
    (thin / "modules" / "order").write_text("".join(f"{module.name}\n" for module in files))
    shutil.copy(HERE / "thin_init.sh", thin / "init")
    (thin / "init").chmod(0o755)
    pack = "find . | cpio --create --format=newc --quiet --owner=0:0 | lz4 -l -1 -c >../initrd"
    _run("bash", "-o", "pipefail", "-c", pack, cwd=thin)
    shutil.rmtree(thin)


def _run(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode:
        raise ImageError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    try:
        print(ensure(report=lambda line: print(line, file=sys.stderr)).directory)
    except ImageError as error:
        sys.exit(f"vm image: {error}")
