"""Claims become volumes: the chart in a real control plane of Kubernetes, with the sidecars that it names, and three engines. Only the
kubelets are the test's own (kubelet.py): they attach nothing, but have done what a pod waits for."""

import argparse
import pathlib
import sys
import tempfile
import unittest

import chart
import go_programs
import live
import space
from live import CORE, GROUPS, SNAPSHOTS, STORAGE

MIB, GIB = 1 << 20, 1 << 30
SPACE = "default"
CLAIMS = f"{CORE}/namespaces/{SPACE}/persistentvolumeclaims"
PODS = f"{CORE}/namespaces/{SPACE}/pods"
TAKEN = f"{SNAPSHOTS}/namespaces/{SPACE}/volumesnapshots"
VALUES = {
    "control": {"sqlite": {"node": "a"}}, "topologyLabels": ["zone"], "csi": {"storageCapacity": True, "node": {"loadModule": False}},
    "storageClasses": [{"name": "fairlead", "replicas": 3}, {"name": "fairlead-single", "replicas": 1},
                       {"name": "now", "replicas": 1, "bindingMode": "Immediate"},
                       {"name": "two", "replicas": 2, "bindingMode": "Immediate"},
                       {"name": "kept", "replicas": 1, "bindingMode": "Immediate", "reclaimPolicy": "Retain"},
                       {"name": "north", "replicas": 1, "parameters": {"affinity": "topology.kubernetes.io/zone=north"}},
                       {"name": "apart", "replicas": 2, "parameters": {"spreadOver": "topology.kubernetes.io/zone"}}],
}
ACCOUNT = "system:serviceaccount:fairlead:fairlead-csi-controller"
fairlead = None
cluster = None


