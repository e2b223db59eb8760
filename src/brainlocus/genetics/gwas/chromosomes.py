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
Clayton (2008), Biostatistics 9:593 (coding of X and sex as a covariate); Genome Reference Consortium (coordinates of
the pseudo-autosomal regions).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped

from brainlocus.core.genotypes import GenotypeBlock, GenotypeSource, iter_blocks
from brainlocus.core.samples import SampleIndex
from brainlocus.core.variants import VariantTable

__all__ = ["PAR", "ChromosomeClass", "HalvedMales", "chromosome_classes", "normal_build", "x_frequency"]

ChromosomeClass = Literal["autosomal", "X", "Y", "unplaced"]

PAR = {
    "GRCh37": {
        "X": ((60_001, 2_699_520), (154_931_044, 155_260_560)),
        "Y": ((10_001, 2_649_520), (59_034_050, 59_363_566)),
    },
    "GRCh38": {
        "X": ((10_001, 2_781_479), (155_701_383, 156_030_895)),
        "Y": ((10_001, 2_781_479), (56_887_903, 57_217_415)),
    },
}
"""First and last base of the pseudo-autosomal regions 1 and 2, 1-based."""

_FREQUENCY_BLOCK = 64
"""Variants counted at once: what the smallest blocks of a scan hold."""

_BUILDS = {"grch37": "GRCh37", "hg19": "GRCh37", "b37": "GRCh37", "grch38": "GRCh38", "hg38": "GRCh38", "b38": "GRCh38"}


def normal_build(name: str) -> str:
    """Return ``GRCh37`` or ``GRCh38`` for their usual names (hg19, b37, hg38, GRCh38.p13 ...); others as they are.

    Examples
    --------
    >>> normal_build("hg19"), normal_build("GRCh38.p14"), normal_build("NCBI36")
    ('GRCh37', 'GRCh38', 'NCBI36')
    """
    return _BUILDS.get(name.split(".")[0].lower(), name)


def chromosome_classes(variants: VariantTable) -> Shaped[np.ndarray, " variants"]:
    """Return how each variant is analysed: autosomal, X, Y or unplaced.

    Variants named X or Y are pseudo-autosomal by position, where the build is GRCh37 or GRCh38; of other builds only
    those that are named so (XY, PAR, PAR1, PAR2).

    Returns
    -------
    numpy.ndarray
        Unicode array of `ChromosomeClass`.

    Examples
    --------
    >>> from brainlocus.core.text import text_array
    >>> names, alleles = text_array(["a", "b", "c"]), text_array(["A"] * 3)
    >>> position = np.array([5_000, 100_000, 5_000_000])
    >>> table = VariantTable(np.array(["1", "X", "X"]), position, alleles, alleles, names, "GRCh37")
    >>> chromosome_classes(table).tolist()
    ['autosomal', 'autosomal', 'X']
    """
    chromosome = np.char.upper(variants.chromosome.astype(np.str_))
    classes = np.full(len(variants), "autosomal", dtype="U9")
    classes[chromosome == "0"] = "unplaced"
    regions = PAR.get(normal_build(variants.genome_build), {})
    for name in ("X", "Y"):
        inside = chromosome == name
        for first, last in regions.get(name, ()):
            inside &= (variants.position < first) | (variants.position > last)
        classes[inside] = name
    return classes


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
