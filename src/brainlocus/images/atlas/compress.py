r"""Images on their leading singular vectors, for updates that cost less than the number of people.

The updates need ``X X'`` only, and ``X X' ~ (X V)(X V)'`` with V the leading q right singular vectors: the columns of
``X V`` stand in for people. They have negative entries, so products with them are clipped at 0.

Tables have fewer voxels (regions) than people. There the same is exact: with the eigenvectors U and eigenvalues of
``X X'``, ``L = U diag(sqrt(lambda))`` has ``L L' = X X'`` and at most as many columns as there are voxels.

References
----------
Ha et al. (2023), Proc. SPIE Medical Imaging, doi:10.1117/12.2654282; methods/structural.md 1.5 a and b.
"""

import numpy as np
from jaxtyping import Float, Float64

from brainlocus.images.atlas.blocks import read_blocks, voxel_blocks
from brainlocus.images.atlas.starts import EXACT_SVD, leading_vectors

__all__ = ["compressed", "gram_root", "has_gram_root"]

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


def has_gram_root(n_voxels: int, n_samples: int) -> bool:
    """Return whether updates go faster on the root of ``X X'``: fewer voxels than people, few enough to decompose."""
    return n_voxels < n_samples and n_voxels <= EXACT_SVD


def gram_root(images: Float[np.ndarray, "voxels samples"]) -> Float64[np.ndarray, "voxels rank"]:
    """Return L with ``L L' = X X'``, of as many columns as X has rank.

    In float64 whatever the images are: rounded to float32, L alone would change the loss by 1e-6 of itself.

    Examples
    --------
    >>> x = np.array([[1.0, 2.0, 3.0], [2.0, 0.0, 1.0]])
    >>> root = gram_root(x)
    >>> root.shape, bool(np.allclose(root @ root.T, x @ x.T))
    ((2, 2), True)
    """
    n_voxels, n_samples = images.shape
    gram = np.zeros((n_voxels, n_voxels))
    for people in voxel_blocks(n_samples, n_voxels):
        block = images[:, people].astype(np.float64)
        gram += block @ block.T
    values, vectors = np.linalg.eigh(gram)
    # Below rounding an eigenvalue says nothing, not even its sign.
    kept = values > n_voxels * np.finfo(np.float64).eps * values[-1]
    return np.ascontiguousarray((vectors[:, kept] * np.sqrt(values[kept]))[:, ::-1])
