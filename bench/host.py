"""A host that connects and does nothing: as many queues as wanted, and keep-alives, as the Linux kernel sends them.

Just enough NVMe/TCP for that. Everything it sends is a fixed exchange; it is a load, not a test of the target.
"""

import socket
import struct
import threading

_HOST_NQN = b"nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-0000000000f1"
_DYNAMIC = 0xFFFF


class Queue:
    """One queue on a connection of its own, connected when made."""

    def __init__(self, address, nqn, qid, controller_id=_DYNAMIC, entries=128, keep_alive_ms=0):
        self._socket = socket.create_connection(address, timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._cid = 0
        self._socket.sendall(struct.pack("<BBBBIHBBI", 0, 0, 128, 0, 128, 0, 0, 0, 0) + bytes(112))
        self._receive(128)
        data = bytearray(1024)
        data[:16] = b"fairlead-bench-0"
        struct.pack_into("<H", data, 16, controller_id)
        data[256:256 + len(nqn)] = nqn.encode()
        data[512:512 + len(_HOST_NQN)] = _HOST_NQN
        body = struct.pack("<HHHBxI", 0, qid, entries - 1, 4, keep_alive_ms)
        self.controller_id = self.command(0x7F, nsid=1, body=body, data=bytes(data)) & 0xFFFF

    def command(self, opcode, nsid=0, body=b"", data=b""):
        """Sends a command without data to the host, and returns the result of its completion."""
        self._cid = (self._cid + 1) & 0x7FFF
        sgl = struct.pack("<QI3xB", 0, len(data), 0x01)
        entry = struct.pack("<BBHIIIQ", opcode, 0x40, self._cid, nsid, 0, 0, 0) + sgl + body.ljust(24, b"\0")
        self._socket.sendall(struct.pack("<BBBBI", 4, 0, 72, 72 if data else 0, 72 + len(data)) + entry + data)
        response = self._receive(24)
        result, cid, status = struct.unpack_from("<Q4xHH", response, 8)
        if cid != self._cid or status >> 1:
            raise RuntimeError(f"command {opcode:#x} failed: status {status >> 1:#x}")
        return result

    def close(self):
        self._socket.close()

    def _receive(self, count):
        received = b""
        while len(received) < count:
            piece = self._socket.recv(count - len(received))
            if not piece:
                raise RuntimeError("the target closed the connection")
            received += piece
        return received


class IdleHost:
    """A controller with I/O queues; sends a keep-alive at half of its time-out until it is closed."""

    def __init__(self, address, nqn, io_queues=2, keep_alive_ms=5000):
        self._admin = Queue(address, nqn, 0, entries=32, keep_alive_ms=keep_alive_ms)
        self._admin.command(0x7F, nsid=0, body=struct.pack("<B3xIQ", 0, 0x14, 0x00460001))  # CC: enable
        count = io_queues - 1
        self._admin.command(0x09, body=struct.pack("<II", 0x07, count | count << 16))
        self._queues = [
            Queue(address, nqn, qid, self._admin.controller_id) for qid in range(1, io_queues + 1)
        ]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, args=(keep_alive_ms / 2000,), daemon=True)
        self._thread.start()

    def _keep_alive(self, interval):
        while not self._end.wait(interval):
            self._admin.command(0x18)

    def close(self):
        self._end.set()
        self._thread.join()
        for queue in [*self._queues, self._admin]:
            queue.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
