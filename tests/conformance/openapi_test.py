#!/usr/bin/env python3
"""api/openapi.yaml and a real `fairlead control` say the same: every route is in both, every answer is as the document
has it, and what the document shows as an example is valid.

  openapi_test.py --fairlead PROGRAM --document api/openapi.yaml
"""

import argparse
import http.client
import json
import re
import sys
import tempfile
import unittest

try:
    import jsonschema
    import yaml
except ImportError as missing:
    print(f"skipped: {missing}; ./dev installs it", file=sys.stderr)
    sys.exit(77)

from control_process import ControlProcess

METHODS = ("get", "put", "post", "patch", "delete", "options", "head")
MIB = 1 << 20
REPLICA = "5e1f7b6a-3a53-4c5e-9a0f-0f6d3f1c2b4a"

fairlead = None
document = None


def resolve(node):
    """What a $ref points to, else the node itself."""
    while isinstance(node, dict) and "$ref" in node:
        target = document
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target
    return node


def check(instance, schema):
    jsonschema.Draft202012Validator({"allOf": [schema], "components": document["components"]}).validate(instance)


def operations():
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method], item.get("parameters", [])


class DocumentTest(unittest.TestCase):
    """The document by itself."""

    def test_schemas_and_examples_are_valid(self):
        for name, schema in document["components"]["schemas"].items():
            with self.subTest(schema=name):
                jsonschema.Draft202012Validator.check_schema(schema)
        contents = []
        for method, path, operation, _ in operations():
            bodies = [("request", resolve(operation.get("requestBody", {})))]
            bodies += [(status, resolve(answer)) for status, answer in operation["responses"].items()]
            for what, body in bodies:
                contents += [(f"{method} {path} {what}", each) for each in body.get("content", {}).values()]
        self.assertGreater(len(contents), 40)
        for where, content in contents:
            with self.subTest(where=where):
                check({}, {"anyOf": [content["schema"], {}]})  # every reference leads somewhere
                if "example" in content:
                    check(content["example"], content["schema"])

    def test_operations_are_whole(self):
        identifiers = set()
        for method, path, operation, shared in operations():
            with self.subTest(operation=f"{method} {path}"):
                self.assertNotIn(operation["operationId"], identifiers)
                identifiers.add(operation["operationId"])
                self.assertTrue(operation["summary"])
                self.assertTrue(set(operation["tags"]) <= {tag["name"] for tag in document["tags"]})
                parameters = [resolve(each) for each in shared + operation.get("parameters", [])]
                in_path = {each["name"] for each in parameters if each["in"] == "path"}
                self.assertEqual(in_path, set(re.findall(r"{(\w+)}", path)))


