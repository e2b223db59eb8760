"""Variants near a gene: the window, and which of its variants can carry a weight."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped

from brainlocus.core import VariantTable
from brainlocus.core.expression import GenePlace

__all__ = ["CisDosage", "cis_dosage", "cis_window", "usable_variants"]

_PALINDROMIC = (("A", "T"), ("T", "A"), ("C", "G"), ("G", "C"))
_NO_ID = ("", ".", "NA")


@dataclass(frozen=True, slots=True, eq=False)
class CisDosage:
    """Dosages that a model can be trained on."""

    rows: Shaped[np.ndarray, " kept"]
    """Rows of the block they came from."""
    dosage: Float[np.ndarray, "kept people"]
    """Missing calls are the mean of the variant."""
    n_rare: int
    """Variants below the frequency limit, constant or without a call."""
    n_filled: int
    """Missing calls that were filled in."""


def cis_window(gene: GenePlace, kb: float, of: Literal["gene", "start"] = "gene") -> tuple[int, int]:
    """Return the first and last position of the window.

    Parameters
    ----------
    kb
        Reach to either side in 1,000 bases.
    of
        ``gene``: from its start to its end (PredictDB, JTI of 2025); ``start``: around its smallest position (the first
        release of JTI, whose table calls it *left*, on either strand).

    Examples
    --------
    >>> cis_window(GenePlace("g", "", "", "1", 5_000_000, 5_100_000, "+"), 1000.0)
    (4000000, 6100000)
    """
    reach = round(1000 * kb)
    return max(1, gene.start - reach), (gene.stop if of == "gene" else gene.start) + reach


def usable_variants(variants: VariantTable) -> tuple[Bool[np.ndarray, " variants"], dict[str, int]]:
    """Return which variants have a name and alleles that a model can carry, and how many were left out and why.

    Left out are variants without an id, palindromic ones (A/T, C/G), whose strand cannot be told, and all but the first
    of those that share an id.
    """
    unnamed = np.zeros(len(variants), dtype=bool)
    for name in _NO_ID:
        unnamed |= variants.variant_id == name
    effect, other = np.strings.upper(variants.effect_allele), np.strings.upper(variants.other_allele)
    palindromic = np.zeros(len(variants), dtype=bool)
    for first_allele, second_allele in _PALINDROMIC:
        palindromic |= (effect == first_allele) & (other == second_allele)
    palindromic &= ~unnamed
    kept = ~unnamed & ~palindromic
    first = np.zeros(len(variants), dtype=bool)
    rows = np.flatnonzero(kept)
    first[rows[np.unique(variants.variant_id[rows], return_index=True)[1]]] = True
    counts = {
        "variants_without_id": int(unnamed.sum()),
        "variants_palindromic": int(palindromic.sum()),
        "variants_of_an_id_already_seen": int((kept & ~first).sum()),
    }
    return kept & first, counts


def cis_dosage(dosage: Float[np.ndarray, "variants people"], *, min_maf: float) -> CisDosage:
    """Return the dosages of variants that vary enough, missing calls replaced by the mean of the variant.

    Parameters
    ----------
    dosage
        Copies of the effect allele of the people who are analysed; NaN is a missing call.
    min_maf
        Smallest minor allele frequency among them. Variants that do not vary are left out even at 0.
    """
    missing = np.isnan(dosage)
    called = dosage.shape[1] - missing.sum(axis=1)
    mean = np.where(missing, 0.0, dosage).sum(axis=1, dtype=np.float64) / np.maximum(called, 1)
    filled = np.where(missing, mean[:, None], dosage).astype(np.float64, copy=False)
    frequency = mean / 2.0
    varies = filled.max(axis=1, initial=-np.inf) > filled.min(axis=1, initial=np.inf)
    common = (np.minimum(frequency, 1.0 - frequency) >= min_maf) & varies
    kept = np.flatnonzero(common)
    return CisDosage(kept, filled[kept], int(common.size - kept.size), int(missing[kept].sum()))
