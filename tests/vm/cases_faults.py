"""Cases about change and failure while a host is connected: resets, crashes, paths, namespaces, sizes."""

from context import MOUNT, case, check, check_equal, sum_of
from target import MIB


@case
def reset(context):
    """`nvme reset` three times under load: nothing is lost."""
    context.may_see_io_errors = True
    target = context.serve()
    disk = context.connect(target)
    load = context.start_load(disk.device)
    for _ in range(3):
        context.guest.sh(f"nvme reset /dev/{disk.controller}")
        context.wait_in_guest(f"grep -q live /sys/class/nvme/{disk.controller}/state")
        context.wait_for_writes(disk.device)
    context.finish_load(load, disk.device)


@case
def crash(context):
    """The target is killed by SIGKILL and started again under load, twice: the kernel reconnects, all is there."""
    context.may_see_io_errors = True
    target = context.serve()
    device = context.connect(target).device
    load = context.start_load(device)
    for _ in range(2):
        target.crash()
        target.start()
        target.wait_connected(context.guest.host_nqn)
        context.wait_for_writes(device)
    context.finish_load(load, device)
    seen = context.guest.sh(f"dd if={device} bs=1M count=8 iflag=direct status=none | sha256sum").split()[0]
    check_equal("sum over the backing file", sum_of(target.read(0, 8 * MIB)), seen)


@case
def drain(context):
    """SIGTERM under load: the target answers what it has, says "stopped" and ends with 0; started again, all is there."""
    context.may_see_io_errors = True
    target = context.serve()
    device = context.connect(target).device
    load = context.start_load(device)
    target.stop()
    target.start()
    target.wait_connected(context.guest.host_nqn)
    context.finish_load(load, device)


@case
def keep_alive(context):
    """A host that falls silent is given up after its keep-alive time; it comes back when it can."""
    context.may_see_io_errors = True
    target = context.serve()
    device = context.connect(target, keep_alive=4).device
    target.wait_connected(context.guest.host_nqn)
    since = target.mark()
    context.guest.stop()
    context.on_end(context.guest.cont)
    target.wait_disconnected(context.guest.host_nqn, 20, since)
    context.guest.cont()
    target.wait_connected(context.guest.host_nqn, 40, since)
    context.fio(device, "--rw=randwrite --bs=16k --size=4m --iodepth=8 --verify=crc32c --verify_fatal=1")


@case
def resize(context):
    """The backing file grows while mounted: the guest sees the new size, and ext4 grows into it."""
    target = context.serve(size_mib=64)
    device = context.connect(target).device
    context.guest.sh(f"mkfs.ext4 -q {device} && mount {device} {MOUNT} && echo here >{MOUNT}/file")
    target.grow(160)
    context.wait_in_guest(f"[ $(blockdev --getsize64 {device}) = {160 * MIB} ]")
    context.guest.sh(f"resize2fs {device}", 90)
    free = int(context.guest.sh(f"df -k {MOUNT} | awk 'END {{print $4}}'"))
    check(free > 100 * 1024, f"{free} KiB are free after resize2fs")
    context.guest.sh(f"head -c 90000000 /dev/zero >{MOUNT}/large && umount {MOUNT} && e2fsck -fn {device} && "
                     f"mount {device} {MOUNT} && grep -q here {MOUNT}/file", 120)


@case
def namespaces(context):
    """Namespaces added, resized and removed while connected are seen by the guest at once, beside I/O on another."""
    target = context.steered(size_mib=64)
    first = context.connect(target).device
    load = context.start_load(first)
    target.add(2, 32)
    second = context.device(target, 2)
    check_equal("size of the new one", int(context.guest.sh(f"blockdev --getsize64 {second}")), 32 * MIB)
    context.fio(second, "--rw=randwrite --bs=16k --size=2m --iodepth=8 --verify=crc32c --verify_fatal=1")
    target.resize(1, 128)
    context.wait_in_guest(f"[ $(blockdev --getsize64 {first}) = {128 * MIB} ]")
    target.remove(2)
    context.wait_in_guest(f"[ ! -b {second} ]")
    target.add(3, 16)
    third = context.device(target, 3)
    check_equal("size of the third", int(context.guest.sh(f"blockdev --getsize64 {third}")), 16 * MIB)
    context.finish_load(load, first)


@case
def paths(context):
    """Two listeners are two paths of one device; one is made inaccessible under load, then the other: no error."""
    target = context.steered(listeners=("127.0.0.1", "127.0.0.1"))
    disks = [context.connect(target, listener) for listener in target.listeners]
    device = disks[0].device
    check_equal("device of the second path", disks[1].device, device)
    controllers = [disk.controller for disk in disks]
    for controller in controllers:
        wait_for_path(context, controller, "optimized")
    load = context.start_load(device)
    for closed, opened in ((0, 1), (1, 0)):
        target.ana(opened, "optimized")
        wait_for_path(context, controllers[opened], "optimized")
        target.ana(closed, "inaccessible")
        wait_for_path(context, controllers[closed], "inaccessible")
        context.wait_for_writes(device)
    target.ana(0, "optimized")
    target.ana(1, "non-optimized")
    wait_for_path(context, controllers[1], "non-optimized")
    context.wait_for_writes(device)
    context.finish_load(load, device)


def wait_for_path(context, controller, state):
    context.wait_in_guest(f"grep -qx {state} /sys/class/nvme/{controller}/nvme*c*n*/ana_state")


@case
def path_removed(context):
    """One path after the other is disconnected and connected again under load: the other path carries on."""
    context.may_see_io_errors = True
    target = context.steered(listeners=("127.0.0.1", "127.0.0.1"))
    disks = [context.connect(target, listener) for listener in target.listeners]
    load = context.start_load(disks[0].device)
    for disk, listener in zip(disks, target.listeners):
        context.guest.sh(f"nvme disconnect -d {disk.controller}")
        context.wait_for_writes(disk.device)
        again = context.connect(target, listener)
        check_equal("device of the path that came back", again.device, disk.device)
    context.finish_load(load, disks[0].device)
