"""Greedy k-means++ seeds among voxels, in the metric of the factorisation.

References
----------
Arthur & Vassilvitskii (2007), SODA, k-means++ (greedy variant: section 5).
"""

import numpy as np
from jaxtyping import Float, Float64, Int

from brainlocus.images.atlas.fit_step import FitStep, Report, unheard

__all__ = ["MIN_SAMPLE", "SAMPLE_PER_COMPONENT", "sample_voxels", "seed_rows"]

MIN_SAMPLE = 8_192
SAMPLE_PER_COMPONENT = 128
"""Voxels that seeding and restarts use: enough that every component of ordinary size is met a hundred times."""


def sample_voxels(
    norms: Float64[np.ndarray, " voxels"], n_components: int, generator: np.random.Generator
) -> Int[np.ndarray, " chosen"]:
    """Return the non-zero voxels, in order, or a random sample of them where they are many."""
    present = np.flatnonzero(norms > 0)
    size = min(present.size, max(MIN_SAMPLE, SAMPLE_PER_COMPONENT * n_components))
    return np.sort(generator.choice(present, size=size, replace=False)) if size < present.size else present


def seed_rows(
    sample: Float[np.ndarray, "voxels samples"],
    norms: Float64[np.ndarray, " voxels"],
    n_components: int,
    generator: np.random.Generator,
    *,
    what: str = "seed",
    progress: Report = unheard,
) -> Int[np.ndarray, " components"]:
    """Return the rows that greedy k-means++ draws with ``D_j = ||x_j||^2 (1 - max_c cos^2(x_j, x_c))``."""
    unit = sample / np.sqrt(norms)[:, None].astype(np.float32)
    n_candidates = 2 + int(np.log(n_components)) if n_components > 1 else 1
    first = int(generator.choice(norms.size, p=norms / norms.sum()))
    seeds = [first]
    distance = _distances(unit, norms, np.array([first]))[:, 0]
    for number in range(2, n_components + 1):
        progress(FitStep(what, number, n_components))
        total = distance.sum()
        # With fewer distinct directions than components every distance is 0: any voxel serves.
        weights = distance / total if total > 0 else norms / norms.sum()
        candidates = generator.choice(norms.size, size=n_candidates, p=weights)
        proposed = np.minimum(distance[:, None], _distances(unit, norms, candidates))
        keep = int(proposed.sum(axis=0).argmin())
        seeds.append(int(candidates[keep]))
        distance = proposed[:, keep]
    return np.array(seeds, dtype=np.int64)


def _distances(
    unit: Float[np.ndarray, "voxels samples"],
    norms: Float64[np.ndarray, " voxels"],
    rows: Int[np.ndarray, " candidates"],
) -> Float64[np.ndarray, "voxels candidates"]:
    cosine = (unit @ unit[rows].T).astype(np.float64)
    distance = norms[:, None] * np.maximum(1.0 - cosine**2, 0.0)
    distance[rows, np.arange(rows.size)] = 0.0
    return np.asarray(distance)
