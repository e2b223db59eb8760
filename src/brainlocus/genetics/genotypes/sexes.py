"""Counts on X and Y, where men have one chromosome and hold its allele as a homozygous call.

On X outside the pseudo-autosomal regions a woman has two alleles and a man one; on Y a man has one and a woman none.
So, with n2, n1, n0 people of two, one and no effect alleles by sex::

    X    copies = n2_men + 2 n2_women + n1_women        chromosomes = n2_men + n0_men + 2 (n2 + n1 + n0)_women
    Y    copies = n2_men                                chromosomes = n2_men + n0_men

A heterozygous man there is an error of the call and counts as missing, as a woman's call on Y does not count. Dosages
that are not whole are uncertain, not heterozygous: half of a man's counts. People of unknown sex count as women on X
and not at all on Y, as in PLINK 2.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from brainlocus.core.chromosomes import chromosome_classes
from brainlocus.core.genotypes import GenotypeSource, select_genotypes
from brainlocus.core.samples import SampleIndex
from brainlocus.genetics.genotypes.counts import GenotypeCounts, count_genotypes
from brainlocus.genetics.genotypes.hwe import hwe_neg_log10_p, hwe_x_neg_log10_p

__all__ = ["SexCounts", "count_by_sex"]


@dataclass(frozen=True, slots=True, eq=False)
class SexCounts:
    """Counts of the variants of X or Y, each chromosome once."""

    rows: Int[np.ndarray, " some"]
    """Variants, by row of the source."""
    copies: Float[np.ndarray, " some"]
    """Effect alleles."""
    chromosomes: Float[np.ndarray, " some"]
    """Chromosomes with a call."""
    missing_rate: Float[np.ndarray, " some"]
    """Share of the people who have the chromosome without a call, heterozygous men among them."""
    het_men: Int[np.ndarray, " some"]
    """Heterozygous calls of men."""
    women_with_calls: Int[np.ndarray, " some"]
    """Calls of women on Y; 0 on X."""
    men: Int[np.ndarray, "some 2"]
    """Men with the effect allele and with the other, of the people named for Hardy-Weinberg tests."""
    women: Int[np.ndarray, "some 3"]
    """Genotypes of the women among them: two effect alleles, one, none."""

    @property
    def frequency(self) -> Float[np.ndarray, " some"]:
        """Frequency of the effect allele; NaN without a call."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.copies / self.chromosomes)

    @property
    def minor_count(self) -> Float[np.ndarray, " some"]:
        """Copies of the rarer allele."""
        return np.asarray(np.minimum(self.copies, self.chromosomes - self.copies))

    @property
    def expected_het(self) -> Float[np.ndarray, " some"]:
        """Expected heterozygosity 2 p (1 - p), as in the check of sex of PLINK 1.9; 0 without a call."""
        p = np.nan_to_num(self.frequency)
        return np.asarray(2.0 * p * (1.0 - p))

    def hwe(self, test: Literal["joint", "females"], *, mid_p: bool = False) -> Float[np.ndarray, " some"]:
        """Return -log10 p of Hardy-Weinberg proportions on X; NaN without a woman known."""
        aa, het, bb = self.women.T
        if test == "joint":
            return hwe_x_neg_log10_p(self.men[:, 0], self.men[:, 1], aa, het, bb, mid_p=mid_p)
        return hwe_neg_log10_p(aa, het, bb, mid_p=mid_p)


def count_by_sex(
    source: GenotypeSource,
    chromosome: Literal["X", "Y"],
    sex: Int8[np.ndarray, " samples"],
    *,
    people: Bool[np.ndarray, " samples"] | None = None,
    test_people: Bool[np.ndarray, " samples"] | None = None,
    memory_bytes: int = 1 << 28,
) -> SexCounts:
    """Count the variants of X or Y outside the pseudo-autosomal regions among some people.

    Parameters
    ----------
    sex
        1 man, 2 woman, 0 unknown.
    people
        Who is counted; None: everyone.
    test_people
        Whose calls are tested for Hardy-Weinberg proportions, if they are counted; None: all of them.
    """
    rows = np.flatnonzero(chromosome_classes(source.variants) == chromosome)
    counted = np.ones(sex.size, dtype=bool) if people is None else people
    tested = np.ones(sex.size, dtype=bool) if test_people is None else test_people

    def count(which: Bool[np.ndarray, " samples"]) -> GenotypeCounts:
        names: SampleIndex = source.samples.take(counted & which)
        return count_genotypes(
            select_genotypes(source, samples=names, variants=rows), founders=tested[counted & which],
            memory_bytes=memory_bytes,
        )  # fmt: skip

    men, women = count(sex == 1), count(sex == 2)
    unknown = count(sex == 0)
    two, single = ([women, unknown], [men]) if chromosome == "X" else ([], [men])
    copies, chromosomes, lost = (np.zeros(rows.size) for _ in range(3))
    for c in single:
        whole = c.dosage_sum == 2.0 * c.variant[:, 0] + c.variant[:, 1]
        het = np.where(whole, c.variant[:, 1], 0)
        copies += (c.dosage_sum - het) / 2.0
        chromosomes += c.n_called - het
        lost += c.variant[:, 3] + het
    for c in two:
        copies += c.dosage_sum
        chromosomes += 2.0 * c.n_called
        lost += c.variant[:, 3]
    n_people = sum(len(c.sample_missing) for c in (*single, *two))
    of_men = np.where(men.dosage_sum == 2.0 * men.variant[:, 0] + men.variant[:, 1], men.variant[:, 1], 0)
    return SexCounts(
        rows=rows,
        copies=copies,
        chromosomes=chromosomes,
        missing_rate=lost / max(n_people, 1),
        het_men=of_men,
        women_with_calls=women.n_called if chromosome == "Y" else np.zeros(rows.size, dtype=np.int64),
        men=men.founder[:, [0, 2]],
        women=women.founder[:, :3],
    )
