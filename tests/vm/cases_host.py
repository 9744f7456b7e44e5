"""Cases in which Fairlead is the host: against the kernel's target in the guest, and against Fairlead's own."""

import json

from context import check, check_equal, host_case, managed
from host import live, port_of
from relay import Relay
from target import MIB

KIB = 1 << 10
WORKERS = 16
PAUSE_MS = 10  # of a load that leaves an emulated processor some time to do what the case is about
# Short, so that cases about silence are; generous enough for a busy machine under emulation in all others.
QUICK = {"connect_ms": 2000, "reconnect_max_ms": 500}


def start_load(host, block=4 * KIB, workers=WORKERS, pause_ms=0):
    host.ask(f"load {workers} {block} {2 * MIB} {pause_ms}")
    go_on(host)


def go_on(host):
    """Waits until the load has got some way further on each shard."""
    host.ask("progress 32", 60)


def await_held(host, before):
    """Waits until I/O of the load was held more often than before, for want of a path."""
    managed.wait_until(lambda: host.device()["held"] > before, lambda: f"nothing is held: {host.device()}")


def finish_load(host):
    """Ends the load, which must have met no error and no wrong byte."""
    result = json.loads(host.ask("finish", 120))
    check(result["errors"] == 0 and result["wrong"] == 0, f"the load ended with {result}")
    return result


@host_case()
def describe(context, kind):
    """Identify: size, block, UUID, queues and limits are what the target has; a namespace that is not there is none."""
    far = context.far(kind, size_mib=24)
    host = context.connected_host(far)
    for path in host.paths():
        check_equal("size", path["namespaces"]["1"]["size"], 24 * MIB)
        check(path["namespaces"]["1"]["block"] in (512, 4096), f"blocks of {path['namespaces']['1']['block']} bytes")
        check_equal("I/O queues", path["io_queues"], 2)
        check(path["ana"] and path["transfer_max"] >= MIB and path["model"], f"the controller is {path}")
    check_equal("UUIDs", len({path["namespaces"]["1"]["uuid"] for path in host.paths()}), 1)
    host.disconnect()
    host.connect(far.nqn, far.addresses)
    refusal = host.refusal("open 2")
    check("does not exist" in refusal, f"opening a namespace that is not there: {refusal}")


@host_case()
def requests(context, kind):
    """Every kind of request, below, at and far above what one command moves; what is compared or zeroed is right."""
    far = context.far(kind, paths=1)
    host = context.connected_host(far)
    path = host.paths()[0]
    for length in (4 * KIB, 64 * KIB, path["transfer_max"], 7 * MIB + 4 * KIB):
        where = f"{2 * MIB} {length}"
        host.ask(f"write {where} {length} {'fua' if length > MIB else ''}")
        host.ask(f"verify {where} {length}")
        if path["compare"]:
            host.ask(f"compare {where} {length}")
            refusal = host.refusal(f"compare {where} {length + 1}")
            check("differs from what was expected" in refusal, f"a miscompare is: {refusal}")
        else:
            check("not supported" in host.refusal(f"compare {where} {length}"), "Compare is not refused")
        host.ask("flush")
        host.ask(f"zero {2 * MIB + 4 * KIB} {length} {'keep' if length < MIB else ''}")
        host.ask(f"verify-zero {2 * MIB + 4 * KIB} {length}")
        host.ask(f"verify {2 * MIB} {4 * KIB} {length}")
        host.ask(f"discard {where}")
    check("beyond the end" in host.refusal(f"write {64 * MIB} 4096 1"), "a write past the end is not refused")
    check_equal("commands that were tried again", host.device()["retried"], 0)
    host.disconnect()


@host_case()
def digests(context, kind):
    """Header digests, data digests, both; a bit that flips on the way is met, and the data is read again."""
    context.may_see_io_errors = True
    far = context.far(kind, paths=1)
    relay = Relay(port_of(far.addresses[0]))
    context.on_end(relay.close)
    host = context.steered_host()
    for header, data in ((1, 0), (1, 1), (0, 1)):
        host.connect(far.nqn, [f"127.0.0.1:{relay.port}"], header_digest=header, data_digest=data, quiesce_ms=0)
        host.ask("open 1")
        start_load(host, 32 * KIB, workers=4)
        if data:
            relay.damage("to host", 1)
            go_on(host)
            relay.damage("to target", 1)
            go_on(host)
        finish_load(host)
        host.disconnect()
        check_equal("the digests on the wire", relay.digests, {header | data << 1})
        relay.digests.clear()
    check_equal("bits flipped", relay.damaged, {"to host": 2, "to target": 2})


@host_case("kernel")
def in_capsule(context, kind):
    """Writes whose data is all asked for by R2T, and with much of it in the capsule, as the target wants it."""
    for in_capsule in (KIB, 64 * KIB):  # less is not enough for the kernel's own Connect
        far = context.far(kind, paths=1, in_capsule_bytes=in_capsule)
        host = context.connected_host(far)
        check_equal("what goes in a capsule", host.paths()[0]["in_capsule_max"], in_capsule)
        for length in (4 * KIB, 64 * KIB, 68 * KIB, 3 * MIB):
            host.ask(f"write 0 {length} {length}")
            host.ask(f"verify 0 {length} {length}")
        start_load(host)
        finish_load(host)
        device = host.device()
        check_equal("commands that had to be sent again", (device["retried"], device["resent"]), (0, 0))
        host.disconnect()


