#!/usr/bin/env python3
"""Makes docs/cli.md of what `fairlead … --help` says. --check tells whether it is true.

    tools/cli_reference.py build/release/src/cli/fairlead            writes docs/cli.md
    tools/cli_reference.py build/release/src/cli/fairlead --check    fails when it would change
"""

import argparse
import difflib
import pathlib
import re
import subprocess
import sys

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "cli.md"
HEAD = """# The command line

Made by `tools/cli_reference.py` of what `fairlead … --help` says.

"""


def run(fairlead, *words):
    done = subprocess.run([fairlead, *words], stdout=subprocess.PIPE, text=True, check=True, timeout=30)
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def commands_of(text):
    """The names in the part "Subcommands:" of a help text."""
    found = re.search(r"^Subcommands:\n((?:  .*\n?)+)", text + "\n", re.MULTILINE)
    return re.findall(r"^  (\S+)", found.group(1), re.MULTILINE) if found else []


def page(fairlead):
    text = HEAD

    def add(words):
        nonlocal text
        shown = run(fairlead, *words, "--help")
        text += f"{'#' * min(len(words) + 2, 4)} {' '.join(['fairlead', *words])}\n\n```text\n{shown}\n```\n\n"
        for name in commands_of(shown):
            add([*words, name])

    add([])
    text += f"## Exit codes\n\n```text\n{run(fairlead, 'help', 'exit-codes')}\n```\n"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fairlead")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    made = page(options.fairlead)
    if not options.check:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    there = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if made == there:
        return 0
    sys.stdout.writelines(difflib.unified_diff(there.splitlines(True), made.splitlines(True), "docs/cli.md", "--help"))
    print(f"docs/cli.md is not what --help says: run tools/cli_reference.py {options.fairlead}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
