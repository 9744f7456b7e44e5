#!/usr/bin/env python3
"""The arithmetic of the harness, and that the reference programs do what they are told."""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

from harness import Result, paired, table

PROGRAMS = None


class ResultTest(unittest.TestCase):
    def test_the_ratio_is_the_median_of_the_pairs_and_not_the_ratio_of_the_medians(self):
        # Both slowed down together in two pairs: each pair but one is at 0.5.
        result = Result("x", "IOPS", [50, 10, 40], [100, 20, 50], "y", at_least=0.6)
        self.assertEqual(result.ratio, 0.5)
        self.assertEqual((result.ours, result.reference), (40, 50))
        self.assertFalse(result.reached)

    def test_less_is_better_where_a_ratio_has_an_upper_limit(self):
        self.assertTrue(Result("x", "us", [12], [10], "y", at_most=1.25).reached)
        self.assertFalse(Result("x", "us", [13], [10], "y", at_most=1.25).reached)

    def test_a_promise_stands_beside_every_sample(self):
        result = Result("x", "MiB", [32, 16], 64, "the promise", at_most=1)
        self.assertEqual(result.ratios, [0.5, 0.25])

    def test_samples_without_their_reference_are_refused(self):
        with self.assertRaises(ValueError):
            _ = Result("x", "IOPS", [1, 2], [1], "y").ratio

    def test_the_json_has_what_is_promised(self):
        values = Result("x", "IOPS", [1, 3, 2], [2, 2, 2], "y", at_least=1, details={"a": 1}).to_json()
        self.assertEqual(values, {
            "name": "x", "unit": "IOPS", "ours": 2, "reference": 2, "reference_is": "y", "ratio": 1, "runs": 3,
            "min": 1, "max": 3, "ratio_min": 0.5, "ratio_max": 1.5, "must": ">= 1", "reached": True,
            "details": {"a": 1}})

    def test_the_table_says_what_was_missed(self):
        lines = table([Result("x", "IOPS", [1], [2], "y", at_least=1), Result("z", "IOPS", [1], [1], "y")])
        self.assertIn("MISSED", lines[1])
        self.assertNotIn("ok", lines[2])

    def test_pairs_take_turns_and_each_is_first_at_times(self):
        order = []
        samples = paired(2, lambda: order.append("ours"), lambda: order.append("theirs"))
        self.assertEqual(order, ["ours", "theirs", "theirs", "ours"])
        self.assertEqual([len(kept) for kept in samples], [2, 2])


class ReferencesTest(unittest.TestCase):
    def run_program(self, name, *arguments):
        done = subprocess.run([PROGRAMS / name, *arguments, "--seconds", "0.2", "--warm-up", "0.02", "--json"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_the_floor_moves_operations_with_each_engine_both_ways(self):
        for engine in ("calls", "ring"):
            for op in ("read", "write"):
                for shape in (("--qd", "1"), ("--qd", "32", "--connections", "4"), ("--qd", "16", "--bs", "128k")):
                    with self.subTest(engine=engine, op=op, shape=shape):
                        ran = self.run_program("floor", "--op", op, "--engine", engine, *shape, "--cpus=-1,-1")
                        self.assertGreater(ran["operations"], 0)
                        self.assertGreater(ran["latency_ns"]["p50"], 0)
                        self.assertGreater(ran["target_cpu_seconds_per_million"], 0)

    def test_the_floor_keeps_to_a_rate(self):
        ran = self.run_program("floor", "--qd", "1", "--rate", "200", "--cpus=-1,-1")
        self.assertLessEqual(ran["iops"], 300)

    def test_bare_io_writes_all_of_a_file(self):
        with tempfile.NamedTemporaryFile(dir=PROGRAMS) as file:
            file.truncate(1 << 20)
            ran = self.run_program("raw_io", file.name, "--rw", "write", "--bs", "128k", "--qd", "4", "--cpu=-1")
            self.assertGreaterEqual(ran["operations"], 8)
            self.assertNotIn(bytes(4096), [file.read(4096) for _ in range(256)])

    def test_bare_io_says_what_it_cannot_open(self):
        done = subprocess.run([PROGRAMS / "raw_io", "/dev/null/file"], stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot open the file", done.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", type=pathlib.Path, help="the folder of the reference programs")
    known, rest = parser.parse_known_args()
    PROGRAMS = known.programs
    unittest.main(argv=[sys.argv[0], *rest])
