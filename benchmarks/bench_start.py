"""How long it takes to start: importing the package, showing the help."""

import subprocess
import sys

from benchmarks.measure import Measurement, wall_seconds


def run() -> list[Measurement]:
    """Measure both in fresh processes, best of five."""
    commands = {
        "import brainlocus": ([sys.executable, "-c", "import brainlocus"], 0.3),
        "import brainlocus.core": ([sys.executable, "-c", "import brainlocus.core"], None),
        "brainlocus --help": ([sys.executable, "-m", "brainlocus.cli.main", "--help"], 0.7),
    }
    rows = []
    for name, (command, target) in commands.items():
        best = min(
            wall_seconds(lambda c=command: subprocess.run(c, check=True, capture_output=True))[1] for _ in range(5)
        )
        rows.append(Measurement(name, best, "s", target))
    return rows