class ServerTest(unittest.TestCase):
    """The document and the server."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.control = ControlProcess(fairlead, cls.folder.name)
        cls.wait_until_ready(cls.control)
        cls.seen = set()

    @classmethod
    def tearDownClass(cls):
        code = cls.control.stop()
        cls.folder.cleanup()
        if code != 0:
            raise RuntimeError(f"fairlead control ended with {code}")

    @staticmethod
    def wait_until_ready(control):
        while control.ask("GET", "/readyz")[0] != 200:
            pass

    def ask(self, method, template, body=None, headers=None, name="", query=""):
        """Asks, and holds the answer to what the document says of it."""
        status, found, answer = self.control.ask(method, template.replace("{name}", name) + query, body, headers)
        operation = document["paths"][template][method.lower()]
        self.assertTrue(str(status) in operation["responses"] or "default" in operation["responses"],
                        f"{method} {template}: {status} is not in the document: {answer}")
        response = resolve(operation["responses"].get(str(status), operation["responses"].get("default")))
        contents = response.get("content", {})
        if not contents:
            self.assertEqual(answer, "")
        else:
            kind = found["content-type"].split(";")[0]
            self.assertIn(kind, contents, f"{method} {template}: {status} {answer}")
            check(answer, contents[kind]["schema"])
        for header in response.get("headers", {}):
            self.assertIn(header.lower(), found, f"{method} {template} {status}")
        if status >= 400:
            self.assertEqual(answer["status"], status)
        self.seen.add((method, template, status))
        return status, found, answer

    def test_routes_are_those_of_the_document(self):
        status, _, index = self.ask("GET", "/v1")
        self.assertEqual(status, 200)
        self.assertEqual(sorted(index["routes"]), sorted(f"{method} {path}" for method, path, _, _ in operations()))

    def test_parameters_are_those_of_the_document(self):
        for method, path, operation, shared in operations():
            if method != "GET" or path == "/v1/watch":
                continue
            known = {each["name"] for each in map(resolve, shared + operation.get("parameters", []))
                     if each["in"] == "query"}
            for parameter in ("label", "volume", "node", "limit", "continue", "after", "resource", "kind", "revision"):
                with self.subTest(path=path, parameter=parameter):
                    value = "a=b" if parameter == "label" else "1"
                    status, _, answer = self.ask(method, path, name="none", query=f"?{parameter}={value}")
                    is_refused = status == 400 and "take" in answer["detail"]
                    self.assertEqual(is_refused, parameter not in known, answer)

    def test_every_operation_answers_as_the_document_says(self):
        for path in ("/livez", "/readyz", "/metrics", "/v1", "/v1/overview", "/v1/events"):
            self.assertEqual(self.ask("GET", path)[0], 200)
        examples = {}
        for method, path, operation, _ in operations():
            content = resolve(operation.get("requestBody", {})).get("content", {})
            for each in content.values():
                examples.setdefault((method, path), each.get("example"))
        self.assertEqual(self.ask("POST", "/v1/volumes", examples["POST", "/v1/volumes"])[0], 201)
        self.assertEqual(self.ask("POST", "/v1/volumes", examples["POST", "/v1/volumes"])[0], 200)
        self.assertEqual(self.ask("POST", "/v1/snapshots", examples["POST", "/v1/snapshots"])[0], 201)
        self.assertEqual(self.ask("POST", "/v1/volumes", {"name": "log", "spec": {"size_bytes": MIB}})[0], 201)
        self.assertEqual(self.ask("POST", "/v1/snapshot-groups", examples["POST", "/v1/snapshot-groups"])[0], 201)
        self.assertEqual(self.ask("POST", "/v1/snapshot-groups", examples["POST", "/v1/snapshot-groups"])[0], 200)
        self.assertEqual(self.ask("GET", "/v1/settings")[0], 200)
        self.assertEqual(self.ask("PATCH", "/v1/settings", examples["PATCH", "/v1/settings"])[0], 200)
        # There is no node without an engine.
        self.assertEqual(self.ask("POST", "/v1/pools", examples["POST", "/v1/pools"])[0], 422)
        names = {"volumes": "db", "snapshots": "db-monday", "snapshot-groups": "monday"}
        for kind in ("nodes", "pools", "volumes", "replicas", "snapshots", "snapshot-groups"):
            name = names.get(kind, "none")
            there = 200 if kind in names else 404
            self.assertEqual(self.ask("GET", f"/v1/{kind}")[0], 200)
            self.assertEqual(self.ask("GET", f"/v1/{kind}/{{name}}", name=name)[0], there)
            self.assertEqual(self.ask("GET", f"/v1/{kind}/{{name}}/why", name=name)[0], there)
            if kind == "replicas":
                continue
            if kind != "snapshot-groups":
                patch = examples["PATCH", f"/v1/{kind}/{{name}}"]
                headers = {"Content-Type": "application/merge-patch+json"}
                self.assertEqual(self.ask("PATCH", f"/v1/{kind}/{{name}}", json.dumps(patch), headers, name)[0], there)
            self.assertEqual(self.ask("DELETE", f"/v1/{kind}/{{name}}", name="none")[0], 204)
        # The volume has a snapshot, and nobody serves it.
        self.assertEqual(self.ask("DELETE", "/v1/volumes/{name}", name="db")[0], 409)
        self.assertEqual(self.ask("POST", "/v1/volumes/{name}/force", {"replica": REPLICA}, name="db")[0], 409)
        answer = {"request": "r-1", "state": "frozen"}
        self.assertEqual(self.ask("POST", "/v1/volumes/{name}/frozen", answer, name="db")[0], 412)
        self.assertEqual(self.ask("DELETE", "/v1/snapshots/{name}", name="db-monday")[0], 202)
        self.assertEqual(self.ask("DELETE", "/v1/snapshot-groups/{name}", name="monday")[0], 202)
        self.assertEqual(self.ask("POST", "/v1/recover")[0], 200)
        asked = {(method, template) for method, template, _ in self.seen}
        self.assertEqual({(method, path) for method, path, _, _ in operations()} - asked, {("GET", "/v1/watch")})

    def test_revisions_are_compared(self):
        _, found, volume = self.ask("POST", "/v1/volumes", {"name": "cas", "spec": {"size_bytes": MIB}})
        self.assertEqual(found["etag"], f'"{volume["revision"]}"')
        patch = {"labels": {"a": "b"}}
        one = "/v1/volumes/{name}"
        self.assertEqual(self.ask("PATCH", one, patch, {"If-Match": '"1000000"'}, "cas")[0], 412)
        status, changed, _ = self.ask("PATCH", one, patch, {"If-Match": found["etag"]}, "cas")
        self.assertEqual(status, 200)
        self.assertEqual(self.ask("DELETE", one, headers={"If-Match": found["etag"]}, name="cas")[0], 412)
        self.assertIn(self.ask("DELETE", one, headers={"If-Match": changed["etag"]}, name="cas")[0], (202, 204))

    def test_lists_come_in_pages(self):
        for number in range(5):
            self.ask("POST", "/v1/volumes", {"name": f"page-{number}", "labels": {"set": "pages"},
                                             "spec": {"size_bytes": MIB}})
        names, query = [], "?label=set%3Dpages&limit=2"
        while query:
            _, _, answer = self.ask("GET", "/v1/volumes", query=query)
            names += [item["name"] for item in answer["items"]]
            query = f"?label=set%3Dpages&limit=2&continue={answer['continue']}" if "continue" in answer else None
        self.assertEqual(names, [f"page-{number}" for number in range(5)])

    def test_a_watch_tells_what_changes(self):
        connection = http.client.HTTPConnection(self.control.host, self.control.port, timeout=60)
        self.addCleanup(connection.close)
        connection.request("GET", "/v1/watch?kind=volumes&label=set%3Dwatch")
        response = connection.getresponse()
        self.assertEqual(response.status, 200)
        self.assertEqual(response.headers["Content-Type"], "text/event-stream")

        def read_event(wanted):
            name = None
            for line in iter(response.readline, b""):
                line = line.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                if line.startswith("data: ") and name == wanted:
                    return json.loads(line.removeprefix("data: "))
            self.fail(f"the stream ended before {wanted}")

        read_event("synced")
        self.ask("POST", "/v1/volumes", {"name": "seen", "labels": {"set": "watch"}, "spec": {"size_bytes": MIB}})
        volume = read_event("resource")
        check(volume, {"$ref": "#/components/schemas/Volume"})
        self.assertEqual(volume["name"], "seen")
        self.ask("DELETE", "/v1/volumes/{name}", name="seen")
        self.assertEqual(read_event("gone"), {"kind": "volume", "name": "seen"})

    def test_what_is_refused_is_a_problem(self):
        for method, path, body, headers, status in (
                ("GET", "/v1/hamsters", None, {}, 404),
                ("PUT", "/v1/volumes", "{}", {"Content-Type": "application/json"}, 405),
                ("POST", "/v1/volumes", "{", {"Content-Type": "application/json"}, 400),
                ("POST", "/v1/volumes", "{}", {"Content-Type": "text/plain"}, 415),
                ("POST", "/v1/volumes", {"name": "x", "spec": {"size": 1}}, {}, 422),
                ("POST", "/v1/volumes", " " * (MIB + 1), {"Content-Type": "application/json"}, 413),
                ("GET", "/v1", None, {"Host": "evil.example"}, 421),
                ("GET", "/v1", None, {"Origin": "http://evil.example"}, 403)):
            with self.subTest(method=method, path=path, status=status):
                found, headers, answer = self.control.ask(method, path, body, headers)
                self.assertEqual(found, status, answer)
                self.assertEqual(headers["content-type"], "application/problem+json")
                check(answer, {"$ref": "#/components/schemas/Problem"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fairlead", required=True)
    parser.add_argument("--document", required=True)
    options, rest = parser.parse_known_args()
    fairlead = options.fairlead
    with open(options.document, encoding="utf-8") as file:
        document = yaml.safe_load(file)
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
