"""Finding a variant by place and alleles, whichever of the two was counted."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Shaped

from brainlocus.core import SchemaError
from brainlocus.core.text import STRING
from brainlocus.store.layout import chromosome_code

__all__ = ["Match", "VariantKeys", "chromosome_codes"]


def chromosome_codes(chromosome: Shaped[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """Return GWAS-SSF chromosome numbers, 0 where a name has none."""
    names, inverse = np.unique(chromosome, return_inverse=True)
    return np.asarray([chromosome_code(str(name)) for name in names], dtype=np.int64)[inverse]


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """Where each row was found."""

    row: Int[np.ndarray, " rows"]
    """Row in the keys, -1 where absent."""
    flipped: Bool[np.ndarray, " rows"]
    """The row counts `ref` rather than `alt`: its beta changes sign."""


@dataclass(frozen=True, slots=True, eq=False)
class VariantKeys:
    """Variants in the order (chromosome, position, ref, alt)."""

    place: Int[np.ndarray, " variants"]
    """Chromosome number << 32 | position, ascending."""
    ref: Shaped[np.ndarray, " variants"]
    alt: Shaped[np.ndarray, " variants"]

    def find(
        self,
        chromosome: Shaped[np.ndarray, " rows"],
        position: Int[np.ndarray, " rows"],
        effect_allele: Shaped[np.ndarray, " rows"],
        other_allele: Shaped[np.ndarray, " rows"],
    ) -> Match:
        """Return the variant of every row; the same orientation wins where both exist."""
        place = (chromosome_codes(chromosome) << 32) | position.astype(np.int64)
        effect, other = effect_allele.astype(STRING), other_allele.astype(STRING)
        first = np.searchsorted(self.place, place, side="left")
        last = np.searchsorted(self.place, place, side="right")
        row = np.full(place.size, -1, dtype=np.int64)
        flipped = np.zeros(place.size, dtype=bool)
        for swap in (False, True):
            alt, ref = (other, effect) if swap else (effect, other)
            for step in range(int((last - first).max(initial=0))):
                open_rows = np.flatnonzero((row < 0) & (first + step < last))
                candidate = first[open_rows] + step
                same = (self.alt[candidate] == alt[open_rows]) & (self.ref[candidate] == ref[open_rows])
                row[open_rows[same]] = candidate[same]
                flipped[open_rows[same]] = swap
        return Match(row, flipped)


def check_alleles(ref: Shaped[np.ndarray, " variants"], alt: Shaped[np.ndarray, " variants"]) -> None:
    """Check that alleles are spelled A, C, G, T.

    Raises
    ------
    SchemaError
        More than one in a hundred variants has other letters; ten examples are shown.
    """
    bad = []
    for row, (a, b) in enumerate(zip(ref.tolist(), alt.tolist(), strict=True)):
        if not (a and b and set(a) <= _BASES and set(b) <= _BASES):
            bad.append(row)
    if len(bad) > 0.01 * max(ref.size, 1):
        shown = ", ".join(f"{ref[k]}/{alt[k]} (row {k + 1})" for k in bad[:10])
        raise SchemaError(
            f"{len(bad)} of {ref.size} variants have alleles that are not A, C, G, T: {shown}. "
            "Recode the genotypes with their bases."
        )


_BASES = frozenset("ACGTN*")
