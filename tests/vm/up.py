#!/usr/bin/env python3
"""The demonstration of ./dev up: a real Linux kernel, in QEMU, uses a disk that Fairlead serves from a file.

    python3 tests/vm/up.py --fairlead build/release/src/cli/fairlead

Serves a sparse file of 1 GiB, boots the guest, connects, makes a file system, writes, verifies, shows the numbers and
cleans up. Everything it makes is in build/up and build/vm.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
import time

import guest as guests
import image as images
import target as targets

UP = images.BUILD.parent / "up"
DISK_SIZE = "1GiB"
MOUNT = "/run/disk"
COMMAND_SECONDS_MAX = 300
FIO = (f"fio --directory={MOUNT} --direct=1 --ioengine=libaio --verify_state_save=0 --output-format=json "
       "--randseed=7 --name=demo")
LOADS = (
    # what, fio's options
    ("random writes, 4 KiB to 1 MiB, verified", "--rw=randwrite --bsrange=4k-1m --size=64m --iodepth=16 "
                                                "--verify=crc32c --verify_fatal=1"),
    ("4 KiB random reads, 32 in flight", "--rw=randread --bs=4k --size=64m --io_size=16m --iodepth=32"),
    ("4 KiB random writes, 32 in flight", "--rw=randwrite --bs=4k --size=64m --io_size=16m --iodepth=32"),
    ("128 KiB reads in order", "--rw=read --bs=128k --size=64m --iodepth=8"),
    ("128 KiB writes in order", "--rw=write --bs=128k --size=64m --iodepth=8"),
)


class UpError(Exception):
    """The demonstration cannot go on; the message says why."""


class Demonstration:
    def __init__(self, fairlead):
        self._fairlead = fairlead
        self._color = sys.stdout.isatty()
        self._step_number = 0
        self._target = None

    def step(self, title):
        self._step_number += 1
        bold, plain = ("\033[1m", "\033[0m") if self._color else ("", "")
        print(f"\n{bold}{self._step_number}. {title}{plain}", flush=True)

    @staticmethod
    def show(text):
        print("".join(f"     {line}\n" for line in text.rstrip().splitlines()), end="", flush=True)

    def run_in_guest(self, guest, command):
        """Runs a command in the guest, and shows it and what it says."""
        self.show(f"guest# {command}")
        self.show(self.wait_for(guest.start(command)))

    def wait_for(self, job):
        """Waits for a command in the guest, as long as the server lives, and returns its output."""
        deadline = time.monotonic() + COMMAND_SECONDS_MAX
        while not job.wait_ended(0.5) and time.monotonic() < deadline:
            if not self._target.process.alive:
                raise UpError(f"the server died while the guest did: {job.command}\n{log_tail()}")
        return job.wait(0)

    def serve(self):
        self.step(f"Serve a sparse file of {DISK_SIZE}")
        shutil.rmtree(UP, ignore_errors=True)
        UP.mkdir(parents=True)
        try:
            target = targets.ServeTarget(self._fairlead, UP, file=os.path.relpath(UP / "disk.img"), options=("--size", DISK_SIZE))
        except OSError as error:
            raise UpError(f"{self._fairlead} cannot be run: {error.strerror}") from error
        except targets.TargetError as error:
            raise UpError(f"the server did not start: {error}\n{log_tail()}") from error
        self.show(f"host$ {target.command_line}")
        self.show("\n".join(target.process.lines()))
        return target

    def use(self, guest, target):
        self.step("Boot a Linux guest (software emulation: slow, but it runs everywhere)")
        seconds = guest.ready()
        self.show(f"Linux {guest.sh('uname -r').strip()} is up after {seconds:.1f} s")

        self.step("Connect: the disk appears as a local NVMe device")
        self.run_in_guest(guest, target.connect_line)
        target.wait_connected(guest.host_nqn)
        guest.sh("for try in $(seq 100); do [ -b /dev/nvme0n1 ] && exit 0; sleep 0.1; done; exit 1")
        self.run_in_guest(guest, "nvme list")

        self.step("Make a file system, write, and verify what was written")
        self.run_in_guest(guest, f"mkdir {MOUNT} && mkfs.ext4 -q /dev/nvme0n1 && mount /dev/nvme0n1 {MOUNT}")
        self.run_in_guest(guest, f"head -c 20000000 /dev/urandom >{MOUNT}/file && cd {MOUNT} && sha256sum file >sum")
        numbers = [(what, self.measure(guest, what, options)) for what, options in LOADS]
        self.run_in_guest(guest, f"umount {MOUNT} && e2fsck -fn /dev/nvme0n1")
        self.run_in_guest(guest, f"mount /dev/nvme0n1 {MOUNT} && cd {MOUNT} && sha256sum -c sum")
        return numbers

    def measure(self, guest, what, options):
        """Runs fio in the file system; an error, also a wrong checksum, ends the demonstration."""
        self.show(f"fio: {what} ...")
        said = self.wait_for(guest.start(f"{FIO} {options}"))
        result = json.loads(said[said.index("{"):])["jobs"][0]
        if result["error"]:
            raise UpError(f"fio met error {result['error']} at: {what}")
        return result

    def give_back(self, guest, target):
        self.step("Delete the files: their room in the backing file is given back")
        before = target.allocated_bytes()
        self.run_in_guest(guest, f"rm {MOUNT}/* -rf && sync && fstrim -v {MOUNT} && umount {MOUNT}")
        self.show(f"on the host the file takes {before >> 20} MiB before, {target.allocated_bytes() >> 20} MiB after, "
                  f"of {DISK_SIZE}")

    def clean_up(self, guest, target):
        self.step("Clean up")
        self.run_in_guest(guest, f"nvme disconnect -n {target.nqn}")
        target.wait_disconnected(guest.host_nqn)
        guest.off()
        target.stop()
        self.show(f"the server said: {', '.join(target.process.lines()[-2:])}")
        os.unlink(target.file)

    def summarize(self, numbers, seconds):
        self.step("What was seen")
        self.show("All that was written was read back and verified, before and after mounting again.\n"
                  "Inside software emulation, which is what limits these numbers (./dev bench measures Fairlead):")
        for what, result in numbers:
            for direction in ("write", "read"):
                done = result[direction]
                if done["total_ios"]:
                    self.show(f"  {what:42} {direction:5} {done['iops']:8.0f} IOPS {done['bw_bytes'] / 1e6:8.1f} MB/s")
        self.show(f"\nAll of it took {seconds:.0f} s. To do the same for real, on any Linux machine:\n\n"
                  f"  server$ {self._fairlead} serve /var/lib/disk.img --size 10GiB --listen 0.0.0.0\n"
                  "  client# modprobe nvme-tcp\n"
                  "  client# nvme discover -t tcp -a SERVER -s 4420\n"
                  "  client# nvme connect-all -t tcp -a SERVER -s 4420\n"
                  "  client# nvme list\n"
                  "  client# mkfs.ext4 /dev/nvme0n1 && mount /dev/nvme0n1 /mnt\n"
                  "  client# nvme disconnect-all")

    def run(self):
        started = time.monotonic()
        image = images.ensure()
        target = self._target = self.serve()
        try:
            with guests.Guest(image, "up", log_directory=UP) as guest:
                numbers = self.use(guest, target)
                self.give_back(guest, target)
                self.clean_up(guest, target)
        except (guests.GuestError, targets.TargetError) as error:
            raise UpError(f"{error}\n{log_tail()}") from error
        finally:
            target.close()
        self.summarize(numbers, time.monotonic() - started)


def log_tail():
    log = UP / "target.log"
    lines = log.read_text(errors="replace").splitlines()[-12:] if log.exists() else []
    return "\n".join([f"the end of {log.relative_to(images.BUILD.parent.parent)}:", *(f"  {line}" for line in lines)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fairlead", type=pathlib.Path,
                        default=images.BUILD.parent / "release/src/cli/fairlead", help="the program to show")
    options = parser.parse_args()
    if not options.fairlead.is_file():
        sys.exit(f"up: {options.fairlead} is not there: ./dev build makes it")
    try:
        Demonstration(options.fairlead).run()
    except (UpError, images.ImageError, guests.GuestError) as error:
        sys.exit(f"up: {error}")
    except KeyboardInterrupt:
        sys.exit("up: interrupted; guest and server are gone")


if __name__ == "__main__":
    main()
