#!/usr/bin/env python3
"""Runs clang-tidy, on the changed files or on all. ./dev check calls it after configuring build/release.

Changed: since the branch left main, or on main itself in the last commit; and what is not committed yet. A changed
header is checked through the .cc of its name, or through its header self-test.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "release"
DATABASE = BUILD / "tidy"


def git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []


def changed_files():
    base = next((found[0] for name in ("main", "origin/main")
                 if (found := git("merge-base", "HEAD", name)) and found != git("rev-parse", "HEAD")), "HEAD~1")
    return {*git("diff", "--name-only", base), *git("ls-files", "--others", "--exclude-standard")}


def write_database():
    """The build's compilation database without precompiled headers, which need not be built then; returns its files."""
    entries = json.loads((BUILD / "compile_commands.json").read_text())
    for entry in entries:
        entry["command"] = re.sub(r"-Xclang -include-pch -Xclang \S+", "", entry["command"])
    DATABASE.mkdir(exist_ok=True)
    (DATABASE / "compile_commands.json").write_text(json.dumps(entries))
    return [os.path.relpath(entry["file"], ROOT) for entry in entries]


def units(scope):
    """The files to check."""
    known = write_database()
    own = {path for path in known if path.startswith(("src/", "tests/", "bench/"))}
    if scope == "all":
        return sorted(own)
    wanted = set()
    for path in changed_files():
        source = path.removesuffix(".h") + ".cc"
        if source in own:
            wanted.add(source)
        elif path.endswith(".h"):
            folder, name = os.path.split(path)
            wanted |= {unit for unit in known if unit.endswith(f"{folder}/headers/{name}.cc")}
    return sorted(wanted)


def run(unit):
    done = subprocess.run(["clang-tidy-19", "--quiet", "-p", str(DATABASE), unit], cwd=ROOT,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    # Standard error counts the warnings of system headers, unless it says why nothing could be checked.
    return done.returncode, done.stdout or done.stderr


def main(arguments):
    parser = argparse.ArgumentParser(description="Runs clang-tidy.")
    parser.add_argument("--scope", choices=("changed", "all"), default="changed")
    options = parser.parse_args(arguments)
    wanted = units(options.scope)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for unit, (status, output) in zip(wanted, pool.map(run, wanted)):
            if status:
                failed += 1
                print(f"{unit}:\n{output}", flush=True)
    print(f"clang-tidy: {len(wanted) - failed} of {len(wanted)} files clean")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
