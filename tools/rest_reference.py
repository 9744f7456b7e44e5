#!/usr/bin/env python3
"""Makes docs/rest.md of api/openapi.yaml. --check tells whether it is true.

    tools/rest_reference.py api/openapi.yaml            writes docs/rest.md
    tools/rest_reference.py api/openapi.yaml --check    fails when it would change
"""

import json
import pathlib
import sys

try:
    import yaml
except ImportError as missing:
    print(f"skipped: {missing}; ./dev installs it", file=sys.stderr)
    sys.exit(77)

import reference_page

METHODS = ("get", "post", "put", "patch", "delete")
HEAD = "# The REST API\n\nMade by `tools/rest_reference.py` of [api/openapi.yaml](../api/openapi.yaml).\n\n"


def last(reference):
    return reference.rpartition("/")[2]


def anchor(name):
    return f"[{name}](#{name.lower()})"


def cell(text):
    return " ".join(str(text).split()).replace("|", "\\|")


def type_of(schema):
    """In a few words, with links to what is described elsewhere on the page."""
    if "$ref" in schema:
        return anchor(last(schema["$ref"]))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "allOf" in schema:
        return " and ".join(type_of(each) for each in schema["allOf"])
    if "properties" in schema:
        return "object"
    kind = schema.get("type", "any")
    kind = " or ".join(kind) if isinstance(kind, list) else kind
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"names to {type_of(schema['additionalProperties'])}"
    limits = [f"{word} {schema[key]}" for key, word in (("minimum", "at least"), ("maximum", "at most"), ("multipleOf", "multiple of"),
                                                         ("minLength", "length at least"), ("minItems", "at least"),
                                                         ("maxItems", "at most")) if key in schema]
    if "format" in schema:
        limits.append(schema["format"])
    return ", ".join([kind, *limits])


def fields_of(schema, before=""):
    """Rows of a table: name, type, whether it is always there, description; nested objects by dots."""
    for name, field in schema.get("properties", {}).items():
        items = field.get("items", {}) if field.get("type") == "array" else field
        path = f"{before}{name}"
        is_nested = "properties" in items
        kind = ("list of objects" if items is not field else "object") if is_nested else cell(type_of(field))
        needed = "yes" if name in schema.get("required", ()) else ""
        yield f"| `{path}` | {kind} | {needed} | {cell(field.get('description', ''))} |\n"
        if is_nested:
            yield from fields_of(items, f"{path}[]." if items is not field else f"{path}.")


class Page:
    def __init__(self, document):
        self.document = document

    def resolved(self, node):
        while "$ref" in node:
            found = self.document
            for step in node["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            node = found
        return node

    def text(self):
        problem = self.document["components"]["responses"]["Problem"]
        text = HEAD + self.document["info"]["description"].strip() + "\n\n"
        text += f"Every status that is not listed: {cell(problem['description'])}{self.content(problem)}"
        for tag in self.document["tags"]:
            text += f"## {tag['name'].capitalize()}\n\n{tag['description']}\n\n"
            for path, item in self.document["paths"].items():
                for method in METHODS:
                    if tag["name"] in item.get(method, {}).get("tags", ()):
                        text += self.operation(method, path, item)
        text += "## Documents\n\n"
        for name, schema in self.document["components"]["schemas"].items():
            text += self.schema(name, schema)
        return text.rstrip() + "\n"

    def operation(self, method, path, item):
        operation = item[method]
        text = f"### {method.upper()} {path}\n\n{operation['summary'].strip()}\n\n"
        if "description" in operation:
            text += operation["description"].strip() + "\n\n"
        parameters = [self.resolved(each) for each in [*item.get("parameters", ()), *operation.get("parameters", ())]]
        if parameters:
            text += "| parameter | in | |\n|---|---|---|\n"
            text += "".join(f"| `{each['name']}` | {each['in']} | {cell(each.get('description', ''))} |\n" for each in parameters) + "\n"
        if "requestBody" in operation:
            text += "Body:" + self.content(self.resolved(operation["requestBody"]))
        for status, answer in operation["responses"].items():
            if status == "default":  # the head tells
                continue
            answer = self.resolved(answer)
            text += f"{status}: {cell(answer['description'])}{self.content(answer)}"
        return text

    def content(self, holder):
        text = ""
        for media, content in holder.get("content", {}).items():
            schema = content.get("schema", {})
            text += f"{'Or' if text else ''} {type_of(schema)} (`{media}`)\n\n"
            if "properties" in schema:
                text += self.table(schema)
            if "example" in content and isinstance(content["example"], (dict, list)):
                text += f"```json\n{json.dumps(content['example'], indent=2, ensure_ascii=False)}\n```\n\n"
        return text or "\n\n"

    @staticmethod
    def table(schema):
        return "| field | type | always | |\n|---|---|---|---|\n" + "".join(fields_of(schema)) + "\n"

    def schema(self, name, schema):
        text = f"### {name}\n\n"
        if "description" in schema:
            text += schema["description"].strip() + "\n\n"
        for part in schema.get("allOf", [schema]):
            text += self.table(part) if "properties" in part else f"{type_of(part)}\n\n"
        return text


def make(source):
    return Page(yaml.safe_load(pathlib.Path(source).read_text(encoding="utf-8"))).text()


if __name__ == "__main__":
    sys.exit(reference_page.run(__doc__, "rest.md", "the OpenAPI document", make))
