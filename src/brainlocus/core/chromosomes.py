"""What kind of chromosome a variant lies on: autosome or alike, X, Y, or none; by position where the build is known.

References
----------
Genome Reference Consortium (coordinates of the pseudo-autosomal regions).
"""

from typing import Literal

import numpy as np
from jaxtyping import Shaped

from brainlocus.core.variants import VariantTable

__all__ = ["PAR", "ChromosomeClass", "chromosome_classes", "normal_build"]

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