@host_case()
def tools(context, kind):
    """`fairlead bench --verify` at depth 32 finds nothing wrong, `identify` shows the namespace, digests or not."""
    far = context.far(kind, paths=1, size_mib=8)
    target = f"nvme+tcp://{far.addresses[0]}/{far.nqn}"
    for options in ([], ["--hdgst", "--ddgst"]):
        done = context.run_fairlead("bench", f"{target}?ns=1", "--rw", "randrw", "--mix", "50", "--bs", "4k", "--qd", "32",
                                    "--queues", "2", "--runtime", "1s", "--size", "2MiB", "--overwrite", "--verify",
                                    "--json", *options)
        check(done.returncode == 0, f"bench: status {done.returncode}: {done.stderr or done.stdout}")
        check(json.loads(done.stdout)["write"]["operations"] > 100, f"bench: {done.stdout}")
    done = context.run_fairlead("identify", target)
    check(done.returncode == 0 and far.nqn in done.stdout, f"identify: {done.stderr or done.stdout}")
    done = context.run_fairlead("identify", target, "--json")
    check_equal("size", json.loads(done.stdout)["namespaces"][0]["size_bytes"], 8 * MIB)


@host_case()
def discovery(context, kind):
    """`fairlead discover` lists the subsystem at each of its ports."""
    far = context.far(kind)
    done = context.run_fairlead("discover", far.addresses[0], "--json")
    check(done.returncode == 0, f"discover: {done.stderr}")
    found = [each for each in json.loads(done.stdout)["subsystems"] if each["nqn"] == far.nqn]
    ports = sorted(int(each["service"]) for each in found)
    # The kernel's lists what is behind the port that was asked, Fairlead's all there is.
    expected = sorted(listener.port for listener in far.target.listeners)
    check_equal("the ports", ports, expected[:1] if kind == "kernel" else expected)
    check(far.nqn in context.run_fairlead("discover", far.addresses[0]).stdout, "discover does not name the subsystem")


@host_case("kernel")
def referrals(context, kind):
    """`fairlead discover` follows a referral, and says which one it could not follow."""
    far = context.far(kind, paths=1)
    other = context.far("fairlead", paths=1)
    far.target.refer(0, "127.0.0.1", port_of(other.addresses[0]))
    done = context.run_fairlead("discover", far.addresses[0], "--json")
    check(done.returncode == 0, f"discover: {done.stderr}")
    nqns = {each["nqn"] for each in json.loads(done.stdout)["subsystems"]}
    check({far.nqn, other.nqn} <= nqns, f"found {nqns}")


@host_case()
def refused(context, kind):
    """A host that is not on the list, a subsystem that is not there, a port where nobody is: each is said clearly."""
    hosts = ("nqn.2026-01.io.fairlead:another-host",)
    if kind == "kernel":
        far = context.far(kind, paths=1, hosts=hosts)
        nqn, address = far.nqn, far.addresses[0]
    else:
        target = context.serve(hosts=hosts)
        nqn, address = target.nqn, f"127.0.0.1:{target.listener.port}"
    host = context.steered_host()
    refusal = host.refusal(f"connect {nqn} {address}")
    check("does not allow this host" in refusal, f"a host that is not on the list: {refusal}")
    refusal = host.refusal(f"connect {nqn}-not {address}")
    check("no such subsystem there" in refusal, f"a subsystem that is not there: {refusal}")
    refusal = host.refusal(f"connect {nqn} 127.0.0.1:1")
    check("cannot be reached" in refusal, f"a port where nobody listens: {refusal}")
    done = context.run_fairlead("identify", f"nvme+tcp://{address}/{nqn}")
    check(done.returncode == 1 and done.stderr.count("\n") == 1, f"identify: {done.returncode} {done.stderr}")


@host_case()
def namespaces(context, kind):
    """A namespace grows, goes, comes, all seen by events; I/O to one that is gone fails; another's is not taken for it."""
    far = context.far(kind, paths=2, size_mib=16)
    host = context.connected_host(far, keep_alive_ms=20000)
    start_load(host, pause_ms=PAUSE_MS)

    far.target.resize(1, 32)
    host.wait("grown", lambda paths: all(path["namespaces"]["1"]["size"] == 32 * MIB for path in paths))
    host.ask(f"write {31 * MIB} {MIB} 5")
    host.ask(f"verify {31 * MIB} {MIB} 5")
    far.target.add(2, 8)
    host.wait("two namespaces", lambda paths: all(set(path["namespaces"]) == {"1", "2"} for path in paths))
    finish_load(host)

    far.target.remove(1)
    host.wait("one namespace", lambda paths: all(set(path["namespaces"]) == {"2"} for path in paths))
    check("does not exist" in host.refusal("write 0 4096 1"), "a write to a namespace that is gone")
    far.target.add(1, 16)
    host.wait("two namespaces", lambda paths: all(set(path["namespaces"]) == {"1", "2"} for path in paths))
    if kind == "kernel":  # it has another identity, where Fairlead gives that of the number
        check("does not exist" in host.refusal("write 0 4096 1"), "a write to another namespace of the same number")
        host.ask("close")
        host.ask("open 1")
    host.ask("write 0 4096 1")
    host.ask("verify 0 4096 1")
    host.disconnect()
    check_equal("connections of each path", [path["connects"] for path in host.wait("", bool)], [1, 1])


