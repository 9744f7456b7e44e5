"""A scripted kubelet: a cluster, the CSI controller plugin on the machine and the node plugin in the guest, and what the
sidecars and kubelet ask of them for a volume and the pods that use it."""

import contextlib
import json
import pathlib
import subprocess
import tempfile
import time

import guest as guests
from context import CaseFailed, check, check_equal, managed
from target import MIB

NODE = "guest"
HOST_NQN = f"nqn.2026-01.io.fairlead:host:{NODE}"
FOLDER = "/run/kubelet"  # in the guest, where its volumes are staged and published
PLUGIN = "/run/csi"  # in the guest, what the node plugin has
STATE = f"{PLUGIN}/state"
LOG = f"{PLUGIN}/log"
PORT = 7000  # of the guest, behind which the node plugin's socket is
START_SECONDS_MAX = 60
AGAIN_SECONDS_MAX = 60
# What all sidecars and kubelet ask again: DEADLINE_EXCEEDED, ABORTED, UNAVAILABLE.
AGAIN = (4, 10, 14)
INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION = 3, 5, 6, 9


class Plugin:
    """Calls to a plugin, one at a time, by the program csi_call. Its end is close()."""

    def __init__(self, program, address, log):
        with open(log, "ab") as errors:
            self._process = subprocess.Popen([program, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=errors, text=True, preexec_fn=guests.die_with_parent)

    def begin(self, method, request):
        self._process.stdin.write(f"{method} {json.dumps(request)}\n")
        self._process.stdin.flush()

    def answer(self):
        """Of what was begun: gRPC's code, and the reply or words."""
        code, _, said = self._process.stdout.readline().strip().partition(" ")
        check(code, "csi_call ended")
        return int(code), said

    def call(self, method, **request):
        """The reply. What is to be asked again is asked again."""
        deadline = time.monotonic() + AGAIN_SECONDS_MAX * guests.PATIENCE
        while True:
            self.begin(method, request)
            code, said = self.answer()
            if code == 0:
                return json.loads(said)
            if code not in AGAIN or time.monotonic() > deadline:
                raise CaseFailed(f"{method} {json.dumps(request)}: code {code}: {said}")
            time.sleep(0.1)  # as they do

    def refused(self, code, method, **request):
        """The words with which it was."""
        self.begin(method, request)
        found, said = self.answer()
        check(found == code, f"{method} {json.dumps(request)}: code {found}, expected {code}: {said}")
        return said

    def close(self):
        self._process.kill()
        self._process.wait()


class Kubelet:
    """Lives for one case, and ends with its context."""

    def __init__(self, context, engines=3, pool_size="1GiB", volumes_max=0):
        """`volumes_max`: how many the node takes; 0: as many as are asked for."""
        self.context = context
        self.guest = context.guest
        self._volumes_max = str(volumes_max)
        self.cluster = context.managed_cluster(engines=engines, pool_size=pool_size)
        self._cleanup = contextlib.ExitStack()
        context.on_end(self._cleanup.close)
        self.guest.share_loopback()
        self._cleanup.callback(self.guest.unshare_loopback)
        self.controller = self._start_controller()
        self._start_relay()
        self.start_node()

    # The plugins

    def _start_controller(self):
        directory = self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="fairlead-csi-"))
        endpoint = f"unix://{directory}/csi.sock"
        with open(self.context.directory / "csi-controller.log", "ab") as log:
            process = subprocess.Popen(
                [self.context.fairlead, "csi", "controller", "--endpoint", endpoint, "--control", self.cluster.leader().url,
                 "--volumes-per-node", self._volumes_max],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, preexec_fn=guests.die_with_parent)
        self._cleanup.callback(lambda: (process.kill(), process.wait()))
        self.controller_socket = f"{directory}/csi.sock"
        return self._caller(endpoint)

    def _caller(self, address):
        plugin = Plugin(self.context.csi_call, address, self.context.directory / "host.log")
        self._cleanup.callback(plugin.close)
        return plugin

    def _start_relay(self):
        """The node plugin listens on a socket of its file system: this brings its calls into the guest."""
        self.guest.sh(f"rm -rf {PLUGIN} {FOLDER}; mkdir -p {PLUGIN} {FOLDER}")
        relay = self.guest.start(f"exec socat TCP-LISTEN:{PORT},fork,reuseaddr UNIX-CONNECT:{PLUGIN}/node.sock")
        self._cleanup.callback(relay.kill)
        port = self.guest.forward(PORT)
        self._cleanup.callback(self.guest.unforward, port)
        self.node = self._caller(f"127.0.0.1:{port}")
        self._cleanup.callback(self._take_away)

    def start_node(self):
        """The node plugin, as a pod that is started; not waited for: calls wait."""
        program = self.guest.install(self.context.fairlead)
        self._process = self.guest.start(
            f"exec {program} csi node --endpoint unix://{PLUGIN}/node.sock --control {self.cluster.leader().url} --node {NODE} "
            f"--state-dir {STATE} --follow-interval 1s --volumes {self._volumes_max} >>{LOG} 2>&1")

    def kill_node(self):
        """As a pod's container ends: what the plugin has started ends with it."""
        self._process.kill()
        check(self._process.wait_ended(START_SECONDS_MAX), "the node plugin does not end")

    def kill_node_when(self, condition, or_when):
        """Kills it when a shell condition holds in the guest, and starts it again; not when the other one holds first.
        Returns whether it did."""
        was_seen = self.guest.status(f"""end=$((SECONDS + {AGAIN_SECONDS_MAX}))
                                         until {condition}; do {or_when} || [ $SECONDS -gt $end ] && exit 1; done
                                         kill -9 -- -$(cat /run/commands/{self._process.number}.pid)""",
                                     AGAIN_SECONDS_MAX + 30) == 0
        if was_seen:
            self.restart_node()
        return was_seen

    def restart_node(self):
        self.kill_node()
        self.start_node()

    def _take_away(self):
        """What a case that failed has left in the guest."""
        self._process.kill()
        (self.context.directory / "csi-node.log").write_text(self.guest.sh(f"cat {LOG}", check=False))
        self.guest.sh(f"""for place in $(awk '$5 ~ "^{FOLDER}/" {{print $5}}' /proc/self/mountinfo); do umount -l $place; done
                          timeout 40 nvme disconnect-all
                          rm -rf {PLUGIN} {FOLDER}""", 60)

    # What is there

    def records(self):
        """That the node plugin keeps, by volume."""
        return json.loads(self.guest.sh(f"cat {STATE}/volumes.json 2>/dev/null || echo '{{}}'"))

    def check_nothing_left(self, when):
        """In the guest, of any volume."""
        left = self.guest.sh(f"""ls -d /sys/class/nvme/nvme* /sys/class/nvme-subsystem/* /dev/nvme[0-9]* {FOLDER}/pods/*/* 2>/dev/null
                                 grep -E ' {FOLDER}/|/nvme' /proc/self/mountinfo; true""").split("\n")
        left = [line for line in left if line and " /etc/nvme " not in line]
        check(not left, f"{when} there is left: {' / '.join(left)}")
        check(not self.records(), f"{when} the plugin has records: {self.records()}")

    def claim(self, name="db", **options):
        return Claim(self, name, **options)


