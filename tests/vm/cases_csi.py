"""Cases about the CSI driver: the real plugins, a real cluster, and a kernel that truly connects and mounts."""

import functools
import re
import statistics
import time

import kubelet as kubelets
from context import case, check, check_equal, managed
from kubelet import Kubelet
from target import MIB

# File system (None: a raw device) and MiB, about the fewest that it takes.
KINDS = {"block": (None, 32), "ext4": ("ext4", 32), "xfs": ("xfs", 320), "btrfs": ("btrfs", 256)}
OVERHEAD_MAX = 0.35  # of a small file system: what its own structures take
CYCLES = 20
ATTACHES = 15
# The end of a DOS partition table: one of 8 MiB at 8 MiB.
PARTITION = r"\x83\0\0\0\0\x40\0\0\0\x40\0\0" + r"\0" * 48 + r"\x55\xaa"


def life_case(kind):
    """Registers the case for a kind of volume."""
    each = functools.partial(life, kind=kind)
    each.__name__ = f"csi_{kind}"
    each.__doc__ = f"A volume's whole life by CSI, {kind}: written to while its target is killed and while it grows, staged anew, deleted."
    case(each)


def life(context, kind):
    context.may_see_io_errors = True
    fs_type, mib = KINDS[kind]
    kubelet = Kubelet(context)
    claim = kubelet.claim(mib=mib, fs_type=fs_type)
    path = claim.attach()
    claim.await_all_paths()
    check_equal("number of paths", len(claim.connections()), 3)
    pattern = Pattern(context, claim, path)
    load = claim.load(path)

    target = claim.engine()
    target.kill()
    load.go_on()
    managed.wait_until(lambda: claim.document()["status"]["target"] not in ("", target.name), "no other engine serves")
    target.start()
    load.go_on()

    before = claim.total_bytes()
    claim.grow(2 * mib)
    check_total(claim, before)
    load.go_on()
    pause = load.finish()
    pattern.check()

    claim.detach()
    kubelet.check_nothing_left("after the volume is detached")
    claim.attach()
    pattern.check()
    check_total(claim, before)
    claim.detach()
    claim.delete()
    kubelet.check_nothing_left("after the volume is deleted")
    check_equal("volumes", kubelet.cluster.get("/v1/volumes")["items"], [])
    context.remark = f"I/O paused for at most {pause:.0f} ms"


def check_total(claim, before):
    """It is as large as was asked for, and more than before."""
    total, asked = claim.total_bytes(), claim.mib * MIB
    least = asked if claim.is_raw else asked * (1 - OVERHEAD_MAX)
    check(least <= total <= asked and total > before, f"{total} bytes are told, {before} before, and {asked} were asked for")


for _kind in KINDS:
    life_case(_kind)


class Pattern:
    """Bytes in a volume, beside the load's, that have to stay."""

    def __init__(self, context, claim, path):
        self._context = context
        if claim.is_raw:
            self._read = f"dd if={path} bs=1M skip=16 count=1 iflag=direct status=none"
            write = f"dd of={path} bs=1M seek=16 oflag=direct iflag=fullblock conv=notrunc status=none"
        else:
            self._read = f"cat {path}/pattern"
            write = f"dd of={path}/pattern bs=1M iflag=fullblock conv=fsync status=none"
        context.guest.sh(f"head -c 1M /dev/urandom | {write}")
        self._sum = self._look()

    def _look(self):
        return self._context.guest.sh(f"{self._read} | sha256sum")

    def check(self):
        check_equal("sum of the pattern", self._look(), self._sum)


@case
def csi_attach_cycles(context):
    """A volume is published, staged, written to and taken away 20 times: nothing is left in the guest, nor in the engines."""
    kubelet = Kubelet(context)
    claim = kubelet.claim(mib=32, fs_type="ext4")
    files = []
    for cycle in range(CYCLES):
        path = claim.attach()
        context.guest.sh(f"test $(cat {path}/count 2>/dev/null || echo 0) = {cycle} && echo {cycle + 1} >{path}/count")
        claim.detach()
        kubelet.check_nothing_left(f"after cycle {cycle}")
        managed.wait_until(lambda: not any(each["controllers"] for each in claim.document()["status"]["paths"]),
                           lambda: f"hosts are left: {claim.document()['status']['paths']}")
        files = files or [engine.open_files() for engine in kubelet.cluster.engines]
    for engine, before in zip(kubelet.cluster.engines, files):
        managed.wait_until(lambda: engine.open_files() <= before, f"engine {engine.name} has more files open than after the first")


