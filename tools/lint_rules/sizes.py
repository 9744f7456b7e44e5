"""Sizes: files and functions that fit into a head."""

import re

LINES_MAX = {".cc": 800, ".h": 400}
FUNCTION_LINES_MAX = 70
RULES = {
    "file_size": f"a .cc has at most {LINES_MAX['.cc']} lines, a .h {LINES_MAX['.h']}",
    "function_size": f"a function has at most {FUNCTION_LINES_MAX} lines, signature and braces counted",
}

DIRECTIVE = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.MULTILINE)
NAMESPACE = re.compile(r'\bnamespace\b|\bextern\s*"')
# Words and brackets that may stand before class or struct.
PREFIX = re.compile(r"\s*(?:(?:public|private|protected)\s*:|template\b|requires\b[^;{]*?(?=\b(?:class|struct|union)\b)"
                    r"|typedef\b|static\b|constexpr\b|inline\b|const\b|\[\[.*?\]\])\s*", re.DOTALL)
TYPE = re.compile(r"\s*(?:class|struct|union|enum)\b")
ALIGNAS = re.compile(r"\balignas\s*\([^()]*(?:\([^()]*\))?[^()]*\)")


def check(tree):
    findings = []
    for source in tree.cpp:
        lines = source.text.count("\n")
        lines_max = LINES_MAX[".h" if source.is_header else ".cc"]
        if lines > lines_max:
            findings.append(source.finding(lines, "file_size", f"{lines} lines, at most {lines_max}: split it"))
        for first, last, name in functions(source.code):
            if last - first + 1 > FUNCTION_LINES_MAX:
                findings.append(source.finding(
                    first, "function_size", f"{name} has {last - first + 1} lines, at most {FUNCTION_LINES_MAX}"))
    return findings


def functions(code):
    """(first line, last line, name) of every function at namespace or class level in code without comments."""
    code = DIRECTIVE.sub(lambda match: re.sub(r"[^\n]", " ", match.group(0)), code)
    found = []
    stack = []  # for each open brace: "scope", "function" or "other"
    head = 0    # where the declaration under way began
    for match in re.finditer(r"[{};]", code):
        at = match.start()
        symbol = match.group(0)
        inside = stack[-1] if stack else "scope"
        if symbol == ";":
            if inside == "scope" and _balanced(code, head, at):
                head = at + 1
        elif symbol == "{":
            kind = _kind(code[head:at]) if inside == "scope" else "other"
            stack.append(kind)
            if kind == "scope":
                head = at + 1
        elif stack:
            kind = stack.pop()
            if kind == "scope":
                head = at + 1
            elif kind == "function" and not _continues(code, at + 1):
                start = head + len(code[head:at]) - len(code[head:at].lstrip())
                found.append((code.count("\n", 0, start) + 1, code.count("\n", 0, at) + 1, _name(code[start:at])))
                head = at + 1
    return found


def _balanced(code, start, end):
    return code.count("(", start, end) == code.count(")", start, end)


def _kind(head):
    """What the brace behind this text opens, at namespace or class level."""
    if NAMESPACE.search(head):
        return "scope"
    rest = ALIGNAS.sub(" ", head)
    while True:
        match = PREFIX.match(rest)
        if not match:
            break
        rest = rest[match.end():]
        if match.group(0).strip() == "template":
            rest = _after_angles(rest)
    if TYPE.match(rest) and "(" not in rest.split(":")[0]:
        return "scope"
    if "(" not in rest or rest.count("(") != rest.count(")") or rest.rstrip().endswith(("=", ",", "(")):
        return "other"
    return "function"


def _after_angles(text):
    """What follows the <…> that text begins with."""
    depth = 0
    for at, symbol in enumerate(text):
        if symbol == "<":
            depth += 1
        elif symbol == ">" and text[at - 1] != "-":
            depth -= 1
            if depth == 0:
                return text[at + 1:]
    return text


def _continues(code, at):
    """True when the brace just closed was a member initialiser: `: a_{1}, b_{2} {`."""
    following = code[at:at + 200].lstrip()
    return following.startswith((",", "{"))


def _name(text):
    match = re.search(r"([~\w:]+(?:\s*[-+*/=<>!\[\]()]+)?)\s*\(", text)
    return match.group(1) if match else "a function"