@host_case()
def ana(context, kind):
    """ANA states change under load: I/O follows without an error; with no path of use it is held until there is one."""
    far = context.far(kind)
    host = context.connected_host(far, keep_alive_ms=20000)
    start_load(host, pause_ms=PAUSE_MS)
    for first, second in (("inaccessible", "optimized"), ("optimized", "non-optimized"), ("optimized", "inaccessible")):
        far.target.ana(1, second)
        far.target.ana(0, first)
        host.wait_ana(*("unusable" if state == "inaccessible" else state for state in (first, second)))
        go_on(host)
    held = host.device()["held"]
    far.target.ana(0, "inaccessible")
    host.wait_ana("unusable", "unusable")
    await_held(host, held)
    far.target.ana(1, "optimized")
    host.wait_ana("unusable", "optimized")
    go_on(host)
    finish_load(host)
    check_equal("connections of each path", [path["connects"] for path in host.paths()], [1, 1])
    host.disconnect()


@host_case()
def path_loss(context, kind):
    """One path goes under load, comes back, then the other, then both: no error, no wrong byte, I/O is held meanwhile."""
    context.may_see_io_errors = True
    far = context.far(kind)
    host = context.connected_host(far, quiesce_ms=2000, **QUICK)
    start_load(host, pause_ms=PAUSE_MS)
    for path in (0, 1):
        far.take(path)
        host.wait(f"path {path} lost", lambda paths, path=path: paths[path]["state"] != "live")
        go_on(host)
        far.give(path)
        host.wait_live(2)
        go_on(host)
    held = host.device()["held"]
    far.take(0)
    far.take(1)
    host.wait_live(0)
    await_held(host, held)
    far.give(1)
    host.wait("the second path live", lambda paths: paths[1]["state"] == "live")
    go_on(host)
    far.give(0)
    host.wait_live(2)
    finish_load(host)
    host.disconnect()


@host_case()
def no_path(context, kind):
    """While there is no path I/O fails after its time, and at once from then on; when one is back it works again."""
    far = context.far(kind, paths=1)
    host = context.connected_host(far, no_path_ms=1000, **QUICK)
    host.ask("write 0 65536 1")
    far.take(0)
    host.wait_live(0)
    for _ in range(2):
        check("cannot be reached" in host.refusal("write 65536 4096 2"), "a write without a path does not fail as such")
    far.give(0)
    host.wait_live(1)
    host.ask("verify 0 65536 1")
    host.ask("write 65536 4096 2")
    host.disconnect()


@host_case()
def silence(context, kind):
    """The target falls silent: the keep-alive finds out, and when it speaks again I/O goes on, with nothing lost."""
    context.may_see_io_errors = True
    far = context.far(kind)
    host = context.connected_host(far, keep_alive_ms=2000, command_ms=60000, no_path_ms=60000, **QUICK)
    start_load(host)
    with far.frozen():
        paths = host.wait_live(0)
        errors = [path["error"] for path in paths]
        check(any("keep-alive" in error for error in errors), f"the paths were lost by: {errors}")
    host.wait_live(2)
    go_on(host)
    finish_load(host)
    check(all(path["connects"] >= 2 for path in host.paths()), "a path was not lost")
    host.disconnect()


@host_case()
def command_timeout(context, kind):
    """Commands that are not answered in time are aborted; when that helps not, the path goes and they go elsewhere."""
    context.may_see_io_errors = True
    far = context.far(kind, paths=1)
    host = context.connected_host(far, keep_alive_ms=30000, quiesce_ms=0, command_ms=2000, abort_ms=500, **QUICK)
    start_load(host)
    with far.frozen():
        paths = host.wait_live(0)
        error = paths[0]["error"]
        check("a command was not answered in time" in error, f"the path was lost by: {error}")
    host.wait_live(1)
    go_on(host)
    finish_load(host)
    host.disconnect()


@host_case("fairlead")
def crash(context, kind):
    """`fairlead serve` is killed by SIGKILL and started again under load: the host connects again, all is there."""
    target = context.serve()
    host = context.steered_host()
    host.connect(target.nqn, [f"127.0.0.1:{target.listener.port}"], keep_alive_ms=2000, quiesce_ms=0, **QUICK)
    host.ask("open 1")
    start_load(host)
    for _ in range(2):
        target.crash()
        target.start()
        go_on(host)
    finish_load(host)
    check(len(live(host.paths())) == 1, "the path is not live")
    host.disconnect()
