"""From a fit over mask voxels to a parcellation in space."""

import numpy as np

from brainlocus.core import AlignmentError, Mask, Parcellation
from brainlocus.images.atlas.em import AtlasFit

__all__ = ["atlas_parcellation", "component_name"]


def component_name(scale: int, index: int) -> str:
    """Return the name of a component: ``C32_7`` is the seventh of the 32-component atlas."""
    return f"C{scale}_{index}"


def atlas_parcellation(fit: AtlasFit, mask: Mask) -> Parcellation:
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
