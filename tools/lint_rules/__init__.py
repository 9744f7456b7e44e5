"""The rules of the house lint; tools/lint.py runs them. Each module has RULES (id: meaning) and check(tree)."""
