"""Folds of cross-validation, drawn anew for every gene from the seed and the gene's id alone.

The order of genes, threads and executors therefore change nothing.
"""

from hashlib import sha256

import numpy as np
from jaxtyping import Int

__all__ = ["draw_folds", "gene_rng"]


def gene_rng(seed: int, gene: str) -> np.random.Generator:
    """Return the generator of a gene: the same for the same seed and id, whatever else is computed.

    Examples
    --------
    >>> gene_rng(0, "ENSG00000107937").permutation(5).tolist()
    [4, 1, 3, 0, 2]
    """
    words = np.frombuffer(sha256(gene.encode()).digest(), dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence([seed, *words.tolist()]))


def draw_folds(n: int, n_folds: int, rng: np.random.Generator) -> Int[np.ndarray, " people"]:
    """Return the fold of each of `n` people, from 0; sizes differ by one at most.

    Examples
    --------
    >>> np.bincount(draw_folds(11, 5, np.random.default_rng(0))).tolist()
    [3, 2, 2, 2, 2]
    """
    return rng.permutation(np.arange(n, dtype=np.int64) % n_folds)
