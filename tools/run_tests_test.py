#!/usr/bin/env python3
"""What ./dev test counts: each runner's closing words, and every way a command can end."""

import contextlib
import io
import pathlib
import sys
import tempfile
import time
import unittest

import run_tests
from run_tests import Command, Count, Step, closing_line, ctest, googletest, no_count, one


class CounterTest(unittest.TestCase):
    def test_ctest(self):
        self.assertEqual(ctest("100% tests passed, 0 tests failed out of 12\n"), Count(12))
        self.assertEqual(ctest("50% tests passed, 1 tests failed out of 2\n"), Count(1, 1))
        self.assertEqual(ctest("1/2 Test #1: a ...***Skipped   0.01 sec\n100% tests passed, 0 tests failed out of 2\n"),
                         Count(1, 0, 1))
        self.assertIsNone(ctest("No such directory"))

    def test_googletest(self):
        self.assertEqual(googletest("[==========] 3 tests\n[  PASSED  ] 3 tests.\n"), Count(3))
        self.assertEqual(googletest("[  PASSED  ] 1 test.\n[  FAILED  ] 2 tests, listed below:\n\n 2 FAILED TESTS\n"),
                         Count(1, 2))
        self.assertEqual(googletest("[  PASSED  ] 1 test.\n[  SKIPPED ] 1 test, listed below:\n"), Count(1, 0, 1))
        self.assertIsNone(googletest("[ RUN      ] a\n"))

    def test_closing_line(self):
        self.assertEqual(closing_line("0 passed, 9 failed\nvm: 4 passed, 1 failed, 2 skipped (5 s)\n"), Count(4, 1, 2))
        self.assertIsNone(closing_line("all is well"))


class StepTest(unittest.TestCase):
    def setUp(self):
        (run_tests.ROOT / "build").mkdir(exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=run_tests.ROOT / "build")
        self.addCleanup(folder.cleanup)
        logs = run_tests.LOGS
        run_tests.LOGS = pathlib.Path(folder.name)
        self.addCleanup(setattr, run_tests, "LOGS", logs)

    def run_stages(self, *stages, limit_s=60):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            count = run_tests.run_step(Step("a", "a step", list(stages), limit_s))
        return count, shown.getvalue()

    @staticmethod
    def python(text, counter):
        return Command([sys.executable, "-c", text], counter)

    def test_counts_add_up(self):
        good = self.python("print('3 passed, 0 failed')", closing_line)
        self.assertEqual(self.run_stages([good, good], [good]), (Count(9), ""))

    def test_failures_are_counted_and_shown(self):
        count, shown = self.run_stages([self.python("print('3 passed, 2 failed'); exit(1)", closing_line)])
        self.assertEqual(count, Count(3, 2))
        self.assertIn("3 passed, 2 failed", shown)

    def test_what_breaks_off_is_a_failure(self):
        for text, counter, word in (("exit(3)", no_count, "exit code 3"),
                                    ("print('3 passed, 0 failed'); exit(1)", closing_line, "exit code 1"),
                                    ("exit(0)", closing_line, "did not say"),
                                    ("print('0 passed, 0 failed')", closing_line, "ran no test"),
                                    ("import os; os.abort()", one, "SIGABRT")):
            with self.subTest(text=text):
                count, shown = self.run_stages([self.python(text, counter)])
                self.assertEqual(count, Count(0, 1))
                self.assertIn(word, shown)

    def test_failed_counts_beat_a_good_exit_code(self):
        self.assertEqual(self.run_stages([self.python("print('1 passed, 1 failed')", closing_line)])[0], Count(1, 1))

    def test_a_missing_program_is_a_failure(self):
        self.assertEqual(self.run_stages([Command(["build/no/such/program"], one)])[0], Count(0, 1))

    def test_a_failed_stage_ends_the_step(self):
        bad = self.python("exit(1)", no_count)
        good = self.python("print('1 passed, 0 failed')", closing_line)
        self.assertEqual(self.run_stages([bad], [good])[0], Count(0, 1))

    def test_a_hanging_command_is_ended_with_its_children(self):
        wait = "import os; r, w = os.pipe(); os.read(r, 1)"
        parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {wait!r}])"
        started = time.monotonic()
        count, shown = self.run_stages([self.python(wait, one), self.python(parent, one)], limit_s=1)
        self.assertEqual(count, Count(0, 2))
        self.assertIn("took too long", shown)
        self.assertLess(time.monotonic() - started, 30)


if __name__ == "__main__":
    unittest.main()
