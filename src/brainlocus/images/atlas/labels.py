"""From a fit over mask voxels to a parcellation in space."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from brainlocus.core import AlignmentError, Mask, Parcellation

__all__ = ["HardAtlas", "atlas_parcellation", "component_name"]


def component_name(scale: int, index: int) -> str:
    """Return the name of a component: ``C32_7`` is the seventh of the 32-component atlas."""
    return f"C{scale}_{index}"


@runtime_checkable
class HardAtlas(Protocol):
    """What a fit has that makes a parcellation."""

    @property
    def labels(self) -> Int[np.ndarray, " voxels"]:
        """Component of each voxel, from 1; 0: none."""

    @property
    def n_components(self) -> int:
        """Number of components, vanished ones included."""


def atlas_parcellation(fit: HardAtlas, mask: Mask) -> Parcellation:
    """Return the hard atlas on the mask's grid; names cover vanished components too.

    Raises
    ------
    AlignmentError
        The mask has another number of voxels than the fit.
    """
    n_voxels = int(mask.data.sum())
    if n_voxels != fit.labels.size:
        raise AlignmentError(f"The mask has {n_voxels} voxels, the fit {fit.labels.size}; use the mask of the fit.")
    labels = np.zeros(mask.data.shape, dtype=np.int32)
    labels[mask.data] = fit.labels
    scale = fit.n_components
    return Parcellation(labels, mask.affine, {k: component_name(scale, k) for k in range(1, scale + 1)})
