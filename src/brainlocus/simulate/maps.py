"""Grey-matter-like maps with planted regions.

A person's map is the MNI152 grey-matter template, scaled region by region by that person's scores, times smooth and
rough noise::

    map_i(v) = template(v) (1 + c s_{i, region(v)} + sigma_smooth u_i(v) + sigma_rough w_i(v)), at least 0

The template ships inside nilearn, so nothing is downloaded.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from brainlocus.core import Mask, Parcellation
from brainlocus.core.errors import import_extra

__all__ = ["MapModel", "grey_matter_template", "map_model", "plant_regions", "simulate_map"]

MASK_THRESHOLD = 0.25
"""Grey-matter probability from which a voxel belongs to the mask."""
SCORE_SCALE = 0.10
"""c: a score of one standard deviation changes a region's grey matter by a tenth."""
SMOOTH_NOISE = 0.05
ROUGH_NOISE = 0.4
SMOOTHING_MM = 8.0
"""Standard deviation of the Gaussian that makes the smooth noise."""


@dataclass(frozen=True, slots=True, eq=False)
class MapModel:
    """What all maps share."""

    template: Float32[np.ndarray, "x y z"]
    mask: Mask
    regions: Parcellation
    smoothing_voxels: float

    @property
    def n_regions(self) -> int:
        """Planted regions."""
        return len(self.regions.names)


def grey_matter_template(voxel_mm: int) -> tuple[Float32[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """Return the MNI152 grey-matter template of nilearn at a voxel size, values in [0, 1], and its affine.

    Raises
    ------
    MissingExtraError
        nilearn is not installed.
    """
    datasets: Any = import_extra("nilearn.datasets", extra="imaging")
    image = datasets.load_mni152_gm_template(resolution=voxel_mm)
    data = np.clip(np.asarray(image.dataobj, dtype=np.float32), 0, None)
    return (data / data.max()).astype(np.float32), np.asarray(image.affine, dtype=np.float64)


def plant_regions(
    inside: Bool[np.ndarray, "x y z"], n_regions: int, rng: np.random.Generator, *, rounds: int = 12
) -> Int[np.ndarray, "x y z"]:
    """Divide a mask into compact regions of similar size: Lloyd's algorithm on voxel coordinates.

    Returns
    -------
    array
        0 outside, 1 .. `n_regions` inside.

    Raises
    ------
    ValueError
        More regions than voxels.
    """
    voxels = np.argwhere(inside).astype(float)
    if n_regions > len(voxels):
        raise ValueError(f"{n_regions} regions do not fit into a mask of {len(voxels)} voxels.")
    centres = voxels[rng.choice(len(voxels), n_regions, replace=False)]
    nearest = cKDTree(centres).query(voxels)[1]
    for _ in range(rounds):
        sizes = np.bincount(nearest, minlength=n_regions)
        sums = np.stack([np.bincount(nearest, voxels[:, axis], minlength=n_regions) for axis in range(3)], axis=1)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
        nearest = cKDTree(centres).query(voxels)[1]
    labels = np.zeros(inside.shape, dtype=np.int32)
    labels[inside] = nearest + 1
    return labels


def simulate_map(
    model: MapModel, scores: Float[np.ndarray, " regions"], rng: np.random.Generator
) -> Float32[np.ndarray, "x y z"]:
    """Return one person's map, grey-matter fraction per voxel, 0 outside the mask."""
    inside = model.mask.data
    smooth = gaussian_filter(rng.standard_normal(inside.shape, dtype=np.float32), model.smoothing_voxels)
    factor = 1.0 + SCORE_SCALE * scores.astype(np.float32)[model.regions.labels[inside] - 1]
    factor += SMOOTH_NOISE / smooth[inside].std() * smooth[inside]
    factor += ROUGH_NOISE * rng.standard_normal(int(inside.sum()), dtype=np.float32)
    result = np.zeros(inside.shape, dtype=np.float32)
    result[inside] = np.maximum(model.template[inside] * factor, 0.0)
    return result


def map_model(voxel_mm: int, n_regions: int, rng: np.random.Generator) -> MapModel:
    """Return template, mask and planted regions at a voxel size."""
    template, affine = grey_matter_template(voxel_mm)
    inside = template > MASK_THRESHOLD
    labels = plant_regions(inside, n_regions, rng)
    names = {k + 1: f"planted_{k + 1}" for k in range(n_regions)}
    return MapModel(template, Mask(inside, affine), Parcellation(labels, affine, names), SMOOTHING_MM / voxel_mm)
