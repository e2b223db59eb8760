r"""Images on their leading singular vectors, for updates that cost less than the number of people.

The updates need ``X X'`` only, and ``X X' ~ (X V)(X V)'`` with V the leading q right singular vectors: the columns of
``X V`` stand in for people. They have negative entries, so products with them are clipped at 0.

References
----------
Ha et al. (2023), Proc. SPIE Medical Imaging, doi:10.1117/12.2654282.
"""

import numpy as np
from jaxtyping import Float

from brainlocus.images.atlas.blocks import read_blocks
from brainlocus.images.atlas.starts import leading_vectors

__all__ = ["compressed"]

DISCARDED = 1e-4
"""Energy, as a share of ||X||^2, that may be left out."""
VECTORS_PER_COMPONENT = 4
"""At most so many vectors a component."""


def compressed(
    images: Float[np.ndarray, "voxels samples"], n_components: int, total: float, *, generator: np.random.Generator
) -> Float[np.ndarray, "voxels vectors"]:
    """Return ``X V``: as few vectors as leave out 1e-4 of the energy, at least one and at most four a component.

    Parameters
    ----------
    total
        ``||X||_F^2``.
    generator
        For the randomised decomposition of large images.
    """
    most = min(*images.shape, VECTORS_PER_COMPONENT * n_components)
    vectors, values = leading_vectors(images, most, generator=generator)
    enough = int(np.searchsorted(np.cumsum(values**2), (1.0 - DISCARDED) * total)) + 1
    q = min(most, max(enough, n_components))
    out = np.empty((images.shape[0], q), dtype=images.dtype)
    for rows, block in read_blocks(images):
        # float64: all but the first product are small differences of large numbers.
        out[rows] = block.astype(np.float64) @ vectors[:, :q]
    return out
