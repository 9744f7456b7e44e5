"""Nodes of a cluster, and what a kubelet does for the pods that the scheduler places on them: those of the chart become processes
(pod.py), others are Running as soon as their claims are attached. It acts when it is told to, and never by itself."""

import datetime
import signal
import time

import pod

LEASE_SECONDS = 5
ATTACHED_BY_CONTROLLER = "volumes.kubernetes.io/controller-managed-attach-detach"
DRIVER = "fairlead.dev"


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Kubelets:
    """`nodes`: name: (address, zone). `cluster` is a pod.Cluster; pods of its namespace are the chart's."""

    def __init__(self, rest, cluster, nodes):
        self.rest, self.cluster, self.nodes = rest, cluster, nodes
        self.running = {}  # name of the pod: pod.Pod
        self.renewed = 0
        self.lost = set()  # nodes whose power is off
        self.killed = set()  # (name of the pod, container), by the test
        self.ended = set()  # the same, by themselves
        for name, (address, zone) in nodes.items():
            self._register(name, address, zone)

    def _register(self, name, address, zone):
        """As it does when it starts, and when a driver is there: CSINode says what NodeGetInfo answers."""
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone, "topology.fairlead.dev/node": name}
        node = {"metadata": {"name": name, "labels": labels, "annotations": {ATTACHED_BY_CONTROLLER: "true"}}}
        self.rest.must("POST", "/api/v1/nodes", node)
        self._tell_ready(name, address)
        self.rest.must("POST", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
                       {"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now()}})
        driver = {"name": DRIVER, "nodeID": f"nqn.2026-01.io.fairlead:host:{name}",
                  "topologyKeys": ["topology.fairlead.dev/node", "topology.kubernetes.io/zone"]}
        self.rest.must("POST", "/apis/storage.k8s.io/v1/csinodes", {"metadata": {"name": name}, "spec": {"drivers": [driver]}})

    def _tell_ready(self, name, address):
        room = {"cpu": "64", "memory": "64Gi", "pods": "100"}
        self.rest.patch(f"/api/v1/nodes/{name}/status", {"status": {
            "capacity": room, "allocatable": room, "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                            "lastHeartbeatTime": now()[:19] + "Z", "lastTransitionTime": now()[:19] + "Z"}]}})

    def work(self):
        """One round."""
        if time.monotonic() - self.renewed > LEASE_SECONDS:
            for name in self.nodes.keys() - self.lost:
                self.rest.patch(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}", {"spec": {"renewTime": now()}})
            self.renewed = time.monotonic()
        pods = self.rest.items("/api/v1/pods")
        for name in self.running.keys() - {each["metadata"]["name"] for each in pods}:
            self.running.pop(name).stop()
        for each in pods:
            if each["spec"].get("nodeName") not in self.nodes.keys() - self.lost or each["status"].get("phase") in ("Succeeded", "Failed"):
                continue
            if "deletionTimestamp" in each["metadata"]:
                self._end(each)
            elif each["metadata"]["namespace"] == pod.NAMESPACE:
                self._keep_running(each)
            elif each["status"].get("phase") == "Pending" and self._is_attached(each):
                self._set_status(each)

    def _path(self, each):
        return f"/api/v1/namespaces/{each['metadata']['namespace']}/pods/{each['metadata']['name']}"

    def _end(self, each):
        found = self.running.pop(each["metadata"]["name"], None)
        if found:
            found.stop()
        self.rest.ask("DELETE", self._path(each), {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})

    def _set_status(self, each):
        address = self.nodes[each["spec"]["nodeName"]][0]
        ready = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")]
        self.rest.ask("PATCH", self._path(each) + "/status", {"status": {
            "phase": "Running", "hostIP": address, "podIP": address, "startTime": now()[:19] + "Z", "conditions": ready}},
            "application/strategic-merge-patch+json")

    def _keep_running(self, each):
        name, node = each["metadata"]["name"], each["spec"]["nodeName"]
        if name not in self.running:
            self.running[name] = pod.Pod(self.cluster, each, name, node, self.nodes[node][0])
            self.running[name].run(*(container["name"] for container in each["spec"]["containers"] if self.cluster.has_program(container)))
            self._set_status(each)
        started = self.running[name]
        for container in each["spec"]["containers"]:
            process = started.processes.get(container["name"])
            if process and process.poll() is not None:
                key = (name, container["name"])
                if key in self.killed:
                    self.killed.remove(key)
                else:
                    self.ended.add(key)
                started.processes[container["name"]] = started.start(container)

    def _is_attached(self, each):
        node = each["spec"]["nodeName"]
        attachments = {(one["spec"]["nodeName"], one["spec"]["source"].get("persistentVolumeName")): one.get("status", {}).get("attached")
                       for one in self.rest.items("/apis/storage.k8s.io/v1/volumeattachments")}
        for volume in each["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                name = volume["persistentVolumeClaim"]["claimName"]
                claim = self.rest.get(f"/api/v1/namespaces/{each['metadata']['namespace']}/persistentvolumeclaims/{name}")
                if not claim or not attachments.get((node, claim["spec"].get("volumeName"))):
                    return False
        return True

    def kill(self, component, container):
        """SIGKILL to a container of the chart's pod of a component; it is started again by work()."""
        found = next(each for each in self.running.values() if each.template["metadata"]["labels"]["app.kubernetes.io/component"] == component)
        self._kill(found, container)

    def _kill(self, found, container):
        process = found.processes[container]
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.killed.add((found.name, container))

    def lose(self, node):
        """Its power goes off: nothing on it lives, and nobody speaks for it."""
        self.lost.add(node)
        for found in self.running.values():
            if found.node == node:
                for container in found.processes:
                    self._kill(found, container)

    def regain(self, node):
        self.lost.remove(node)
        self._tell_ready(node, self.nodes[node][0])

    def logs(self):
        return "".join(f"\n{name}/{container}: {found.log(container)[-1500:]}" for name, found in self.running.items() for container in found.processes)

    def stop(self):
        for found in reversed(list(self.running.values())):
            found.stop()
