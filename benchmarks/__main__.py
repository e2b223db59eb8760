"""Run the benchmarks: `python -m benchmarks [name ...]`."""

import importlib
import pkgutil
import sys

import benchmarks
from benchmarks.measure import Measurement


def main(wanted: list[str]) -> None:
    """Run the named benchmarks (all when none is named) and print a table."""
    names = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name.startswith("bench_")]
    for name in names:
        if wanted and name.removeprefix("bench_") not in wanted:
            continue
        rows: list[Measurement] = importlib.import_module(f"benchmarks.{name}").run()
        for row in rows:
            target = f"asked <= {row.target:g}" if row.target is not None else ""
            print(
                f"{name.removeprefix('bench_'):14} {row.name:58} {row.value:10.3f} {row.unit:6} {target:14} {row.note}"
            )


main(sys.argv[1:])
