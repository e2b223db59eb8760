"""Regions, resampling, templates and reliability: time and memory at the size of a UK Biobank subject and cohort."""

import tracemalloc

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.cohort.associate import measure_reliability
from brainlocus.core import Grid, Mask, Parcellation, Volume
from brainlocus.core.results import concat_results
from brainlocus.core.transforms import AffineTransform, DisplacementField
from brainlocus.images.idp import (
    add_images,
    assemble_idps,
    finish_template,
    measure_regions,
    prepare_template,
    start_template,
    subject_idps,
    template_bytes,
)
from brainlocus.numerics.resample import resample_map

_SWI, _MNI = (256, 288, 48), (182, 218, 182)


def run() -> list[Measurement]:
    with threadpool_limits(1):
        return [*_resampling(), *_regions(), *_template(), *_reliability()]


def _grid(shape: tuple[int, int, int], size: tuple[float, float, float]) -> Grid:
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = [-n * h / 2 for n, h in zip(shape, size, strict=True)]
    return Grid(shape, affine)


def _resampling() -> list[Measurement]:
    grid, standard = _grid(_SWI, (0.8, 0.8, 3.0)), _grid(_MNI, (1.0, 1.0, 1.0))
    data = np.random.default_rng(0).normal(size=_SWI).astype(np.float32)
    volume = Volume(data, grid.affine, "susceptibility", "ppm")
    turn = AffineTransform(np.array([[0.99, -0.1, 0, 3], [0.1, 0.99, 0, -2], [0, 0, 1, 1], [0, 0, 0, 1.0]]))
    field = DisplacementField(np.zeros((*_MNI, 3), dtype=np.float32), standard.affine)
    rows = []
    for name, chain in (("affine", (turn,)), ("field and affine", (field, turn))):
        _, seconds = cpu_seconds(lambda chain=chain: resample_map(volume, standard, chain))
        tracemalloc.start()
        resample_map(volume, standard, chain)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        rows += [
            Measurement(f"swMRI to MNI 1 mm, {name}, CPU", seconds, "s", None, "256 x 288 x 48 to 182 x 218 x 182"),
            Measurement(f"swMRI to MNI 1 mm, {name}, peak", peak, "MiB", None, "beyond the map and the field"),
        ]
    return rows


def _regions() -> list[Measurement]:
    grid = _grid(_MNI, (1.0, 1.0, 1.0))
    labels = np.zeros(_MNI, dtype=np.int16)
    for k, number in enumerate((10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58)):
        labels[20 + 10 * k : 29 + 10 * k, 90:120, 80:100] = number
    parcels = Parcellation(labels, grid.affine)
    chi = Volume(np.random.default_rng(0).normal(size=_MNI).astype(np.float32), grid.affine, "", "ppm")
    inside = Mask(np.ones(_MNI, dtype=bool), grid.affine)
    _, seconds = cpu_seconds(lambda: measure_regions(chi, parcels, inside))
    small = Volume(chi.data[:, 90:120, 80:100].copy(), grid.affine, "", "ppm")
    few = Parcellation(labels[:, 90:120, 80:100].copy(), grid.affine)
    part = Mask(inside.data[:, 90:120, 80:100].copy(), grid.affine)
    one = subject_idps({"QSM": small, "T2star": small}, few, part, participant_id="sub-0")
    people = []
    for k in range(20_000):
        columns = dict(one.columns)
        columns["participant_id"] = np.full(len(one), f"sub-{k:05d}")
        people.append(type(one)(columns))
    rows = concat_results(people)
    _, assembling = cpu_seconds(lambda: assemble_idps(rows))
    return [
        Measurement("erode and measure 14 regions, MNI 1 mm, CPU", seconds, "s", None, "one map"),
        Measurement("tables of 20,000 people, CPU", assembling, "s", None, f"{len(rows):,} rows"),
    ]


def _template() -> list[Measurement]:
    voxels, batch, n_people = 1_000_000, 8, 64
    rng = np.random.default_rng(0)
    design = prepare_template(
        n_people, contrast=rng.uniform(45, 80, n_people), covariates=rng.normal(size=(n_people, 2)), min_share=0.5
    )
    block = rng.normal(size=(batch, voxels)).astype(np.float32)
    block[:, : voxels // 10][rng.uniform(size=(batch, voxels // 10)) < 0.2] = np.nan

    def stream() -> None:
        sums = start_template(design, voxels)
        for start in range(0, n_people, batch):
            add_images(sums, block, np.arange(start, start + batch))
        finish_template(sums)

    _, seconds = cpu_seconds(stream)
    tracemalloc.start()
    stream()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    declared = template_bytes(design, voxels, batch) / 2**20
    return [
        Measurement(
            "template, CPU per image", seconds / n_people, "s", None, "1,000,000 voxels, contrast, 2 covariates"
        ),
        Measurement("template, peak", peak, "MiB", declared, f"declared {declared:.0f} MiB"),
    ]


def _reliability() -> list[Measurement]:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1_368, 1, 36)) + rng.normal(size=(1_368, 2, 36))
    _, seconds = cpu_seconds(lambda: measure_reliability(values, n_bootstrap=2_000))
    return [Measurement("reliability, 2,000 draws, CPU", seconds, "s", None, "1,368 people x 2 sessions x 36 measures")]
