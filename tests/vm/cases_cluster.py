"""Cases about a cluster: the control plane decides who serves, and the guest is attached as `fairlead volume attach` says."""

from context import case, check, check_equal, managed
from guest import HOST_ADDRESS
from target import MIB

VOLUME = "db"
VOLUME_MIB = 32
CYCLES = 20


class AttachedVolume:
    """A volume of three replicas that a control plane made, attached to the guest by a path to each node that shows it."""

    def __init__(self, context, engines=3):
        self._context = context
        self.cluster = context.managed_cluster(engines=engines)
        self.cluster.command("volume", "create", VOLUME, "--size", f"{VOLUME_MIB}MiB", "--replicas", "3")
        self.cluster.command("wait", f"volume/{VOLUME}")
        self.nqn = self.cluster.volume(VOLUME)["status"]["nqn"]

    def attach_command(self):
        """For the guest, to which the loopback of the machine has another address."""
        lines = self.cluster.command("volume", "attach", VOLUME).splitlines()
        check_equal("number of paths", len(lines), 3)
        return " && ".join(line.replace("--traddr=127.0.0.1", f"--traddr={HOST_ADDRESS}") for line in lines)

    def attach(self):
        self._context.guest.sh(self.attach_command())
        self.device = self._context.device(self)

    def detach_command(self):
        return self.cluster.command("volume", "detach", VOLUME).strip()

    def paths(self):
        return self.cluster.volume(VOLUME)["status"]["paths"]

    def target(self):
        """The engine that serves it."""
        return self.cluster.engine(self.cluster.volume(VOLUME)["status"]["target"])

    def await_other_target(self, than):
        managed.wait_until(lambda: self.cluster.volume(VOLUME)["status"]["target"] not in ("", than.name), "no other engine serves")

    def await_online(self):
        self.cluster.command("wait", f"volume/{VOLUME}")

    def wait_for_path(self, engine, state):
        """Until the guest's path to that engine has an ANA state."""
        self._context.wait_in_guest(f"grep -qsxE '{state}' $(grep -ls 'trsvcid={engine.port}\\b' /sys/class/nvme/nvme*/address "
                                    "| sed 's|address|nvme*c*n*/ana_state|')")

    def check_no_io_error(self):
        """The kernel may lose paths, but nothing of that may reach those who use the device."""
        name = self.device.removeprefix("/dev/")
        log = self._context.guest.sh(f"dmesg | grep -E 'I/O error.*{name}\\b' || true")
        check(not log, f"the guest's kernel says: {log}")

    def end_without_the_target(self, load, target):
        """Of a case in which another engine took over: all is well again, and the load met no error."""
        self.await_online()
        self.wait_for_path(target, "inaccessible")
        load.go_on()
        pause = load.finish()
        self.check_no_io_error()
        self._context.remark = f"I/O paused for at most {pause:.0f} ms"


@case
def cluster_target_killed(context):
    """A volume's target is killed under load: the control plane has another serve, and the kernel goes on there."""
    context.may_see_io_errors = True
    volume = AttachedVolume(context)
    volume.attach()
    load = context.verified_load(volume.device)
    target = volume.target()
    target.kill()
    load.go_on()
    volume.await_other_target(target)
    target.start()
    volume.end_without_the_target(load, target)


@case
def cluster_target_silent(context):
    """A volume's target is stopped by SIGSTOP under load: the kernel leaves it by its keep-alive, and goes on elsewhere."""
    context.may_see_io_errors = True
    volume = AttachedVolume(context)
    volume.attach()
    load = context.verified_load(volume.device)
    target = volume.target()
    with target.paused():
        volume.await_other_target(target)
        load.go_on()
    volume.end_without_the_target(load, target)


@case
def cluster_engine_returns_first(context):
    """An engine starts again while the control plane is away: the kernel keeps asking it, and has its path again then."""
    context.may_see_io_errors = True
    volume = AttachedVolume(context)
    volume.attach()
    load = context.verified_load(volume.device)
    serving = volume.target()
    standby = next(engine for engine in volume.cluster.engines if engine is not serving)
    with volume.cluster.control_paused():
        standby.kill()
        standby.start()
        context.wait_in_guest("[ $(dmesg | grep -c 'Connect Invalid Data Parameter') -ge 2 ]")
    volume.wait_for_path(standby, "optimized|inaccessible")  # the control plane may find that all others were silent
    volume.await_online()
    load.go_on()
    load.finish()
    volume.check_no_io_error()


@case
def cluster_moves(context):
    """A volume moves as asked for, then its target's node is drained, all under load: no error, and the kernel follows."""
    volume = AttachedVolume(context, engines=4)
    volume.attach()
    load = context.verified_load(volume.device)
    first = volume.target()
    other = volume.cluster.engine(next(path["node"] for path in volume.paths() if path["node"] != first.name))
    for engine in (other, first):
        volume.cluster.command("volume", "move", VOLUME, engine.name)
        volume.wait_for_path(engine, "optimized")
        load.go_on()
    volume.cluster.command("node", "drain", first.name)
    load.go_on()
    pause = load.finish()
    volume.check_no_io_error()
    context.remark = f"I/O paused for at most {pause:.0f} ms"


@case
def cluster_grows(context):
    """A volume is made larger while it is used: the guest sees it at once, and the new room is there."""
    volume = AttachedVolume(context)
    volume.attach()
    load = context.verified_load(volume.device)
    volume.cluster.command("volume", "resize", VOLUME, f"{2 * VOLUME_MIB}MiB")
    context.wait_in_guest(f"[ $(blockdev --getsize64 {volume.device}) = {2 * VOLUME_MIB * MIB} ]")
    context.fio(volume.device, f"--rw=randwrite --bs=16k --iodepth=8 --offset={VOLUME_MIB}m --size=4m --verify=crc32c "
                               "--verify_fatal=1")
    load.go_on()
    load.finish()
    volume.check_no_io_error()


@case
def cluster_attach_cycles(context):
    """Attached and detached 20 times: nothing is left in the guest, nor of the guest in the engines."""
    volume = AttachedVolume(context)
    files = [engine.open_files() for engine in volume.cluster.engines]
    context.guest.sh(f"""for cycle in $(seq {CYCLES}); do
                           {{ {volume.attach_command()}; }} || exit 1
                           for try in $(seq 600); do
                             device=$(ls /dev/nvme*n* 2>/dev/null) && break
                             sleep 0.05
                           done
                           dd if=/dev/urandom of=$device bs=64k count=1 oflag=direct status=none || exit 1
                           {volume.detach_command()} || exit 1
                           left=$(ls -d /sys/class/nvme/* /sys/class/nvme-subsystem/* /dev/nvme[0-9]* 2>/dev/null)
                           [ -z "$left" ] || {{ echo "left after cycle $cycle: $left"; exit 1; }}
                         done""", 300)
    managed.wait_until(lambda: not any(path["controllers"] for path in volume.paths()), lambda: f"hosts are left: {volume.paths()}")
    for engine, before in zip(volume.cluster.engines, files):
        managed.wait_until(lambda: engine.open_files() <= before, f"engine {engine.name} has more files open than before")
