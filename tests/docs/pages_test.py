"""Runs what the pages tell people to type, against clusters of processes: each command in a block ```sh of README.md,
docs/install.md, docs/operations.md and docs/tools.md, in the order of the page.

Everything is in a network namespace that has the pages' addresses, and in a folder that stands for the file system of
all nodes. systemctl is played by what the unit's ExecStart says. Commands of a host's kernel or of the whole machine are
not run; they are named below, so that a new command is either run or put there on purpose.
"""

import argparse
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "conformance"))
from control_process import die_with_parent  # noqa: E402

ADDRESSES = {"a": "192.0.2.1", "b": "192.0.2.2", "c": "192.0.2.3"}
SECONDS_MAX = 60
# They change the machine, or need a kernel that uses a volume: tests/vm has those.
NOT_RUN = {"apt", "modprobe", "mkfs.ext4", "mount", "umount", "nvme", "systemd-sysusers", "echo"}
# Which answer a command of fairlead has to give; the first row that fits. A command without a row is a failure.
ANSWERS = [(re.compile(command), re.compile(answer, re.MULTILINE)) for command, answer in (
    (r"^pool create (?P<name>\S+)", r"^pool/{name} is online$"),
    (r"^pool evacuate (?P<name>\S+) --no-wait", r"^pool/{name} is changed$"),
    (r"^pool delete (?P<name>\S+)", r"^pool/{name} is gone$"),
    (r"^pool list", r"^NAME +NODE +STATE(.*\n)+\S+ +[abc] +online"),
    (r"^volume create (?P<name>\S+)", r"^volume/{name} is online$"),
    (r"^volume clone \S+ (?P<name>\S+)", r"^volume/{name} is online$"),
    (r"^volume delete (?P<name>\S+)", r"^volume/{name} is gone$"),
    (r"^volume resize (?P<name>\S+) (?P<size>\d+)GiB", r"^volume/{name} has {size} GiB$"),
    (r"^volume scale (?P<name>\S+) (?P<count>\d)", r"^volume/{name} has {count} replicas$"),
    (r"^volume move (?P<name>\S+) (?P<node>\S+)", r"^volume/{name} is served by {node}$"),
    (r"^volume attach", r"^nvme connect --transport=tcp --traddr=\S+ --trsvcid=44\d\d --nqn=nqn\.2026-01\.io\.fairlead:volume:\S+ "),
    (r"^volume detach", r"^nvme disconnect --nqn=nqn\.2026-01\.io\.fairlead:volume:"),
    (r"^volume show (?P<name>\S+)", r"^name +{name}$(.*\n)+Available +yes(.*\n)+Redundant +yes"),
    (r"^volume list", r"^db +online +10 GiB +3/3"),
    (r"^snapshot create (?P<name>\S+)", r"^snapshot/{name} is online$"),
    (r"^snapshot delete (?P<name>\S+)", r"^snapshot/{name} is gone$"),
    (r"^snapshot-group create (?P<name>\S+)", r"^snapshot-group/{name} is online$"),
    (r"^snapshot-group delete (?P<name>\S+)", r"^snapshot-group/{name} is gone$"),
    (r"^node list", r"^NAME +STATE(.*\n)+a +ready(.*\n)+b +ready(.*\n)+c +ready"),
    (r"^node (un)?cordon (?P<name>\S+)", r"^node/{name} is changed$"),
    (r"^node drain (?P<name>\S+) --no-wait", r"^node/{name} is changed$"),
    (r"^node delete (?P<name>\S+)", r"^node/{name} is gone$"),
    (r"^wait (?P<name>\S+)", r"^{name} is (online|ready|lost)$"),
    (r"^status", r"^All is well\.$"),
    (r"^why volume/db", r"^volume db is as it was asked for$"),
    (r"^why node/b", r"^node b is draining"),
    (r"^event list", r"volumes/db +Serving "),
    (r"^top", r"^NODE +STATE(.*\n)+VOLUME +STATE"),
    (r"^recover", r"^volume/db was found$"),
    (r"^doctor", r"^ok +io_uring may be used$"),
    (r"--check-config$", r"^the settings are right$"),
    (r"^offline pool create (?P<name>\S+)", r"^created pool {name}: "),
    (r"^offline replica create (?P<name>\S+)", r"^created replica {name} "),
    (r"^offline pool show", r"^pool fast (.*\n)+ +free +99\.9 GiB$"),
    (r"^offline pool check", r"^pool fast: clean$"),
    (r"^bench ", r"IOPS"),
    (r"^discover ", r"nqn\."),
    (r"^identify ", r"(?i)namespace"),
)]

program = None
root_folder = None