@case
def csi_snapshot_frozen(context):
    """A snapshot whose class asks for it finds the file system still: it has what no program had flushed, and pods write on."""
    kubelet = Kubelet(context)
    claim = kubelet.claim(mib=32, fs_type="ext4")
    path = claim.attach()
    written = context.guest.sh(f"head -c 1048576 /dev/urandom >{path}/file && sha256sum <{path}/file")
    made = kubelet.controller.call("CreateSnapshot", source_volume_id=claim.id, name="still", parameters={"quiesceFs": "freeze"})["snapshot"]
    check(made["ready_to_use"], f"the snapshot is not ready: {made}")
    context.guest.sh(f"echo later >{path}/later && sync -f {path}")
    clone = kubelet.claim("clone", mib=32, fs_type="ext4", source=made["snapshot_id"])
    found = clone.attach(pod=2)
    check_equal("sum of the file in the snapshot", context.guest.sh(f"sha256sum <{found}/file"), written)
    check_equal("what was written after it", context.guest.status(f"test -e {found}/later"), 1)
    clone.detach(pod=2)
    claim.detach()
    clone.delete()
    kubelet.controller.call("DeleteSnapshot", snapshot_id=made["snapshot_id"])
    claim.delete()
    kubelet.check_nothing_left("after all")


@case
def csi_attach_time(context):
    """How long a file system that is there takes from NodeStageVolume to mounted, and which part of it what: to be shown, not judged."""
    kubelet = Kubelet(context)
    claim = kubelet.claim(mib=32, fs_type="ext4")
    claim.attach()
    claim.detach()
    claim.publish_to_node()
    seconds = []
    for _ in range(ATTACHES):
        begun = time.monotonic()
        claim.stage()
        seconds.append(time.monotonic() - begun)
        claim.unstage()
    lines = re.findall(r'csi.staged .*took="(.*)"', context.guest.sh(f"cat {kubelets.LOG}"))[-ATTACHES:]
    parts = {}
    for line in lines:
        for name, milliseconds in re.findall(r"(\w+) (\d+) ms", line):
            parts.setdefault(name, []).append(int(milliseconds))
    check_equal("parts of each call", {len(each) for each in parts.values()}, {ATTACHES})
    claim.unpublish_from_node()
    kubelet.check_nothing_left("after all")
    shares = ", ".join(f"{name} {statistics.median(each):.0f}" for name, each in parts.items())
    context.remark = (f"p50 {statistics.median(seconds) * 1000:.0f} ms, {min(seconds) * 1000:.0f} to {max(seconds) * 1000:.0f} of "
                      f"{ATTACHES}; of it {shares}")


@case
def csi_plugin_killed(context):
    """The node plugin is killed at each step of staging and unstaging, and while a pod writes: its next life goes on from there."""
    kubelet = Kubelet(context)
    kills = 0
    for number, moment in enumerate((
            "ls /sys/class/nvme/nvme* >/dev/null 2>&1",
            "ls /dev/nvme*n1 >/dev/null 2>&1",
            f"grep -qs 'formatting.:true' {kubelets.STATE}/volumes.json",
            "[ $(grep -c csi.formatted {log}) -gt {formatted} ]",
            "mountpoint -q {staging}")):
        claim = kubelet.claim(f"db{number}", mib=32, fs_type="ext4")
        claim.publish_to_node()
        kubelet.node.begin("NodeStageVolume", claim.stage_request())
        kills += kubelet.kill_node_when(moment.format(staging=claim.staging, log=kubelets.LOG, formatted=number), f"mountpoint -q {claim.staging}")
        code, said = kubelet.node.answer()
        check(code in (0, *kubelets.AGAIN), f"NodeStageVolume: code {code}: {said}")
        claim.stage()
        context.guest.sh(f"echo mine >{claim.publish()}/file")
        claim.unpublish()
        kubelet.node.begin("NodeUnstageVolume", {"volume_id": claim.id, "staging_target_path": claim.staging})
        kills += kubelet.kill_node_when(f"! mountpoint -q {claim.staging}", "false")
        kubelet.node.answer()
        claim.unstage()
        kubelet.check_nothing_left("after unstaging")
        claim.stage()
        context.guest.sh(f"grep -qx mine {claim.publish()}/file")
        claim.detach()
        claim.delete()
    check(kills >= 5, f"only {kills} calls were cut off")
    killed_under_load(context, kubelet)
    context.remark = f"{kills + 3} times"


def killed_under_load(context, kubelet):
    claim = kubelet.claim(mib=32, fs_type="ext4")
    path = claim.attach()
    load = claim.load(path)
    kubelet.kill_node()
    load.go_on()
    kubelet.start_node()
    claim.publish()
    claim.grow(64)
    load.go_on()
    load.finish()
    kubelet.restart_node()
    claim.unpublish()
    kubelet.restart_node()
    claim.unstage()
    claim.unpublish_from_node()
    kubelet.check_nothing_left("after all")


