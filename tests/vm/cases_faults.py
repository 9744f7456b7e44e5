"""Cases about change and failure while a host is connected: resets, crashes, paths, namespaces, sizes."""

from context import MOUNT, case, check, check_equal
from target import MIB


@case
def reset(context):
    """`nvme reset` three times under load: nothing is lost."""
    context.may_see_io_errors = True
    target = context.serve()
    controller = context.connect(target)
    device = context.device(target)
    load = context.start_slow_writes(device, seconds=8)
    for _ in range(3):
        context.guest.sh(f"nvme reset /dev/{controller}")
        context.wait_in_guest(f"grep -q live /sys/class/nvme/{controller}/state")
        context.wait_for_writes(device)
    context.finish_fio(load)


@case
def crash(context):
    """The target is killed by SIGKILL and started again under load, twice: the kernel reconnects, all is there."""
    context.may_see_io_errors = True
    target = context.serve()
    context.connect(target)
    device = context.device(target)
    load = context.start_slow_writes(device, seconds=10)
    for _ in range(2):
        target.crash()
        target.start()
        target.wait_connected(context.guest.host_nqn)
        context.wait_for_writes(device)
    context.finish_fio(load)
    check_equal("sum over the backing file", sum_in_guest(context, device, 20), sum_of_file(target, 20))


def sum_in_guest(context, device, mib):
    return context.guest.sh(f"dd if={device} bs=1M count={mib} iflag=direct status=none | sha256sum").split()[0]


def sum_of_file(target, mib):
    import hashlib
    return hashlib.sha256(target.read(0, mib * MIB)).hexdigest()


@case
def drain(context):
    """SIGTERM under load: the target answers what it has, says "stopped" and ends with 0; started again, all is there."""
    context.may_see_io_errors = True
    target = context.serve()
    context.connect(target)
    device = context.device(target)
    load = context.start_slow_writes(device, seconds=6)
    target.stop()
    target.start()
    target.wait_connected(context.guest.host_nqn)
    context.finish_fio(load)


@case
def keep_alive(context):
    """A host that falls silent is given up after its keep-alive time; it comes back when it can."""
    context.may_see_io_errors = True
    target = context.serve()
    context.connect(target, keep_alive=4)
    device = context.device(target)
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
    context.connect(target)
    device = context.device(target)
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
    context.connect(target)
    first = context.device(target)
    load = context.start_slow_writes(first, seconds=4)
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
    context.finish_fio(load)


@case
def paths(context):
    """Two listeners are two paths of one device; one is made inaccessible under load, then the other: no error."""
    target = context.steered(listeners=("127.0.0.1", "127.0.0.1"))
    controllers = [context.connect(target, listener) for listener in target.listeners]
    device = context.device(target)
    states = f"cat /sys/class/nvme-subsystem/*/{device.removeprefix('/dev/')}"
    both = context.guest.sh(
        "for p in /sys/class/nvme/nvme*/nvme*c*n*; do echo ${p##*/} $(cat $p/ana_state); done").split()
    check_equal("paths and states", both[1::2], ["optimized", "optimized"])
    check(states, "")
    load = context.start_slow_writes(device, seconds=12)
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
    context.finish_fio(load)


def wait_for_path(context, controller, state):
    context.wait_in_guest(f"grep -qx {state} /sys/class/nvme/{controller}/nvme*c*n*/ana_state")


@case
def path_lost(context):
    """A path whose listener's connections break carries on over the other path, and comes back."""
    context.may_see_io_errors = True
    target = context.steered(listeners=("127.0.0.1", "127.0.0.1"))
    controllers = [context.connect(target, listener) for listener in target.listeners]
    device = context.device(target)
    load = context.start_slow_writes(device, seconds=8)
    for controller in controllers:
        context.guest.sh(f"nvme disconnect -d {controller}")
        context.wait_for_writes(device)
        listener = target.listeners[controllers.index(controller)]
        controllers[controllers.index(controller)] = context.connect(target, listener)
    context.finish_fio(load)
