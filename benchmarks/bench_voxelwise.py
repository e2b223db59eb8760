"""Voxel-wise association: permutations beside nilearn's, enhancement, and products beside the machine's own.

500 people x 20,000 voxels and 5 covariates for permutations; 64 targets and 200,000 voxels for the sums.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.cohort.associate import (
    VoxelwiseDesign,
    add_voxelwise,
    enhance_clusters,
    face_neighbours,
    finish_voxelwise,
    largest_cluster,
    permutable_residuals,
    permuted_largest,
    permuted_rows,
    prepare_voxelwise,
    score_voxels,
    start_voxelwise,
)
from brainlocus.core import Volume
from brainlocus.io import write_volume
from brainlocus.numerics import permute_people, rank_normal
from brainlocus.pipeline.image_voxels import ImageTask, read_images, save_voxels

N, V = 500, 20_000
PERMUTATIONS, THEIRS = 512, 20
BLOCK = 4096


def _permutations(rng: np.random.Generator) -> list[Measurement]:
    covariates, target = rng.normal(size=(N, 5)), rng.normal(size=(N, 1))
    values = rng.normal(size=(N, V)).astype(np.float32)
    group = prepare_voxelwise(target, covariates=covariates).groups[0]
    step = min(permuted_rows(group), 64)

    residuals, _ = permutable_residuals(group, values)
    parts = [np.ascontiguousarray(residuals[:, k : k + BLOCK]) for k in range(0, V, BLOCK)]

    def ours() -> np.ndarray:
        return np.concatenate(
            [
                permuted_largest(group, parts, permute_people(np.random.default_rng(k), N, step)).abs_t
                for k in range(PERMUTATIONS // step)
            ]
        )

    ours()
    each = min(cpu_seconds(ours)[1] for _ in range(3)) / (PERMUTATIONS // step * step)
    rows = [Measurement("Freedman-Lane, a permutation of 500 x 20,000", 1e3 * each, "CPU ms")]
    try:
        from nilearn.mass_univariate import permuted_ols
    except ImportError:
        return rows

    def theirs(count: int) -> float:
        return cpu_seconds(
            lambda: permuted_ols(target, values, confounding_vars=covariates, n_perm=count, verbose=0, random_state=0)
        )[1]

    few, many = (min(theirs(count) for _ in range(3)) for count in (2, 2 + THEIRS))
    other = (many - few) / THEIRS
    return [
        *rows,
        Measurement("nilearn permuted_ols, the same", 1e3 * other, "CPU ms"),
        Measurement("nilearn over ours (asked at least 10)", other / each, "times"),
    ]


def _enhancement(rng: np.random.Generator) -> Measurement:
    from scipy import ndimage

    volume = ndimage.gaussian_filter(rng.normal(size=(64, 72, 64)), 1.5)
    values = 3.0 * (volume / volume.std()).ravel()
    neighbours = face_neighbours(np.ones(volume.shape, dtype=bool))
    enhance_clusters(values, neighbours)
    _, seconds = cpu_seconds(lambda: enhance_clusters(values, neighbours))
    return Measurement("TFCE of a map of 294,912 voxels, both signs", 1e3 * seconds, "CPU ms")


def _product_rate(rng: np.random.Generator, dtype: type[np.floating], moments: int, people: int, voxels: int) -> float:
    """Return the machine's Gflop/s in a product of this shape."""
    left = rng.normal(size=(moments, people)).astype(dtype)
    right = rng.normal(size=(people, voxels)).astype(dtype)
    left @ right
    seconds = min(cpu_seconds(lambda: [left @ right for _ in range(50)])[1] for _ in range(3)) / 50
    return 2.0 * moments * people * voxels / seconds / 1e9


def _sums(rng: np.random.Generator) -> dict[str, Measurement]:
    """Return what the sums of 64 targets and 5 covariates take, for batches of 16 and 256 images."""
    people, targets, voxels = 256, 64, 200_000
    images = rng.normal(size=(people, voxels)).astype(np.float32)
    rows = {}
    for precision, dtype in (("double", np.float64), ("single", np.float32)):
        design = prepare_voxelwise(
            rng.normal(size=(people, targets)), covariates=rng.normal(size=(people, 5)), precision=precision
        )
        machine = _product_rate(rng, dtype, design.n_moments, people, 4096)
        sums = start_voxelwise(design, voxels)
        for batch in (16, 256):
            add_voxelwise(sums, images[:batch], np.arange(batch))
            call = partial(add_voxelwise, sums, images[:batch], np.arange(batch))
            seconds = min(cpu_seconds(call)[1] for _ in range(3))
            rate = 2.0 * design.n_moments * batch * voxels / seconds / 1e9
            rows[f"{precision} {batch}"] = Measurement(
                f"sums, 64 targets, {precision}, {batch} images: a voxel and person", 1e9 * seconds / (batch * voxels),
                "CPU ns", note=f"{rate:.0f} of the product's {machine:.0f} Gflop/s, {rate / machine:.0%}",
            )  # fmt: skip
    return rows


