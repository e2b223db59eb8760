"""Images of a store: brought to display resolution and written as small NIfTI files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from brainlocus.core import Parcellation, Volume
from brainlocus.core.errors import import_extra

__all__ = ["DISPLAY_MM", "RegionShape", "display_labels", "display_template", "region_shapes", "write_nifti"]

DISPLAY_MM = 2.0
"""Voxels finer than this are resampled: a display volume stays below 2 MB compressed."""


@dataclass(frozen=True, slots=True)
class RegionShape:
    """Size and place of one parcel."""

    label: int
    n_voxels: int
    volume_mm3: float
    centroid_mm: tuple[float, float, float]
    """World millimetres (RAS+); NaN where the parcel has no voxel."""
    hemisphere: str
    """``left`` or ``right`` when four fifths of the voxels lie there, else ``bilateral``; empty without voxels."""


def _coarser(
    shape: tuple[int, int, int], affine: Float[np.ndarray, "4 4"], mm: float
) -> tuple[tuple[int, int, int], Float[np.ndarray, "4 4"], Float[np.ndarray, " 3"]] | None:
    """Return shape, affine and step of a grid of `mm` voxels, or None when the grid is not finer than that."""
    size = np.linalg.norm(affine[:3, :3], axis=0)
    step = np.where(size < 0.95 * mm, mm / size, 1.0)
    if (step == 1.0).all():
        return None
    new_shape = np.maximum(np.ceil(np.asarray(shape) / step - 1e-6).astype(int), 1)
    change = np.eye(4)
    change[:3, :3] = np.diag(step)
    change[:3, 3] = (step - 1.0) / 2.0
    x, y, z = (int(n) for n in new_shape)
    return (x, y, z), affine @ change, step


def display_labels(parcellation: Parcellation, *, mm: float = DISPLAY_MM) -> Parcellation:
    """Return labels at display resolution by nearest neighbour; a coarser grid is returned unchanged."""
    coarse = _coarser(parcellation.grid.shape, parcellation.affine, mm)
    if coarse is None:
        return parcellation
    shape, affine, step = coarse
    labels = ndimage.affine_transform(
        parcellation.labels, np.diag(step), offset=(step - 1.0) / 2.0, output_shape=shape, order=0
    )
    return Parcellation(labels, affine, parcellation.names)


def display_template(volume: Volume, *, mm: float = DISPLAY_MM) -> Volume:
    """Return an anatomical image at display resolution, scaled to 0..255 between its 0 and 99.9 % quantile."""
    data, affine = np.nan_to_num(volume.data.astype(np.float64)), volume.affine
    coarse = _coarser(volume.grid.shape, volume.affine, mm)
    if coarse is not None:
        shape, affine, step = coarse
        smooth = ndimage.gaussian_filter(data, np.where(step > 1.0, step / 2.355, 0.0))
        data = ndimage.affine_transform(smooth, np.diag(step), offset=(step - 1.0) / 2.0, output_shape=shape, order=1)
    low, high = float(data.min()), float(np.quantile(data, 0.999))
    scaled = np.clip((data - low) / max(high - low, 1e-12), 0.0, 1.0) * 255.0
    return Volume(scaled.round(), affine, volume.quantity, "grey level")


def region_shapes(parcellation: Parcellation) -> list[RegionShape]:
    """Return size, centroid and side of every parcel, named ones without voxels included."""
    index = np.argwhere(parcellation.labels > 0)
    values = parcellation.labels[tuple(index.T)] if index.size else np.zeros(0, dtype=int)
    world = index @ parcellation.affine[:3, :3].T + parcellation.affine[:3, 3]
    shapes = []
    for label in sorted({*np.unique(values).tolist(), *parcellation.names}):
        mine = world[values == label]
        if not len(mine):
            shapes.append(RegionShape(int(label), 0, 0.0, (float("nan"),) * 3, ""))
            continue
        left = float((mine[:, 0] < 0).mean())
        side = "left" if left >= 0.8 else "right" if left <= 0.2 else "bilateral"
        x, y, z = (float(v) for v in mine.mean(axis=0))
        volume = len(mine) * parcellation.grid.voxel_volume_mm3
        shapes.append(RegionShape(int(label), len(mine), volume, (x, y, z), side))
    return shapes


def write_nifti(path: Path, data: Int[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]) -> None:
    """Write integers as gzipped NIfTI with axes along RAS+, in the narrowest of uint8 and int16."""
    nibabel = import_extra("nibabel", extra="imaging")
    kind = np.uint8 if int(data.max(initial=0)) <= 255 else np.int16
    image = nibabel.Nifti1Image(data.astype(kind), affine)
    image = nibabel.as_closest_canonical(image)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code=4)
    image.set_qform(image.affine, code=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
