"""Form: headers as contracts, folders that explain themselves, text without surprises."""

import re

RULES = {
    "pragma_once": "a header has #pragma once",
    "contract": "a header begins with a comment that says what it is and where it lives",
    "folder_files": "a folder of src/ has a README.md and a CMakeLists.txt",
    "licence": "LICENSE holds the Apache License 2.0",
    "unfinished": "no marks of unfinished work: finish it or file it",
    "machine_path": "no path of one machine",
    "blanks": "no trailing blanks, no carriage returns, one newline at the end",
    "dead_link": "a relative link in a page leads to a file",
}

# Written so that this file does not find itself.
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME)\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:wo" r"rk|ho" r"me/\w+|Us" r"ers)/")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def check(tree):
    findings = []
    for source in tree.sources:
        findings += _check_text(source)
        if source.is_header:
            findings += _check_header(source)
        if source.path.endswith(".md"):
            findings += _check_links(tree, source)
    return findings + _check_folders(tree) + _check_licence(tree)


def _check_text(source):
    findings = []
    for number, line in enumerate(source.text.split("\n"), 1):
        if line != line.rstrip():
            findings.append(source.finding(number, "blanks", "blanks at the end of the line"))
        if UNFINISHED.search(line):
            findings.append(source.finding(number, "unfinished", "finish it, or say what is so and why"))
        if MACHINE_PATH.search(line):
            findings.append(source.finding(number, "machine_path", "this path is on one machine only"))
    if source.text and (not source.text.endswith("\n") or source.text.endswith("\n\n")):
        findings.append(source.finding(source.text.count("\n") + 1, "blanks", "end the file with one newline"))
    return findings


def _check_header(source):
    findings = []
    if not re.search(r"^#pragma once$", source.text, re.MULTILINE):
        findings.append(source.finding(1, "pragma_once", "add #pragma once below the first comment"))
    if not source.text.startswith("// "):
        findings.append(source.finding(1, "contract", "begin with a comment: what it is, where it lives"))
    return findings


def _check_links(tree, source):
    findings = []
    folder = (tree.root / source.path).parent
    for match in LINK.finditer(source.text):
        target = match.group(1)
        if ":" not in target and not (folder / target).exists():
            findings.append(source.finding(source.line_of(match.start()), "dead_link", f"{target} is not there"))
    return findings


def _check_folders(tree):
    findings = []
    for folder in sorted({source.folder for source in tree.cpp if source.folder}):
        for name in ("README.md", "CMakeLists.txt"):
            if f"src/{folder}/{name}" not in tree.by_path:
                source = next(source for source in tree.cpp if source.folder == folder)
                findings.append(source.finding(1, "folder_files", f"src/{folder} has no {name}"))
    return findings


def _check_licence(tree):
    path = tree.root / "LICENSE"
    if path.exists() and "Apache License" in path.read_text(encoding="utf-8")[:200]:
        return []
    return [tree.sources[0].finding(1, "licence", "the tree has no LICENSE with the Apache License 2.0")] \
        if tree.sources else []
