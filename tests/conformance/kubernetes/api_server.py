"""A real API server of Kubernetes, with an etcd of its own, and if wanted the controllers and the scheduler that stand behind it.
Without these it checks and keeps what it is given, and nobody makes pods of it."""

import json
import os
import pathlib
import secrets
import signal
import subprocess
import time

import go_programs
import pod

SECONDS_MAX = 240
PORTS = {"etcd": 2379, "peer": 2380, "api": 443, "controllers": 10257, "scheduler": 10259}
NODE = "192.0.2.1"  # where it is
ADDRESS = "10.0.0.1"  # as pods know it
# What accounts of the chart ask for is written down.
AUDIT = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, userGroups: ["system:serviceaccounts:fairlead"]}
  - {level: None}
"""


def die_with_parent():
    pod._libc.prctl(pod.PR_SET_PDEATHSIG, signal.SIGKILL)


class ApiServer:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.token = secrets.token_hex(16)
        self.processes = []
        self.kubeconfig = self.folder / "kubeconfig"
        (self.folder / "tokens.csv").write_text(f"{self.token},tester,1,system:masters\n")
        made = subprocess.run(["openssl", "genrsa", "-out", self.folder / "accounts.key", "2048"], capture_output=True, timeout=60, check=False)
        if made.returncode:
            raise AssertionError(made.stderr)
        self.kubeconfig.write_text(f"""apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: tester}}}}]
clusters: [{{name: test, cluster: {{server: "https://{NODE}:{PORTS['api']}", insecure-skip-tls-verify: true}}}}]
users: [{{name: tester, user: {{token: {self.token}}}}}]
""")
        self._start_etcd()
        self._start_api()

    def _run(self, name, *words):
        log = open(self.folder / f"{name}.log", "ab")
        process = subprocess.Popen(list(map(str, words)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
        log.close()
        self.processes.append((name, process))

    def _start_etcd(self):
        client, peer = f"http://127.0.0.1:{PORTS['etcd']}", f"http://127.0.0.1:{PORTS['peer']}"
        self._run("etcd", "etcd", "--data-dir", self.folder / "etcd", "--listen-client-urls", client, "--advertise-client-urls", client,
                  "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
                  "--unsafe-no-fsync")

    def _start_api(self):
        key = self.folder / "accounts.key"
        (self.folder / "audit.yaml").write_text(AUDIT)
        self._run("kube-apiserver", go_programs.build("kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{PORTS['etcd']}",
                  f"--secure-port={PORTS['api']}", "--bind-address=0.0.0.0", f"--advertise-address={NODE}", f"--cert-dir={self.folder}/certificates",
                  f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}", "--service-account-issuer=https://kubernetes",
                  "--service-cluster-ip-range=10.0.0.0/16", "--authorization-mode=RBAC", f"--token-auth-file={self.folder}/tokens.csv",
                  "--allow-privileged=true", f"--audit-policy-file={self.folder}/audit.yaml", f"--audit-log-path={self.folder}/audit.log")
        deadline = time.monotonic() + SECONDS_MAX
        while self.kubectl("get", "--raw", "/readyz").returncode or self.kubectl("get", "serviceaccounts").returncode:
            self.check()
            if time.monotonic() > deadline:
                raise AssertionError(f"the API server does not become ready: {self.log('kube-apiserver')}")

    def start_controllers(self):
        common = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1"]
        self._run("kube-controller-manager", go_programs.build("kube-controller-manager"), *common, f"--secure-port={PORTS['controllers']}",
                  f"--cert-dir={self.folder}/controllers", f"--service-account-private-key-file={self.folder}/accounts.key",
                  f"--root-ca-file={self.ca()}", f"--flex-volume-plugin-dir={self.folder}/flex")
        self._run("kube-scheduler", go_programs.build("kube-scheduler"), *common, f"--secure-port={PORTS['scheduler']}",
                  f"--cert-dir={self.folder}/scheduler")

    def start_snapshot_controller(self):
        self._run("snapshot-controller", go_programs.build("snapshot-controller"), f"--kubeconfig={self.kubeconfig}",
                  "--feature-gates=CSIVolumeGroupSnapshot=true")

    def check(self):
        """AssertionError when one of its processes has ended."""
        for name, process in self.processes:
            if process.poll() is not None:
                raise AssertionError(f"{name} has ended: {self.log(name)}")

    def ca(self):
        """Whom to trust: it signs for itself."""
        return self.folder / "certificates" / "apiserver.crt"

    def asked(self):
        """What the chart's accounts have asked for: records of the API server."""
        return [json.loads(line) for line in (self.folder / "audit.log").read_text().splitlines()]

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()[-3000:]

    def environment(self):
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)}

    def kubectl(self, *words, text=None):
        return subprocess.run([go_programs.build("kubectl"), *map(str, words)], input=text, stdin=None if text else subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120, env=self.environment(), check=False)

    def stop(self):
        for _, process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
