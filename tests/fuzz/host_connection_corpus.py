#!/usr/bin/env python3
"""Writes the seed corpus of host_connection_fuzz: what controllers do, true and false (see host_connection_fuzz.cc).

   python3 tests/fuzz/host_connection_corpus.py tests/fuzz/corpus/host_connection
"""

import pathlib
import struct
import sys

HDGST, DDGST, TWO_PATHS, SHARDS, RANDOM_ORDER, CHOP, FAULT_POINTS, SMALL_WINDOW = (1 << bit for bit in range(8))
ANA, TWO_NAMESPACES, NO_CAPSULE, SMALL_DATA, ALIGN, SMALL_MDTS = (1 << bit for bit in range(6))
SUBSYSTEM, REPLICA, QUEUE, DISCOVERY = (mode << 6 for mode in range(4))
INSTEAD, AND_PROPER = 0, 0x80  # an action stands for the answer, or an answer follows
GREET, PROPER = bytes([0]), bytes([0])
HOLD, RELEASE = bytes([1]), bytes([2])


def complete(status, result=0, more=INSTEAD, cid=None):
    which = bytes([0]) if cid is None else bytes([1]) + struct.pack("<H", cid)
    return bytes([3 | more]) + which + struct.pack("<HI", status << 1, result)


def value(result):
    return bytes([4]) + struct.pack("<Q", result)


def data(flags=3, length=None, offset=None, cid=None, more=INSTEAD):
    out = bytes([5 | more, flags | (4 if cid is not None else 0) | (8 if offset is not None else 0) |
                 (16 if length is not None else 0)])
    out += struct.pack("<H", cid) if cid is not None else b""
    out += struct.pack("<I", offset) if offset is not None else b""
    return out + (struct.pack("<H", length) if length is not None else b"")


def r2t(length, offset=None, more=INSTEAD, tag=5):
    out = bytes([6 | more, 2 if offset is not None else 0])
    out += struct.pack("<I", offset) if offset is not None else b""
    return out + struct.pack("<H", length) + bytes([tag])


def raw(payload, more=INSTEAD):
    return bytes([7 | more, len(payload)]) + payload


def header(payload, more=INSTEAD):
    return bytes([8 | more, len(payload)]) + payload


def overlay(offset, payload):
    return bytes([9]) + struct.pack("<HB", offset, len(payload)) + payload


def cut_after(count):
    return bytes([11, count])


DAMAGE_DATA, DAMAGE_HEADER, CUT, CLOSE = bytes([10]), bytes([0x8a]), bytes([0x8c]), bytes([12])
TERMINATE, SILENCE, DEAF = bytes([13, 1]), bytes([14]), bytes([0x8e])


def change(what, detail, event=0x20):
    return bytes([15, what | event]) + detail


# What a host says before its I/O: ICReq, Connect, CAP, CC, CSTS, Identify, queues, events, list, namespace, descriptors.
CONNECT, CAP, CC, CSTS, IDENTIFY, QUEUES, EVENTS, LIST, NAMESPACE = range(1, 10)


def until(step, *then):
    return GREET + PROPER * (step - 1) + b"".join(then)


def queue(*then, world=0, nature=0):
    return bytes([world, nature | QUEUE]) + GREET + PROPER + b"".join(then)


def subsystem(step, *then, world=0, nature=0):
    return bytes([world, nature | SUBSYSTEM]) + until(step, *then)


def live(*then, world=0, nature=0):
    """With one I/O queue: its ICReq and Connect, the event request, then I/O."""
    return subsystem(11, PROPER * 4, *then, world=world, nature=nature)


def replica(*then, world=0):
    """A single connection; calls are made along with the I/O."""
    return live(*then, world=world, nature=REPLICA)


