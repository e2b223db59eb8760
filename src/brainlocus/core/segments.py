"""Copy-number calls and named regions: stretches of chromosomes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from brainlocus.core.errors import SchemaError

__all__ = ["RegionTable", "SegmentTable"]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentTable:
    """Copy-number calls, one row each.

    Raises
    ------
    SchemaError
        Columns of unequal length, or a call that ends before it starts.
    """

    participant_id: Shaped[np.ndarray, " segments"]
    chromosome: Shaped[np.ndarray, " segments"]
    """Plain names, as in `VariantTable`."""
    start: Int[np.ndarray, " segments"]
    """First base, 1-based."""
    stop: Int[np.ndarray, " segments"]
    """Last base, which is part of the call."""
    copies: Int[np.ndarray, " segments"]
    """2 is normal on an autosome."""
    n_snps: Int[np.ndarray, " segments"]
    """Array markers; 0 where the file has none."""
    score: Float[np.ndarray, " segments"]
    """Confidence of the caller; NaN where the file has none."""
    genome_build: str

    def __post_init__(self) -> None:
        columns = (self.chromosome, self.start, self.stop, self.copies, self.n_snps, self.score)
        if {int(c.size) for c in columns} != {int(self.participant_id.size)}:
            raise SchemaError("The columns of a table of copy-number calls differ in length.")
        _check_order(self.start, self.stop, self.participant_id)

    def __len__(self) -> int:
        return int(self.start.size)

    @property
    def length(self) -> Int[np.ndarray, " segments"]:
        """Bases of each call."""
        return np.asarray(self.stop - self.start + 1)

    def take(self, rows: Shaped[np.ndarray, " kept"]) -> "SegmentTable":
        """Return the rows at integer indices, or where a mask is true."""
        return SegmentTable(
            self.participant_id[rows],
            self.chromosome[rows],
            self.start[rows],
            self.stop[rows],
            self.copies[rows],
            self.n_snps[rows],
            self.score[rows],
            self.genome_build,
        )


@dataclass(frozen=True, slots=True, eq=False)
class RegionTable:
    """Named stretches: recurrent loci, genes, regions to leave out.

    Raises
    ------
    SchemaError
        A region ends before it starts.
    """

    name: Shaped[np.ndarray, " regions"]
    chromosome: Shaped[np.ndarray, " regions"]
    start: Int[np.ndarray, " regions"]
    """First base, 1-based."""
    stop: Int[np.ndarray, " regions"]
    direction: Shaped[np.ndarray, " regions"]
    """``deletion``, ``duplication`` or ``both``: which carriers a locus has."""
    loeuf: Float[np.ndarray, " regions"]
    """Loss-of-function observed / expected upper bound (gnomAD) of a gene; NaN where not given."""
    genome_build: str

    def __post_init__(self) -> None:
        _check_order(self.start, self.stop, self.name)

    def __len__(self) -> int:
        return int(self.start.size)


def _check_order(
    start: Int[np.ndarray, " rows"], stop: Int[np.ndarray, " rows"], name: Shaped[np.ndarray, " rows"]
) -> None:
    bad = np.flatnonzero(stop < start)
    if bad.size:
        row = int(bad[0])
        raise SchemaError(f"Row {row + 1} ({name[row]}) starts at {start[row]} and ends at {stop[row]}, before it.")
