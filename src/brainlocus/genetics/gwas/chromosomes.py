"""How the variants of each chromosome are analysed: sex chromosomes, their pseudo-autosomal ends, unplaced variants.

===============  ===========================================================================================
autosomal        as they are; also the pseudo-autosomal regions of X and Y, MT and other contigs
X                sex is a covariate; males hold 0 or 2 copies (dosage compensation), or 0 and 1 on request
Y                males only
unplaced (0)     not analysed
===============  ===========================================================================================

Genotype files hold hemizygous males as homozygous, 0 or 2, which is the coding of dosage compensation: one active X in
either sex, so that a male with the allele equals a female with two of it. ``copies=1`` halves them.

References
----------
Clayton (2008), Biostatistics 9:593 (coding of X and sex as a covariate).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from brainlocus.core.chromosomes import PAR, ChromosomeClass, chromosome_classes, normal_build
from brainlocus.core.genotypes import GenotypeBlock, GenotypeSource, iter_blocks
from brainlocus.core.samples import SampleIndex
from brainlocus.core.variants import VariantTable

__all__ = ["PAR", "ChromosomeClass", "HalvedMales", "chromosome_classes", "normal_build", "x_frequency"]

_FREQUENCY_BLOCK = 64
"""Variants counted at once: what the smallest blocks of a scan hold."""


@dataclass(frozen=True, slots=True, eq=False)
class HalvedMales:
    """A source whose males hold half the copies: 0 and 1 on the non-pseudo-autosomal X."""

    source: GenotypeSource
    male: Bool[np.ndarray, " samples"]

    @property
    def samples(self) -> SampleIndex:
        """People of the source."""
        return self.source.samples

    @property
    def variants(self) -> VariantTable:
        """Variants of the source."""
        return self.source.variants

    def read(self, start: int, stop: int) -> GenotypeBlock:
        """Return variants `start` up to but not including `stop`."""
        block = self.source.read(start, stop)
        weight = np.where(self.male, np.float32(0.5), np.float32(1.0))
        return GenotypeBlock(block.start, block.dosage * weight)


def x_frequency(source: GenotypeSource, male: Bool[np.ndarray, " samples"]) -> Float[np.ndarray, " variants"]:
    """Return the effect allele's frequency among the X chromosomes with a call: one of a man, two of a woman.

    Parameters
    ----------
    source
        Men hold 0 or 2 copies, as files do.
    """
    weight = np.where(male, 0.5, 1.0)
    frequency = np.full(len(source.variants), np.nan)
    for block in iter_blocks(source, _FREQUENCY_BLOCK):
        called = ~np.isnan(block.dosage)
        chromosomes = 2.0 * (called @ weight)
        copies = np.where(called, block.dosage, 0.0) @ weight
        rows = slice(block.start, block.stop)
        np.divide(copies, chromosomes, out=frequency[rows], where=chromosomes > 0)
    return frequency
