#!/usr/bin/env python3
"""Writes the seed corpus of target_connection_fuzz: what real hosts do, as scripts (see target_connection_fuzz.cc).

   python3 tests/fuzz/target_connection_corpus.py tests/fuzz/corpus/target_connection
"""

import pathlib
import struct
import sys

HDGST, DDGST, ALIGN, SHARDS, NO_SHARED_BUFFERS, RANDOM_ORDER, CHOP, FAULT_POINTS = (1 << bit for bit in range(8))
READ, WRITE, FLUSH, COMPARE, ZEROES, VERIFY, _, DEALLOCATE = range(8)
IDENTIFY, LOG, SET_FEATURE, GET_FEATURE, ABORT, EVENT, KEEP_ALIVE, UNKNOWN = range(8)
HURRY = 0x80
IN_CAPSULE, TRANSPORT = 1, 0


def ic_req(link):
    return bytes([0, link])


def connect(link, name=0, qid=0, entries=30, controller=0, keep_alive=None):
    what = name | (0x20 if keep_alive is not None else 0) | (0x40 if qid else 0)
    out = [1, link, what]
    if keep_alive is not None:
        out.append(keep_alive)
    if qid:
        out += [qid, entries, controller]
    else:
        out.append(entries)
    return bytes(out)


def enable(link, detail=2):
    return bytes([2, link, detail])


def io(link, opcode, where=0, blocks=None, high=0, pointer=TRANSPORT, fuse=0):
    what = opcode | fuse << 3 | (0x40 if blocks is not None else 0)
    out = [3, link, what, where] + ([blocks] if blocks is not None else [])
    if opcode == DEALLOCATE:
        return bytes(out + [high, 4, pointer])
    return bytes(out + [high, pointer])


def data(link, what=0, *more):
    return bytes([4, link, what, *more])


def admin(link, opcode, cdw10=0, cdw11=0, length=0, nsid=1, rest=None, pointer=TRANSPORT):
    what = opcode | nsid << 5 | (8 if rest else 0)
    out = bytes([5, link, what]) + struct.pack("<II", cdw10, cdw11)
    if rest:
        out += struct.pack("<III", *rest)
    return out + struct.pack("<HB", length, pointer)


def send(link, length=8, kind=IN_CAPSULE):
    return admin(link, UNKNOWN, length=length, nsid=3, pointer=kind)


def receive(link, call, length=8):
    return admin(link, UNKNOWN, call, length=length, nsid=3, rest=(0, 0, 0))


def change(what, detail):
    return bytes([13, 0, what, detail])


def host(queues=1, name=0, **more):
    script = ic_req(0) + connect(0, name, **more) + enable(0)
    for qid in range(1, queues + 1):
        script += ic_req(qid) + connect(qid, name, qid)
    return script


