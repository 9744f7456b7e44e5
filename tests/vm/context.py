"""What a case is given: the guest, targets, and the things that nearly every case does with them."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import re
import subprocess
import sys

import guest as guests
import host
import pool as pools
import reference
import target as targets

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "engine"))
import engines  # noqa: E402
import managed  # noqa: E402

FIO_INTERRUPTED = 128  # its exit status when a signal ended it in good order
MOUNT = "/run/disk"
LOAD_MIB = 8  # what the writes of start_load() cover
KEEP_ALIVE_SECONDS = 30  # generous: everything is slow under emulation

_CASES = []

# Never to be seen in the guest's kernel log.
_KERNEL_FAULTS = r"BUG:|Oops|WARNING:|blocked for more than|general protection|Internal error|corruption"
# Not to be seen by a case that injects no fault.
_KERNEL_IO_ERRORS = r"I/O error|critical .* error|digest error|timeout, |Connect command failed"


@dataclasses.dataclass
class Disk:
    """What a connection gave the guest."""
    controller: str  # "nvme0"
    device: str  # "/dev/nvme0n1"


class CaseFailed(Exception):
    """Something was not as it has to be."""


def case(function):
    """Registers a case. Its name is the function's, its description the docstring."""
    _CASES.append(function)
    return function


def host_case(*kinds):
    """Registers a case in which Fairlead is the host, once for each kind of target: "kernel" or "fairlead"."""
    def register(function):
        for kind in kinds or host.FARS:
            each = functools.partial(function, kind=kind)
            each.__name__ = f"host_{function.__name__}_{kind}"
            each.__doc__ = function.__doc__
            each.needs_guest = kind == "kernel"
            case(each)
        return function
    return register


def cases():
    return {function.__name__: function for function in _CASES}


def check(condition, message):
    if not condition:
        raise CaseFailed(message)


def check_equal(name, found, expected):
    check(found == expected, f"{name} is {found!r}, expected {expected!r}")


def sum_of(data):
    """As sha256sum prints it."""
    return hashlib.sha256(data).hexdigest()


