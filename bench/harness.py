"""The frame of the benchmarks: what a result is, how runs are repeated, where results go.

A benchmark is a function with @benchmark that takes a Bench and returns a list of Results. Each Result sets our figure
against a reference that was taken in the same run, on the same machine; the ratio is what counts.
"""

import dataclasses
import json
import pathlib
import statistics

BENCHMARKS = {}


def benchmark(function):
    """Registers a benchmark under its name, underscores written as dashes."""
    BENCHMARKS[function.__name__.replace("_", "-")] = function
    return function


@dataclasses.dataclass
class Result:
    """One figure: the median of `samples`, against `reference`."""

    name: str
    unit: str
    samples: list
    reference: float
    reference_is: str

    @property
    def ours(self):
        return statistics.median(self.samples)

    @property
    def ratio(self):
        return self.ours / self.reference

    def to_json(self):
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": round(self.ours, 4),
            "reference": round(self.reference, 4),
            "reference_is": self.reference_is,
            "ratio": round(self.ratio, 4),
            "runs": len(self.samples),
            "min": round(min(self.samples), 4),
            "max": round(max(self.samples), 4),
        }


@dataclasses.dataclass
class Bench:
    """What a benchmark is given."""

    fairlead: pathlib.Path
    runs: int
    seconds: float
    directory: pathlib.Path  # for its files; exists


def write(path, results):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([result.to_json() for result in results], indent=2) + "\n")


def table(results):
    """The results as lines of text."""
    rows = [("benchmark", "ours", "min", "max", "reference", "ratio", "runs", "reference is")]
    for result in results:
        row = result.to_json()
        rows.append(
            (row["name"], f"{row['ours']:g} {row['unit']}", f"{row['min']:g}", f"{row['max']:g}",
             f"{row['reference']:g} {row['unit']}", f"{row['ratio']:.3f}", str(row["runs"]), row["reference_is"])
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
