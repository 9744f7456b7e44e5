"""Cases about pools: thin replicas, snapshots, clones, a full pool, and an engine that is killed under load."""

from context import MOUNT, case, check, check_equal
from guest import shortened
from target import MIB

CLONE = "/run/clone"  # where a second namespace is mounted
MAKE_EXT4 = "mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0"
DROP_CACHES = "echo 3 >/proc/sys/vm/drop_caches"
CRASHES = 5
# A line of the journal, which is in the guest's memory, is what the disk has to have.
WRITE_SYNCED_FILES = f"""cd {MOUNT} && rm -f /run/enough /run/journal
    number=0
    while [ ! -e /run/enough ] && [ $number -lt 300 ]; do
      name=f$number
      head -c $((number * 331 % 20000 + 100)) /dev/urandom >$name && sync $name ||
        {{ echo "$name could not be written: status $?"; exit 1; }}
      sha256sum $name >>/run/journal
      number=$((number + 1))
    done
    echo $number"""


def mount_beside(context, device, options=""):
    """Mounts a second namespace at CLONE; the clean-up of the case takes it away again."""
    context.on_end(lambda: context.guest.sh(f"while mountpoint -q {CLONE}; do umount -l {CLONE} || exit 1; done"))
    context.guest.sh(f"mkdir -p {CLONE} && mount {options} {device} {CLONE}")


def sum_in_guest(context, device):
    """The sum of all of a device, past the guest's cache."""
    return context.guest.sh(f"dd if={device} bs=1M iflag=direct status=none | sha256sum").split()[0]


@case
def pool_trim(context):
    """ext4 on a thin replica larger than its pool: fstrim of deleted files shrinks the pool's use and its file."""
    target = context.pool(disks_mib=(160,), replicas={"db": 512})
    nothing, none_allocated = target.used_bytes(), target.allocated_bytes()
    device = context.connect(target).device
    context.guest.sh(f"mkfs.ext4 -q {device} && mount -o noinit_itable {device} {MOUNT} && cd {MOUNT} && "
                     "head -c 8000000 /dev/urandom >kept && sha256sum kept >sums && sync", 90)
    few, few_allocated = target.used_bytes(), target.allocated_bytes()
    context.guest.sh(f"head -c 48000000 /dev/zero | tr '\\0' x >{MOUNT}/large && sync", 90)
    full, full_allocated = target.used_bytes(), target.allocated_bytes()
    check(full - few >= 40 * MIB, f"48 MB written, and the pool's use went from {few} to {full} bytes")
    check(full_allocated - few_allocated >= 40 * MIB, f"its file went from {few_allocated} to {full_allocated} bytes")
    context.guest.sh(f"rm {MOUNT}/large && sync && fstrim {MOUNT}", 90)
    target.wait_used_below(few + 4 * MIB)
    left = target.allocated_bytes()
    check(left <= few_allocated + 4 * MIB, f"the file has {left} bytes after fstrim, {few_allocated} before all that")
    context.guest.sh(f"{DROP_CACHES}; cd {MOUNT} && sha256sum -c --quiet sums && cd / && umount {MOUNT} && "
                     f"e2fsck -fn {device} && blkdiscard {device}", 90)
    target.wait_used_below(nothing + MIB)
    left = target.allocated_bytes()
    check(left <= none_allocated + 2 * MIB, f"blkdiscard of all: the file has {left} bytes, {none_allocated} at first")
    context.finish_pool(target)
    check_equal("what the replica has", target.show()["objects"][0]["used_bytes"], 0)


