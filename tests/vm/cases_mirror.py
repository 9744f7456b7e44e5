"""Cases about mirrored volumes: three engines, to each of which the guest's kernel has a path."""

from context import case, check, check_equal
from target import MIB, Listener
from guest import HOST_ADDRESS

VOLUME_MIB = 32


class MirroredVolume:
    """A volume on three engines, written in full, attached to the guest by a path to each. The first is its target."""

    def __init__(self, context):
        self._context = context
        self.cluster = context.cluster(size=f"{VOLUME_MIB}MiB", options=("--shards", 1))
        self.nqn = self.cluster.nqn
        self.engines = self.cluster.engines
        self.cluster.serve_on(self.engines[-1])
        self.cluster.await_members(self.engines[-1], 3)
        self.controllers = {}
        for engine in reversed(self.engines):  # the target first: what has no path of use is no device yet
            disk = context.connect(self, Listener(HOST_ADDRESS, engine.port))
            self.controllers[engine] = disk.controller
            self.device = disk.device
        context.guest.sh(f"dd if=/dev/urandom of={self.device} bs=1M count={VOLUME_MIB} oflag=direct status=none", 120)
        self.move(self.engines[-1], self.engines[0])

    def wait_for_path(self, engine, state):
        self._context.wait_in_guest(
            f"grep -qx {state} /sys/class/nvme/{self.controllers[engine]}/nvme*c*n*/ana_state")

    def move(self, old, new):
        """As planned: in order."""
        old.ask(f"volume stand-by {self.cluster.volume}")
        self.cluster.serve_on(new)
        self.cluster.await_members(new, 3)
        self.wait_for_path(new, "optimized")
        self.wait_for_path(old, "inaccessible")


@case
def multipath_target_killed(context):
    """A mirrored volume's target is killed under load: I/O goes on by another path; who returns gets what changed."""
    context.may_see_io_errors = True
    volume = MirroredVolume(context)
    target, standby, _ = volume.engines
    load = context.verified_load(volume.device)
    target.kill()
    volume.cluster.serve_on(standby)
    load.go_on()
    volume.cluster.await_members(standby, 2)
    volume.cluster.restart(target)
    volume.cluster.await_members(standby, 3)
    volume.wait_for_path(target, "inaccessible")
    returned = volume.cluster.replica_status(standby, target)
    check_equal("what was copied", returned["copied_bytes"], returned["to_copy_bytes"])
    check(0 < returned["copied_bytes"] <= load.SIZE_MIB * MIB, f"{returned['copied_bytes']} bytes were copied")
    load.go_on()
    pause = load.finish()
    context.remark = (f"I/O paused for at most {pause:.0f} ms; {returned['copied_bytes'] / MIB:.0f} of {VOLUME_MIB} MiB "
                      "were copied")


@case
def multipath_moves(context):
    """A mirrored volume moves from engine to engine as planned, under load: no error, and the kernel follows."""
    volume = MirroredVolume(context)
    load = context.verified_load(volume.device)
    for move in range(4):
        volume.move(volume.engines[move % 3], volume.engines[(move + 1) % 3])
        load.go_on()
    pause = load.finish()
    context.remark = f"I/O paused for at most {pause:.0f} ms"
