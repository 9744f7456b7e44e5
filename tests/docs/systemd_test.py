"""What deploy/systemd holds is held against the program: units, and settings with what is said of them."""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "deploy" / "systemd"
COMMANDS = ("engine", "control")
# Of an engine's options those that are no settings of a service: for tests, for measuring, and pools by hand.
BY_HAND = {"engine": {"pool", "commands", "limit", "faulty"}, "control": set()}
# 1.7 and 1.4 when this was written, of 10: what the network, and disks, need cannot be taken away.
EXPOSURE_MAX = 2.0

fairlead = None


def run(*words):
    return subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60, check=False)


def options_of(command):
    """Name: default, "" if the help text tells none."""
    options = dict(re.findall(r"^  (?:-\S,)?--([a-z-]+)(?: [A-Z]+(?:=(\S+))?)?", run(fairlead, command, "--help").stdout,
                              re.MULTILINE))
    return {name: options[name] for name in options if name not in ("help", "check-config")}


def settings_of(text):
    """Name: (value as written, whether it is commented out)."""
    found = re.findall(r"^(#?)([a-z-]+) = (.+)$", text, re.MULTILINE)
    return {name: (value, comment == "#") for comment, name, value in found}


def unit_of(command):
    """Directive: its values, in order."""
    directives = {}
    for name, value in re.findall(r"^([A-Za-z]+)=(.*)$", (FOLDER / f"fairlead-{command}.service").read_text(), re.MULTILINE):
        directives.setdefault(name, []).append(value)
    return directives


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


class SettingsTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = pathlib.Path(directory.name)

    def check_config(self, command, text):
        file = self.folder / f"{command}.toml"
        file.write_text(text)
        return run(fairlead, command, "--config", file, "--check-config")

    def test_each_option_is_a_setting_with_its_default(self):
        for command in COMMANDS:
            options = options_of(command)
            settings = settings_of((FOLDER / f"{command}.toml").read_text())
            self.assertGreater(len(options), 10)
            self.assertEqual(set(settings), set(options) - BY_HAND[command], command)
            for name, (value, _) in settings.items():
                if options[name]:
                    self.assertEqual(value.strip('"'), options[name], f"{command}: {name}")

    def test_the_settings_are_right_as_they_are(self):
        for command in COMMANDS:
            done = self.check_config(command, (FOLDER / f"{command}.toml").read_text())
            self.assertEqual((done.returncode, done.stdout), (0, "the settings are right\n"), done.stderr)

    def test_each_setting_is_taken_when_it_is_not_commented_out(self):
        self.make_files()
        for command in COMMANDS:
            text = re.sub(r"^#([a-z-]+ = )", r"\1", (FOLDER / f"{command}.toml").read_text(), flags=re.MULTILINE)
            text = text.replace('"sqlite:/var/lib/fairlead/control.db"', '"etcd:https://127.0.0.1:2379"')
            done = self.check_config(command, text.replace("/etc/fairlead", str(self.folder)))
            self.assertEqual((done.returncode, done.stdout), (0, "the settings are right\n"), done.stderr)

    def make_files(self):
        """The certificates, keys and tokens that the settings name."""
        made = run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test",
                   "-keyout", self.folder / "key", "-out", self.folder / "certificate")
        self.assertEqual(made.returncode, 0, made.stderr)
        for command in COMMANDS:
            for name, (value, _) in settings_of((FOLDER / f"{command}.toml").read_text()).items():
                if value.startswith('"/etc/fairlead/') and name != "token-file":
                    source = "key" if name.endswith("key") else "certificate"
                    shutil.copy(self.folder / source, self.folder / value.strip('"').rpartition("/")[2])
        (self.folder / "tokens").write_text("0123456789abcdef0123456789abcdef admin\n")

    def test_what_is_wrong_is_said(self):
        engine = (FOLDER / "engine.toml").read_text()
        for text, complaint in ((engine + "nonsense = 1\n", "nonsense"),
                                (engine.replace('"127.0.0.1:7440"', '"192.0.2.1:7440"'), "need TLS"),
                                (engine.replace("#tls-", "tls-"), "/etc/fairlead/"),
                                (engine.replace('#lease = "400ms"', 'lease = "1h"'), "--lease 1h")):
            done = self.check_config("engine", text)
            self.assertEqual(done.returncode, 2, done.stdout)
            self.assertIn(complaint, done.stderr)
        control = (FOLDER / "control.toml").read_text()
        done = self.check_config("control", re.sub("#(tls-certificate|tls-key)", r"\1", control))
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn("/etc/fairlead/control.pem", done.stderr)


class UnitTest(unittest.TestCase):
    def test_units_and_settings_agree(self):
        users = re.findall(r"^u (\S+) .* (\S+)$", (FOLDER / "fairlead.sysusers").read_text(), re.MULTILINE)
        for command in COMMANDS:
            unit = unit_of(command)
            self.assertEqual(unit["ExecStart"], [f"/usr/bin/fairlead {command} --config /etc/fairlead/{command}.toml"])
            self.assertEqual(unit["Type"], ["notify"])
            self.assertNotIn("WatchdogSec", unit)  # the program tells no watchdog
            home = f"/var/lib/{unit['StateDirectory'][0]}"
            self.assertIn((unit["User"][0], home), users)
            setting = settings_of((FOLDER / f"{command}.toml").read_text())[{"engine": "state-dir", "control": "store"}[command]]
            self.assertIn(home, setting[0])
        stop_limit = seconds(options_of("engine")["stop-limit"])
        self.assertGreater(seconds(unit_of("engine")["TimeoutStopSec"][0]), stop_limit)

    def test_wrong_settings_are_not_tried_again(self):
        for command in COMMANDS:
            done = run(fairlead, command, "--listen", "nowhere")
            self.assertEqual([str(done.returncode)], unit_of(command)["RestartPreventExitStatus"])

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_systemd_understands_the_units(self):
        with tempfile.TemporaryDirectory() as directory:
            for command in COMMANDS:
                name = f"fairlead-{command}.service"
                file = pathlib.Path(directory) / name
                file.write_text((FOLDER / name).read_text().replace("/usr/bin/fairlead", str(fairlead)))
                done = run("systemd-analyze", "verify", "--man=no", file)
                said = [line for line in done.stderr.splitlines() if name in line]
                self.assertEqual((done.returncode, said), (0, []), done.stderr)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_units_are_hardened(self):
        for command in COMMANDS:
            done = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX * 10:.0f}", "--no-pager",
                       FOLDER / f"fairlead-{command}.service")
            self.assertIn("Overall exposure level", done.stdout, done.stderr)
            self.assertEqual(done.returncode, 0, done.stdout[-200:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    arguments, others = parser.parse_known_args()
    fairlead = arguments.fairlead.resolve()
    unittest.main(argv=[sys.argv[0], *others])