def seeds():
    identify = b"".join(admin(0, IDENTIFY, cns, length=4096) for cns in (1, 2, 0, 3, 6, 8, 0x1c))
    logs = b"".join(admin(0, LOG, page | 0x3f << 16, length=256) for page in (0, 1, 2, 3, 4, 5, 12))
    reads_and_writes = (io(1, WRITE, pointer=IN_CAPSULE) + io(1, READ) + io(1, WRITE, 4, 31) + data(1) +
                        io(1, READ, 4, 31) + io(1, FLUSH) + io(1, FLUSH, 0xff))
    multi = (io(1, COMPARE, pointer=IN_CAPSULE) + io(1, ZEROES, 8, 7, high=2) + io(1, VERIFY, 0, 40) +
             io(1, DEALLOCATE, 0, 3, pointer=IN_CAPSULE) + io(1, DEALLOCATE, 1, 0) + data(1))
    fused = io(1 | HURRY, COMPARE, fuse=1) + io(1, WRITE, fuse=2) + data(1) + io(1, COMPARE, fuse=1, pointer=IN_CAPSULE)
    slow = b"".join(io(1 | HURRY, op, 5, pointer=IN_CAPSULE if op == WRITE else TRANSPORT)
                    for op in (WRITE, READ, WRITE, COMPARE, ZEROES, FLUSH))
    aborts = b"".join(admin(0, ABORT, cid << 16 | 1) for cid in range(4, 10)) + admin(0, ABORT, 5 << 16)
    return {
        "silent": bytes([0]),
        "greeting": bytes([HDGST | DDGST]) + ic_req(0),
        "admin": bytes([0]) + host(0) + identify + logs,
        "admin_digests": bytes([HDGST | DDGST | ALIGN]) + host(0) + identify + logs,
        "discovery": bytes([0]) + host(0, 2) + admin(0, IDENTIFY, 1, length=4096) + admin(0, LOG, 112 | 0xff << 16,
                                                                                          length=1024),
        "features": bytes([0]) + host(0) + b"".join(admin(0, GET_FEATURE, f) for f in (6, 7, 11, 15, 0x81)) +
                    admin(0, SET_FEATURE, 6, 0) + admin(0, SET_FEATURE, 15, 100) + admin(0, KEEP_ALIVE),
        "io": bytes([0]) + host() + reads_and_writes,
        "io_digests": bytes([HDGST | DDGST | ALIGN]) + host() + reads_and_writes + multi,
        "io_shards": bytes([SHARDS | RANDOM_ORDER]) + host(3) + reads_and_writes + multi + io(2, READ) + io(3, WRITE),
        "io_chopped": bytes([HDGST | DDGST | CHOP | FAULT_POINTS]) + host() + reads_and_writes,
        "multi": bytes([0]) + host() + multi,
        "fused": bytes([SHARDS]) + host(2) + fused + fused,
        "slow_aborted": bytes([NO_SHARED_BUFFERS]) + host(2) + slow + aborts,
        "slow_closed": bytes([SHARDS]) + host(2) + slow + bytes([12, 1]) + slow,
        "events": bytes([0]) + host(0) + admin(0, EVENT) * 3 + change(0, 0) + change(2, 4) +
                  admin(0, LOG, 4 | 0xff << 16, length=1024) + admin(0, LOG, 12 | 0xff << 16, length=1024) + change(1, 0),
        "removal_under_load": bytes([SHARDS | RANDOM_ORDER]) + host(2) + slow + change(0, 2) + slow + change(4, 0x80) +
                              change(4, 0),
        "keep_alive": bytes([0]) + host(1, keep_alive=10) + bytes([14, 0, 250]) + io(1, READ),
        "reset": bytes([0]) + host(2) + slow + bytes([2, 0, 1]) + enable(0) + bytes([15, 0]),
        "bad_digest": bytes([HDGST | DDGST]) + host() + bytes([10, 1]) + io(1, WRITE, pointer=IN_CAPSULE),
        "bad_data": bytes([0]) + host() + io(1, WRITE, 0, 7) + data(1, 8, 1, 0),
        "data_pieces": bytes([DDGST]) + host() + io(1, WRITE, 0, 1) + data(1, 6, 0, 16) + data(1, 1, 0, 0, 0, 16, 0, 16),
        "raw": bytes([0]) + bytes([8, 0, 24, 4, 0, 72, 0, 72]) + bytes(19) + host(),
        "raw_after": bytes([HDGST]) + host() + bytes([9, 1, 24, 6, 5, 24, 24, 48]) + bytes(19),
        "unread": bytes([0]) + host() + bytes([11, 1, 0]) + io(1, READ, 0, 255) * 20 + bytes([11, 1, 1]),
        "two_hosts": bytes([0]) + host(1) + ic_req(2) + connect(2, 1) + enable(2) + ic_req(3) + connect(3, 1, 1,
                                                                                                     controller=2) +
                     io(3, WRITE, pointer=IN_CAPSULE) + io(1, READ),
        "replica": bytes([0]) + host() + io(1, WRITE, 0xfe, pointer=IN_CAPSULE) + send(0) + receive(0, 1) +
                   io(1, WRITE, 0xfe, pointer=IN_CAPSULE) + io(1, FLUSH, 0xff) + send(0, 8, IN_CAPSULE | 16) +
                   receive(0, 2, 65535) + send(0, 8192) + receive(0, 2, 8192) + receive(0, 2, 8192),
        "replica_fenced": bytes([SHARDS | RANDOM_ORDER]) + host() + send(0) + receive(0, 1) +
                          b"".join(io(1 | HURRY, WRITE, 0xfe, pointer=IN_CAPSULE) for _ in range(6)) + send(0 | HURRY) +
                          io(1, READ, 0xfe) + receive(0, 2),
        "replica_aborted": bytes([SHARDS]) + host() + send(0 | HURRY, 8, IN_CAPSULE | 8) * 9 +
                           b"".join(admin(0, ABORT, cid << 16) for cid in range(3, 8)) + bytes([14, 0, 20]) + receive(0, 1),
        "replica_closed": bytes([0]) + host() + send(0 | HURRY, 8, IN_CAPSULE | 8) * 3 + bytes([12, 0]) + host() +
                          send(0 | HURRY, 8, IN_CAPSULE | 8) + change(4, 0x80),
        "replica_sent_slowly": bytes([0]) + host() + send(0, 4096, TRANSPORT) + data(0, 0) + receive(0, 1, 4096),
        "absent": bytes([0]) + ic_req(0) + connect(0, 3) + connect(0, 4) + connect(0, 0, 1, controller=9),
    }


def main():
    folder = pathlib.Path(sys.argv[1])
    for name, script in seeds().items():
        (folder / name).write_bytes(script)


if __name__ == "__main__":
    main()
