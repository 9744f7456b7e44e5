"""The frame of the benchmarks: what a result is, how runs are paired, where results go.

A benchmark is a function that takes a Bench and returns a list of Results; register() gives it its name. Each Result
sets our figure against a reference that was taken in the same run, on the same machine; the ratio is what counts.
"""

import dataclasses
import json
import pathlib
import statistics
import time

BENCHMARKS = {}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    summary: str
    function: object


def register(name, summary, function):
    BENCHMARKS[name] = Benchmark(summary, function)


def benchmark(function):
    """Registers a function under its own name, underscores written as dashes, with the first line of its docstring."""
    register(function.__name__.replace("_", "-"), function.__doc__.splitlines()[0], function)
    return function


@dataclasses.dataclass
class Result:
    """One figure: the median of `samples`, against the median of `references`.

    Runs are paired: sample i was taken right before reference i, and the ratio is the median of the ratios of pairs. A
    promise has no spread: then `references` is a number. `at_least` and `at_most` are what the ratio must keep to.
    """

    name: str
    unit: str
    samples: list
    references: object
    reference_is: str
    at_least: float = None
    at_most: float = None
    details: dict = dataclasses.field(default_factory=dict)

    @property
    def ours(self):
        return statistics.median(self.samples)

    @property
    def reference(self):
        return statistics.median(self._references())

    @property
    def ratios(self):
        return [ours / reference for ours, reference in zip(self.samples, self._references(), strict=True)]

    @property
    def ratio(self):
        return statistics.median(self.ratios)

    @property
    def must(self):
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return f"<= {self.at_most:g}" if self.at_most is not None else None

    @property
    def reached(self):
        if self.at_least is not None:
            return self.ratio >= self.at_least
        return self.ratio <= self.at_most if self.at_most is not None else None

    def to_json(self):
        values = {
            "name": self.name,
            "unit": self.unit,
            "ours": _rounded(self.ours),
            "reference": _rounded(self.reference),
            "reference_is": self.reference_is,
            "ratio": _rounded(self.ratio),
            "runs": len(self.samples),
            "min": _rounded(min(self.samples)),
            "max": _rounded(max(self.samples)),
            "ratio_min": _rounded(min(self.ratios)),
            "ratio_max": _rounded(max(self.ratios)),
        }
        if self.must:
            values |= {"must": self.must, "reached": self.reached}
        return values | ({"details": self.details} if self.details else {})

    def _references(self):
        return self.references if isinstance(self.references, list) else [self.references] * len(self.samples)


@dataclasses.dataclass
class Bench:
    """What a benchmark is given."""

    fairlead: pathlib.Path
    references: pathlib.Path  # the folder of the reference programs
    runs: int
    seconds: float
    directory: pathlib.Path  # for its files; exists
    target_cpu: int
    initiator_cpu: int


def paired(runs, *measurements):
    """Takes turns: one of each, `runs` times. Returns a list of samples for each.

    Each round begins with another one, so that what drifts (warmth, the allowance of a disk) hurts all alike.
    """
    samples = [[] for _ in measurements]
    for run in range(runs):
        for place in range(len(measurements)):
            which = (run + place) % len(measurements)
            samples[which].append(measurements[which]())
    return samples


def busy_share(seconds=0.3):
    """Which part of all processors is busy just now."""
    def read():
        with open("/proc/stat") as stat:
            fields = [int(field) for field in stat.readline().split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    total, idle = read()
    time.sleep(seconds)
    total_after, idle_after = read()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def write(path, results):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([result.to_json() for result in results], indent=2) + "\n")


def table(results):
    """The results as lines of text."""
    rows = [("benchmark", "ours", "min - max", "reference", "ratio", "min - max", "must", "runs", "reference is")]
    for result in results:
        verdict = "" if not result.must else result.must + (" ok" if result.reached else " MISSED")
        rows.append((
            result.name, f"{_short(result.ours)} {result.unit}",
            f"{_short(min(result.samples))} - {_short(max(result.samples))}", _short(result.reference),
            f"{result.ratio:.3f}", f"{min(result.ratios):.3f} - {max(result.ratios):.3f}", verdict,
            str(len(result.samples)), result.reference_is))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _rounded(value):
    return round(value, 4)


def _short(value):
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
