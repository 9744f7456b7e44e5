#!/usr/bin/env python3
"""How ./dev model judges what a search printed: nothing that went wrong may look like a pass."""

import re
import sys
import unittest

import run
from sizes import SIZES, Size

CLEAN = "State-vector 144 byte, depth reached 157, errors: 0\n  1805 states, stored\n  174.1\ttotal actual memory usage\n"
CAUGHT = "pan:1: assertion violated  (a) (at depth 42)\nWarning: Search not completed\n" + CLEAN.replace("errors: 0", "errors: 1")
CUT = "Interrupted\nWarning: Search not completed\n" + CLEAN
SHALLOW = "error: max search depth too small\n" + CLEAN
EXACT = Size("exact", "data", "WRITES=1", ["rule"])
BITS = Size("bits", "data", "WRITES=1", ["rule"], store="bits")
MAY_BE_CUT = Size("large", "data", "WRITES=1", ["rule"], may_be_cut=True)


class JudgeTest(unittest.TestCase):
    def judged(self, size, mutation, output):
        result = run.judge(size, mutation, output, 1.0)
        self.assertEqual(result.passed, "FAILED" not in result.verdict)
        return result

    def test_a_control_passes_only_when_it_ends_without_an_error(self):
        self.assertTrue(self.judged(EXACT, "", CLEAN).passed)
        self.assertTrue(self.judged(BITS, "", CLEAN).passed)
        self.assertTrue(self.judged(MAY_BE_CUT, "", CUT).passed)
        for output in (CAUGHT, CUT, SHALLOW, "", "spin: syntax error", CLEAN.replace("1805", "0")):
            self.assertFalse(self.judged(EXACT, "", output).passed, output)
        self.assertFalse(self.judged(MAY_BE_CUT, "", CAUGHT).passed)

    def test_a_mutation_passes_only_when_it_is_caught(self):
        self.assertTrue(self.judged(EXACT, "rule", CAUGHT).passed)
        self.assertEqual(self.judged(EXACT, "rule", CAUGHT).verdict, "caught at depth 42")
        for output in (CLEAN, CUT, SHALLOW, "", "no such mutation"):
            self.assertFalse(self.judged(EXACT, "rule", output).passed, output)

    def test_coverage_says_what_was_searched(self):
        self.assertEqual(self.judged(EXACT, "", CLEAN).coverage, "all, exact")
        self.assertEqual(self.judged(MAY_BE_CUT, "", CUT).coverage, "cut, exact")
        self.assertRegex(self.judged(BITS, "", CLEAN).coverage, r"^all, bits \de-\d+$")


class SizesTest(unittest.TestCase):
    def test_every_mutation_of_a_model_is_caught_somewhere(self):
        for model in sorted({size.model for size in SIZES}):
            text = (run.MODELS / f"{model}.pml").read_text(encoding="utf-8")
            listed = re.search(r"#define MUTATIONS\(X\)((?:.*\\\n)*.*)", text).group(1)
            declared = set(re.findall(r"X\((\w+)\)", listed)) - run.NOT_CAUGHT
            caught = {mutation for size in SIZES if size.model == model for mutation in size.mutations}
            self.assertEqual(declared - caught, set(), f"no size of {model} catches these")
            self.assertEqual(caught - declared, set(), f"{model} does not know these")

    def test_every_mutation_is_used(self):
        for model in sorted({size.model for size in SIZES}):
            text = (run.MODELS / f"{model}.pml").read_text(encoding="utf-8")
            for mutation in {mutation for size in SIZES if size.model == model for mutation in size.mutations}:
                self.assertIn(f"DROPPED({mutation})", text)

    def test_names_are_unique(self):
        self.assertEqual(len(SIZES), len({size.name for size in SIZES}))


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=1))
