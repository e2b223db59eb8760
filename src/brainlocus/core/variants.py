"""Variants: place, alleles, name and build."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

from brainlocus.core.errors import AlignmentError, SchemaError

__all__ = ["AUTOSOMES", "VariantTable", "canonical_chromosome", "chromosome_rank", "concat_variants"]

AUTOSOMES = tuple(str(k) for k in range(1, 23))

_SPECIAL = {"23": "X", "24": "Y", "25": "XY", "26": "MT", "M": "MT", "0": "0"}


def canonical_chromosome(name: str) -> str:
    """Return a chromosome's plain name: ``chr01`` -> ``1``, ``23`` -> ``X``, ``M`` -> ``MT``.

    Other names (scaffolds, mouse chromosomes above 22) are kept as they are.

    Examples
    --------
    >>> [canonical_chromosome(c) for c in ("chr7", "07", "23", "chrM")]
    ['7', '7', 'X', 'MT']
    """
    plain = name[3:] if name[:3].lower() == "chr" else name
    plain = plain.lstrip("0") or "0"
    return _SPECIAL.get(plain.upper(), plain.upper() if plain.isalpha() else plain)


def chromosome_rank(chromosome: Shaped[np.ndarray, " variants"]) -> Int[np.ndarray, " variants"]:
    """Return the sort rank of each chromosome: numbers first, then X, Y, XY, MT, then others by name."""
    names, inverse = np.unique(chromosome.astype(np.str_), return_inverse=True)
    special = {"X": 1_000, "Y": 1_001, "XY": 1_002, "MT": 1_003}
    ranks = [int(n) if n.isdigit() else special.get(str(n), 2_000 + k) for k, n in enumerate(names.tolist())]
    return np.asarray(ranks, dtype=np.int64)[inverse]


@dataclass(frozen=True, slots=True, eq=False)
class VariantTable:
    """Biallelic variants, one row each, in file order.

    Raises
    ------
    SchemaError
        Columns of unequal length, or a position below 0.
    """

    chromosome: Shaped[np.ndarray, " variants"]
    """Unicode array of plain names: ``1``..``22``, ``X``, ``Y``, ``XY`` (pseudo-autosomal), ``MT``."""
    position: Int[np.ndarray, " variants"]
    """1-based; 0 where unknown."""
    effect_allele: Shaped[np.ndarray, " variants"]
    """The counted allele (variable-width string array)."""
    other_allele: Shaped[np.ndarray, " variants"]
    variant_id: Shaped[np.ndarray, " variants"]
    genome_build: str
    """``GRCh37``, ``GRCh38``, another assembly's name, or ``unknown``: stated, never implicit."""

    def __post_init__(self) -> None:
        columns = (self.chromosome, self.position, self.effect_allele, self.other_allele, self.variant_id)
        sizes = {int(column.size) for column in columns}
        if len(sizes) > 1:
            raise SchemaError(f"Variant columns differ in length: {sorted(sizes)}.")
        if self.position.size and int(self.position.min()) < 0:
            row = int(np.argmin(self.position))
            raise SchemaError(f"Variant {self.variant_id[row]!r} (row {row + 1}) has position {self.position[row]}.")

    def __len__(self) -> int:
        return int(self.position.size)

    def take(self, indices: "Shaped[np.ndarray, ' kept'] | slice") -> "VariantTable":
        """Return the rows at integer `indices`, where a boolean mask is true, or of a slice."""
        return VariantTable(
            self.chromosome[indices],
            self.position[indices],
            self.effect_allele[indices],
            self.other_allele[indices],
            self.variant_id[indices],
            self.genome_build,
        )


def concat_variants(tables: list[VariantTable]) -> VariantTable:
    """Return the rows of all tables, in order.

    Raises
    ------
    AlignmentError
        The tables are of different genome builds.
    """
    builds = {table.genome_build for table in tables}
    if len(builds) != 1:
        raise AlignmentError(f"Variants of different genome builds cannot be joined: {sorted(builds)}.")
    return VariantTable(
        np.concatenate([t.chromosome for t in tables]),
        np.concatenate([t.position for t in tables]),
        np.concatenate([t.effect_allele for t in tables]),
        np.concatenate([t.other_allele for t in tables]),
        np.concatenate([t.variant_id for t in tables]),
        builds.pop(),
    )
