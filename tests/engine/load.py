"""A verified load, under way."""

import json
import pathlib
import signal
import time

IO_SECONDS_MAX = 20


class Load:
    """A verified load of random reads and writes."""

    def __init__(self, cluster, *arguments):
        self._process = cluster.load(*arguments)

    def processor_seconds(self):
        """None: it has ended."""
        if self._process.poll() is not None:
            return None
        text = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = text[text.rindex(")") + 2:].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def await_io(self):
        """Until it has done something, or all: a host whose I/O waits takes hardly any processor time."""
        before = self.processor_seconds()
        deadline = time.monotonic() + IO_SECONDS_MAX
        while (now := self.processor_seconds()) is not None and now < before + 0.05:
            if time.monotonic() > deadline:
                raise AssertionError(f"no I/O in {IO_SECONDS_MAX} s")
            time.sleep(0.01)  # between two looks; nothing tells us

    def end(self):
        """No more of it but to read back what it wrote."""
        self._process.send_signal(signal.SIGINT)

    def finish(self, seconds_max=60):
        """When it has ended: what it says. A request that failed, or a byte that is wrong, is an AssertionError."""
        said, complained = self._process.communicate(timeout=seconds_max)
        if self._process.returncode != 0:
            raise AssertionError(said + complained)
        result = json.loads(said)
        if result["errors"] or result.get("verify_errors", 0):
            raise AssertionError(said)
        return result

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