def blocks(page):
    """(kind, lines) of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def commands_of(text):
    """Commands with what their comment says: lines that belong together are one."""
    commands = []
    pending = ""
    for line in text.splitlines():
        pending += line + "\n"
        body = pending.strip()
        is_open = line.endswith("\\") or (body.startswith("for ") and not body.endswith("done"))
        if body and not is_open:
            command, _, comment = body.partition("  # ") if "\n" not in body else (body, "", "")
            commands.append((command.strip(), comment.strip()))
        if not is_open:
            pending = ""
    return commands


class Process:
    """A command that goes on until it is told to end."""

    def __init__(self, words, folder, environment):
        self.lines = []
        self._ready = threading.Event()
        self._process = subprocess.Popen(words, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                         preexec_fn=die_with_parent)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(SECONDS_MAX) or self._process.poll() is not None:
            self.stop(signal.SIGKILL)
            raise AssertionError(f"{shlex.join(map(str, words))} does not become ready:\n" + "".join(self.lines[-20:]))

    def _read(self):
        for line in self._process.stdout:
            self.lines.append(line)
            if line == "ready\n":
                self._ready.set()
        self._ready.set()

    def stop(self, number=signal.SIGTERM):
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._reader.join()
            self._process.stdout.close()


class Reader:
    """Who types what a page says. `folder` stands for the root directory; it works in folder/work."""

    def __init__(self, test, folder):
        self.test = test
        self.folder = folder
        self.work = folder / "work"
        self.environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
        self.processes = {}
        self.ended = {}
        self.nqn = "NQN"  # of what is served first
        self.count = 0
        for name in ("work", "bin", "etc", "var"):
            (folder / name).mkdir()
        (folder / "bin" / "fairlead").symlink_to(program)
        (self.work / "deploy").symlink_to(ROOT / "deploy")
        (self.work / "dev").symlink_to(ROOT / "dev")

    def read(self, page):
        for kind, text in blocks(page):
            if kind == "toml":
                path = re.match(r"# (\S+)\n", text)[1]
                pathlib.Path(self.placed(path)).parent.mkdir(exist_ok=True)
                pathlib.Path(self.placed(path)).write_text(self.placed(text))
            elif kind == "sh":
                for command, comment in commands_of(text):
                    try:
                        self.run(command, comment)
                    except BaseException as error:  # what follows builds on it
                        raise AssertionError(f"{page}: {command}: {error}\n{self.state()}") from error
                    self.count += 1

    def state(self):
        """What the cluster says of itself, and the last words of its processes."""
        said = []
        for command in ("status", "event list", "volume list --output json"):
            done = subprocess.run([program, *command.split()], env=self.environment, cwd=self.work, stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
            said.append(f"-- fairlead {command}\n{done.stdout}{done.stderr}")
        for key, process in [*self.ended.items(), *self.processes.items()]:
            said.append(f"-- {key}\n" + "".join(process.lines[-60:]))
        return "".join(said)

    def placed(self, text, node=""):
        """Paths of the machine are in the folder; each node has a state directory and disks of its own."""
        text = text.replace("/var/lib/fairlead-engine", f"{self.folder}/var/engine-{node or 'a'}")
        text = text.replace("/var/lib/fairlead", f"{self.folder}/var").replace("/etc/fairlead", f"{self.folder}/etc")
        return re.sub(r"/dev/(sd\w)", rf"{self.folder}/var/{node}\1", text)

    def run(self, command, comment):
        command = re.sub(r"\bNQN\b", self.nqn, command)
        words = shlex.split(command, comments=True)
        if words[0] == "./dev":
            self.check_dev(words[1:])
        elif words[0] == "systemctl":
            self.systemctl(words[1:], comment)
        elif words[0] == "install":
            self.install(words[1:])
        elif words[0] == "export":
            known = {**self.environment, "PWD": str(self.work)}
            self.environment.update(re.sub(r"\$(\w+)", lambda name: known[name[1]], word).partition("=")[::2] for word in words[1:])
        elif words[0] in NOT_RUN:
            return
        elif words[0] == "fairlead" and words[1] in ("control", "engine", "serve") and "--check-config" not in words:
            self.start(" ".join(words[1:4]), [program, *words[1:]])
        else:
            self.run_here(command, words)

    def run_here(self, command, words):
        node = re.search(r"--node (\S+)", command)
        node = node[1] if node else "a"
        for disk in re.findall(r"/dev/(sd\w)", command):
            with open(f"{self.folder}/var/{node}{disk}", "ab") as file:
                file.truncate(8 << 30)
        placed = self.placed(command, node)
        strangers = [path for path in re.findall(r"(?:^|[\s=\"'@])(/[^\s\"']+)", placed) if not path.startswith((str(self.folder), "/CN="))]
        self.test.assertEqual(strangers, [], "the test touches nothing outside its folder")
        said = self.said(placed)
        if words[0] != "fairlead":
            return
        command = " ".join(words[1:])
        expected = self.expected(command)
        until = time.monotonic() + SECONDS_MAX
        # Engines that have just begun join by themselves: one looks again.
        while words[1:] == ["node", "list"] and not expected.search(said) and time.monotonic() < until:
            time.sleep(0.1)
            said = self.said(placed)
        self.test.assertRegex(said, expected)

    def said(self, command):
        done = subprocess.run(["bash", "-c", command], cwd=self.work, env=self.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
        self.test.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def expected(self, command):
        for form, answer in ANSWERS:
            if found := form.search(command):
                names = found.groupdict()
                return re.compile(re.sub(r"\{([a-z]+)\}", lambda name: re.escape(names[name[1]]), answer.pattern), re.MULTILINE)
        return self.test.fail(f"no row of ANSWERS says what 'fairlead {command}' has to answer")

    def check_dev(self, words):
        """./dev builds and tests: that it has the command, with its options, is all that is looked at."""
        done = subprocess.run([ROOT / "dev", "help", words[0]], capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
        self.test.assertEqual(done.returncode, 0, done.stderr)
        for option in words[1:]:
            self.test.assertIn(option, done.stdout)

    # Units

    def install(self, words):
        """Only what goes to /etc/fairlead; for the rest, that it is in the tree."""
        if "-d" in words:
            return
        words = [word for word, before in zip(words, [None, *words]) if not word.startswith("-") and before not in ("-m", "-g")]
        *sources, target = words
        for source in sources:
            if target.startswith("/etc/fairlead"):
                shutil.copy(self.work / source, self.placed(target))
            elif not source.startswith("build/"):
                self.test.assertTrue((ROOT / source).is_file(), source)

    def systemctl(self, words, comment):
        if words[0] == "daemon-reload":
            return
        verb, unit = words[0], words[-1]
        named = re.search(r"on node ([abc])", comment)
        nodes = [named[1]] if named else list(ADDRESSES) if "each node" in comment else ["a"]
        for node in nodes:
            key = f"{unit} {node}"
            if verb in ("stop", "restart"):
                ended = self.processes.pop(key)
                self.test.assertEqual(ended.stop(), 0)
                self.ended[key] = ended
            if verb in ("start", "restart", "enable"):
                self.start(key, self.exec_start(unit, node))

    def exec_start(self, unit, node):
        text = (ROOT / "deploy" / "systemd" / f"{unit}.service").read_text()
        words = shlex.split(re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1])
        config = pathlib.Path(self.placed(words[-1]))
        if node != "a":  # the page says: likewise, with its own name, addresses and key
            mine = config.with_suffix(f".{node}")
            mine.write_text(config.read_text().replace('node = "a"', f'node = "{node}"')
                            .replace(f'["{ADDRESSES["a"]}:4420', f'["{ADDRESSES[node]}:4420')
                            .replace(f'management = "{ADDRESSES["a"]}', f'management = "{ADDRESSES[node]}')
                            .replace("/etc/a.pem", f"/{self.work.name}/{node}.pem")
                            .replace("/etc/engine.key", f"/{self.work.name}/{node}.key")
                            .replace("engine-a", f"engine-{node}"))
            config = mine
        return [program, *words[1:-1], config]

    def start(self, key, words):
        self.test.assertNotIn(key, self.processes)
        process = Process([str(word) for word in words], self.work, self.environment)
        self.processes[key] = process
        if self.nqn == "NQN" and (found := re.search(r"nqn\.\S+", "".join(process.lines))):
            self.nqn = found[0]

    def close(self):
        for process in reversed(list(self.processes.values())):
            process.stop(signal.SIGKILL)


class PagesTest(unittest.TestCase):
    def read(self, *pages, commands_min):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        reader = Reader(self, pathlib.Path(directory.name))
        self.addCleanup(reader.close)
        for page in pages:
            reader.read(page)
        self.assertGreaterEqual(reader.count, commands_min)

    def test_readme(self):
        self.read("README.md", commands_min=10)

    def test_install_and_operations(self):
        self.read("docs/install.md", "docs/operations.md", commands_min=60)

    def test_tools(self):
        self.read("docs/tools.md", commands_min=8)


def enter_namespace():
    """Runs this program anew in a network namespace that has the pages' addresses."""
    if "FAIRLEAD_IN_NAMESPACE" in os.environ:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for address in ADDRESSES.values():
            subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
        return
    os.environ["FAIRLEAD_IN_NAMESPACE"] = "1"
    for unshare in (["unshare", "-n"], ["unshare", "-Urn"]):
        if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            os.execvp("unshare", [*unshare, sys.executable, "-B", *sys.argv])
    print("skipped: no network namespace can be made")
    sys.exit(77)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    arguments, others = parser.parse_known_args()
    enter_namespace()
    program = arguments.fairlead.resolve()
    unittest.main(argv=[sys.argv[0], *others])
