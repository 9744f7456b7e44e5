#!/usr/bin/env python3
"""Makes the table of values in deploy/helm/fairlead/README.md of values.yaml. --check tells whether it is true.

    tools/chart_reference.py            writes the table
    tools/chart_reference.py --check    fails when it would change, or a value has no comment
"""

import argparse
import json
import pathlib
import re
import sys

try:
    import yaml
except ImportError as missing:
    print(f"skipped: {missing}; ./dev installs it", file=sys.stderr)
    sys.exit(77)

CHART = pathlib.Path(__file__).resolve().parent.parent / "deploy" / "helm" / "fairlead"
HEAD = "## Values\n"


def described(text):
    """(path, comment) of each key, in order; the comment is what stands right above it."""
    path, comment = [], []
    for line in text.splitlines():
        if found := re.match(r" *# (.*)$", line):
            comment.append(found[1])
        elif found := re.match(r"( *)([A-Za-z]+):", line):
            path = [*path[:len(found[1]) // 2], found[2]]
            yield tuple(path), " ".join(comment)
            comment = []
        else:
            comment = []


def value_at(values, path):
    for name in path:
        values = values[name]
    return values


def is_value(values, path):
    """Keys in the items of a list are none."""
    return all(isinstance(value_at(values, path[:depth]), dict) for depth in range(len(path)))


def rows(text):
    """(name, default, comment) of each value: what has keys with a comment of their own is no value."""
    values = yaml.safe_load(text)
    keys = [(path, comment) for path, comment in described(text) if is_value(values, path)]
    groups = {path[:-1] for path, _ in keys}
    for path, comment in keys:
        if path not in groups:
            yield ".".join(path), json.dumps(value_at(values, path)), comment


def table(text):
    lines = ["", "| value | default | |", "|---|---|---|"]
    for name, default, comment in rows(text):
        if not comment:
            raise SystemExit(f"values.yaml: {name} has no comment")
        lines.append(f"| `{name}` | `{default}` | {comment.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fails when the table would change")
    options = parser.parse_args()
    page = CHART / "README.md"
    before, head, there = page.read_text(encoding="utf-8").partition(HEAD)
    made = table((CHART / "values.yaml").read_text(encoding="utf-8"))
    if not options.check:
        page.write_text(before + HEAD + made, encoding="utf-8")
    elif not head or made != there:
        print("deploy/helm/fairlead/README.md is not what it is made of: run tools/chart_reference.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
