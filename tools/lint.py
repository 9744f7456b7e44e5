#!/usr/bin/env python3
"""The house lint: what the compiler cannot see. Runs in the build, as a test, and by hand.

    tools/lint.py                 every rule on every file; exit code 1 and a line each where one is broken
    tools/lint.py --architecture  only layers, cycles and banned calls: what fails the build
    tools/lint.py --rules         lists the rules

A line that has to break a rule says so, on itself or on the line before, with a reason:

    std::thread reader(run);  // lint: allow(thread) the completion thread of the fallback path
"""

import argparse
import pathlib
import sys

from lint_rules import calls, exemptions, form, layers, sizes
from lint_rules.source import load_tree

GROUPS = (layers, calls, sizes, form)
ARCHITECTURE = (layers, calls)


def run(root, groups=GROUPS):
    """Returns the sorted findings of the given groups of rules on the tree below root."""
    tree = load_tree(pathlib.Path(root))
    findings = [finding for group in groups for finding in group.check(tree)]
    known = {rule for group in GROUPS for rule in group.RULES}
    checked = {rule for group in groups for rule in group.RULES}
    return sorted(exemptions.apply(tree, findings, known, checked))


def main(arguments):
    parser = argparse.ArgumentParser(description="The house lint; see the head of this file.")
    parser.add_argument("--architecture", action="store_true", help="only layers, cycles and banned calls")
    parser.add_argument("--rules", action="store_true", help="list the rules")
    parser.add_argument("--root", default=pathlib.Path(__file__).resolve().parent.parent, help="the tree to check")
    parser.add_argument("--stamp", type=pathlib.Path, help="touch this file when the tree is clean")
    options = parser.parse_args(arguments)
    if options.rules:
        for group in GROUPS:
            for rule, meaning in group.RULES.items():
                print(f"{rule:20} {meaning}")
        return 0
    findings = run(options.root, ARCHITECTURE if options.architecture else GROUPS)
    for finding in findings:
        print(finding)
    if findings:
        print(f"lint: {len(findings)} finding{'s' if len(findings) > 1 else ''}", file=sys.stderr)
        return 1
    if options.stamp:
        options.stamp.touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