class Context:
    """Lives for one case; end() takes away what the case left behind in the guest and on the machine."""

    def __init__(self, guest, directory, fairlead, steered, use_reference):
        """`guest` is None for a case that needs none."""
        self.guest = guest
        self.directory = directory
        self.fairlead = fairlead
        self.steered_program = steered
        self.csi_call = steered.with_name("csi_call")
        self.use_reference = use_reference
        self.may_see_io_errors = False
        self.remark = ""  # what was measured, to be shown with the result
        self._cleanup = contextlib.ExitStack()

    # Targets

    def serve(self, **options):
        """A target as `fairlead serve` makes it: one subsystem, namespace 1 on a file of `size_mib`."""
        if self.use_reference:
            target = reference.KernelTarget(self.guest, **options)
        else:
            target = targets.ServeTarget(self.fairlead, self.directory, **options)
        self._cleanup.callback(target.close)
        return target

    def steered(self, **options):
        """A target that is told at run time to change ANA states and namespaces."""
        if self.use_reference:
            target = reference.KernelTarget(self.guest, **options)
        else:
            target = targets.SteeredTarget(self.steered_program, self.directory, **options)
        self._cleanup.callback(target.close)
        return target

    def pool(self, **options):
        """A pool of its own, and the target that serves its replicas; see pool.py."""
        if self.use_reference:
            raise targets.Unsupported("pools are Fairlead's")
        target = pools.PoolTarget(self.fairlead, self.directory, self.run_fairlead, **options)
        self._cleanup.callback(target.close)
        return target

    def finish_pool(self, target):
        """Disconnects and ends it in order: the pool is exported then, and `fairlead offline pool check` finds nothing."""
        self.disconnect(target)
        target.stop()
        target.check()
        check(target.is_exported(), "the pool is not marked as exported")

    def cluster(self, **options):
        """Three engines, which the guest reaches, with a mirrored volume; see tests/engine/engines.py."""
        if self.use_reference:
            raise targets.Unsupported("mirrors are Fairlead's")
        cluster = engines.Cluster(self.fairlead, self.directory, host="127.0.0.1", advertise=guests.HOST_ADDRESS, **options)
        self._cleanup.callback(cluster.close)
        return cluster

    def managed_cluster(self, **options):
        """A control plane and its engines, which the guest reaches; see tests/engine/managed.py."""
        if self.use_reference:
            raise targets.Unsupported("control planes are Fairlead's")
        cluster = managed.ManagedCluster(self.fairlead, self.directory, has_network=False, **options)
        self._cleanup.callback(cluster.close)
        return cluster

    # Fairlead as the host

    def far(self, kind, **options):
        """A target of that kind with two paths, or as many as `paths` says; see host.py."""
        if self.use_reference:
            raise targets.Unsupported("Fairlead is the host here")
        far = host.FARS[kind](self.guest, self.directory, self.steered_program, **options)
        self._cleanup.callback(far.close)
        return far

    def steered_host(self):
        each = host.SteeredHost(self.steered_program.with_name("steered_host"), self.directory / "host.log")
        self._cleanup.callback(each.close)
        return each

    def connected_host(self, far, **options):
        """A steered host that is connected by all paths and has namespace 1 open."""
        each = self.steered_host()
        each.connect(far.nqn, far.addresses, **options)
        each.wait_live(len(far.addresses))
        each.ask("open 1")
        return each

    def run_fairlead(self, *arguments, seconds_max=60):
        """Runs the program and returns its exit status, output and errors."""
        with open(self.directory / "host.log", "a") as log:
            log.write(f"--- fairlead {' '.join(arguments)}\n")
            done = subprocess.run([self.fairlead, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=seconds_max, preexec_fn=guests.die_with_parent)
            log.write(f"{done.stdout}{done.stderr}status {done.returncode}\n")
        return done

    def on_end(self, function):
        self._cleanup.callback(function)

    # The guest as host

    def connect(self, target, listener=None, options="", keep_alive=KEEP_ALIVE_SECONDS):
        """`nvme connect`; returns the new controller and the block device of namespace 1, once it is there."""
        listener = listener or target.listener
        said = self.guest.sh(f"nvme connect {listener.arguments} -n {target.nqn} --keep-alive-tmo={keep_alive} "
                             f"--reconnect-delay=1 --ctrl-loss-tmo=180 -o normal {options} || exit 1\n"
                             + _find_device(target.nqn, 1))
        found = re.match(r"device: (nvme\d+)\n(/dev/nvme\d+n\d+)$", said.strip())
        check(found, f"nvme connect said: {said}")
        return Disk(found[1], found[2])

    def disconnect(self, target):
        said = self.guest.sh(f"nvme disconnect -n {target.nqn}")
        check("disconnected 0" not in said, f"nvme disconnect said: {said}")

    def device(self, target, nsid=1):
        """The block device of a namespace, once the guest has found it: "/dev/nvme0n1"."""
        return self.guest.sh(_find_device(target.nqn, nsid)).strip()

    def wait_in_guest(self, condition, seconds_max=30):
        """Waits until a shell condition holds in the guest."""
        self.guest.sh(f"""end=$((SECONDS + {seconds_max * guests.PATIENCE}))
                          until {condition}; do
                            [ $SECONDS -lt $end ] || {{ echo "not in {seconds_max * guests.PATIENCE} s"; exit 1; }}
                            sleep 0.1
                          done""", seconds_max + 30)

    def nvme(self, arguments):
        """An nvme-cli command that prints JSON, decoded."""
        said = self.guest.sh(f"nvme {arguments} -o json 2>/dev/null")
        try:
            return json.loads(said)
        except json.JSONDecodeError:
            raise CaseFailed(f"nvme {arguments}: no JSON: {said}") from None

    # Load

    def start_fio(self, device, options):
        """Starts fio with direct I/O on a block device, or a file that is there, and returns the Job."""
        return self.guest.start(
            f"test -b {device} -o -f {device} && fio --name=load --filename={device} --allow_file_create=0 --direct=1 "
            f"--ioengine=libaio --thread --verify_state_save=0 --randseed=7 --output-format=json {options}")

    def finish_fio(self, job, seconds_max=120):
        """Waits for fio, which must have met no error, and returns its results."""
        return self.fio_result(job.wait(seconds_max))

    @staticmethod
    def fio_result(said):
        result = json.loads(said[said.index("{"):])["jobs"][0]
        check_equal("fio's error", result["error"], 0)
        return result

    def fio(self, device, options, seconds_max=120):
        return self.finish_fio(self.start_fio(device, options), seconds_max)

    def start_load(self, device):
        """Starts writes at random places that go on until finish_load(), for cases that disturb them meanwhile."""
        self.fio(device, f"--rw=write --bs=128k --iodepth=4 --verify=crc32c --verify_interval=16k --do_verify=0 "
                         f"--size={LOAD_MIB}m")
        job = self.start_fio(device, f"--rw=randwrite --bs=16k --iodepth=8 --size={LOAD_MIB}m --rate=,3m --time_based "
                                     "--runtime=600 --verify=crc32c --verify_fatal=1 --verify_backlog=64")
        self.wait_for_writes(device)
        return job

    def finish_load(self, job, device):
        """Ends the writes, which read back and verified as they went, and verifies all of it once more."""
        self.stop_fio(job)
        self.fio(device, f"--rw=read --bs=16k --iodepth=8 --size={LOAD_MIB}m --verify=crc32c --verify_fatal=1")

    def stop_fio(self, job):
        """Ends fio, which must be at work and have met no error, and returns its results."""
        check(not job.ended, f"the load ended by itself, with {job.status}: {guests.shortened(job.output)}")
        self.guest.sh("killall -INT fio")
        job.wait(60, check=False)
        check(job.status in (0, FIO_INTERRUPTED), f"fio ended with {job.status}: {guests.shortened(job.output)}")
        return self.fio_result(job.output)

    def verified_load(self, device, path=None):
        """Writes at random places of a device; see VerifiedLoad."""
        return VerifiedLoad(self, device, path)

    def wait_for_writes(self, device, mib=1):
        """Waits until so much more has been written to the device."""
        name = device.removeprefix("/dev/")
        self.guest.sh(f"""written() {{ awk '{{print $7}}' /sys/block/{name}/stat; }}
                          end=$(($(written) + {mib} * 2048))
                          for try in $(seq {300 * guests.PATIENCE}); do [ "$(written)" -ge $end ] && exit 0; sleep 0.1; done
                          echo "no writes"; exit 1""")

    # The end

    def check_kernel_log(self):
        if self.guest is None:
            return
        log = self.guest.sh("dmesg")
        pattern = _KERNEL_FAULTS if self.may_see_io_errors else f"{_KERNEL_FAULTS}|{_KERNEL_IO_ERRORS}"
        bad = [line for line in log.splitlines() if re.search(pattern, line)]
        check(not bad, "the guest's kernel says: " + " / ".join(bad[:5]))

    def begin(self):
        if self.guest:
            self.guest.sh(f"dmesg -c >/dev/null; mkdir -p {MOUNT}")

    def end(self):
        """Takes everything away. An error here means that the guest cannot be used any more."""
        with self._cleanup:
            if self.guest is None:
                return
            self.guest.sh(f"""killall -q -9 fio
                              while mountpoint -q {MOUNT}; do umount -l {MOUNT} || exit 1; done
                              timeout 40 nvme disconnect-all
                              ls /sys/class/nvme | grep . && {{ echo "controllers are left"; exit 1; }}
                              exit 0""")


class VerifiedLoad:
    """Writes at random places of the beginning of a device, each read back and compared, that go on until finish().
    With a path: of what is there, a file that is large enough or the device under another name."""

    SIZE_MIB = 4
    # Not time_based: then fio checks the number of the write as well, and an older one is an error.
    _OPTIONS = f"--bs=4k --iodepth=16 --size={SIZE_MIB}m --verify=crc32c --verify_fatal=1"

    def __init__(self, context, device, path=None):
        self._context = context
        self._device = device
        self._path = path or device
        context.fio(self._path, f"--rw=write --do_verify=0 {self._OPTIONS}")  # there may be no time to write all of it
        self._job = context.start_fio(self._path, f"--rw=randwrite --loops=1000 --fsync=32 {self._OPTIONS}")
        self.go_on()

    def go_on(self):
        """Waits until it has written on; it must not have ended."""
        try:
            self._context.wait_for_writes(self._device)
        finally:
            check(not self._job.ended,
                  f"the load ended by itself, with {self._job.status}: {guests.shortened(self._job.output)}")

    def finish(self):
        """Ends it: it must have met no error and no wrong byte. Returns the longest that a request took, in milliseconds."""
        result = self._context.stop_fio(self._job)
        self._context.fio(self._path, f"--rw=read {self._OPTIONS}")
        return max(result[kind]["clat_ns"]["max"] for kind in ("read", "write")) / 1e6


def _find_device(nqn, nsid):
    """A shell script that prints the block device of a namespace; the kernel looks for them after connecting."""
    return f"""for try in $(seq {150 * guests.PATIENCE}); do
                 for head in /sys/class/nvme-subsystem/*/nvme*n*; do
                   [ "$(cat "${{head%/*}}/subsysnqn" "$head/nsid" 2>&1)" = "{nqn}"$'\\n'{nsid} ] || continue
                   [ -b "/dev/${{head##*/}}" ] && echo "/dev/${{head##*/}}" && exit 0
                 done
                 sleep 0.1
               done
               echo "no block device:"; nvme list; exit 1"""