@case
def csi_follows(context):
    """A mounted volume moves, and replicas come and go on other nodes: connections follow, and a pod's writes go on."""
    kubelet = Kubelet(context, engines=4)
    cluster = kubelet.cluster
    claim = kubelet.claim(mib=32, fs_type="ext4")
    path = claim.attach()
    claim.await_all_paths()
    load = claim.load(path)
    first = claim.engine()
    standby = next(each["node"] for each in claim.document()["status"]["paths"] if each["node"] != first.name)
    cluster.command("volume", "move", claim.id, standby)
    load.go_on()
    claim.await_all_paths()
    before = claim.connections()
    cluster.command("node", "drain", first.name)
    managed.wait_until(lambda: claim.wanted_addresses() != before, "the paths did not change")
    claim.await_all_paths()
    load.go_on()
    for replicas in (2, 3):
        cluster.command("node", "uncordon", first.name)
        kubelet.controller.call("ControllerModifyVolume", volume_id=claim.id, mutable_parameters={"replicas": str(replicas)})
        cluster.command("wait", f"volume/{claim.id}")
        claim.await_all_paths()
        load.go_on()
    pause = load.finish()
    claim.detach()
    kubelet.check_nothing_left("after all")
    context.remark = f"I/O paused for at most {pause:.0f} ms"


@case
def csi_read_only(context):
    """Options of mounts are the kernel's; a pod that may only read cannot write, beside one that can, and on a node that cannot."""
    kubelet = Kubelet(context)
    claim = kubelet.claim(mib=32, fs_type="ext4", mode="SINGLE_NODE_MULTI_WRITER", flags=["noatime", "commit=7"])
    path = claim.attach(1)
    reader = claim.publish(2, readonly=True)
    options = context.guest.sh(f"awk '$2 == \"{path}\" {{print $4}}' /proc/mounts").strip().split(",")
    check({"rw", "noatime", "commit=7"} <= set(options), f"mounted with {options}")
    context.guest.sh(f"echo one >{path}/file && test $(cat {reader}/file) = one")
    check_read_only(context, reader)
    claim.unpublish(2)
    claim.detach(1)
    # Of the controller's: it may not be written to on that node, whatever the pod asks for.
    claim.publish_to_node(readonly=True)
    claim.stage()
    check_read_only(context, claim.publish(1))
    claim.detach(1)

    raw = kubelet.claim("raw", mib=32)
    path = raw.attach(1)
    write = f"echo two | dd of={path} bs=4k conv=sync oflag=direct"
    context.guest.sh(write)
    raw.unpublish(1)
    raw.publish(1, readonly=True)
    check(context.guest.status(write) != 0, "a read-only device was written to")
    context.guest.sh(f"test $(head -c 3 {path}) = two")
    raw.detach(1)
    context.guest.sh(f"echo three | dd of={raw.attach(1)} bs=4k conv=sync oflag=direct")
    raw.detach(1)
    kubelet.check_nothing_left("after all")


def check_read_only(context, path):
    said = context.guest.sh(f"echo two >{path}/file && exit 1; cat {path}/file")
    check("Read-only file system" in said and said.endswith("one\n"), f"a write said: {said}")


@case
def csi_never_formats(context):
    """A device that holds bytes, a partition table or another file system is not formatted, and is as it was."""
    kubelet = Kubelet(context)
    claim = kubelet.claim(mib=32)
    claim.publish_to_node()
    for what, make, asked, words in (
            ("bytes at its end", "echo mine | dd of={} bs=4k seek=8191 conv=sync oflag=direct status=none", "ext4", "bytes of no kind"),
            ("a partition table", rf"{{{{ head -c 450 /dev/zero; printf '{PARTITION}'; }}}} | dd of={{}} bs=4k conv=sync oflag=direct "
                                  "iflag=fullblock status=none", "ext4", "dos partition table"),
            ("a file system", "mkfs.ext4 -q -F {}", "xfs", "holds ext4, and xfs is asked for")):
        claim.stage()
        path = claim.publish()
        context.guest.sh(f"blkdiscard -z {path} && {make.format(path)}")
        before = context.guest.sh(f"sha256sum <{path}")
        claim.unpublish()
        claim.unstage()
        said = kubelet.node.refused(kubelets.FAILED_PRECONDITION, "NodeStageVolume",
                                    **claim.stage_request(volume_capability=claim.capability_for(asked)))
        check(words in said, f"of {what}: {said}")
        claim.unstage()
        claim.stage()
        claim.publish()
        check_equal(f"sum of the device with {what}", context.guest.sh(f"sha256sum <{path}"), before)
        claim.unpublish()
        claim.unstage()
    claim.unpublish_from_node()
    kubelet.check_nothing_left("after all")
