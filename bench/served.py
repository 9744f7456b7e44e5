"""`fairlead serve` as a process: started, watched from /proc, stopped."""

import os
import re
import subprocess


class Served:
    """Runs until the end of its `with`, on processor `cpu` if one is named. Listens on a port that the system chose."""

    def __init__(self, fairlead, *arguments, cpu=None):
        self._process = subprocess.Popen(
            [str(fairlead), "serve", "--listen", "127.0.0.1:0", *(str(argument) for argument in arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            preexec_fn=None if cpu is None else lambda: os.sched_setaffinity(0, {cpu}))
        said = ""
        for line in self._process.stdout:
            said += line
            if line.strip() == "ready":
                break
        else:
            raise RuntimeError(f"fairlead serve ended with {self._process.wait()}: {said}")
        self.address = ("127.0.0.1", int(re.search(r"listening on 127\.0\.0\.1:(\d+)", said)[1]))
        self.nqn = re.search(r" as (nqn\S+)", said)[1]
        self.url = f"nvme+tcp://127.0.0.1:{self.address[1]}/{self.nqn}?ns=1"

    @property
    def pid(self):
        return self._process.pid

    def cpu_seconds(self):
        """Time on a processor of all its threads so far, user and system, to the nanosecond."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/schedstat") as schedstat:
                total += int(schedstat.read().split()[0])
        return total / 1e9

    def resident_mib(self):
        with open(f"/proc/{self.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) / 1024

    def wakeups(self):
        """Times that its threads gave up the processor by themselves: each is a sleep, and so a wake."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/status") as status:
                total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read(), re.M)[1])
        return total

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
