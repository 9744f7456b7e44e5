"""Cases about single commands: discovery, connecting, identity, log pages, features, access."""

import uuid

from context import case, check, check_equal, sum_of


@case
def discover(context):
    """The discovery service names the subsystem at the advertised address; connect-all follows it."""
    target = context.serve()
    records = context.nvme(f"discover {target.listener.arguments}")["records"]
    found = [record for record in records if record["subnqn"] == target.nqn]
    check_equal("records of the subsystem", len(found), 1)
    check_equal("traddr", found[0]["traddr"], target.listener.address)
    check_equal("trsvcid", str(found[0]["trsvcid"]), str(target.listener.port))
    check_equal("trtype", found[0]["trtype"], "tcp")
    context.guest.sh(f"nvme connect-all {target.listener.arguments} --keep-alive-tmo=15")
    context.device(target)
    context.disconnect(target)


@case
def several_subsystems(context):
    """Two subsystems at once, each with its own data, and taken away one by one."""
    first = context.serve(size_mib=16)
    second = context.serve(size_mib=32, nqn="nqn.2026-01.io.fairlead:second")
    devices = [context.connect(target).device for target in (first, second)]
    check(devices[0] != devices[1], f"both are {devices[0]}")
    for device, mib in zip(devices, (16, 32)):
        check_equal(device, int(context.guest.sh(f"blockdev --getsize64 {device}")), mib << 20)
        context.guest.sh(f"echo {device} | dd of={device} bs=4096 conv=sync oflag=direct status=none")
    for device in devices:
        check_equal("data", context.guest.sh(f"dd if={device} bs=4096 count=1 iflag=direct status=none | "
                                             "tr -d '\\0'").strip(), device)
    context.disconnect(first)
    context.guest.sh(f"dd if={devices[1]} of=/dev/null bs=4096 count=1 iflag=direct status=none")
    context.disconnect(second)


@case
def queues(context):
    """Connects with 2 and with 4 I/O queues, all of which carry I/O."""
    target = context.serve()
    context.guest.set_cpus(4)
    context.on_end(lambda: context.guest.set_cpus(1))
    for count in (2, 4):
        since = target.mark()
        disk = context.connect(target, options=f"-i {count}")
        check_equal("queue_count", int(context.guest.sh(f"cat /sys/class/nvme/{disk.controller}/queue_count")),
                    count + 1)
        check_equal("I/O queues seen by the target",
                    target.wait_connected(context.guest.host_nqn, since=since), count)
        context.guest.sh(" && ".join(
            f"taskset {1 << cpu:x} dd if={disk.device} of=/dev/null bs=64k count=16 iflag=direct status=none"
            for cpu in range(4)))
        context.disconnect(target)
        target.wait_disconnected(context.guest.host_nqn, since=since)


@case
def identify(context):
    """id-ctrl, id-ns, ns-descs, list-ns and nvme list tell a consistent, sensible story."""
    target = context.serve(size_mib=64)
    disk = context.connect(target)
    device = disk.device
    told = context.nvme(f"id-ctrl /dev/{disk.controller}")
    check_equal("subnqn", told["subnqn"], target.nqn)
    check(told["mdts"] == 0 or told["mdts"] >= 8, f"mdts is {told['mdts']}: less than 1 MiB")
    if not context.use_reference:
        check(told["ioccsz"] * 16 >= 64 + 8192, f"ioccsz is {told['ioccsz']}: less than 8 KiB in a capsule")
    check(told["kas"] > 0, "kas is 0: no keep-alive")
    check(told["cntrltype"] == 1, f"cntrltype is {told['cntrltype']}")
    check(told["sn"].strip() and told["mn"].strip() and told["fr"].strip(), "sn, mn or fr is empty")
    told = context.nvme(f"id-ns {device}")
    block = 1 << told["lbafs"][told["flbas"] & 15]["ds"]
    check_equal("size", told["nsze"] * block, 64 << 20)
    check(int(told["nguid"], 16), "nguid is 0")
    check_equal("NGUID in the descriptors", descriptors(context, device)["nguid"], told["nguid"])
    check(int(descriptors(context, device)["uuid"].replace("-", ""), 16), "the UUID is 0")
    listed = context.nvme(f"list-ns /dev/{disk.controller}")["nsid_list"]
    check_equal("list-ns", [each["nsid"] for each in listed], [1])
    listed = [each for each in context.nvme("list")["Devices"] if each["DevicePath"] == device]
    check_equal("entries of nvme list", len(listed), 1)
    check_equal("PhysicalSize", listed[0]["PhysicalSize"], 64 << 20)
    check_equal("SectorSize", listed[0]["SectorSize"], block)


