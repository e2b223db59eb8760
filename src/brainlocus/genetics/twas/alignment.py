"""SNPs of all models together, and GWAS rows aligned to their effect alleles.

Models of many tissues share SNPs: a GWAS is aligned once to their union, in which a SNP with two pairs of alleles has
two entries. Each weight points to its entry, with -1 where its model counts the other allele.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from brainlocus.core import ExpressionModel, SchemaError

__all__ = ["AlignedGwas", "AlignmentRules", "ModelSnps", "align_gwas", "unite_snps"]

_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_NEAR_HALF = 0.08
"""Palindromic SNPs with a frequency this near 0.5 cannot be told by frequency."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelSnps:
    """Every SNP and pair of alleles that some model uses, once."""

    names: Shaped[np.ndarray, " names"]
    """Names of SNPs, each once: what a GWAS is searched for."""
    offsets: Int[np.ndarray, " names_and_one"]
    """Entries of name k are ``offsets[k]:offsets[k + 1]``."""
    alleles: Shaped[np.ndarray, " alleles"]
    """Every allele that occurs, once."""
    effect_allele: Int[np.ndarray, " entries"]
    """Place in `alleles`."""
    other_allele: Int[np.ndarray, " entries"]
    entry: tuple[Int[np.ndarray, " _weights"], ...]
    """Of every model, the entry of each weight."""
    sign: tuple[Float[np.ndarray, " _weights"], ...]
    """-1 where the model counts the other allele of the entry, else 1."""

    @property
    def n_entries(self) -> int:
        """Number of entries."""
        return int(self.effect_allele.size)

    @property
    def entry_names(self) -> Shaped[np.ndarray, " entries"]:
        """Name of the SNP of every entry."""
        return np.repeat(self.names, np.diff(self.offsets))


def unite_snps(models: Sequence[ExpressionModel], keys: Sequence[Shaped[np.ndarray, " _weights"]]) -> ModelSnps:
    """Return the union of the models' SNPs.

    Parameters
    ----------
    keys
        Of every model, the name by which each weight's SNP is searched: its `ExpressionModel.snps`, or its place.
    """
    name = np.concatenate(list(keys)) if keys else np.zeros(0, dtype=np.str_)
    effect = np.concatenate([m.effect_allele for m in models])
    other = np.concatenate([m.other_allele for m in models])
    alleles, codes = np.unique(np.concatenate([effect, other]), return_inverse=True)
    first, second = codes[: effect.size], codes[effect.size :]
    low, high = np.minimum(first, second), np.maximum(first, second)
    names, number = np.unique(name, return_inverse=True)
    triple = (number.astype(np.int64) * alleles.size + low) * alleles.size + high
    _, shown, entry = np.unique(triple, return_index=True, return_inverse=True)
    counts = np.bincount(number[shown], minlength=names.size)
    sign = np.where(first == first[shown][entry], 1.0, -1.0)
    cuts = np.cumsum([m.weight.size for m in models])[:-1]
    return ModelSnps(
        names=names,
        offsets=np.r_[0, np.cumsum(counts)].astype(np.int64),
        alleles=alleles,
        effect_allele=first[shown].astype(np.int32),
        other_allele=second[shown].astype(np.int32),
        entry=tuple(np.split(entry.astype(np.int32), cuts)),
        sign=tuple(np.split(sign, cuts)),
    )


@dataclass(frozen=True, slots=True)
class AlignmentRules:
    """What to do where alleles do not simply match."""

    strand: Literal["none", "complement"] = "none"
    """``complement``: alleles of the other strand match too, for SNPs that are not palindromic."""
    palindromic: Literal["keep", "drop", "frequency"] = "keep"
    """A/T and C/G SNPs: as they are, left out, or told by the frequencies of both sides."""
    duplicates: Literal["smallest-p", "last"] = "smallest-p"
    """Which of several rows for one entry counts."""


@dataclass(frozen=True, slots=True, eq=False)
class AlignedGwas:
    """One GWAS in the entries of `ModelSnps`."""

    z: Float[np.ndarray, " entries"]
    """Per copy of the entry's effect allele; NaN: absent."""
    beta: Float[np.ndarray, " entries"] | None
    counts: dict[str, int] = field(default_factory=dict)
    """Rows found, with other alleles, swapped, palindromic and so on."""


