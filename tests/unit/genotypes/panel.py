"""Small sources of genotypes for tests."""

import numpy as np

from brainlocus.core import ArrayGenotypes, SampleIndex, VariantTable
from brainlocus.core.text import text_array


def panel(dosage, chromosome=None, position=None):
    """Return a source of the given dosages, variants x people."""
    m, n = dosage.shape
    table = VariantTable(
        np.array(chromosome or ["1"] * m, dtype=np.str_),
        np.arange(1, m + 1) if position is None else np.asarray(position),
        text_array(["A"] * m), text_array(["G"] * m), text_array([f"v{k}" for k in range(m)]), "GRCh37",
    )  # fmt: skip
    return ArrayGenotypes(SampleIndex.of([f"p{k}" for k in range(n)]), table, dosage.astype(np.float32))


def calls(rng, m, n, *, missing=0.0, low=0.1, high=0.9):
    """Return independent calls in Hardy-Weinberg proportions."""
    dosage = rng.binomial(2, rng.uniform(low, high, (m, 1)), (m, n)).astype(np.float32)
    dosage[rng.random(dosage.shape) < missing] = np.nan
    return dosage


def child(rng, mother, father):
    """Return the calls of a child: one allele of each parent."""
    return (rng.binomial(1, mother / 2) + rng.binomial(1, father / 2)).astype(np.float32)
