"""What the Helm chart says of itself, without helm: values, their schema, the table in its README, the resource DiskPool.
What it renders is looked at by tests/conformance, which has helm and an API server."""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import unittest

try:
    import jsonschema
    import yaml
except ImportError as missing:
    print(f"skipped: {missing}; ./dev installs it")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "deploy" / "helm" / "fairlead"
# Values that hold whatever Kubernetes takes there.
OPEN = {"labels", "amounts", "settings", "nodes", "global", "nodeAffinity", "podAffinity", "podAntiAffinity", "podSelector",
        "namespaceSelector", "ipBlock"}

fairlead = None


def load(name):
    return yaml.safe_load((CHART / name).read_text())


def templates():
    return {path.name: path.read_text() for path in sorted((CHART / "templates").iterdir())}


class ValuesTest(unittest.TestCase):
    def setUp(self):
        self.schema = json.loads((CHART / "values.schema.json").read_text())
        self.values = load("values.yaml")

    def refused(self, **changes):
        values = json.loads(json.dumps(self.values))
        for path, value in changes.items():
            *groups, name = path.split("__")
            at = values
            for group in groups:
                at = at[group]
            at[name] = value
        return [error.json_path for error in jsonschema.Draft202012Validator(self.schema).iter_errors(values)]

    def test_the_schema_takes_the_defaults(self):
        jsonschema.Draft202012Validator.check_schema(self.schema)
        self.assertEqual(self.refused(), [])

    def test_it_refuses_what_is_misspelt_or_out_of_range(self):
        for changes, where in (({"engine__prot": 1}, "$.engine"), ({"engine__port": 0}, "$.engine.port"),
                               ({"control__store": "mysql"}, "$.control.store"), ({"pools__disks": ["sdb"]}, "$.pools.disks[0]"),
                               ({"pools__file__size": "20G"}, "$.pools.file.size"), ({"image__digest": "abc"}, "$.image.digest"),
                               ({"engine__settings": {"--lease": "1s"}}, "$.engine.settings"), ({"etcd__replicas": 2}, "$.etcd.replicas"),
                               ({"storageClasses": [{"name": "x"}]}, "$.storageClasses[0]"), ({"engin": {}}, "$")):
            self.assertEqual(self.refused(**changes), [where], changes)

    def test_each_value_is_in_the_schema_and_the_other_way_round(self):
        def compare(values, schema, path):
            if not isinstance(values, dict) or "properties" not in schema:
                return
            self.assertIs(schema.get("additionalProperties"), False, path)
            self.assertEqual(set(values), set(schema["properties"]) - {"global"}, path)
            for name, value in values.items():
                compare(value, schema["properties"][name], f"{path}.{name}")

        compare(self.values, self.schema, "values")

    def test_objects_are_closed(self):
        def look(schema, name):
            if isinstance(schema, dict):
                if schema.get("type") == "object" and name not in OPEN:
                    self.assertIs(schema.get("additionalProperties"), False, name)
                for key, value in schema.items():
                    look(value, key)

        look(self.schema, "values")

    def test_templates_use_each_value_and_no_other(self):
        text = "".join(templates().values())
        for path in set(re.findall(r"\.Values\.([A-Za-z.]+)", text)):
            at = self.values
            for name in path.split("."):
                self.assertIn(name, at, path)
                at = at[name]
        for name, value in self.values.items():
            for key in value if isinstance(value, dict) else [name]:
                self.assertRegex(text, rf"\.{key}\b", f"{name}.{key}")

    def test_the_readme_has_them_all(self):
        done = subprocess.run([sys.executable, "-B", ROOT / "tools" / "chart_reference.py", "--check"], capture_output=True, text=True,
                              timeout=30, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class ProgramTest(unittest.TestCase):
    def test_what_the_defaults_run_is_in_the_program(self):
        commands = {"engine": True, "control": True, "csi": load("values.yaml")["csi"]["enabled"],
                    "operator": load("values.yaml")["operator"]["enabled"]}
        there = subprocess.run([fairlead, "--help"], capture_output=True, text=True, timeout=30, check=False).stdout
        for command, is_run in commands.items():
            if is_run:
                self.assertRegex(there, rf"(?m)^  {command} ", command)

    def test_the_version_is_the_programs(self):
        said = subprocess.run([fairlead, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
        self.assertEqual(said.split()[-1], load("Chart.yaml")["appVersion"])


class ClassTest(unittest.TestCase):
    """What the documents tell of storage classes is what the driver takes."""

    def setUp(self):
        self.source = (ROOT / "src" / "csi" / "parameters.cc").read_text()
        self.moving = (ROOT / "docs" / "kubernetes.md").read_text().partition("## Moving from Mayastor")[2]
        self.page = (ROOT / "docs" / "storage-class.md").read_text()

    def test_each_parameter_is_told_of(self):
        section = self.page.partition("## Parameters of a StorageClass")[2].partition("\n## ")[0]
        told = set(re.findall(r"(?m)^\| `(\w+)`", section))
        known = re.search(r'kKnown =\s*((?:"[^"]*"\s*)+);', self.source)[1].replace('"', "")
        self.assertEqual(told, set(re.findall(r"\w+", known)) - {"and"})
        for value in re.findall(r"constexpr uint32_t k(?:Replicas|Snapshots|IoQueues|IoTimeoutSeconds)Max = (\d+);", self.source):
            self.assertRegex(section, rf"to {value}\b")

    def test_mayastors_words_are_taken(self):
        section = self.moving.partition("\n## ")[0]
        for row in re.findall(r"(?m)^\| (.+?) \| (?:taken|the same)", section):
            for word in re.findall(r"`(\w+)", row):
                self.assertRegex(self.source, rf'"{word}"|kContext{word[0].upper()}{word[1:]}\b', word)

    def test_unknown_ones_are_refused(self):
        self.assertNotIn("poolAffinityTopologyLabel", self.source)


class SecurityTest(unittest.TestCase):
    def test_privileges_are_where_they_are_needed(self):
        """Which templates name privileges at all: another one is put here on purpose."""
        def those_with(pattern):
            return {name for name, text in templates().items() if re.search(pattern, text)}

        self.assertEqual(those_with(r"privileged: true"), {"engine.yaml", "csi-node.yaml"})
        self.assertEqual(those_with(r"hostNetwork: true"), {"engine.yaml", "csi-node.yaml"})
        self.assertEqual(those_with(r"automountServiceAccountToken: true"), {"csi-controller.yaml", "operator.yaml"})
        self.assertEqual(those_with(r"hostPID|hostIPC|hugepages|cluster-admin"), set())
        for name in ("csi-rbac.yaml", "operator.yaml"):
            self.assertNotRegex(templates()[name], r"resources.*\bsecrets\b")


class DiskPoolTest(unittest.TestCase):
    def setUp(self):
        self.spec = load("files/diskpool.yaml")
        self.version = self.spec["versions"][0]
        self.schema = self.version["schema"]["openAPIV3Schema"]["properties"]

    def test_its_schema_is_structural_and_explains_each_field(self):
        def look(schema, path):
            self.assertTrue("type" in schema or schema.get("x-kubernetes-int-or-string"), path)
            self.assertTrue(schema.get("description"), path)
            for name, each in schema.get("properties", {}).items():
                look(each, f"{path}.{name}")
            if "properties" in schema.get("items", {}):
                for name, each in schema["items"]["properties"].items():
                    look(each, f"{path}[].{name}")
            for rule in schema.get("x-kubernetes-validations", []):
                self.assertTrue(rule["message"].startswith(path), rule)

        for name in ("spec", "status"):
            look(self.schema[name], name)

    def test_columns_show_fields_that_are_there(self):
        for column in self.version["additionalPrinterColumns"]:
            group, name = re.match(r"\.(\w+)\.(\w+)", column["jsonPath"]).groups()
            if group != "metadata":
                self.assertIn(name, self.schema[group]["properties"], column)

    def test_its_states_are_those_of_pools(self):
        api = yaml.safe_load((ROOT / "api" / "openapi.yaml").read_text())
        pool = api["components"]["schemas"]["Pool"]
        self.assertIn(self.schema["status"]["properties"]["state"]["enum"], list(self.enums(pool)))

    def enums(self, schema):
        if isinstance(schema, dict):
            if "enum" in schema:
                yield schema["enum"]
            for value in schema.values():
                yield from self.enums(value)
        elif isinstance(schema, list):
            for value in schema:
                yield from self.enums(value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", type=pathlib.Path, required=True)
    arguments, others = parser.parse_known_args()
    fairlead = arguments.fairlead.resolve()
    unittest.main(argv=[sys.argv[0], *others])
