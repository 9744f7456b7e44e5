"""A page of docs/ that a tool makes: written, or held against what is there."""

import argparse
import difflib
import pathlib
import sys

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"


def run(description, name, source, make):
    """The tool's main(): SOURCE and --check; `make` turns SOURCE, which `source` describes, into the page's text."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help=source)
    parser.add_argument("--check", action="store_true", help="fails when the page would change")
    options = parser.parse_args()
    page = DOCS / name
    made = make(options.source)
    if not options.check:
        page.write_text(made, encoding="utf-8")
        return 0
    there = page.read_text(encoding="utf-8") if page.exists() else ""
    if made == there:
        return 0
    sys.stdout.writelines(difflib.unified_diff(there.splitlines(True), made.splitlines(True), f"docs/{name}", source))
    print(f"docs/{name} is not what it is made of: run {sys.argv[0]} {options.source}")
    return 1
