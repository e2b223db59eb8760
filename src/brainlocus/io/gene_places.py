"""Genes on their chromosomes, and BED files of intervals such as LD blocks."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from brainlocus.core.errors import FormatError
from brainlocus.core.expression import GenePlace
from brainlocus.core.variants import canonical_chromosome

__all__ = ["GenePlaces", "Intervals", "place_genes", "read_intervals"]


@dataclass(frozen=True, slots=True, eq=False)
class GenePlaces:
    """Places of genes, in an order that was asked for."""

    chromosome: Shaped[np.ndarray, " genes"]
    """Without ``chr``; empty where the gene is not known."""
    middle: Float[np.ndarray, " genes"]
    """Of the gene, base pairs; NaN where it is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Intervals that do not overlap, numbered in order."""

    chromosome: Shaped[np.ndarray, " intervals"]
    start: Int[np.ndarray, " intervals"]
    stop: Int[np.ndarray, " intervals"]
    """The first base after the interval, counted as `start` is."""

    def find(
        self, chromosome: Shaped[np.ndarray, " places"], position: Float[np.ndarray, " places"]
    ) -> Int[np.ndarray, " places"]:
        """Return the interval of each place; -1 where there is none."""
        found = np.full(position.size, -1, dtype=np.int64)
        for name in np.unique(self.chromosome).tolist():
            mine = np.flatnonzero(self.chromosome == name)
            mine = mine[np.argsort(self.start[mine], kind="stable")]
            asked = np.flatnonzero((chromosome == name) & np.isfinite(position))
            at = np.searchsorted(self.start[mine], position[asked], side="right") - 1
            inside = (at >= 0) & (position[asked] < self.stop[mine[np.maximum(at, 0)]])
            found[asked[inside]] = mine[at[inside]]
        return found


def place_genes(places: Iterable[GenePlace], genes: Shaped[np.ndarray, " genes"]) -> GenePlaces:
    """Return the places of some genes, compared without the versions of their ids; the first counts of several."""
    known: dict[str, GenePlace] = {}
    for place in places:
        known.setdefault(place.gene.split(".")[0], place)
    found = [known.get(name.split(".")[0]) for name in genes.tolist()]
    return GenePlaces(
        np.array(["" if p is None else p.chromosome for p in found], dtype=np.str_),
        np.array([np.nan if p is None else (p.start + p.stop) / 2 for p in found], dtype=np.float64),
    )


def read_intervals(path: Path) -> Intervals:
    """Return the intervals of a BED file (chromosome, start, stop, more ignored), with or without a header.

    Raises
    ------
    FormatError
        Missing, a line of fewer than three columns or without numbers, or no interval at all.
    """
    if not path.is_file():
        raise FormatError(f"Intervals: expected a BED file at {path}, found nothing. Check the path.")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        fields = line.split()
        if not fields or line.startswith(("#", "track", "browser")):
            continue
        if number == 1 and len(fields) >= 3 and not fields[1].isdigit():
            continue
        if len(fields) < 3 or not (fields[1].isdigit() and fields[2].isdigit()):
            raise FormatError(f"{path}: line {number}: expected chromosome, start and stop, found {line[:60]!r}.")
        rows.append((fields[0], int(fields[1]), int(fields[2])))
    if not rows:
        raise FormatError(f"{path}: expected intervals, found none.")
    names, start, stop = zip(*rows, strict=True)
    chromosome = np.array([canonical_chromosome(name) for name in names], dtype=np.str_)
    return Intervals(chromosome, np.array(start, dtype=np.int64), np.array(stop, dtype=np.int64))
