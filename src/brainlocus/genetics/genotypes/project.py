"""Scores of further people on the components of others, with the shrinkage of projections corrected.

With X = U D V' the decomposition of the reference (people x variants here), the plain projection of a person y is
``V'y``: too short when variants are not many more than people, because V also fits the reference's noise. Instead the
decomposition is augmented by the person (A), found from a matrix of components + 1 (D), and turned back onto the
reference (P), all without the genotypes of the reference::

    Q = [[D, 0], [(V'y)', ||y - V V'y||]] = U2 D2 V2'
    (s, T) = argmin || s U2[:K] D2 T - D ||,  T orthogonal          (Procrustes; U'U = I leaves U out)
    score  = s U2[K] D2 T

References
----------
Zhang et al. (2020), 10.1093/bioinformatics/btaa152 (online augmentation-decomposition-Procrustes);
Prive et al. (2020), 10.1093/bioinformatics/btaa520.
"""

import numpy as np
from jaxtyping import Float64

from brainlocus.core.genotypes import GenotypeSource, block_size_for
from brainlocus.genetics.genotypes.pca import PrincipalComponents
from brainlocus.genetics.genotypes.standard import add_missing, standard_blocks

__all__ = ["augmented_scores", "project_people"]

_PEOPLE_AT_ONCE = 1000


def project_people(
    components: PrincipalComponents, source: GenotypeSource, *, correct: bool = True, memory_bytes: int = 1 << 28
) -> Float64[np.ndarray, "samples components"]:
    """Return scores of the source's people, on the scale of `components.scores`.

    Parameters
    ----------
    source
        The variants of the components, in their order, of other people.
    correct
        False: the plain projection.

    Notes
    -----
    A person's missing calls are taken to be like the others: sums are divided by the share of variants called.
    """
    n_samples = len(source.samples)
    weights = np.nan_to_num(components.loadings).astype(np.float32)
    inner = np.zeros((n_samples, weights.shape[1]))
    squared, missing = np.zeros(n_samples), np.zeros(n_samples, dtype=np.int64)
    size = block_size_for(n_samples, memory_bytes)
    for block in standard_blocks(source, size, moments=components.moments):
        inner += block.values.T @ weights[block.start : block.stop]
        squared += np.einsum("vi,vi->i", block.values, block.values, dtype=np.float64)
        if block.codes is not None:
            add_missing(block.codes[~np.isnan(block.moments.scale)], missing)
    share = np.maximum(components.n_used - missing, 1.0) / max(components.n_used, 1)
    singular = np.sqrt(components.eigenvalues * components.n_used)
    inner /= share[:, None]
    squared /= share
    if not correct:
        return np.asarray(inner / singular)
    parts = [
        augmented_scores(singular, inner[k : k + _PEOPLE_AT_ONCE], squared[k : k + _PEOPLE_AT_ONCE])
        for k in range(0, n_samples, _PEOPLE_AT_ONCE)
    ]
    return np.concatenate(parts) / singular if parts else np.empty((0, singular.size))


def augmented_scores(
    singular: Float64[np.ndarray, " components"],
    inner: Float64[np.ndarray, "samples components"],
    squared: Float64[np.ndarray, " samples"],
) -> Float64[np.ndarray, "samples components"]:
    """Return corrected scores on the scale of U D.

    Parameters
    ----------
    singular
        D of the reference, largest first.
    inner
        V'y of every person.
    squared
        ``||y||^2`` of every person.
    """
    k = singular.size
    q = np.zeros((inner.shape[0], k + 1, k + 1))
    q[:, np.arange(k), np.arange(k)] = singular
    q[:, k, :k] = inner
    q[:, k, k] = np.sqrt(np.maximum(squared - (inner**2).sum(axis=1), 0.0))
    u, d, _ = np.linalg.svd(q)
    augmented = u[:, :, :k] * d[:, None, :k]
    reference, person = augmented[:, :k], augmented[:, k]
    left, strength, right = np.linalg.svd(np.swapaxes(reference, 1, 2) * singular[None, None, :])
    scale = strength.sum(axis=1) / (reference**2).sum(axis=(1, 2))
    return np.asarray(scale[:, None] * np.einsum("nk,nkl->nl", person, left @ right))