def descriptors(context, device):
    """The namespace's identifiers by type: "uuid", "nguid"."""
    told = context.nvme(f"ns-descs {device}")["ns-descs"]
    return {each["type"]: each[each["type"]] for each in told}


@case
def identity_lasts(context):
    """Serial number, NQN, UUID and NGUID are the same after a restart of the target, and differ between files."""
    def identity(target):
        disk = context.connect(target)
        told = (context.nvme(f"id-ctrl /dev/{disk.controller}")["sn"], context.nvme(f"id-ns {disk.device}")["nguid"],
                descriptors(context, disk.device)["uuid"], target.nqn)
        context.disconnect(target)
        return told

    target = context.serve()
    first = identity(target)
    target.stop()
    target.start()
    check_equal("identity after a restart", identity(target), first)
    other = identity(context.serve())
    check(other[1] != first[1] and other[2] != first[2], f"two files have one identity: {first}, {other}")


@case
def commands(context):
    """Flush, Write Zeroes, DSM, Compare, Verify and their refusals, by nvme-cli."""
    # A fused pair cannot be sent from here: the kernel refuses passthrough commands with the fuse bits.
    target = context.serve()
    device = context.connect(target).device
    guest = context.guest
    guest.sh("head -c 8192 /dev/urandom >/tmp/data; head -c 8192 /dev/zero >/tmp/zeroes; "
             "head -c 8192 /dev/urandom >/tmp/other")
    block = int(guest.sh(f"blockdev --getss {device}"))
    first, count = 64 * 512 // block * 8, 8192 // block
    block_range = f"-s {first} -c {count - 1} -z 8192"
    guest.sh(f"nvme write {device} {block_range} -d /tmp/data && nvme flush {device} -n 1")
    guest.sh(f"nvme read {device} {block_range} -d /tmp/back && cmp /tmp/data /tmp/back")
    if not context.use_reference:
        guest.sh(f"nvme compare {device} {block_range} -d /tmp/data")
        refused = guest.start(f"nvme compare {device} {block_range} -d /tmp/other")
        check("Compare Failure" in refused.wait(60, check=False),
              f"comparing other data: status {refused.status}: {refused.output}")
        check(refused.status != 0, "comparing other data succeeded")
        guest.sh(f"nvme verify {device} -s {first} -c {count - 1}")
        guest.sh(f"nvme write-zeroes {device} -s {first} -c {count // 2 - 1} && nvme read {device} {block_range} -d /tmp/back && "
                 "cmp -n 4096 /tmp/back /tmp/zeroes && tail -c 4096 /tmp/back >/tmp/tail && "
                 "tail -c 4096 /tmp/data | cmp - /tmp/tail")
    guest.sh(f"nvme dsm {device} -n 1 --ad --slbs={first} --blocks={count} && nvme read {device} {block_range} -d /tmp/back && "
             "cmp /tmp/back /tmp/zeroes")
    beyond = guest.start(f"nvme read {device} -s 999999999 -c 0 -z {block} -d /tmp/back")
    check(("LBA" in beyond.wait(60, check=False) or context.use_reference) and beyond.status, f"reading beyond the end: {beyond.output}")
    guest.sh(f"nvme write {device} {block_range} -d /tmp/data --force-unit-access")
    if not context.use_reference:
        check_equal("sum of what is in the file", sum_of(target.read(first * block, 8192)),
                    guest.sh("sha256sum </tmp/data").split()[0])


@case
def log_pages(context):
    """The log pages that the kernel and nvme-cli ask for, some read in pieces."""
    target = context.serve()
    controller = "/dev/" + context.connect(target).controller
    check("errors" in context.nvme(f"error-log {controller} -e 4"), "no errors in error-log")
    smart = context.nvme(f"smart-log {controller}")
    check_equal("critical_warning", smart["critical_warning"], 0)
    context.nvme(f"fw-log {controller}")
    # nvme-cli 2.3 prints the effects log of a fabrics controller as text only, and empty; it is read raw below.
    groups = context.nvme(f"ana-log {controller}")["ANA DESC LIST "]
    check(groups and groups[0]["state"] == "optimized", f"ana-log says {groups}")
    context.guest.sh(f"nvme changed-ns-list-log {controller}")
    check_pieces(context, controller)
    unknown = context.guest.start(f"nvme get-log {controller} --log-id=0xbf --log-len=512")
    unknown.wait(60, check=False)
    check(unknown.status != 0, "a log page that does not exist was served")