def seeds():
    greeting = struct.pack("<BBBBIHBBI", 1, 0, 128, 0, 128, 0, 0, 0, 4096) + bytes(112)
    response = struct.pack("<BBBBI", 5, 0, 24, 0, 24) + bytes(16)
    return {
        "proper": bytes([0, SUBSYSTEM]),
        "proper_all": bytes([HDGST | DDGST | TWO_PATHS | SHARDS, ANA | TWO_NAMESPACES | SMALL_DATA | ALIGN | SMALL_MDTS]),
        "proper_rough": bytes([DDGST | RANDOM_ORDER | CHOP | FAULT_POINTS, NO_CAPSULE]),
        "queue_proper": bytes([HDGST | DDGST | SMALL_WINDOW, QUEUE | SMALL_DATA | ALIGN]),
        "discovery": bytes([0, DISCOVERY]),
        "discovery_changes": bytes([0, DISCOVERY]) + until(IDENTIFY, PROPER, change(7, bytes([0, 12]) + bytes(3072))),
        "discovery_overlay": bytes([0, DISCOVERY]) + until(IDENTIFY + 1, overlay(8, b"\x00\x10"), overlay(0, b"\3\1\1\0")),
        "greetings": bytes([0, QUEUE, 3, 0x0d]),
        "greeting_raw": bytes([0, QUEUE, 0xc0, 128]) + greeting,
        "greeting_silent": bytes([0, SUBSYSTEM, 0xf0]),
        "greeting_cut": bytes([0, SUBSYSTEM, 0xe0]),
        "connect_refused": subsystem(CONNECT, complete(0x181)),
        "connect_then_end": subsystem(CONNECT, bytes([13 | AND_PROPER, 1])),
        "connect_terminated": queue()[:3] + complete(0, 7, AND_PROPER),
        "capabilities": subsystem(CAP, value(0)),
        "never_ready": subsystem(CAP, change(4, bytes([0]), 0)),
        "fatal": subsystem(CAP, change(4 | 0x80, bytes([2]), 0)),
        "identify": subsystem(IDENTIFY, overlay(77, b"\xff"), ),
        "identify_id": subsystem(IDENTIFY, overlay(78, b"\x01\x02")),
        "few_queues": subsystem(CAP, change(3, bytes(4), 0), world=SHARDS),
        "list": subsystem(LIST, overlay(0, b"\2\0\0\0\1\0\0\0")),
        "list_endless": subsystem(LIST, *(overlay(0, struct.pack("<15I", *range(i * 15 + 1, i * 15 + 16))) for i in range(3))),
        "namespace": subsystem(NAMESPACE, overlay(0, bytes(8)), overlay(0, b"\3\x11")),
        "ana": subsystem(NAMESPACE + 2, overlay(8, b"\xff\xff"), nature=ANA),
        "ana_changes": subsystem(NAMESPACE + 2, change(2, bytes([200, 2, 0, 0, 0])), nature=ANA),
        "events": live(change(0, bytes([2, 9, 0])), change(1, bytes([0])), change(2, bytes([2, 2, 16, 0, 3])), nature=ANA),
        "namespace_gone": live(change(1, bytes([0]))),
        "held": live(HOLD * 6, RELEASE),
        "silent": live(SILENCE * 8),
        "deaf": live(DEAF, SILENCE),
        "queue_silent": queue(SILENCE * 6),
        "queue_completions": queue(complete(0, more=AND_PROPER), complete(0x106), complete(0x22), complete(0, cid=0x402)),
        "queue_data": queue(data(3), data(0, more=AND_PROPER), data(3, 4096, 4096), data(1, 12288)),
        "queue_data_pieces": queue(data(0, 1365), data(0, 1, 1365), data(3, 2730, 1366), nature=SMALL_DATA),
        "queue_r2t": queue(PROPER * 3, r2t(4096), r2t(4096, 4096), r2t(1, 8192), r2t(12287, 8193), complete(0)),
        "queue_r2t_false": queue(PROPER, r2t(4096), world=DDGST, nature=NO_CAPSULE),
        "queue_damage": queue(DAMAGE_DATA * 4, DAMAGE_HEADER, world=HDGST | DDGST),
        "queue_raw": queue(raw(response), header(response, AND_PROPER), world=HDGST),
        "queue_cut": queue(cut_after(200), PROPER),
        "queue_closed": queue(PROPER, CLOSE),
        "cuts": live(CUT, *[PROPER * 16, CUT] * 3, world=TWO_PATHS),
        "terminated": live(TERMINATE, PROPER * 12, TERMINATE),
        "path_errors": live(*[complete(0x303)] * 12, nature=ANA),
        "transient": live(*[complete(0x06)] * 12, world=DDGST),
        "replica_calls": replica(*[value(1 | 4096 << 32), data(1), complete(0, 4096)] * 12),
        "replica_lies": replica(*[value(1 << 32), value(1), value(1 | 65537 << 32), value(9 | 16 << 32)] * 6),
        "replica_answers": replica(*[complete(0x7c0), complete(0x22), complete(0x06), complete(0x303)] * 6, world=SHARDS),
        "replica_cut": replica(PROPER * 3, CUT, *[PROPER * 20, CUT] * 3, world=RANDOM_ORDER),
        "replica_silent": replica(SILENCE * 30, world=SHARDS),
        "keep_alive": live(PROPER * 4, SILENCE * 20, world=RANDOM_ORDER),
    }


def main():
    folder = pathlib.Path(sys.argv[1])
    for name, script in seeds().items():
        (folder / name).write_bytes(script)


if __name__ == "__main__":
    main()