def quantity(text):
    for suffix, factor in (("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40)):
        if text.endswith(suffix):
            return int(text[:-2]) * factor
    return int(text)


def condition(document, kind):
    return next((each for each in document.get("status", {}).get("conditions", []) if each["type"] == kind), None)


class ClaimsTest(unittest.TestCase):
    def until(self, what, found):
        return cluster.until(what, found)

    # What users do

    def claim(self, name, storage_class, size="64Mi", mode="Filesystem", access="ReadWriteOnce", labels=None, **more):
        spec = {"storageClassName": storage_class, "accessModes": [access], "volumeMode": mode, "resources": {"requests": {"storage": size}}, **more}
        cluster.rest.must("POST", CLAIMS, {"metadata": {"name": name, "labels": labels or {}}, "spec": spec})

    def pod(self, name, *claims, node=None):
        volumes = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
        is_raw = {claim: cluster.rest.get(f"{CLAIMS}/{claim}")["spec"]["volumeMode"] == "Block" for claim in claims}
        container = {"name": "user", "image": "none", "volumeMounts": [{"name": each, "mountPath": f"/{each}"} for each in claims if not is_raw[each]],
                     "volumeDevices": [{"name": each, "devicePath": f"/dev/{each}"} for each in claims if is_raw[each]]}
        spec = {"containers": [container], "volumes": volumes, "nodeSelector": {"kubernetes.io/hostname": node} if node else {}}
        cluster.rest.must("POST", PODS, {"metadata": {"name": name}, "spec": spec})

    def snapshot(self, name, claim):
        cluster.rest.must("POST", TAKEN, {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": name}, "spec": {
            "volumeSnapshotClassName": "fairlead", "source": {"persistentVolumeClaimName": claim}}})

    def delete(self, path):
        cluster.rest.ask("DELETE", path)

    # What they see

    def bound(self, claim):
        """The PersistentVolume, as soon as the claim has one."""
        found = self.until(f"{claim} is bound", lambda: [each for each in [cluster.rest.get(f"{CLAIMS}/{claim}")] if each["status"]["phase"] == "Bound"])
        return cluster.rest.get(f"{CORE}/persistentvolumes/{found[0]['spec']['volumeName']}")

    def running(self, name):
        return self.until(f"{name} runs", lambda: next((each for each in [cluster.rest.get(f"{PODS}/{name}")]
                                                        if each["status"].get("phase") == "Running"), None))

    def gone(self, path):
        self.until(f"{path} is gone", lambda: cluster.rest.get(path) is None)

    def ready(self, name):
        return self.until(f"{name} is taken", lambda: next((each for each in [cluster.rest.get(f"{TAKEN}/{name}")]
                                                            if each.get("status", {}).get("readyToUse")), None))

    def volume(self, persistent):
        """What the control plane knows of it."""
        return cluster.control.get(f"/v1/volumes/{persistent['spec']['csi']['volumeHandle']}")

    def hosts(self, persistent):
        """Nodes that its engines let in."""
        prefix = "nqn.2026-01.io.fairlead:host:"
        return {each.removeprefix(prefix) for each in self.volume(persistent)["spec"]["allowed_hosts"] if each.startswith(prefix)}

    def attachments(self, persistent):
        return {each["spec"]["nodeName"]: each["status"]["attached"] for each in cluster.rest.items(f"{STORAGE}/volumeattachments")
                if each["spec"]["source"].get("persistentVolumeName") == persistent["metadata"]["name"]}

    def nodes_of(self, volume):
        return {each["node"] for each in volume["status"]["replicas"]}

    def complaint(self, kind, name, words):
        """An event about an object that has these words."""
        return self.until(f"{name} is told of {words}", lambda: next(
            (each for each in cluster.rest.items(f"{CORE}/namespaces/{SPACE}/events")
             if (each["involvedObject"]["kind"], each["involvedObject"]["name"]) == (kind, name) and words in each["message"]), None))

    def drop(self, *claims):
        """Deletes claims, and waits until nothing is left of them."""
        volumes = [cluster.rest.get(f"{CLAIMS}/{claim}")["spec"].get("volumeName") for claim in claims]
        for claim in claims:
            self.delete(f"{CLAIMS}/{claim}")
        for name in filter(None, volumes):
            self.gone(f"{CORE}/persistentvolumes/{name}")
            self.assertIsNone(cluster.control.get(f"/v1/volumes/{name}"))

    def end(self, *pods):
        for name in pods:
            self.delete(f"{PODS}/{name}")
        for name in pods:
            self.gone(f"{PODS}/{name}")


class InstalledTest(ClaimsTest):
    def test_each_node_has_a_pool(self):
        pools = cluster.control.items("/v1/pools")
        self.assertEqual({(each["spec"]["node"], each["status"]["state"]) for each in pools}, {(node, "online") for node in live.NODES})
        zones = {each["name"]: each["labels"].get("topology.kubernetes.io/zone") for each in cluster.control.items("/v1/nodes")}
        self.assertEqual(zones, {node: zone for node, (_, zone) in live.NODES.items()})

    def test_sidecars_are_of_the_versions_that_the_chart_names(self):
        images = chart.find(chart.render(VALUES, *chart.WITH_SNAPSHOTS), "Deployment", "fairlead-csi-controller")["spec"]["template"]["spec"]["containers"]
        named = {each["image"].rpartition("/")[2].partition(":")[0]: each["image"].rpartition(":v")[2] for each in images}
        pinned = (go_programs.MODULES / "sidecars" / "go.mod").read_text()
        for sidecar in live.SIDECARS:
            major, minor, _ = named[sidecar].split(".")
            self.assertRegex(pinned, rf"external-{sidecar.removeprefix('csi-')}/v{major} v{major}\.{minor}\.\d+ ", sidecar)

    def test_the_scheduler_is_told_of_room(self):
        """By node of the driver's topology and class that waits for a pod. The sidecar asks anew each minute."""
        def rooms():
            found = {}
            for each in cluster.rest.items(f"{STORAGE}/csistoragecapacities"):
                labels = each["nodeTopology"]["matchLabels"]
                found.setdefault(each["storageClassName"], {})[labels["topology.fairlead.dev/node"]] = each
            all_told = all(quantity(found.get(name, {}).get(node, {}).get("capacity", "0")) > 15 * GIB
                           for name in ("fairlead", "fairlead-single") for node in live.NODES)
            return found if all_told else None
        found = self.until("room is told of", rooms)
        self.assertEqual(set(found), {"fairlead", "fairlead-single", "north", "apart"})
        for each in found["fairlead"].values():
            self.assertEqual([owner["kind"] for owner in each["metadata"]["ownerReferences"]], ["Deployment"])

    def test_of_a_class_that_is_gone_nothing_is_told(self):
        def told():
            return [each for each in cluster.rest.items(f"{STORAGE}/csistoragecapacities") if each["storageClassName"] == "short"]
        cluster.rest.must("POST", f"{STORAGE}/storageclasses", {"metadata": {"name": "short"}, "provisioner": "fairlead.dev",
                                                                "volumeBindingMode": "WaitForFirstConsumer"})
        self.until("room is told of", lambda: len(told()) == len(live.NODES))
        self.delete(f"{STORAGE}/storageclasses/short")
        self.until("it is gone", lambda: not told())

    def test_a_claim_that_has_no_room_is_not_scheduled(self):
        self.claim("huge", "fairlead-single", "500Gi")
        self.pod("huge", "huge")
        event = self.complaint("Pod", "huge", "did not have enough free storage")
        self.assertEqual(event["reason"], "FailedScheduling")
        self.end("huge")
        self.drop("huge")


class LifeTest(ClaimsTest):
    def test_from_claim_to_disk_and_back(self):
        self.claim("data", "fairlead", "100Mi")
        self.complaint("PersistentVolumeClaim", "data", "waiting for first consumer")
        self.pod("first", "data", node="b")
        self.running("first")
        persistent = self.bound("data")
        self.assertEqual(persistent["spec"]["csi"]["driver"], "fairlead.dev")
        self.assertEqual(persistent["spec"]["csi"]["fsType"], "ext4")
        self.assertEqual(quantity(persistent["spec"]["capacity"]["storage"]), 100 * MIB)
        self.assertNotIn("nodeAffinity", persistent["spec"])  # it can be used from every node
        volume = self.volume(persistent)
        self.assertEqual(volume["status"]["state"], "online")
        self.assertEqual(self.nodes_of(volume), set(live.NODES))
        self.assertEqual(volume["status"]["target"], "b")
        self.assertEqual((volume["labels"]["fairlead.dev/pvc"], volume["labels"]["fairlead.dev/pvc-namespace"]), ("data", SPACE))
        self.assertEqual(self.attachments(persistent), {"b": True})
        self.assertEqual(self.hosts(persistent), {"b"})

        # The pod goes to another node, and its disk with it.
        self.end("first")
        self.until("detached", lambda: not self.attachments(persistent))
        self.assertEqual(self.hosts(persistent), set())
        self.pod("second", "data", node="c")
        self.running("second")
        self.assertEqual(self.attachments(persistent), {"c": True})
        self.assertEqual(self.hosts(persistent), {"c"})

        # In use it is not deleted.
        self.delete(f"{CLAIMS}/data")
        self.assertIsNotNone(cluster.rest.get(f"{CLAIMS}/data"))
        self.assertIsNotNone(self.volume(persistent))
        self.end("second")
        self.gone(f"{CORE}/persistentvolumes/{persistent['metadata']['name']}")
        self.assertIsNone(self.volume(persistent))
        self.assertEqual(self.attachments(persistent), {})

    def test_at_once(self):
        self.claim("early", "now")
        self.assertEqual(len(self.volume(self.bound("early"))["status"]["replicas"]), 1)
        self.drop("early")

    def test_its_disk_is_where_its_pod_is(self):
        for node in live.NODES:
            self.claim(f"near-{node}", "fairlead-single")
            self.pod(f"near-{node}", f"near-{node}", node=node)
        for node in live.NODES:
            self.running(f"near-{node}")
            self.assertEqual(self.nodes_of(self.volume(self.bound(f"near-{node}"))), {node})
        self.end(*(f"near-{node}" for node in live.NODES))
        self.drop(*(f"near-{node}" for node in live.NODES))

    def test_classes_say_where(self):
        self.claim("north", "north")
        self.pod("north", "north", node="b")
        self.claim("apart", "apart")
        self.pod("apart", "apart", node="b")
        self.running("north")
        self.running("apart")
        self.assertEqual(self.nodes_of(self.volume(self.bound("north"))), {"a"})
        apart = self.nodes_of(self.volume(self.bound("apart")))
        self.assertIn("a", apart)
        self.assertEqual(len(apart), 2)
        self.end("north", "apart")
        self.drop("north", "apart")

    def test_what_is_to_be_kept_is_kept(self):
        self.claim("kept", "kept")
        persistent = self.bound("kept")
        path = f"{CORE}/persistentvolumes/{persistent['metadata']['name']}"
        self.delete(f"{CLAIMS}/kept")
        self.until("released", lambda: cluster.rest.get(path)["status"]["phase"] == "Released")
        self.assertEqual(self.volume(persistent)["status"]["state"], "online")
        cluster.rest.patch(path, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
        self.gone(path)
        self.assertIsNone(self.volume(persistent))

    def test_two_nodes_share_a_raw_device_and_no_file_system(self):
        self.claim("shared", "now", mode="Block", access="ReadWriteMany")
        self.pod("left", "shared", node="a")
        self.pod("right", "shared", node="b")
        self.running("left")
        self.running("right")
        persistent = self.bound("shared")
        self.assertEqual(self.attachments(persistent), {"a": True, "b": True})
        self.assertEqual(self.hosts(persistent), {"a", "b"})
        self.end("left")
        self.until("detached from one", lambda: self.attachments(persistent) == {"b": True})
        self.assertEqual(self.hosts(persistent), {"b"})
        self.end("right")
        self.drop("shared")
        self.claim("torn", "now", access="ReadWriteMany")
        self.complaint("PersistentVolumeClaim", "torn", "a file system is for one machine at a time")
        self.drop("torn")

    def test_what_is_not_known_is_named(self):
        cluster.rest.must("POST", f"{STORAGE}/storageclasses", {"metadata": {"name": "odd"}, "provisioner": "fairlead.dev",
                                                                "parameters": {"replicas": "1", "colour": "blue"}})
        self.claim("odd", "odd")
        event = self.complaint("PersistentVolumeClaim", "odd", "colour")
        self.assertEqual((event["type"], event["reason"]), ("Warning", "ProvisioningFailed"))
        self.drop("odd")
        self.delete(f"{STORAGE}/storageclasses/odd")


class ChangeTest(ClaimsTest):
    def test_it_grows_in_use(self):
        for name, mode in (("files", "Filesystem"), ("raw", "Block")):
            self.claim(name, "now", mode=mode)
            self.pod(name, name)
            self.running(name)
            cluster.rest.patch(f"{CLAIMS}/{name}", {"spec": {"resources": {"requests": {"storage": "160Mi"}}}})
        for name in ("files", "raw"):
            persistent = self.bound(name)
            self.until(f"{name} has grown", lambda: quantity(self.bound(name)["spec"]["capacity"]["storage"]) == 160 * MIB)
            self.assertEqual(self.volume(persistent)["status"]["size_bytes"], 160 * MIB)
        self.until("a raw device has grown at once", lambda: quantity(cluster.rest.get(f"{CLAIMS}/raw")["status"]["capacity"]["storage"]) == 160 * MIB)
        # The file system is for the node to grow.
        self.until("the node's turn", lambda: condition(cluster.rest.get(f"{CLAIMS}/files"), "FileSystemResizePending"))
        self.assertEqual(quantity(cluster.rest.get(f"{CLAIMS}/files")["status"]["capacity"]["storage"]), 64 * MIB)
        self.end("files", "raw")
        self.drop("files", "raw")

    def test_what_the_page_shows_of_snapshots_is_taken(self):
        paths = {"VolumeSnapshot": TAKEN, "PersistentVolumeClaim": CLAIMS, "VolumeGroupSnapshot": f"{GROUPS}/namespaces/{SPACE}/volumegroupsnapshots"}
        shown = chart.documents_in(go_programs.ROOT / "docs" / "kubernetes.md", "Snapshots and clones")
        self.assertEqual({each["kind"] for each in shown}, set(paths))
        for each in shown:
            cluster.rest.must("POST", f"{paths[each['kind']]}?dryRun=All&fieldValidation=Strict", each)

    def test_snapshot_restore_and_clone(self):
        self.claim("source", "fairlead", "96Mi")
        self.pod("source", "source")
        self.running("source")
        self.snapshot("shot", "source")
        shot = self.ready("shot")
        self.assertEqual(quantity(shot["status"]["restoreSize"]), 96 * MIB)
        content = cluster.rest.get(f"{SNAPSHOTS}/volumesnapshotcontents/{shot['status']['boundVolumeSnapshotContentName']}")
        handle = content["status"]["snapshotHandle"]
        source = self.bound("source")
        self.assertEqual(cluster.control.get(f"/v1/snapshots/{handle}")["spec"]["volume"], source["spec"]["csi"]["volumeHandle"])

        self.claim("restored", "now", "128Mi", dataSource={"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "shot"})
        self.claim("clone", "now", "96Mi", dataSource={"kind": "PersistentVolumeClaim", "name": "source"})
        restored = self.volume(self.bound("restored"))
        self.assertEqual((restored["spec"]["source"], restored["spec"]["size_bytes"]), (handle, 128 * MIB))
        clone = self.volume(self.bound("clone"))
        self.assertEqual(clone["labels"]["fairlead.dev/source-volume"], source["spec"]["csi"]["volumeHandle"])
        # What it was cloned through is gone already; what the user has taken is not.
        self.assertEqual([each["name"] for each in cluster.control.items("/v1/snapshots")], [handle])

        self.claim("small", "now", "32Mi", dataSource={"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "shot"})
        self.complaint("PersistentVolumeClaim", "small", "less than the size")
        self.delete(f"{CLAIMS}/small")

        self.end("source")
        self.drop("restored", "clone")
        self.delete(f"{TAKEN}/shot")
        self.gone(f"{SNAPSHOTS}/volumesnapshotcontents/{content['metadata']['name']}")
        self.assertEqual(cluster.control.items("/v1/snapshots"), [])
        self.drop("source")

    def test_several_claims_at_one_moment(self):
        path = f"{GROUPS}/namespaces/{SPACE}/volumegroupsnapshots"
        for name, labels in (("shop-data", {"app": "shop"}), ("shop-log", {"app": "shop"}), ("other", {"app": "other"})):
            self.claim(name, "now", labels=labels)
            self.bound(name)
        cluster.rest.must("POST", path, {"apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshot", "metadata": {"name": "monday"}, "spec": {
            "volumeGroupSnapshotClassName": "fairlead", "source": {"selector": {"matchLabels": {"app": "shop"}}}}})
        taken = self.until("the group is taken", lambda: next((each for each in [cluster.rest.get(f"{path}/monday")]
                                                                if each.get("status", {}).get("readyToUse")), None))
        content = cluster.rest.get(f"{GROUPS}/volumegroupsnapshotcontents/{taken['status']['boundVolumeGroupSnapshotContentName']}")
        group = cluster.control.get(f"/v1/snapshot-groups/{content['status']['volumeGroupSnapshotHandle']}")
        self.assertEqual(set(group["spec"]["volumes"]), {self.bound(name)["spec"]["csi"]["volumeHandle"] for name in ("shop-data", "shop-log")})
        self.assertEqual(group["status"]["state"], "ready")

        # Each claim has a snapshot of its own, by which it is restored, and which is deleted with the group only.
        def ready():
            found = [each for each in cluster.rest.items(TAKEN) if each.get("status", {}).get("readyToUse")]
            return found if len(found) == 2 else None
        members = self.until("each has one", ready)
        for number, member in enumerate(members):
            self.assertEqual(member["status"]["volumeGroupSnapshotName"], "monday")
            self.claim(f"restored-{number}", "now", dataSource={"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot",
                                                                "name": member["metadata"]["name"]})
        names = {each["name"] for each in group["status"]["snapshots"]}
        self.assertEqual({self.volume(self.bound(f"restored-{number}"))["spec"]["source"] for number in range(2)}, names)
        self.drop("restored-0", "restored-1")
        self.delete(f"{path}/monday")
        self.gone(f"{GROUPS}/volumegroupsnapshotcontents/{content['metadata']['name']}")
        self.until("the group is gone", lambda: not cluster.control.items("/v1/snapshot-groups"))
        self.drop("shop-data", "shop-log", "other")

    def test_its_class_of_attributes_changes_it(self):
        for name, parameters in (("safer", {"replicas": "3", "resyncShare": "20"}), ("odd", {"colour": "blue"})):
            cluster.rest.must("POST", f"{STORAGE}/volumeattributesclasses", {"metadata": {"name": name}, "driverName": "fairlead.dev", "parameters": parameters})
        self.claim("changing", "two")
        self.pod("changing", "changing")
        self.running("changing")
        persistent = self.bound("changing")
        self.assertEqual(len(self.nodes_of(self.volume(persistent))), 2)
        cluster.rest.patch(f"{CLAIMS}/changing", {"spec": {"volumeAttributesClassName": "safer"}})
        self.until("changed", lambda: cluster.rest.get(f"{CLAIMS}/changing")["status"].get("currentVolumeAttributesClassName") == "safer")
        self.assertEqual(self.volume(persistent)["spec"]["replicas"], 3)
        self.assertEqual(self.volume(persistent)["spec"]["resync_share"], 20)
        self.until("three replicas are there", lambda: self.volume(persistent)["status"]["state"] == "online"
                   and self.nodes_of(self.volume(persistent)) == set(live.NODES))
        self.end("changing")
        self.claim("unchanged", "now")
        persistent = self.bound("unchanged")
        cluster.rest.patch(f"{CLAIMS}/unchanged", {"spec": {"volumeAttributesClassName": "odd"}})
        self.assertEqual(self.complaint("PersistentVolumeClaim", "unchanged", "colour")["reason"], "VolumeModifyFailed")
        self.assertEqual(self.volume(persistent)["spec"]["replicas"], 1)
        self.drop("changing", "unchanged")
        for name in ("safer", "odd"):
            self.delete(f"{STORAGE}/volumeattributesclasses/{name}")


class CrashTest(ClaimsTest):
    def test_the_driver_is_killed_at_any_time(self):
        """Each claim gets one volume, none is left over, whatever the driver was doing when it was killed."""
        names = [f"crash-{number}" for number in range(6)]
        for name in names:
            self.claim(name, "now", "48Mi")
            cluster.kubelets.work()
            cluster.kubelets.kill("csi-controller", "driver")
        volumes = [self.bound(name) for name in names]
        self.assertEqual(len({each["spec"]["csi"]["volumeHandle"] for each in volumes}), len(names))
        for name in names:
            self.pod(name, name)
            cluster.kubelets.work()
        cluster.kubelets.kill("csi-controller", "driver")
        for name in names:
            self.running(name)
        for name in names:
            self.delete(f"{PODS}/{name}")
            cluster.kubelets.work()
            cluster.kubelets.kill("csi-controller", "driver")
        for name in names:
            self.gone(f"{PODS}/{name}")
        for name in names:
            self.delete(f"{CLAIMS}/{name}")
        cluster.kubelets.kill("csi-controller", "driver")
        for each in volumes:
            self.gone(f"{CORE}/persistentvolumes/{each['metadata']['name']}")

    def test_a_node_is_lost(self):
        """As docs/storage-class.md tells what to do."""
        self.claim("orphan", "fairlead")
        self.pod("before", "orphan", node="c")
        self.running("before")
        persistent = self.bound("orphan")
        self.assertEqual(self.volume(persistent)["status"]["target"], "c")
        cluster.kubelets.lose("c")
        self.until("the node is not ready", lambda: condition(cluster.rest.get(f"{CORE}/nodes/c"), "Ready")["status"] == "Unknown")
        self.assertEqual(self.hosts(persistent), {"c"})
        self.out_of_service("c", True)
        self.pod("after", "orphan", node="a")
        self.running("after")
        self.assertEqual(self.attachments(persistent), {"a": True})
        self.assertEqual(self.hosts(persistent), {"a"})
        self.assertIn(self.volume(persistent)["status"]["target"], {"a", "b"})
        cluster.kubelets.regain("c")
        self.out_of_service("c", False)
        self.until("all is well", lambda: cluster.control.get("/v1/overview")["well"])
        self.assertIsNone(cluster.rest.get(f"{PODS}/before"))
        self.end("after")
        self.drop("orphan")

    def out_of_service(self, node, is_out):
        path, key = f"{CORE}/nodes/{node}", "node.kubernetes.io/out-of-service"
        others = [each for each in cluster.rest.get(path)["spec"].get("taints", []) if each["key"] != key]
        cluster.rest.patch(path, {"spec": {"taints": others + [{"key": key, "value": "lost", "effect": "NoExecute"}] * is_out}})


class NothingLeftTest(ClaimsTest):
    """The last: what all tests have made is gone."""

    def test_nothing_is_left(self):
        for path in (f"{CORE}/persistentvolumeclaims", f"{CORE}/persistentvolumes", f"{STORAGE}/volumeattachments",
                     f"{SNAPSHOTS}/volumesnapshots", f"{SNAPSHOTS}/volumesnapshotcontents", f"{GROUPS}/volumegroupsnapshotcontents"):
            self.until(f"{path} is empty", lambda path=path: not cluster.rest.items(path))
        for path in ("/v1/volumes", "/v1/replicas", "/v1/snapshots", "/v1/snapshot-groups"):
            self.until(f"{path} is empty", lambda path=path: not cluster.control.items(path))
        self.assertTrue(cluster.control.get("/v1/overview")["well"])

    def test_nothing_ended_by_itself(self):
        """A sidecar may end when it loses the driver."""
        sidecars = {each.removeprefix("csi-") for each in live.SIDECARS}
        self.assertLessEqual({container for _, container in cluster.kubelets.ended}, sidecars)


class RightsTest(ClaimsTest):
    """After all that: what the sidecars' account has asked the API server for, held against what it may."""

    def used(self):
        found = set()
        for each in cluster.server.asked():
            if "objectRef" in each and each["user"]["username"] == ACCOUNT:
                thing = each["objectRef"]
                resource = "/".join(filter(None, (thing["resource"], thing.get("subresource"))))
                found.add((thing.get("apiGroup", ""), resource, each["verb"]))
        return found

    def granted(self):
        rights = "/apis/rbac.authorization.k8s.io/v1"
        roles = [each for each in cluster.rest.items(f"{rights}/clusterroles") if each["metadata"]["name"].startswith("fairlead-csi-")]
        roles.append(cluster.rest.get(f"{rights}/namespaces/fairlead/roles/fairlead-csi-controller"))
        return {(group, resource, verb) for role in roles for rule in role["rules"]
                for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]}

    def test_nobody_was_refused(self):
        refused = [each for each in cluster.server.asked() if each.get("responseStatus", {}).get("code") == 403]
        self.assertEqual([(each["verb"], each["requestURI"]) for each in refused], [])

    def test_what_is_granted_is_used(self):
        """But for getting what they list and watch too: they do so when what they have seen is old."""
        self.assertEqual({each for each in self.granted() - self.used() if each[2] != "get"}, set())


def load_tests(loader, _, __):
    """In this order."""
    cases = (InstalledTest, LifeTest, ChangeTest, CrashTest, NothingLeftTest, RightsTest)
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)


def main():
    global cluster, fairlead
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    arguments, others = parser.parse_known_args()
    fairlead = arguments.fairlead.resolve()
    for program in go_programs.PROGRAMS:
        go_programs.build(program)
    go_programs.module_folder("crds", live.SNAPSHOT_MODULE)
    space.enter()
    with tempfile.TemporaryDirectory() as folder:
        cluster = live.Cluster(folder, fairlead, VALUES)
        try:
            cluster.until("each node has a pool", lambda: [each["status"]["state"] for each in cluster.pools()] == ["online"] * 3)
            return unittest.main(argv=[sys.argv[0], *others], exit=False).result
        finally:
            cluster.stop()


if __name__ == "__main__":
    sys.exit(0 if main().wasSuccessful() else 1)
