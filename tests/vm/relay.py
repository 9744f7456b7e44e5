"""A relay between host and target that looks into NVMe/TCP's streams and can damage them."""

import contextlib
import socket
import threading

_IC_PDU_BYTES = 128
_DIGEST_OFFSET = 11  # DGST in ICReq and ICResp: bit 0 header digest, bit 1 data digest


class Relay:
    """Listens on a port of 127.0.0.1 that the system picks and passes connections on to another port, or to a socket
    of the file system."""

    def __init__(self, target):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self._lock = threading.Lock()
        self._damage_left = {"to target": 0, "to host": 0}
        self.port = self._listener.getsockname()[1]
        self._is_cut = False
        self.connections = 0
        self.digests = set()  # the DGST bytes seen in either direction
        self.damaged = {"to target": 0, "to host": 0}
        threading.Thread(target=self._accept, daemon=True).start()

    def damage(self, direction, count):
        """Flips one bit in each of the next `count` large pieces that go "to target" or "to host"."""
        with self._lock:
            self._damage_left[direction] = count

    def cut(self):
        """Ends all connections; new ones end as soon as they come, until restore()."""
        with self._lock:
            self._is_cut = True
            self._shut_down(self._sockets[1:])
            del self._sockets[1:]

    def restore(self):
        with self._lock:
            self._is_cut = False

    def close(self):
        with self._lock:
            self._shut_down(self._sockets)

    @staticmethod
    def _shut_down(sockets):
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                host, _ = self._listener.accept()
                try:
                    target = self._connect()
                except OSError:
                    host.close()
                    continue
                with self._lock:
                    if self._is_cut:
                        self._shut_down([host, target])
                        continue
                    self._sockets += [host, target]
                    self.connections += 1
                for arguments in ((host, target, "to target"), (target, host, "to host")):
                    threading.Thread(target=self._pass, args=arguments, daemon=True).start()

    def _connect(self):
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        target = socket.socket(socket.AF_UNIX)
        target.connect(str(self._target))
        return target

    def _pass(self, source, sink, direction):
        seen = b""
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                if len(seen) < _IC_PDU_BYTES:
                    seen += piece
                    if len(seen) >= _IC_PDU_BYTES:
                        self.digests.add(seen[_DIGEST_OFFSET])
                elif len(piece) >= 16384:
                    piece = self._perhaps_damage(piece, direction)
                sink.sendall(piece)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _perhaps_damage(self, piece, direction):
        with self._lock:
            if self._damage_left[direction] == 0:
                return piece
            self._damage_left[direction] -= 1
            self.damaged[direction] += 1
        damaged = bytearray(piece)
        damaged[len(piece) // 2] ^= 0x10
        return damaged