@case
def pool_snapshot(context):
    """Snapshots under fio, with the file system frozen and not: each is as it was then, whatever is written later."""
    target = context.pool(disks_mib=(96,), replicas={"db": 32})
    device = context.connect(target).device
    guest = context.guest
    guest.sh(f"{MAKE_EXT4} {device} && mount {device} {MOUNT} && echo before >{MOUNT}/marker && "
             f"head -c 3000000 /dev/urandom >{MOUNT}/data && sha256sum <{MOUNT}/data >{MOUNT}/sum && sync", 90)
    load = guest.start(f"fio --name=load --filename={MOUNT}/load --size=6m --direct=1 --ioengine=libaio --thread "
                       "--rw=randwrite --bs=16k --iodepth=4 --verify=crc32c --verify_fatal=1 --verify_state_save=0 "
                       "--rate=,3m --loops=2 --output-format=json")
    context.wait_for_writes(device)
    target.snapshot("db", "running")
    context.wait_for_writes(device)
    guest.sh(f"fsfreeze --freeze {MOUNT}")
    target.snapshot("db", "frozen")
    guest.sh(f"fsfreeze --unfreeze {MOUNT} && echo after >{MOUNT}/marker && echo >{MOUNT}/later && sync")
    frozen = context.device(target, target.serve("frozen"))
    before = sum_in_guest(context, frozen)

    clone = context.device(target, target.clone("running", "copy"))
    mount_beside(context, clone)
    check_is_as_before(context)
    guest.sh(f"umount {CLONE} && e2fsck -fn {clone}", 90)
    check_equal("snapshots are read-only", guest.sh(f"blockdev --getro {frozen}").strip(), "1")
    guest.sh(f"e2fsck -fn {frozen}", 90)
    mount_beside(context, frozen, "-o ro")
    check_is_as_before(context)
    guest.sh(f"umount {CLONE}")
    context.fio_result(load.wait(120))
    check_equal("the sum of the snapshot", sum_in_guest(context, frozen), before)
    guest.sh(f"grep -q after {MOUNT}/marker && umount {MOUNT} && e2fsck -fn {device}", 90)
    context.finish_pool(target)


def check_is_as_before(context):
    """What is mounted beside has what was there when the snapshot was taken, and nothing that came later."""
    context.guest.sh(f"cd {CLONE} && ls && cat marker && grep -qx before marker && [ ! -e later ] && "
                     '[ "$(sha256sum <data)" = "$(cat sum)" ]')


@case
def pool_clone(context):
    """A clone mounted beside its origin, both written: neither sees the other's data; deleted, its room comes back."""
    target = context.pool(disks_mib=(160,), replicas={"db": 48})
    device = context.connect(target).device
    guest = context.guest
    guest.sh(f"{MAKE_EXT4} {device} && mount {device} {MOUNT} && head -c 6000000 /dev/urandom >{MOUNT}/shared && "
             f"sync && fsfreeze --freeze {MOUNT}", 90)
    target.snapshot("db", "base")
    guest.sh(f"fsfreeze --unfreeze {MOUNT}")
    alone = target.used_bytes()
    clone = context.device(target, target.clone("base", "copy"))
    mount_beside(context, clone)
    sums = {}
    for where, mine in ((MOUNT, "a"), (CLONE, "b"), (MOUNT, "c"), (CLONE, "d")):
        sums[where] = guest.sh(f"""cd {where} && head -c 900000 /dev/urandom >{mine} &&
                                   head -c 50000 /dev/urandom | dd of=shared bs=1000 seek=2000 conv=notrunc status=none
                                   sync; sha256sum shared {mine}""", 90)
    for where, mine, missing in ((MOUNT, "c", "b d"), (CLONE, "d", "a c")):
        disk = device if where == MOUNT else clone
        guest.sh(f"umount {where} && {DROP_CACHES} && e2fsck -fn {disk} && mount {disk} {where}", 90)
        check_equal(f"{where}", guest.sh(f"cd {where} && sha256sum shared {mine}"), sums[where])
        guest.sh(f"cd {where} && for each in {missing}; do [ ! -e $each ] || exit 1; done")
    guest.sh(f"umount {CLONE}")
    target.ask("delete copy")
    context.wait_in_guest(f"[ ! -b {clone} ]")
    target.ask("delete base")
    target.wait_used_below(alone + 4 * MIB)
    guest.sh(f"{DROP_CACHES}")
    check_equal("the origin", guest.sh(f"cd {MOUNT} && sha256sum shared c"), sums[MOUNT])
    guest.sh(f"umount {MOUNT} && e2fsck -fn {device}", 90)
    context.finish_pool(target)


