"""Cases about data: what was written is read back, through file systems and raw, in every size."""

from context import MOUNT, case, check, check_equal, sum_of
from relay import Relay
from target import MIB, Listener, Unsupported

CHECKSUMS = "find . -type f ! -name sums | sort | xargs sha256sum"
WRITE_FILES = f"""cd {MOUNT} && mkdir -p many/deep/er &&
    for i in $(seq 60); do head -c $((i * 700)) /dev/urandom >many/deep/er/$i; done &&
    head -c 12000000 /dev/urandom >large && cp large copy && rm copy && sync && {CHECKSUMS} >sums"""


def check_file_system(context, make, check_command):
    """mkfs, write, unmount, check, mount again, compare sums: twice, with a new connection between."""
    target = context.serve(size_mib=320)
    device = context.connect(target).device
    context.guest.sh(f"{make} {device} && mount {device} {MOUNT}", 90)
    context.guest.sh(WRITE_FILES, 90)
    context.guest.sh(f"umount {MOUNT} && {check_command} {device}", 90)
    context.disconnect(target)
    device = context.connect(target).device
    context.guest.sh(f"mount {device} {MOUNT} && cd {MOUNT} && [ $(wc -l <sums) = 61 ] && sha256sum -c --quiet sums",
                     90)
    context.guest.sh(f"umount {MOUNT} && {check_command} {device}", 90)
    context.disconnect(target)


@case
def ext4(context):
    """ext4: made, written, checked, mounted again from a new connection with the same contents."""
    check_file_system(context, "mkfs.ext4 -q", "e2fsck -fn")


@case
def xfs(context):
    """XFS: made, written, checked, mounted again from a new connection with the same contents."""
    check_file_system(context, "mkfs.xfs -q", "xfs_repair -n")


@case
def fio_random(context):
    """fio: random writes of 4 KiB to 1 MiB, verified by CRC32C, then read at random and verified again."""
    target = context.serve()
    device = context.connect(target).device
    verify = "--verify=crc32c --verify_fatal=1 --iodepth=32"
    context.fio(device, f"--rw=randwrite --bs=4k --size=8m {verify}")
    context.fio(device, f"--rw=randwrite --bsrange=4k-1m --size=48m {verify}")
    context.fio(device, f"--rw=randrw --bs=8k --size=8m --offset=48m {verify}")


@case
def fio_sequential(context):
    """fio: sequential writes and reads of 4 KiB, 128 KiB and 1 MiB, verified, and seen in the backing file."""
    target = context.serve()
    device = context.connect(target).device
    for size, total in (("4k", "8m"), ("128k", "32m"), ("1m", "48m")):
        context.fio(device, f"--rw=write --bs={size} --size={total} --iodepth=8 --verify=crc32c --verify_fatal=1")
    result = context.fio(device, "--rw=read --bs=1m --size=48m --iodepth=8 --verify=crc32c --verify_fatal=1")
    check_equal("bytes read", result["read"]["io_bytes"], 48 * MIB)
    if not context.use_reference:
        seen = context.guest.sh(f"dd if={device} bs=1M count=48 iflag=direct status=none | sha256sum").split()[0]
        check_equal("sum over the backing file", sum_of(target.read(0, 48 * MIB)), seen)


@case
def trim(context):
    """fstrim gives the room of deleted files back to the backing file; so does blkdiscard."""
    target = context.serve(size_mib=256)
    device = context.connect(target).device
    context.guest.sh(f"mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 {device} && mount {device} {MOUNT}", 90)
    empty = target.allocated_bytes()
    context.guest.sh(f"head -c 48000000 /dev/urandom >{MOUNT}/large && sync", 90)
    full = target.allocated_bytes()
    check(full - empty >= 40 * MIB, f"48 MB written, but the file grew from {empty} to {full} bytes")
    context.guest.sh(f"rm {MOUNT}/large && sync && fstrim -v {MOUNT}", 90)
    trimmed = target.allocated_bytes()
    check(trimmed <= empty + 4 * MIB, f"fstrim: the file has {trimmed} bytes, {full} before, {empty} when empty")
    context.guest.sh(f"umount {MOUNT} && blkdiscard {device}", 90)
    left = target.allocated_bytes()
    check(left <= MIB, f"blkdiscard of all: the file still has {left} bytes")


@case
def digests(context):
    """Header and data digests: fio verifies, and both sides really asked for them."""
    target = context.serve()
    relay = None
    listener = target.listener
    if not context.use_reference:
        relay = Relay(listener.port)
        context.on_end(relay.close)
        listener = Listener(listener.address, relay.port)
    for options, bits in (("-g", 1), ("-G", 2), ("-g -G", 3)):
        device = context.connect(target, listener, options).device
        context.fio(device, "--rw=randwrite --bsrange=4k-256k --size=8m --iodepth=16 --verify=crc32c --verify_fatal=1")
        context.disconnect(target)
        if relay:
            check_equal(f"digest bits on the wire with {options}", relay.digests, {bits})
            relay.digests.clear()


@case
def damage_on_the_wire(context):
    """With digests on, bits flipped on the way in either direction are caught: nothing wrong is ever read or kept."""
    if context.use_reference:
        raise Unsupported("its network cannot be tapped")
    context.may_see_io_errors = True
    target = context.serve()
    relay = Relay(target.listener.port)
    context.on_end(relay.close)
    device = context.connect(target, Listener(target.listener.address, relay.port), "-g -G").device
    relay.damage("to target", 3)
    context.fio(device, "--rw=write --bs=128k --size=16m --iodepth=4 --verify=crc32c --do_verify=0")
    relay.damage("to host", 3)
    context.fio(device, "--rw=read --bs=128k --size=16m --iodepth=4 --verify=crc32c --verify_fatal=1")
    check(all(relay.damaged.values()), f"nothing was damaged: {relay.damaged}")
