"""What a case is given: the guest, targets, and the things that nearly every case does with them."""

import contextlib
import json
import re
import shlex

import reference
import target as targets

MOUNT = "/run/disk"
KEEP_ALIVE_SECONDS = 15  # generous: everything is slow under emulation

_CASES = []

# Never to be seen in the guest's kernel log.
_KERNEL_FAULTS = r"BUG:|Oops|WARNING:|blocked for more than|general protection|Internal error|corruption"
# Not to be seen by a case that injects no fault.
_KERNEL_IO_ERRORS = r"I/O error|critical .* error|digest error|timeout, |Connect command failed"


class CaseFailed(Exception):
    """Something was not as it has to be."""


def case(function):
    """Registers a case. Its name is the function's, its description the docstring."""
    _CASES.append(function)
    return function


def cases():
    return {function.__name__: function for function in _CASES}


def check(condition, message):
    if not condition:
        raise CaseFailed(message)


def check_equal(name, found, expected):
    check(found == expected, f"{name} is {found!r}, expected {expected!r}")


class Context:
    """Lives for one case; end() takes away what the case left behind in the guest and on the machine."""

    def __init__(self, guest, directory, fairlead, steered, use_reference):
        self.guest = guest
        self.directory = directory
        self.fairlead = fairlead
        self.steered_program = steered
        self.use_reference = use_reference
        self.may_see_io_errors = False
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

    def on_end(self, function):
        self._cleanup.callback(function)

    # The guest as host

    def connect(self, target, listener=None, options="", keep_alive=KEEP_ALIVE_SECONDS):
        """`nvme connect`; returns the controller's name, "nvme0"."""
        listener = listener or target.listener
        said = self.guest.sh(f"nvme connect {listener.arguments} -n {target.nqn} --keep-alive-tmo={keep_alive} "
                             f"--reconnect-delay=1 --ctrl-loss-tmo=60 {options}")
        found = re.search(r"device: (nvme\d+)", said)
        check(found, f"nvme connect said: {said}")
        return found[1]

    def disconnect(self, target):
        said = self.guest.sh(f"nvme disconnect -n {target.nqn}")
        check("disconnected 0" not in said, f"nvme disconnect said: {said}")

    def device(self, target, nsid=1):
        """The block device of a namespace, once the guest has found it: "/dev/nvme0n1"."""
        return self.guest.sh(
            f"""for try in $(seq 150); do
                  for head in /sys/class/nvme-subsystem/*/nvme*n*; do
                    [ "$(cat "${{head%/*}}/subsysnqn" "$head/nsid" 2>&1)" = "{target.nqn}"$'\\n'{nsid} ] || continue
                    [ -b "/dev/${{head##*/}}" ] && echo "/dev/${{head##*/}}" && exit 0
                  done
                  sleep 0.1
                done
                nvme list; exit 1""").strip()

    def wait_in_guest(self, condition, seconds_max=30):
        """Waits until a shell condition holds in the guest."""
        self.guest.sh(f"""end=$((SECONDS + {seconds_max}))
                          until {condition}; do
                            [ $SECONDS -lt $end ] || {{ echo "not in {seconds_max} s"; exit 1; }}
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
        """Starts fio with direct I/O on a block device and returns the Job."""
        return self.guest.start(
            f"test -b {device} && fio --name=load --filename={device} --allow_file_create=0 --direct=1 "
            f"--ioengine=libaio --verify_state_save=0 --randseed=7 --output-format=json {options}")

    def finish_fio(self, job, seconds_max=120):
        """Waits for fio, which must have met no error, and returns its results."""
        said = job.wait(seconds_max)
        result = json.loads(said[said.index("{"):])["jobs"][0]
        check_equal("fio's error", result["error"], 0)
        return result

    def fio(self, device, options, seconds_max=120):
        return self.finish_fio(self.start_fio(device, options), seconds_max)

    def start_slow_writes(self, device, seconds=10, extra=""):
        """Random writes for about `seconds`, read back and verified after, for cases that disturb them meanwhile."""
        job = self.start_fio(device, f"--rw=randwrite --bsrange=4k-64k --iodepth=8 --size={2 * seconds}m --rate=,2m "
                                     f"--verify=crc32c --verify_fatal=1 {extra}")
        self.wait_for_writes(device)
        return job

    def wait_for_writes(self, device, mib=1):
        """Waits until so much more has been written to the device."""
        name = device.removeprefix("/dev/")
        self.guest.sh(f"""written() {{ awk '{{print $7}}' /sys/block/{name}/stat; }}
                          end=$(($(written) + {mib} * 2048))
                          for try in $(seq 300); do [ "$(written)" -ge $end ] && exit 0; sleep 0.1; done
                          echo "no writes"; exit 1""")

    # The end

    def check_kernel_log(self):
        log = self.guest.sh("dmesg")
        pattern = _KERNEL_FAULTS if self.may_see_io_errors else f"{_KERNEL_FAULTS}|{_KERNEL_IO_ERRORS}"
        bad = [line for line in log.splitlines() if re.search(pattern, line)]
        check(not bad, "the guest's kernel says: " + " / ".join(bad[:5]))

    def begin(self):
        self.guest.sh(f"dmesg -c >/dev/null; mkdir -p {MOUNT}")

    def end(self):
        """Takes everything away. An error here means that the guest cannot be used any more."""
        with self._cleanup:
            self.guest.sh(f"""killall -q -9 fio
                              while mountpoint -q {MOUNT}; do umount -l {MOUNT} || exit 1; done
                              timeout 40 nvme disconnect-all
                              ls /sys/class/nvme | grep . && {{ echo "controllers are left"; exit 1; }}
                              exit 0""")


def quoted(text):
    return shlex.quote(str(text))