def _scores(rng: np.random.Generator) -> list[Measurement]:
    """Return what normal scores of voxels, and the sums of 64 targets over them, take."""
    rows = []
    for people, voxels in ((1_000, 1_024), (20_000, 104)):
        values = rng.normal(size=(voxels, people)).astype(np.float32)
        score_voxels(values)
        seconds = min(cpu_seconds(partial(score_voxels, values))[1] for _ in range(3))
        name = f"outliers and normal scores, {people} people: a voxel and person"
        rows.append(Measurement(name, 1e9 * seconds / values.size, "CPU ns"))
        sample = values[:20].astype(np.float64)
        _, slow = cpu_seconds(lambda sample=sample: [rank_normal(row) for row in sample])
        rows.append(Measurement("scipy's ranks of one voxel at a time, the same", 1e9 * slow / sample.size, "CPU ns"))
        scores = np.ascontiguousarray(score_voxels(values).values.T)
        design = prepare_voxelwise(rng.normal(size=(people, 64)), covariates=rng.normal(size=(people, 5)))

        def test(design: VoxelwiseDesign = design, scores: np.ndarray = scores) -> None:
            sums = start_voxelwise(design, scores.shape[1])
            for start in range(0, scores.shape[0], 2048):
                part = np.arange(start, min(start + 2048, scores.shape[0]))
                add_voxelwise(sums, scores[part[0] : part[-1] + 1], part)
            finish_voxelwise(sums, 0, slice(0, scores.shape[1]))

        seconds = min(cpu_seconds(test)[1] for _ in range(3))
        lacking = float(np.isnan(scores).any(axis=0).mean())
        rows.append(
            Measurement("sums of 64 targets and estimates, the same", 1e9 * seconds / scores.size, "CPU ns",
                        note=f"{lacking:.0%} of the voxels lack somebody")
        )  # fmt: skip
    return rows


def _clusters(rng: np.random.Generator) -> Measurement:
    from scipy import ndimage

    volume = ndimage.gaussian_filter(rng.normal(size=(64, 72, 64)), 1.5)
    values = (volume / volume.std()).ravel()
    neighbours = face_neighbours(np.ones(volume.shape, dtype=bool))
    largest_cluster(values, neighbours, threshold=3.1)
    seconds = min(cpu_seconds(lambda: largest_cluster(values, neighbours, threshold=3.1))[1] for _ in range(5))
    return Measurement("clusters of a map of 294,912 voxels, both signs", 1e3 * seconds, "CPU ms")


def _shares(sums: dict[str, Measurement], reading: list[Measurement]) -> list[Measurement]:
    """Return at what share of the rate of reading alone images are worked through, by one thread."""
    return [
        Measurement(f"rate with sums over {read.name.split(':')[0]} alone, {precision}",
                    100.0 * read.value / (read.value + sums[f"{precision} 256"].value), "%")
        for read in reading for precision in ("double", "single")
    ]  # fmt: skip


def _reading(rng: np.random.Generator) -> list[Measurement]:
    shape, count = (91, 109, 91), 200_000
    voxels = np.sort(rng.choice(int(np.prod(shape)), count, replace=False))
    data = np.zeros(shape, dtype=np.float32)
    data.ravel()[voxels] = rng.normal(size=count)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        save_voxels(voxels, Path(name) / "voxels.npy")
        for suffix in (".nii", ".nii.gz"):
            path = Path(name) / f"map{suffix}"
            write_volume(Volume(data, np.eye(4), "map"), path)
            task = ImageTask((path,) * 8, Path(name) / "voxels.npy", 0, count, path, zeros_missing=False)
            read_images(task)
            seconds = min(cpu_seconds(partial(read_images, task))[1] for _ in range(3))
            rows.append(Measurement(f"reading {suffix}: a voxel and person", 1e9 * seconds / (8 * count), "CPU ns"))
    return rows


def run() -> list[Measurement]:
    """Measure with one thread, so that CPU seconds are those of the work."""
    rng = np.random.default_rng(0)
    with threadpool_limits(1):
        sums, reading = _sums(rng), _reading(rng)
        return [
            *_permutations(rng),
            _enhancement(rng),
            _clusters(rng),
            *_scores(rng),
            *sums.values(),
            *reading,
            *_shares(sums, reading),
        ]