def check_pieces(context, controller):
    """The effects log read in two pieces is the one read whole."""
    if context.use_reference:
        return  # the kernel's target wants it whole
    whole = context.guest.sh(f"nvme get-log {controller} --log-id=5 --log-len=512 -b | sha256sum")
    check(whole.split()[0] != sum_of(bytes(512)), "the effects log is empty")
    pieces = context.guest.sh(f"(for at in 0 256; do nvme get-log {controller} --log-id=5 --log-len=256 --lpo=$at -b; "
                              "done) | sha256sum")
    check_equal("the effects log in pieces", pieces, whole)


@case
def features(context):
    """Get and Set Features: what is set is read back, what does not exist is refused."""
    target = context.serve()
    controller = "/dev/" + context.connect(target).controller
    guest = context.guest
    for feature in ("0x07", "0x0b", "0x0f"):  # number of queues, event configuration, keep-alive timer
        guest.sh(f"nvme get-feature {controller} -f {feature}")
    guest.sh(f"nvme set-feature {controller} -f 0x0b -v 0x900")
    check("value:0x00000900" in guest.sh(f"nvme get-feature {controller} -f 0x0b"), "event configuration not kept")
    unknown = guest.start(f"nvme get-feature {controller} -f 0xbf")
    unknown.wait(60, check=False)
    check(unknown.status != 0, "a feature that does not exist was served")


@case
def read_only(context):
    """A read-only export is read-only to the kernel, and refuses a write sent past the kernel's own check."""
    context.may_see_io_errors = True
    target = context.serve(read_only=True)
    device = context.connect(target).device
    check_equal("getro", context.guest.sh(f"blockdev --getro {device}").strip(), "1")
    context.guest.sh(f"dd if={device} of=/dev/null bs=4096 count=4 iflag=direct status=none")
    check(context.guest.status(f"dd if=/dev/zero of={device} bs=4096 count=1 oflag=direct") != 0, "dd wrote")
    refused = context.guest.start(f"head -c 4096 /dev/urandom >/tmp/data; "
                                  f"nvme write {device} -s 0 -c 0 -z $(blockdev --getss {device}) -d /tmp/data")
    said = refused.wait(60, check=False)
    check(refused.status != 0 and "PROTECTED" in said.upper(), f"nvme write: status {refused.status}: {said}")
    check_equal("the file's first block", target.read(0, 4096), bytes(4096))


@case
def access_list(context):
    """With an access list a host that is on it connects, another is refused and told why, also in discovery."""
    context.may_see_io_errors = True
    allowed = str(uuid.uuid4())
    allowed_nqn = f"nqn.2014-08.org.nvmexpress:uuid:{allowed}"
    target = context.serve(hosts=[allowed_nqn])
    refused = context.guest.start(f"nvme connect {target.listener.arguments} -n {target.nqn}")
    check("not allowed" in refused.wait(60, check=False) + context.guest.sh("dmesg"),
          f"another host: status {refused.status}: {refused.output}")
    check(refused.status != 0, "another host connected")
    seen = context.nvme(f"discover {target.listener.arguments}").get("records", [])
    check(target.nqn not in [record["subnqn"] for record in seen], "discovery shows it to another host")
    context.connect(target, options=f"-q {allowed_nqn} -I {allowed}")
    context.device(target)
    context.disconnect(target)


@case
def memory(context):
    """A target on memory: written, read back, gone with the target."""
    target = context.serve(memory=True, size_mib=32)
    device = context.connect(target).device
    check_equal("size", int(context.guest.sh(f"blockdev --getsize64 {device}")), 32 << 20)
    context.fio(device, "--rw=randwrite --bs=64k --size=16m --iodepth=8 --verify=crc32c --verify_fatal=1")


@case
def ipv6(context):
    """A listener on an IPv6 address."""
    target = context.serve(listeners=("::1",))
    device = context.connect(target).device
    context.fio(device, "--rw=randwrite --bs=16k --size=4m --iodepth=8 --verify=crc32c --verify_fatal=1")
    records = context.nvme(f"discover {target.listener.arguments}")["records"]
    check_equal("adrfam", [each["adrfam"] for each in records if each["subnqn"] == target.nqn], ["ipv6"])
