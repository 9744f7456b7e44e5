"""`// lint: allow(rule) reason`: takes a finding away, and is itself checked."""

import re

from .source import Finding

ALLOW = re.compile(r"(?://|#) lint: allow\(([\w, ]*)\)[ \t]*([^\n]*)")
RULES = {"exemption": "an exemption names a known rule, gives a reason, and is needed"}


def apply(tree, findings, known, checked):
    """Returns the findings that no exemption covers, and one for each exemption that is wrong."""
    allowed = {}  # (path, line, rule): the line of the exemption
    kept = []
    for source in tree.cpp:
        for match in ALLOW.finditer(source.text):
            line = source.line_of(match.start())
            before = source.text[source.text.rfind("\n", 0, match.start()) + 1:match.start()]
            covered = line if before.strip() else line + 1
            for rule in (name.strip() for name in match.group(1).split(",")):
                if rule not in known:
                    kept.append(Finding(source.path, line, "exemption", f"there is no rule '{rule}'"))
                elif not match.group(2).strip():
                    kept.append(Finding(source.path, line, "exemption", f"say why {rule} is allowed here"))
                else:
                    allowed[source.path, covered, rule] = line
    used = set()
    for finding in findings:
        key = (finding.path, finding.line, finding.rule)
        if key in allowed:
            used.add(key)
        else:
            kept.append(finding)
    for key, line in allowed.items():
        if key not in used and key[2] in checked:
            kept.append(Finding(key[0], line, "exemption", f"nothing here breaks {key[2]}: take the exemption away"))
    return kept
