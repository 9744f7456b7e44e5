"""Banned calls: what reaches around the seams, and what the house does without.

Places are folders of src/, "test" (tests/, *_test.cc and test_*) and "bench". Where a rule lists places under `allowed`
the thing is in its place there. src/cli and the tests thus have a smaller set of bans than the data plane.
"""

import dataclasses
import re

DATA_PLANE = {"base", "async", "io", "sim", "block", "nvme", "host", "target", "pool", "mirror"}
EVERYWHERE_ELSE = frozenset()


@dataclasses.dataclass(frozen=True)
class Ban:
    pattern: str
    instead: str
    allowed: frozenset = EVERYWHERE_ELSE
    only: frozenset = None  # when set, the ban holds in these places alone
    headers_only: bool = False
    unless_after: str = None  # no finding where this ends right before the match


def headers(*names):
    return r"#\s*include\s*<(?:" + "|".join(re.escape(name) for name in names) + ")>"


def global_call(*names):
    """::name( with nothing before the colons: the C library's function, not a member of that name."""
    return r"(?<![\w>])::(?:" + "|".join(names) + r")\s*\("


def plain_call(*names):
    """name( or std::name( or ::name(, but no member and no function of another namespace."""
    return r"(?<![\w.>:])(?:std::|::)?(?:" + "|".join(names) + r")\s*\("


