"""Layers: who may include whom, and no cycles. docs/ARCHITECTURE.md shows the same table as a picture."""

import re

RULES = {
    "layer": "a folder includes only what the table of layers allows",
    "include_path": 'includes in src/ are written "folder/file.h" and name a file that is there',
    "cycle": "folders and headers include each other in no circle",
}

# Folder of src/: what it may use directly. What those may use, it may use too.
MAY_USE = {
    "base": (),
    "async": ("base",),
    "io": ("async",),
    "sim": ("io",),
    "block": ("io",),
    "nvme": ("base",),
    "host": ("nvme", "block"),
    "target": ("nvme", "block"),
    "pool": ("block",),
    "mirror": ("block",),
    "rpc": ("io",),
    "engine": ("host", "target", "pool", "mirror", "rpc"),
    "control": ("rpc",),
    "gateway": ("control",),
    "csi": ("control",),
    "kube": ("control",),
    "cli": ("engine", "gateway", "csi", "kube"),
}
# Tests of these folders may use the simulator as well; those it is made of may not.
BELOW_SIM = ("base", "async", "io")
# What protoc makes of api/.
GENERATED = re.compile(r"api/[a-z0-9_/]+\.pb\.h")
LIBRARY = re.compile(r"\bfairlead_([a-z]+)\b(?!_)")


def allowed_for(folder):
    """Every folder that `folder` may include, itself among them."""
    allowed = {folder}
    waiting = [folder]
    while waiting:
        for used in MAY_USE[waiting.pop()]:
            if used not in allowed:
                allowed.add(used)
                waiting.append(used)
    return allowed


def check(tree):
    findings = []
    for source in tree.cpp:
        if source.folder:
            findings += _check_file(tree, source)
    for source in tree.sources:
        if source.folder in MAY_USE and source.path.endswith("/CMakeLists.txt"):
            findings += _check_libraries(source)
    return findings + _folder_cycles(tree) + _header_cycles(tree)


def _allowed_in(source):
    allowed = allowed_for(source.folder)
    if source.is_test and source.folder not in BELOW_SIM:
        allowed = allowed | {"sim"}
    return allowed


def _check_file(tree, source):
    if source.folder not in MAY_USE:
        return [source.finding(1, "layer", f"src/{source.folder} is in no layer: add it to tools/lint_rules/layers.py")]
    findings = []
    for line, path in source.includes:
        folder = path.split("/")[0]
        if source.is_test and path.startswith("tests/support/") and path in tree.by_path:
            continue
        if GENERATED.fullmatch(path):
            continue
        if "/" not in path or f"src/{path}" not in tree.by_path:
            findings.append(source.finding(line, "include_path", f'"{path}" is no file below src/'))
        elif folder not in _allowed_in(source):
            may = ", ".join(name for name in MAY_USE if name in _allowed_in(source) and name != source.folder)
            findings.append(source.finding(
                line, "layer", f"src/{source.folder} must not use src/{folder}; it may use: {may or 'nothing'}"))
    return findings


def _check_libraries(source):
    """The same for the libraries that a folder's CMakeLists.txt names."""
    findings = []
    allowed = allowed_for(source.folder) | (set() if source.folder in BELOW_SIM else {"sim"})
    for number, line in enumerate(source.text.splitlines(), 1):
        for name in LIBRARY.findall(line.split("#")[0]):
            if name in MAY_USE and name not in allowed:
                findings.append(source.finding(number, "layer", f"src/{source.folder} must not link fairlead_{name}"))
    return findings


def _folder_cycles(tree):
    edges = {}
    for source in tree.cpp:
        if not source.folder or source.is_test:
            continue
        for line, path in source.includes:
            folder = path.split("/")[0]
            if folder != source.folder and folder in MAY_USE:
                edges.setdefault(source.folder, {}).setdefault(folder, (source, line))
    return _cycle_findings(edges, "src/")


def _header_cycles(tree):
    edges = {}
    for source in tree.cpp:
        for line, path in source.includes if source.is_header else ():
            target = f"src/{path}"
            if target in tree.by_path:
                edges.setdefault(source.path, {}).setdefault(target, (source, line))
    return _cycle_findings(edges, "")


def _cycle_findings(edges, prefix):
    """One finding for each circle, at the include that closes it. A depth-first walk without recursion."""
    findings = []
    done = set()
    for start in sorted(edges):
        path = [start]
        branches = [iter(sorted(edges[start]))] if start not in done else []
        while branches:
            following = next(branches[-1], None)
            if following is None:
                branches.pop()
                done.add(path.pop())
            elif following in path:
                circle = path[path.index(following):] + [following]
                source, line = edges[path[-1]][following]
                findings.append(source.finding(line, "cycle", " -> ".join(prefix + name for name in circle)))
            elif following not in done:
                path.append(following)
                branches.append(iter(sorted(edges.get(following, ()))))
    return findings