@case
def pool_resize(context):
    """A replica grows while mounted: the guest sees the new size, ext4 grows into it, beside a snapshot of the old size."""
    target = context.pool(disks_mib=(160,), replicas={"db": 32})
    device = context.connect(target).device
    context.guest.sh(f"{MAKE_EXT4} {device} && mount {device} {MOUNT} && echo here >{MOUNT}/file && sync", 90)
    target.snapshot("db", "small")
    target.ask("resize db 112MiB")
    context.wait_in_guest(f"[ $(blockdev --getsize64 {device}) = {112 * MIB} ]")
    context.guest.sh(f"resize2fs {device} && head -c 60000000 /dev/zero | tr '\\0' x >{MOUNT}/large && sync && "
                     f"sha256sum {MOUNT}/large >/run/sums && umount {MOUNT} && e2fsck -fn {device} && "
                     f"mount {device} {MOUNT} && grep -q here {MOUNT}/file && sha256sum -c --quiet /run/sums && "
                     f"umount {MOUNT}", 120)
    small = context.device(target, target.serve("small"))
    check_equal("the snapshot's size", int(context.guest.sh(f"blockdev --getsize64 {small}")), 32 * MIB)
    context.guest.sh(f"mount -o ro,noload {small} {MOUNT} && grep -q here {MOUNT}/file && umount {MOUNT}")
    context.finish_pool(target)


@case
def pool_full(context):
    """A full pool: writes fail with ENOSPC and harm nothing, a thick replica goes on; deleting and fstrim free room."""
    context.may_see_io_errors = True
    target = context.pool(disks_mib=(96,), replicas={"db": 256, "thick": 16})
    device = context.connect(target).device
    thick = context.device(target, 2)
    guest = context.guest
    guest.sh(f"{MAKE_EXT4} -O ^has_journal {device} && mount {device} {MOUNT} && cd {MOUNT} && "
             "head -c 6000000 /dev/urandom >kept && sha256sum kept >sums && "
             "dd if=/dev/urandom of=shared bs=1M count=16 status=none && sync", 90)
    target.snapshot("db", "s")
    guest.sh(f"rm {MOUNT}/shared && sync && fstrim {MOUNT}", 90)
    said = guest.sh(f"dd if=/dev/zero of={MOUNT}/large bs=256k count=400 oflag=direct", 90, check=False)
    check("No space left on device" in said, f"writing more than the pool has ended with: {said}")
    check(target.statistics()["free_bytes"] < 4 * MIB, f"the pool is not full: {target.statistics()}")
    context.fio(thick, "--rw=randwrite --bs=64k --size=16m --iodepth=4 --verify=crc32c --verify_fatal=1")
    guest.sh(f"{DROP_CACHES}; cd {MOUNT} && sha256sum -c --quiet sums", 90)

    used = target.used_bytes()
    target.ask("delete s")
    target.wait_used_below(used - 12 * MIB)
    guest.sh(f"cd {MOUNT} && dd if=/dev/zero of=again bs=256k count=40 oflag=direct", 90)
    guest.sh(f"cd {MOUNT} && rm large again && sync && fstrim {MOUNT}", 90)
    target.wait_used_below(48 * MIB)
    guest.sh(f"cd {MOUNT} && dd if=/dev/urandom of=more bs=256k count=100 conv=fsync && sha256sum more >>sums && sync && "
             f"{DROP_CACHES} && sha256sum -c --quiet sums && cd / && umount {MOUNT} && e2fsck -fn {device}", 90)
    context.finish_pool(target)


@case
def pool_xfs(context):
    """XFS with online discard, its log, holes and zeroed ranges on a thin replica; a clone is mounted beside it."""
    target = context.pool(disks_mib=(192,), replicas={"db": 384})
    device = context.connect(target).device
    guest = context.guest
    guest.sh(f"mkfs.xfs -q {device} && mount -o discard {device} {MOUNT} && cd {MOUNT} && "
             "head -c 4000000 /dev/urandom >kept && sync", 90)
    few = target.used_bytes()
    guest.sh(f"cd {MOUNT} && head -c 32000000 /dev/urandom >large && sync", 90)
    check(target.used_bytes() >= few + 28 * MIB, f"32 MB written, and {few} became {target.used_bytes()} bytes")
    guest.sh(f"""cd {MOUNT} && cp large expected && sync &&
                 xfs_io -c 'fpunch 1m 5m' -c 'fzero 8m 3m' -c 'pwrite -q -S 7 9m 100k' -c fsync large &&
                 dd if=/dev/zero of=expected bs=1M seek=1 count=5 conv=notrunc status=none
                 dd if=/dev/zero of=expected bs=1M seek=8 count=3 conv=notrunc status=none
                 xfs_io -c 'pwrite -q -S 7 9m 100k' -c fsync expected
                 sync && {DROP_CACHES} && cmp large expected && rm expected && sync""", 90)
    target.snapshot("db", "s")
    clone = context.device(target, target.clone("s", "copy"))
    mount_beside(context, clone, "-o nouuid")
    guest.sh(f"cd {CLONE} && sha256sum large kept >sums && rm large && sync && cd {MOUNT} && [ ! -e sums ] && "
             f"sha256sum -c --quiet {CLONE}/sums && cd / && umount {CLONE} && xfs_repair -n {clone}", 90)
    target.ask("delete copy")
    target.ask("delete s")
    guest.sh(f"cd {MOUNT} && rm large && sync && fstrim {MOUNT}", 90)
    target.wait_used_below(few + 10 * MIB)
    guest.sh(f"umount {MOUNT} && xfs_repair -n {device} && blkdiscard -z -l 64m {device} && "
             f"cmp -n {64 * MIB} {device} /dev/zero", 90)
    context.finish_pool(target)