BANS = {
    "clock": Ban(
        r"\b(?:system|steady|high_resolution|utc|tai|gps|file)_clock\b|\bclock_gettime\b|\bgettimeofday\b"
        r"|(?<![\w>])(?:std)?::time\s*\(|(?<![\w.>:])time\s*\(\s*(?:nullptr|NULL|0|&)",
        "take an io/clock.h Clock by reference", frozenset({"io", "test", "bench"})),
    "sleep": Ban(
        r"\bsleep_(?:for|until)\b|\b(?:usleep|nanosleep|clock_nanosleep)\s*\(|" + global_call("sleep"),
        "wait for the event itself, or for a timer of the reactor", frozenset({"bench"})),
    "thread": Ban(
        r"\bstd::j?thread\b(?!::)|\bpthread_create\b|\bstd::async\b|" + headers("thread", "future") + "|"
        + global_call("v?fork", "popen", "system") + r"|\bstd::system\b",
        "shards are made by src/io; send work to one with call_on()", frozenset({"io", "test", "bench"})),
    "detached": Ban(r"\.\s*detach\s*\(\s*\)", "nothing is detached: give it to a Scope, or join it"),
    "lock": Ban(
        r"\bstd::(?:recursive_|timed_|shared_|recursive_timed_|shared_timed_)?mutex\b|\bstd::(?:lock_guard|unique_lock"
        r"|scoped_lock|shared_lock|condition_variable(?:_any)?|counting_semaphore|binary_semaphore|latch|barrier"
        r"|call_once)\b|\bpthread_(?:mutex|rwlock|cond|spin)_|"
        + headers("mutex", "shared_mutex", "condition_variable", "semaphore", "latch", "barrier"),
        "state belongs to one shard; send a message", frozenset({"io", "test", "bench"})),
    "socket": Ban(
        global_call("socket", "connect", "accept", "bind", "listen", "recv", "send", "shutdown", "poll", "select") + "|"
        + plain_call("accept4", "recvfrom", "recvmsg", "sendto", "sendmsg", "socketpair", "getaddrinfo", "setsockopt",
                     "getsockopt", r"epoll_\w+") + "|"
        + headers("sys/socket.h", "netdb.h", "sys/epoll.h", "poll.h", "sys/select.h"),
        "take an io/network.h Network by reference", frozenset({"io", "test", "bench"})),
    "file": Ban(
        global_call("open", "close", "read", "write", "pread", "pwrite", "stat", "fstat", "unlink", "rename") + "|"
        + plain_call("openat2?", "fopen", "fdopen", "freopen", "fallocate", "ioctl", "pread(?:v2?)?", "pwrite(?:v2?)?",
                     "lseek", "ftruncate", "fsync", "fdatasync") + "|"
        r"\bstd::(?:basic_)?[io]?fstream\b|\bstd::filesystem\b|"
        + headers("fcntl.h", "fstream", "filesystem", "sys/stat.h", "sys/ioctl.h"),
        "take an io/disk.h Storage by reference", frozenset({"io", "cli", "test", "bench"})),
    "ring": Ban(r"\bio_uring_\w+\s*\(|" + headers("liburing.h"), "only src/io speaks to the kernel's rings",
                frozenset({"io", "bench"})),
    "random": Ban(
        r"\bstd::random_device\b|\bgetrandom\b|\bgetentropy\b|\barc4random\w*|" + plain_call("s?rand")
        + "|" + global_call("random"),
        "take an io/clock.h Random by reference; in a test, print the seed", frozenset({"io", "test"})),
    "generator": Ban(
        r"\bstd::(?:mt19937(?:_64)?|minstd_rand0?|default_random_engine|\w+_distribution)\b|" + headers("random"),
        "take an io/clock.h Random by reference", frozenset({"test", "bench"})),
    "env": Ban(r"\b(?:secure_)?getenv\b", "settings are options, passed in by the command line",
               frozenset({"cli", "test", "bench"})),
    "output": Ban(
        r"\bstd::(?:cout|cerr|clog)\b|\bfmt::print(?:ln)?\b|"
        + plain_call("printf", "fprintf", "puts", "fputs", "putchar", "fwrite", "perror"),
        "log (base/log.h); only the command line and the simulator print", frozenset({"cli", "sim", "test", "bench"})),
    "iostream": Ban(headers("iostream"), "fmt::print at the edge, base/log.h elsewhere"),
    "regex": Ban(headers("regex") + r"|\bstd::w?s?regex\b", "write the few lines of parser"),
    "functional": Ban(headers("functional") + r"|\bstd::function\b",
                      "a template parameter, a function pointer or an interface", headers_only=True),
    "exception": Ban(r"\bthrow\b(?!\s*\(\s*\)\s*;)|\btry\s*\{|\bcatch\s*\(", "errors are values: Result<T>",
                     only=frozenset(DATA_PLANE)),
    "raw_new": Ban(r"(?<!operator )\bnew\s+(?!\()[\w:]|(?<!operator )(?<!= )\bdelete(?:\s*\[\s*\])?\s+[\w:*(]",
                   "std::make_unique, or straight into a std::unique_ptr; placement new is free",
                   unless_after=r"\bunique_ptr<[^;{}]*>\s*\w*\(\s*$"),
    "assert": Ban(r"(?<![\w.])assert\s*\(|" + headers("cassert", "assert.h"),
                  "FL_CHECK, which is on in every build"),
    "volatile": Ban(r"(?<!asm )(?<!__asm__ )\bvolatile\b", "std::atomic between threads; nothing else needs it"),
    "using_namespace": Ban(r"\busing\s+namespace\s+(?:::)?std\s*;", "name what you use"),
    "using_in_header": Ban(r"\busing\s+namespace\b", "a header brings no namespace to those who include it",
                           headers_only=True),
    "capturing_coroutine": Ban(
        r"\[[^\[\]\n;{}]+\]\s*(?:\([^;{}]*?\)\s*)?(?:mutable\s*)?(?:noexcept\s*)?->\s*(?:[\w:]+::)?Task\s*<",
        "captures die with the lambda, before the coroutine ends: write a function, pass what it needs"),
}
RULES = {name: ban.instead for name, ban in BANS.items()}
COMPILED = {name: re.compile(ban.pattern) for name, ban in BANS.items()}
# Files that alone in their folders do what a rule bans: where a line of text leaves the process by its own means, the
# HTTP edge, whose threads and sockets are no shard's, and the machine that volumes are mounted on.
IN_FILES = {
    "output": {"src/base/log.cc", "src/base/check.cc"},
    "thread": {"src/gateway/http_server.cc"},
    "socket": {"src/gateway/connection.cc"},
    "clock": {"src/gateway/connection.cc"},
    "file": {"src/gateway/connection.cc", "src/csi/linux_files.cc", "src/kube/http_api.cc"},
}


def applies(ban, source):
    if ban.headers_only and not source.is_header:
        return False
    # What a folder may do, its tests may do too.
    if source.area in ban.allowed or source.folder in ban.allowed:
        return False
    return ban.only is None or source.area in ban.only


def check(tree):
    findings = []
    for source in tree.cpp:
        for name, ban in BANS.items():
            if not applies(ban, source) or source.path in IN_FILES.get(name, ()):
                continue
            for match in COMPILED[name].finditer(source.code):
                before = source.code[max(0, match.start() - 200):match.start()]
                if ban.unless_after and re.search(ban.unless_after, before):
                    continue
                what = " ".join(match.group(0).split()).rstrip("(").strip()
                findings.append(source.finding(
                    source.line_of(match.start()), name, f"'{what}' has no place in {source.area}: {ban.instead}"))
    return findings
