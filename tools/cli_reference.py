#!/usr/bin/env python3
"""Makes docs/cli.md of what `fairlead … --help` says. --check tells whether it is true.

    tools/cli_reference.py build/release/src/cli/fairlead            writes docs/cli.md
    tools/cli_reference.py build/release/src/cli/fairlead --check    fails when it would change
"""

import re
import subprocess
import sys

import reference_page

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


if __name__ == "__main__":
    sys.exit(reference_page.run(__doc__, "cli.md", "the program", page))