class Claim:
    """A volume from its creation to its end, and the pods that have it. fs_type None: a raw device."""

    def __init__(self, kubelet, name, *, mib, fs_type=None, replicas=3, mode="SINGLE_NODE_WRITER", flags=(), parameters=None,
                 source=None):
        """`source`: id of a snapshot that it begins as."""
        self._kubelet = kubelet
        self._controller = kubelet.controller
        self._node = kubelet.node
        self.mib = mib
        self.is_raw = fs_type is None
        self.capability = self.capability_for(fs_type, mode, flags)
        self.staging = f"{FOLDER}/staging/{name}"
        made = self._controller.call(
            "CreateVolume", name=name, capacity_range={"required_bytes": mib * MIB}, volume_capabilities=[self.capability],
            parameters={"replicas": str(replicas), **(parameters or {})},
            **({"volume_content_source": {"snapshot": {"snapshot_id": source}}} if source else {}))["volume"]
        check_equal("bytes of the new volume", int(made["capacity_bytes"]), mib * MIB)
        self.id = made["volume_id"]
        self.context = made.get("volume_context", {})

    @staticmethod
    def capability_for(fs_type, mode="SINGLE_NODE_WRITER", flags=()):
        how = {"block": {}} if fs_type is None else {"mount": {"fs_type": fs_type, "mount_flags": list(flags)}}
        return {**how, "access_mode": {"mode": mode}}

    # One step each

    def publish_to_node(self, **more):
        self.paths = self._controller.call(
            "ControllerPublishVolume", volume_id=self.id, node_id=HOST_NQN, volume_capability=self.capability,
            volume_context=self.context, **more)["publish_context"]

    def stage_request(self, **more):
        return {"volume_id": self.id, "staging_target_path": self.staging, "volume_capability": self.capability,
                "publish_context": self.paths, "volume_context": self.context, **more}

    def stage(self, **more):
        self._node.call("NodeStageVolume", **self.stage_request(**more))

    @staticmethod
    def target(pod):
        return f"{FOLDER}/pods/{pod}/volume"

    def publish_request(self, pod, **more):
        return {"volume_id": self.id, "staging_target_path": self.staging, "target_path": self.target(pod),
                "volume_capability": self.capability, "publish_context": self.paths, "volume_context": self.context, **more}

    def publish(self, pod=1, **more):
        """For a pod. Returns where the pod finds it."""
        self._node.call("NodePublishVolume", **self.publish_request(pod, **more))
        return self.target(pod)

    def unpublish(self, pod=1):
        self._node.call("NodeUnpublishVolume", volume_id=self.id, target_path=self.target(pod))

    def unstage(self):
        self._node.call("NodeUnstageVolume", volume_id=self.id, staging_target_path=self.staging)

    def unpublish_from_node(self):
        self._controller.call("ControllerUnpublishVolume", volume_id=self.id, node_id=HOST_NQN)

    def delete(self):
        self._controller.call("DeleteVolume", volume_id=self.id)

    # Several

    def attach(self, pod=1):
        """All that comes before a pod runs."""
        self.publish_to_node()
        self.stage()
        return self.publish(pod)

    def detach(self, pod=1):
        """All that comes after its end."""
        self.unpublish(pod)
        self.unstage()
        self.unpublish_from_node()

    def grow(self, mib, pod=1):
        asked = {"volume_id": self.id, "capacity_range": {"required_bytes": mib * MIB}, "volume_capability": self.capability}
        reply = self._controller.call("ControllerExpandVolume", **asked)
        check_equal("bytes that the controller tells", int(reply["capacity_bytes"]), mib * MIB)
        self.mib = mib
        if self.is_raw:  # the kernel sees it by itself
            check(not reply.get("node_expansion_required"), "the node is to be asked about a raw device")
            managed.wait_until(lambda: self.total_bytes(pod) == mib * MIB, "the device has not grown")
            return
        check(reply.get("node_expansion_required"), "the node is not to be asked")
        reply = self._node.call("NodeExpandVolume", **asked, volume_path=self.target(pod), staging_target_path=self.staging)
        check_equal("bytes that the node tells", int(reply["capacity_bytes"]), mib * MIB)

    def total_bytes(self, pod=1):
        """As the node plugin tells it."""
        reply = self._node.call("NodeGetVolumeStats", volume_id=self.id, volume_path=self.target(pod))
        return next(int(usage["total"]) for usage in reply["usage"] if usage["unit"] == "BYTES")

    # What is there

    def document(self):
        return self._kubelet.cluster.volume(self.id)

    def engine(self):
        """The one that serves it."""
        return self._kubelet.cluster.engine(self.document()["status"]["target"])

    def wanted_addresses(self):
        return sorted(path["address"] for path in self.document()["status"]["paths"])

    def connections(self):
        """The addresses of the guest's live connections to it."""
        said = self._kubelet.guest.sh(f"""grep -lsx '{self.paths["nqn"]}' /sys/class/nvme/nvme*/subsysnqn | while read -r file; do
                                            [ "$(cat ${{file%/*}}/state)" = live ] && cat ${{file%/*}}/address
                                          done 2>/dev/null; true""")  # one may go meanwhile
        parts = [dict(part.split("=", 1) for part in line.split(",")) for line in said.split()]
        return sorted(f"{part['traddr']}:{part['trsvcid']}" for part in parts)

    def await_all_paths(self):
        """Until the guest has a live connection to every address that the control plane tells of, and no other."""
        managed.wait_until(lambda: self.connections() == self.wanted_addresses(),
                           lambda: f"connected to {self.connections()}, and not to {self.wanted_addresses()}",
                           managed.SECONDS_MAX * guests.PATIENCE)

    def device(self):
        return self._kubelet.context.device(Subsystem(self.paths["nqn"]))

    def load(self, path):
        """Verified writes of a pod; see context.VerifiedLoad."""
        file = path if self.is_raw else str(pathlib.PurePosixPath(path) / "load")
        if not self.is_raw:
            self._kubelet.guest.sh(f"fallocate -l 4M {file} 2>/dev/null || truncate -s 4M {file}")
        return self._kubelet.context.verified_load(self.device(), file)


class Subsystem:
    """By its name, as Context.device() wants it."""

    def __init__(self, nqn):
        self.nqn = nqn