@case
def pool_numbers(context):
    """A namespace keeps its number when the engine is killed, though objects of other names have come meanwhile."""
    context.may_see_io_errors = True
    target = context.pool(disks_mib=(96,), replicas={"m": 16}, serves_all=True)
    device = context.connect(target).device
    load = context.start_load(device)
    target.snapshot("m", "s")
    clone = context.device(target, target.clone("s", "a"))
    before = sum_in_guest(context, clone)
    for _ in range(2):
        target.crash()
        target.start()
        target.wait_connected(context.guest.host_nqn)
        context.wait_for_writes(device)
        clone = context.device(target, target.number("a"))
    context.finish_load(load, device)
    check_equal("the sum of the clone, which nobody wrote to", sum_in_guest(context, clone), before)
    context.finish_pool(target)


@case
def pool_crash(context):
    """The engine is killed five times under load, with snapshots between: all that was acknowledged is there."""
    crash_under_load(context, disks_mib=(160,))


@case
def pool_crash_two_disks(context):
    """The same with a pool of two disks."""
    crash_under_load(context, disks_mib=(96, 64))


def wait_for_load(context, load, device):
    """Waits until fio has written on; it must not have ended."""
    try:
        context.wait_for_writes(device)
    finally:
        check(not load.ended, f"the load ended by itself, with {load.status}: {shortened(load.output)}")


def crash_under_load(context, disks_mib):
    """fio on the first replica, whose blocks say which write they are of, and files that are synced on the second."""
    context.may_see_io_errors = True
    target = context.pool(disks_mib=disks_mib, replicas={"db": 64, "files": 32})
    device = context.connect(target).device
    files = context.device(target, 2)
    context.guest.sh(f"{MAKE_EXT4} {files} && mount {files} {MOUNT}", 90)
    writer = context.guest.start(WRITE_SYNCED_FILES)
    # Not time_based: then fio checks the number of the write as well, and an older one is an error.
    options = "--bs=4k --iodepth=16 --size=4m --verify=crc32c --verify_fatal=1"
    load = context.start_fio(device, f"--rw=randwrite --loops=1000 --fsync=32 {options}")
    for crash in range(CRASHES):
        wait_for_load(context, load, device)
        if crash % 2:
            target.snapshot("db", f"s{crash}")
        if crash == 3:
            target.ask("delete s1")
        target.crash()
        target.check_after_crash()
        target.start()
        target.wait_connected(context.guest.host_nqn)
    wait_for_load(context, load, device)
    context.stop_fio(load)
    context.guest.sh("touch /run/enough")
    written = int(writer.wait(60))
    check(written > CRASHES, f"only {written} files were written and synced")
    context.fio(device, f"--rw=read {options}")
    context.guest.sh(f"umount {MOUNT} && e2fsck -fn {files} && mount {files} {MOUNT} && cd {MOUNT} && "
                     "[ $(wc -l </run/journal) = $(ls | grep -c '^f') ] && sha256sum -c --quiet /run/journal && "
                     f"cd / && umount {MOUNT}", 90)
    context.finish_pool(target)
    names = [each["name"] for each in target.show()["objects"]]
    check_equal("what is in the pool", names, ["db", "files", "s3"])