def align_gwas(
    snps: ModelSnps,
    *,
    snp: Int[np.ndarray, " rows"],
    alleles: Shaped[np.ndarray, " alleles"],
    effect_allele: Int[np.ndarray, " rows"],
    other_allele: Int[np.ndarray, " rows"],
    z: Float[np.ndarray, " rows"],
    beta: Float[np.ndarray, " rows"] | None,
    frequency: Float[np.ndarray, " rows"] | None = None,
    reference_frequency: Float[np.ndarray, " entries"] | None = None,
    rules: AlignmentRules | None = None,
) -> AlignedGwas:
    """Return the z and beta of a GWAS per effect allele of every entry.

    Same alleles in the same order: as they are; swapped: both change sign; else the row is left out. Indels match
    exactly or swapped.

    Parameters
    ----------
    snp
        Place of every row's SNP in ``snps.names``.
    alleles
        In upper case; `effect_allele` and `other_allele` are places in it.
    frequency, reference_frequency
        Of the effect allele of the row and of the entry; for ``palindromic="frequency"``.

    Raises
    ------
    SchemaError
        ``palindromic="frequency"`` without frequencies.
    """
    rules = rules or AlignmentRules()
    counts = {"rows_in_models": int(snp.size)}
    row, entry = _candidates(snps, snp)
    known = {text: code for code, text in enumerate(alleles.tolist())}
    theirs = np.array([known.get(a, -1) for a in snps.alleles.tolist()], dtype=np.int64)
    entry_effect, entry_other = theirs[snps.effect_allele[entry]], theirs[snps.other_allele[entry]]
    effect, other = effect_allele[row].astype(np.int64), other_allele[row].astype(np.int64)
    same = (effect == entry_effect) & (other == entry_other)
    swapped = (effect == entry_other) & (other == entry_effect) & ~same
    complements = [str(a).translate(_COMPLEMENT) for a in snps.alleles.tolist()]
    ours = {text: code for code, text in enumerate(snps.alleles.tolist())}
    complement = np.array([ours.get(text, -1) for text in complements], dtype=np.int64)
    palindromic = complement[snps.effect_allele[entry]] == snps.other_allele[entry]
    if rules.strand == "complement":
        theirs = np.array([known.get(text, -1) for text in complements], dtype=np.int64)
        first, second = theirs[snps.effect_allele[entry]], theirs[snps.other_allele[entry]]
        again = ~same & ~swapped & ~palindromic
        flipped_same = again & (effect == first) & (other == second)
        flipped = again & (effect == second) & (other == first) & ~flipped_same
        counts["other_strand"] = int((flipped_same | flipped).sum())
        same, swapped = same | flipped_same, swapped | flipped
    sign = np.where(same, 1.0, np.where(swapped, -1.0, 0.0))
    counts["palindromic"] = int((palindromic & (sign != 0)).sum())
    if rules.palindromic == "drop":
        sign = np.where(palindromic, 0.0, sign)
    elif rules.palindromic == "frequency":
        sign = _by_frequency(sign, palindromic, row, entry, frequency, reference_frequency, counts)
    matched = np.zeros(snp.size, dtype=bool)
    matched[row[sign != 0]] = True
    counts["other_alleles"] = int((~matched).sum())
    counts["swapped"] = int((sign < 0).sum())
    usable = (sign != 0) & np.isfinite(z[row])
    counts["without_statistic"] = int(((sign != 0) & ~np.isfinite(z[row])).sum())
    row, entry, sign = row[usable], entry[usable], sign[usable]
    kept = _one_row_each(row, entry, sign, z, beta, rules, counts)
    row, entry, sign = row[kept], entry[kept], sign[kept]
    aligned_z = np.full(snps.n_entries, np.nan)
    aligned_z[entry] = sign * z[row]
    aligned_beta = None
    if beta is not None:
        aligned_beta = np.full(snps.n_entries, np.nan)
        aligned_beta[entry] = sign * beta[row]
    counts["entries"] = int(entry.size)
    return AlignedGwas(aligned_z, aligned_beta, counts)


def _candidates(
    snps: ModelSnps, snp: Int[np.ndarray, " rows"]
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Return every pair of a row and an entry of its SNP."""
    sizes = np.diff(snps.offsets)[snp]
    row = np.repeat(np.arange(snp.size), sizes)
    within = np.arange(row.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return row, np.repeat(snps.offsets[:-1][snp], sizes) + within


def _by_frequency(
    sign: Float[np.ndarray, " pairs"],
    palindromic: Shaped[np.ndarray, " pairs"],
    row: Int[np.ndarray, " pairs"],
    entry: Int[np.ndarray, " pairs"],
    frequency: Float[np.ndarray, " rows"] | None,
    reference: Float[np.ndarray, " entries"] | None,
    counts: dict[str, int],
) -> Float[np.ndarray, " pairs"]:
    """Change the sign of palindromic SNPs whose allele is the common one on one side and the rare one on the other."""
    if frequency is None or reference is None:
        raise SchemaError(
            "Palindromic SNPs can be told by frequency only where the GWAS has a frequency of the effect allele and "
            "--frequencies gives that of the reference. Give both, or keep or drop them."
        )
    ours = np.where(sign > 0, frequency[row], 1.0 - frequency[row]) - 0.5
    theirs = reference[entry] - 0.5
    told = (np.abs(ours) >= _NEAR_HALF) & (np.abs(theirs) >= _NEAR_HALF)
    mine = palindromic & (sign != 0)
    counts["palindromic_not_told"] = int((mine & ~told).sum())
    flip = mine & told & (ours * theirs < 0)
    counts["palindromic_flipped"] = int(flip.sum())
    return np.where(mine & ~told, 0.0, np.where(flip, -sign, sign))


def _one_row_each(
    row: Int[np.ndarray, " pairs"],
    entry: Int[np.ndarray, " pairs"],
    sign: Float[np.ndarray, " pairs"],
    z: Float[np.ndarray, " rows"],
    beta: Float[np.ndarray, " rows"] | None,
    rules: AlignmentRules,
    counts: dict[str, int],
) -> Int[np.ndarray, " kept"]:
    """Return one pair an entry; rows that say the same are one without being counted."""
    strength = np.abs(z[row]) if rules.duplicates == "smallest-p" else row.astype(np.float64)
    order = np.lexsort((row if rules.duplicates == "last" else -row, strength, entry))
    last = np.r_[entry[order][1:] != entry[order][:-1], True] if order.size else np.zeros(0, dtype=bool)
    chosen = order[last]
    if chosen.size < order.size:
        best = np.empty(int(entry.max()) + 1, dtype=np.int64)
        best[entry[chosen]] = chosen
        mine = best[entry]
        same = sign * z[row] == sign[mine] * z[row[mine]]
        if beta is not None:
            ours, theirs = sign * beta[row], sign[mine] * beta[row[mine]]
            same &= (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        counts["duplicates"] = int((~same).sum())
    return np.sort(chosen)
