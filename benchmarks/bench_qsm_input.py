"""Reading gradient-echo series of UK Biobank's size: seconds, and memory beside the arrays returned."""

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
from tests.qsm_dataset import write_series

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.io import find_gradient_echoes, open_channels, read_gradient_echo

SHAPE = (256, 288, 48)
AFFINE = np.diag([0.8, 0.8, 3.0, 1.0])


def run() -> list[Measurement]:
    """Measure a combined series in 12 bits, compressed, and coils in one 5-D file and in files of their own."""
    rng = np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        phase = rng.uniform(-np.pi, np.pi, (2, *SHAPE)).astype(np.float32)
        magnitude = np.rint(rng.uniform(1, 4000, (2, *SHAPE))).astype(np.int16)
        write_series(Path(folder, "combined"), "01", phase, magnitude, affine=AFFINE, stored="siemens")
        (files,) = find_gradient_echoes(Path(folder, "combined"))
        rows.append(Measurement("2 echoes, .nii.gz", cpu_seconds(lambda: read_gradient_echo(files))[1], "CPU s"))
        tracemalloc.start()
        loaded = read_gradient_echo(files)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        rows.append(
            Measurement("2 echoes, peak over arrays returned", peak / (2 * loaded.series.phase_rad.nbytes), "x")
        )
        del loaded
        n = 4
        many = [np.stack([part] * n) for part in (phase, magnitude)]
        for layout, extension in (("coils", ".nii.gz"), ("5-D", ".nii"), ("5-D", ".nii.gz")):
            place = Path(folder, layout + extension)
            write_series(place, "01", *many, affine=AFFINE, stored="siemens", layout=layout, extension=extension)
            source = open_channels(find_gradient_echoes(place).series[0])
            seconds = cpu_seconds(lambda s=source: [s.read(c) for c in range(n)])[1] / n
            rows.append(Measurement(f"one coil of 2 echoes, {layout} {extension}", seconds, "CPU s"))
    return rows
