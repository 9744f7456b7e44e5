#!/usr/bin/env python3
"""The demonstration of ./dev up: a real Linux kernel, in QEMU, uses a volume that three engines mirror, and one is killed.

    python3 tests/vm/up.py --fairlead build/release/src/cli/fairlead

Starts three engines, boots the guest, connects, makes a file system, writes, verifies, shows the numbers; kills the
engine that serves the volume under load, starts it again, shows what was copied, and cleans up. Everything it makes is
in build/up and build/vm.
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

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "engine"))
import engines  # noqa: E402

MIB = 1 << 20
UP = images.BUILD.parent / "up"
VOLUME_SIZE = "1GiB"
POOL_SIZE = "2GiB"
ENGINE_OPTIONS = ("--checkpoint-interval", "1s")  # what was written since the last one is copied as well
MOUNT = "/run/disk"
COMMAND_SECONDS_MAX = 300
FIO = ("fio --direct=1 --ioengine=libaio --thread --verify_state_save=0 --output-format=json --randseed=7 "
       f"--directory={MOUNT} --name=")
LOADS = (
    # what, fio's options
    ("random writes, 4 KiB to 1 MiB, verified", "--rw=randwrite --bsrange=4k-1m --size=64m --iodepth=16 "
                                                "--verify=crc32c --verify_fatal=1"),
    ("4 KiB random reads, 32 in flight", "--rw=randread --bs=4k --size=64m --io_size=8m --iodepth=32"),
    ("4 KiB random writes, 32 in flight", "--rw=randwrite --bs=4k --size=64m --io_size=8m --iodepth=32"),
    ("128 KiB reads in order", "--rw=read --bs=128k --size=64m --iodepth=8"),
    ("128 KiB writes in order", "--rw=write --bs=128k --size=64m --iodepth=8"),
)
KILL_LOAD_MIB = 8
# Not time_based: then fio checks the number of the write as well, and an older one is an error.
KILL_LOAD = (f"--rw=randwrite --loops=1000 --bs=4k --size={KILL_LOAD_MIB}m --iodepth=8 --fsync=32 --verify=crc32c "
             "--verify_fatal=1")


class UpError(Exception):
    """The demonstration cannot go on; the message says why."""


class Demonstration:
    def __init__(self, fairlead):
        self._fairlead = fairlead
        self._color = sys.stdout.isatty()
        self._step_number = 0
        self._seen = []

    # What is shown

    def step(self, title):
        self._step_number += 1
        bold, plain = ("\033[1m", "\033[0m") if self._color else ("", "")
        print(f"\n{bold}{self._step_number}. {title}{plain}", flush=True)

    @staticmethod
    def show(text):
        print("".join(f"     {line}\n" for line in text.rstrip().splitlines()), end="", flush=True)

    def note(self, text):
        """Shows it, at the end once more."""
        self.show(text)
        self._seen.append(text)

    def run_in_guest(self, guest, command):
        """Runs a command in the guest, and shows it and what it says."""
        self.show(f"guest# {command}")
        self.show(guest.sh(command, COMMAND_SECONDS_MAX))

    def tell(self, engine, command):
        self.show(f"engine {engine.number}> {command}")
        engine.ask(command)

    def serve_on(self, cluster, engine):
        self.tell(engine, f"volume serve {cluster.volume}")

    # The steps

    def start_engines(self):
        self.step("Start three engines, each with a pool in a file; make a volume of three replicas, one in each pool")
        shutil.rmtree(UP, ignore_errors=True)
        UP.mkdir(parents=True)
        try:
            cluster = engines.Cluster(self._fairlead, os.path.relpath(UP), size=VOLUME_SIZE, pool_size=POOL_SIZE,
                                      options=ENGINE_OPTIONS, host="127.0.0.1", advertise=guests.HOST_ADDRESS)
        except OSError as error:
            raise UpError(f"{self._fairlead} cannot be run: {error.strerror}") from error
        for engine in cluster.engines:
            self.show(f"host$ {' '.join(engine.command())}")
        self.show("Each was told by `replica create` and `volume open` what is where; README.md has the commands. All three\n"
                  "can serve the volume. Nobody decides yet which of them does, so that is told:")
        self.serve_on(cluster, cluster.engines[0])
        cluster.await_members(cluster.engines[0], 3)
        return cluster

    def boot(self, guest):
        self.step("Boot a Linux guest (software emulation: slow, but it runs everywhere)")
        seconds = guest.ready()
        self.show(f"Linux {guest.sh('uname -r').strip()} is up after {seconds:.1f} s")

    def connect(self, guest, cluster):
        self.step("Connect to all three: the volume appears as one local NVMe device with three paths")
        for engine in cluster.engines:
            self.run_in_guest(guest, f"nvme connect -t tcp -a {guests.HOST_ADDRESS} -s {engine.port} -n {cluster.nqn} "
                                     "--reconnect-delay=1 --keep-alive-tmo=30")
            if engine is cluster.engines[0]:
                guest.sh("for try in $(seq 300); do [ -b /dev/nvme0n1 ] && exit 0; sleep 0.1; done; exit 1")
        self.run_in_guest(guest, "nvme list")
        self.show_paths(guest)

    def show_paths(self, guest):
        self.run_in_guest(guest, "nvme list-subsys /dev/nvme0n1")

    def use(self, guest):
        self.step("Make a file system, write, and verify what was written")
        self.run_in_guest(guest, f"mkdir -p {MOUNT} && mkfs.ext4 -q /dev/nvme0n1 && mount /dev/nvme0n1 {MOUNT}")
        self.run_in_guest(guest, f"cd {MOUNT} && head -c 20000000 /dev/urandom >file && sha256sum file >sum && sync")
        for what, options in LOADS:
            self.show(f"fio: {what} ...")
            result = fio_result(guest.sh(f"{FIO}demo {options}", COMMAND_SECONDS_MAX), what)
            for direction in ("write", "read"):
                done = result[direction]
                if done["total_ios"]:
                    self.note(f"{what:42} {direction:5} {done['iops']:8.0f} IOPS {done['bw_bytes'] / 1e6:8.1f} MB/s")

    def kill(self, guest, cluster):
        """Returns the load, still under way, and when the engine was killed."""
        target, standby, _ = cluster.engines
        self.step(f"Kill the engine that serves, under load: writes to {KILL_LOAD_MIB} MiB, each read back and verified")
        load = guest.start(f"{FIO}load {KILL_LOAD}")
        go_on(guest, load, KILL_LOAD_MIB)
        self.show(f"host$ kill -9 {target.pid}   # engine {target.number}")
        target.kill()
        self.serve_on(cluster, standby)
        go_on(guest, load)
        status = cluster.await_members(standby, 2)
        self.show(f"The load goes on. Engine {standby.number} says: {status['state']}, {len(status['members'])} of 3 replicas "
                  f"have everything")
        self.show_paths(guest)
        return load

    def bring_back(self, guest, cluster, load):
        back, target, _ = cluster.engines
        self.step("Start it again: its replica is given what it missed, and nothing else, under the same load")
        begun = time.monotonic()
        self.show(f"host$ {' '.join(back.command())}")
        cluster.restart(back)
        self.show(f"engine {back.number}> volume open ...")
        cluster.await_members(target, 3)
        seconds = time.monotonic() - begun
        copied = cluster.replica_status(target, back)["copied_bytes"]
        go_on(guest, load)
        guest.sh("killall -INT fio")
        writes = fio_result(load.wait(60, check=False), "the load under which the engine was killed")["write"]
        usual, pause = (nanoseconds / 1e6 for nanoseconds in (writes["clat_ns"]["percentile"]["99.000000"],
                                                              writes["clat_ns"]["max"]))
        self.note(f"{'4 KiB writes meanwhile, verified':42} write {writes['iops']:8.0f} IOPS {writes['bw_bytes'] / 1e6:8.1f} MB/s")
        self.note(f"I/O paused for at most {pause:.0f} ms, as the guest saw it: the longest that a write took, the kill included\n"
                  f"(99 of 100 took less than {usual:.0f} ms). No error, no wrong byte.")
        self.note(f"Copied to the replica that came back: {copied / MIB:.0f} MiB of a volume of {VOLUME_SIZE}, of which "
                  f"{used_bytes(target) / MIB:.0f} MiB are written;\nall three replicas had everything {seconds:.1f} s after "
                  "the start of the engine")

    def verify(self, guest):
        self.step("Verify all of it: the file system, and what was written before the kill")
        self.run_in_guest(guest, f"umount {MOUNT} && e2fsck -fn /dev/nvme0n1")
        self.run_in_guest(guest, f"mount /dev/nvme0n1 {MOUNT} && cd {MOUNT} && sha256sum -c sum")

    def give_back(self, guest, cluster):
        self.step("Delete the files: their room is given back, in all three pools")
        before = [used_bytes(engine) >> 20 for engine in cluster.engines]
        self.run_in_guest(guest, f"rm {MOUNT}/* -rf && sync && fstrim -v {MOUNT} && umount {MOUNT}")
        deadline = time.monotonic() + 30
        while max(used_bytes(engine) >> 20 for engine in cluster.engines) > before[0] // 2 and time.monotonic() < deadline:
            time.sleep(0.1)  # room comes back in the background, and nothing tells us
        for engine, mib in zip(cluster.engines, before):
            self.show(f"engine {engine.number}: {mib} MiB of its pool were used, {used_bytes(engine) >> 20} MiB are")

    def clean_up(self, guest, cluster):
        self.step("Clean up")
        self.run_in_guest(guest, f"nvme disconnect -n {cluster.nqn}")
        guest.off()
        for engine in cluster.engines:
            code = engine.quit()
            if code:
                raise UpError(f"engine {engine.number} ended with {code}\n{log_tail()}")
            self.show(f"host$ {self._fairlead} pool check {engine.disk}")
            self.show(engines.run_tool(self._fairlead, "offline", "pool", "check", engine.disk).splitlines()[0])
            os.unlink(engine.disk)

    def summarize(self, cluster, seconds):
        self.step("What was seen")
        self.show("All that was written was read back and verified, before the kill, during it and after.\n"
                  "Inside software emulation, which is what limits these numbers (./dev bench measures Fairlead):\n ")
        self.show("\n".join(self._seen))
        self.show(f"\nAll of it took {seconds:.0f} s. README.md tells how to do the same on machines of your own.")

    def run(self):
        started = time.monotonic()
        image = images.ensure()
        try:
            with self.start_engines() as cluster, guests.Guest(image, "up", log_directory=UP) as guest:
                self.boot(guest)
                self.connect(guest, cluster)
                self.use(guest)
                load = self.kill(guest, cluster)
                self.bring_back(guest, cluster, load)
                self.verify(guest)
                self.give_back(guest, cluster)
                self.clean_up(guest, cluster)
        except (guests.GuestError, engines.EngineError) as error:
            raise UpError(f"{error}\n{log_tail()}") from error
        self.summarize(cluster, time.monotonic() - started)


def fio_result(said, what):
    """An error, also a wrong checksum, ends the demonstration."""
    try:
        result = json.loads(said[said.index("{"):])["jobs"][0]
    except ValueError:
        raise UpError(f"fio did not come to its end at: {what}\n{guests.shortened(said)}") from None
    if result["error"]:
        raise UpError(f"fio met error {result['error']} at: {what}\n{guests.shortened(said)}")
    return result


def go_on(guest, load, mib=1):
    """Waits until the load has written so much more; it must not have ended."""
    guest.sh(f"end={mib * 2048}" """
                written() { awk '{print $7}' /sys/block/nvme0n1/stat; }
                end=$(($(written) + end))
                for try in $(seq 600); do [ "$(written)" -ge $end ] && exit 0; sleep 0.1; done
                echo "no writes"; exit 1""", COMMAND_SECONDS_MAX)
    if load.ended:
        raise UpError(f"the load ended: {guests.shortened(load.output)}")


def used_bytes(engine):
    return json.loads(engine.ask("stats"))["used_bytes"]


def log_tail():
    said = []
    for log in sorted(UP.glob("engine*.log")):
        lines = log.read_text(errors="replace").splitlines()[-6:]
        said += [f"the end of {log.relative_to(images.BUILD.parent.parent)}:", *(f"  {line}" for line in lines)]
    return "\n".join(said)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fairlead", type=pathlib.Path,
                        default=images.BUILD.parent / "release/src/cli/fairlead", help="the program to show")
    options = parser.parse_args()
    if not options.fairlead.is_file():
        sys.exit(f"up: {options.fairlead} is not there: ./dev build makes it")
    try:
        Demonstration(options.fairlead).run()
    except (UpError, images.ImageError, guests.GuestError, engines.EngineError) as error:
        sys.exit(f"up: {error}")
    except KeyboardInterrupt:
        sys.exit("up: interrupted; guest and engines are gone")


if __name__ == "__main__":
    main()
