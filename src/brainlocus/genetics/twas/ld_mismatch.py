r"""Does the LD of the reference panel fit a GWAS? The z of each SNP against what its neighbours lead one to expect.

Method: with R the correlation of a gene's SNPs in the panel, a little shrunk, and P its inverse, the z of SNP i given
the others has mean ``z_i - (P z)_i / P_ii`` and variance ``1 / P_ii``, so that ``(P z)_i^2 / P_ii`` is chi-square with
one degree of freedom if the panel has the LD of the GWAS. Another ancestry, another build, or alleles taken the wrong
way round make many of them large. A SNP that acts by itself is large, too, unless its neighbours tag it, so only SNPs
are counted whose variance given the others is small.

References
----------
Chen et al. (2021), Nature Communications 12:7117 (DENTIST), equation 1, here gene by gene.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from brainlocus.genetics.twas.spredixcan import TissueModel

__all__ = ["LdMismatch", "measure_ld_mismatch"]

_SHRINKAGE = 0.1
"""Added to the diagonal: panels are small, and SNPs of a model may be nearly the same."""
_TAGGED = 0.4
"""Largest variance of a z given the others; the others then tell 60 % of it or more."""
_LARGE = 5.4513
"""|z| of p = 5e-8: beyond it a SNP counts as not fitting, as DENTIST's threshold."""
_MOST_GENES = 2_000
"""Genes of a model that are looked at, evenly spaced; a share needs no more."""


@dataclass(frozen=True, slots=True)
class LdMismatch:
    """What was found in one model."""

    n_tested: int
    """SNPs that their gene's other SNPs tag, times phenotypes."""
    n_misfit: int
    """Those whose z differs from the expected one with p below 5e-8."""

    @property
    def share(self) -> float:
        """Share of misfits; NaN where nothing could be tested."""
        return self.n_misfit / self.n_tested if self.n_tested else float("nan")


def measure_ld_mismatch(
    tissue: TissueModel, present: Bool[np.ndarray, " entries"], z: Float[np.ndarray, "entries phenotypes"]
) -> LdMismatch:
    """Return how many z differ from what the panel's LD and the gene's other SNPs let expect.

    Parameters
    ----------
    present
        Entries that all the GWAS have.
    z
        Of some phenotypes, per effect allele of the entries.
    """
    usable = present[tissue.entry] & ~np.isnan(tissue.variance) & (np.nan_to_num(tissue.variance) > 0)
    counts = np.add.reduceat(usable, tissue.offsets[:-1]) if tissue.genes.size else np.zeros(0, dtype=np.int64)
    genes = np.flatnonzero((counts >= 2) & (np.diff(tissue.offsets) > 0))
    genes = genes[:: max(1, -(-genes.size // _MOST_GENES))]
    tested = misfit = 0
    for gene in genes.tolist():
        first = int(tissue.offsets[gene])
        rows = first + np.flatnonzero(usable[first : int(tissue.offsets[gene + 1])])
        place = np.full(int(tissue.offsets[gene + 1]) - first, -1)
        place[rows - first] = np.arange(rows.size)
        pairs = slice(int(tissue.pair_offsets[gene]), int(tissue.pair_offsets[gene + 1]))
        a, b = place[tissue.first[pairs] - first], place[tissue.second[pairs] - first]
        off = (a >= 0) & (b >= 0) & (a != b)
        deviation = np.sqrt(tissue.variance[rows])
        correlation = np.eye(rows.size)
        # Off the diagonal the covariance is counted twice.
        value = 0.5 * tissue.covariance[pairs][off] / (deviation[a[off]] * deviation[b[off]])
        correlation[a[off], b[off]], correlation[b[off], a[off]] = value, value
        inverse = np.linalg.inv((correlation + _SHRINKAGE * np.eye(rows.size)) / (1.0 + _SHRINKAGE))
        told = np.flatnonzero(np.diag(inverse) >= 1.0 / _TAGGED)
        size = np.abs(inverse[told] @ z[tissue.entry[rows]]) / np.sqrt(np.diag(inverse)[told])[:, None]
        tested += size.size
        misfit += int((size > _LARGE).sum())
    return LdMismatch(tested, misfit)
