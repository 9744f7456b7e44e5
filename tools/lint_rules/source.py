"""Reads the tree: files, C++ text without comments and strings, includes."""

import dataclasses
import functools
import os
import re

SKIPPED_FOLDERS = {".git", "build", ".cache", "__pycache__", "node_modules", "corpus"}
TEXT_SUFFIXES = {".cc", ".h", ".py", ".sh", ".md", ".txt", ".cmake", ".json", ".yaml", ".yml", ".proto"}
TEXT_NAMES = {"dev", "run", "CMakeLists.txt", ".clang-format", ".clang-tidy", ".gitignore"}

# Numbers come first so that the ' of 1'000 starts no character; raw strings before plain ones.
TOKENS = re.compile(
    r"""(?P<number>\b[0-9](?:'?[\w.])*)
      | (?P<comment>//(?:\\\n|[^\n])*|/\*.*?\*/)
      | (?P<raw>\bu?8?[uUL]?R"(?P<mark>[^\s()\\]{0,16})\(.*?\)(?P=mark)")
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])+')""",
    re.VERBOSE | re.DOTALL)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    path: str
    line: int
    rule: str
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


class Source:
    """One file, its path relative to the root with forward slashes."""

    def __init__(self, path, text):
        self.path = path
        self.text = text
        self.is_cpp = path.endswith((".cc", ".h"))
        self.is_header = path.endswith(".h")
        parts = path.split("/")
        # The folder of src/ it belongs to, else None.
        self.folder = parts[1] if parts[0] == "src" and len(parts) > 2 else None
        self.is_test = parts[0] == "tests" or path.endswith("_test.cc") or parts[-1].startswith("test_")

    @property
    def area(self):
        """What the tables of allowed places speak of: a folder of src/, "test" or "bench"."""
        if self.is_test:
            return "test"
        return self.folder or self.path.split("/")[0]

    @functools.cached_property
    def code(self):
        """The text with comments and the insides of strings blanked; every character keeps its place."""
        def blank(match):
            token = match.group(0)
            if match.lastgroup == "number":
                return token
            blanks = re.sub(r"[^\n]", " ", token)
            return blanks if match.group("comment") else '"' + blanks[1:-1] + '"'
        return TOKENS.sub(blank, self.text)

    @functools.cached_property
    def includes(self):
        """(line, path) of each #include "…" that is no comment."""
        found = []
        for match in INCLUDE.finditer(self.text):
            if "#" in self.code[match.start():match.end()]:
                found.append((self.line_of(match.start(1)), match.group(1)))
        return found

    def line_of(self, offset):
        return self.text.count("\n", 0, offset) + 1

    def finding(self, line, rule, message):
        return Finding(self.path, line, rule, message)


class Tree:
    def __init__(self, root, sources):
        self.root = root
        self.sources = sources
        self.by_path = {source.path: source for source in sources}

    @property
    def cpp(self):
        return [source for source in self.sources if source.is_cpp]


def load_tree(root):
    sources = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name not in SKIPPED_FOLDERS)
        for name in sorted(names):
            if name not in TEXT_NAMES and os.path.splitext(name)[1] not in TEXT_SUFFIXES:
                continue
            path = os.path.join(folder, name)
            if os.path.islink(path):
                continue
            with open(path, encoding="utf-8", errors="replace", newline="") as file:
                sources.append(Source(os.path.relpath(path, root).replace(os.sep, "/"), file.read()))
    return Tree(root, sources)
