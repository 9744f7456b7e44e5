"""Alerts and dashboard of deploy/monitoring, held against what /metrics of a control plane tells, and against the pages that
they name. promtool is Debian's, from package prometheus; ./dev unpacks it into build/packages."""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

try:
    import yaml
except ImportError as missing:
    print(f"skipped: {missing}; ./dev installs it")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "conformance"))
from control_process import ControlProcess  # noqa: E402

MONITORING = ROOT / "deploy" / "monitoring"
UNPACKED = ROOT / "build" / "packages" / "prometheus" / "usr" / "bin" / "promtool"
METRIC = re.compile(r"\b(fairlead_[a-z_]+)\b")
RESOURCES = ("node", "pool", "volume", "replica", "target", "resync")

SECONDS_MAX = 60

fairlead = None


def rules():
    return [rule for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def dashboard():
    return json.loads((MONITORING / "dashboard.json").read_text())


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions():
    """Where an expression is: the expression."""
    found = {f"rule {rule.get('alert', rule.get('record'))}": rule["expr"] for rule in rules()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            found[f"variable {variable['name']}"] = variable["query"]["query"]
    return found


def anchors(page):
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)}


class MetricsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        control = ControlProcess(fairlead, directory.name)
        cls.addClassCleanup(control.stop)
        deadline = time.monotonic() + SECONDS_MAX
        while "fairlead_control_leading 1" not in (text := control.ask("GET", "/metrics")[2]):
            if time.monotonic() > deadline:
                raise AssertionError("it does not lead")
        cls.text = text
        cls.served = set(re.findall(r"^# TYPE (\S+) ", cls.text, re.MULTILINE))

    def test_each_name_is_one_that_is_served(self):
        self.assertGreater(len(self.served), 20)
        for where, expression in expressions().items():
            names = set(METRIC.findall(re.sub(r"fairlead:\w+:\w+", "", expression)))
            self.assertTrue(names or "fairlead:" in expression, where)
            self.assertEqual(names - self.served, set(), where)

    def test_what_is_recorded_is_what_is_used(self):
        recorded = {rule["record"] for rule in rules() if "record" in rule}
        used = {name for expression in expressions().values() for name in re.findall(r"fairlead:\w+:\w+", expression)}
        self.assertEqual(used, recorded)

    def test_the_dashboard_shows_each_metric(self):
        shown = {name for where, expression in expressions().items() if where.startswith("panel") for name in METRIC.findall(expression)}
        self.assertEqual({name for name in self.served if name.startswith(tuple(f"fairlead_{word}_" for word in RESOURCES))} - shown,
                         {"fairlead_target_state", "fairlead_pool_replicas"})  # the first is in the volume's, the second in its replicas'

    def test_states_are_those_that_there_are(self):
        api = (ROOT / "api" / "openapi.yaml").read_text()
        for where, expression in expressions().items():
            for states in re.findall(r'state=~?"([^"]+)"', expression):
                for state in states.split("|"):
                    self.assertRegex(api, rf"\b{state}\b", where)


class RulesTest(unittest.TestCase):
    def test_each_alert_says_what_to_do(self):
        for rule in rules():
            if "alert" in rule:
                self.assertEqual(set(rule["annotations"]), {"summary", "description", "runbook"}, rule["alert"])
                self.assertIn(rule["labels"]["severity"], ("info", "warning", "critical"))
                self.assertIn("for", rule)
                page, _, anchor = rule["annotations"]["runbook"].partition("#")
                self.assertIn(anchor, anchors(page), rule["alert"])

    def test_each_alert_is_tested(self):
        cases = yaml.safe_load((ROOT / "tests" / "deploy" / "alerts_test.yaml").read_text())["tests"]
        raised = {test["alertname"] for case in cases for test in case.get("alert_rule_test", []) if test["exp_alerts"]}
        self.assertEqual(raised, {rule["alert"] for rule in rules() if "alert" in rule})

    def test_promtool_agrees(self):
        promtool = shutil.which("promtool") or (UNPACKED if UNPACKED.exists() else None)
        if promtool is None:
            self.skipTest("promtool is not here; './dev test' brings it")
        for words in (("check", "rules", MONITORING / "alerts.yaml"), ("test", "rules", ROOT / "tests" / "deploy" / "alerts_test.yaml")):
            done = subprocess.run([promtool, *words], capture_output=True, text=True, timeout=120, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("SUCCESS", done.stdout)


class DashboardTest(unittest.TestCase):
    def test_it_can_be_imported_anywhere(self):
        document = dashboard()
        self.assertEqual((document["uid"], document["schemaVersion"]), ("fairlead", 39))
        self.assertNotIn("id", document)
        self.assertEqual([variable["name"] for variable in document["templating"]["list"]], ["datasource", "node", "volume"])
        for panel in panels():
            self.assertEqual(panel["datasource"]["uid"], "${datasource}", panel["title"])
            for target in panel["targets"]:
                self.assertEqual(target["datasource"]["uid"], "${datasource}", panel["title"])

    def test_panels_have_ids_of_their_own_and_places_of_their_own(self):
        everything = dashboard()["panels"]
        self.assertEqual(len({panel["id"] for panel in everything}), len(everything))
        taken = set()
        for panel in everything:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(taken & cells, panel["title"])
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            taken |= cells

    def test_filters_are_used_where_they_can_be(self):
        for where, expression in expressions().items():
            if where.startswith("panel") and "$" not in expression:
                self.assertTrue(any(word in expression for word in ("fairlead_control", "vector(0)", "max(")), where)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    arguments, others = parser.parse_known_args()
    fairlead = arguments.fairlead.resolve()
    unittest.main(argv=[sys.argv[0], *others])
