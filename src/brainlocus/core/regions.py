"""Regions of the genome, such as ``17:1000000-2000000`` or ``X``.

Positions are 1-based and both ends belong to the region.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from brainlocus.core.errors import SchemaError
from brainlocus.core.variants import VariantTable, canonical_chromosome

__all__ = ["Region", "in_regions", "parse_region"]

_REGION = re.compile(r"(?P<chromosome>[^:\s]+)(:(?P<start>[\d_]*)-(?P<stop>[\d_]*)|:(?P<single>[\d_]+))?")
_END = 2**62


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of a chromosome; both ends belong to it."""

    chromosome: str
    start: int = 1
    stop: int = _END


def parse_region(text: str) -> Region:
    """Return the region that a text names.

    Raises
    ------
    SchemaError
        Another form, or an end before the start.

    Examples
    --------
    >>> parse_region("chr17:1000-2000")
    Region(chromosome='17', start=1000, stop=2000)
    >>> parse_region("X").chromosome
    'X'
    """
    found = _REGION.fullmatch(text.strip())
    if found is None:
        raise SchemaError(f"expected a region such as 17:1000000-2000000, 17:5000 or X, or a BED file, found {text!r}")
    chromosome = canonical_chromosome(found["chromosome"])
    if found["single"]:
        start = stop = _integer(found["single"])
    else:
        start = _integer(found["start"]) if found["start"] else 1
        stop = _integer(found["stop"]) if found["stop"] else _END
    if stop < start:
        raise SchemaError(f"expected a region whose end is not before its start, found {text!r}")
    return Region(chromosome, start, stop)


def _integer(text: str) -> int:
    return int(text.replace("_", ""))


def in_regions(variants: VariantTable, regions: Sequence[Region]) -> Bool[np.ndarray, " variants"]:
    """Return which variants lie in any of the regions."""
    kept = np.zeros(len(variants), dtype=bool)
    for chromosome in sorted({region.chromosome for region in regions}):
        rows = np.flatnonzero(variants.chromosome == chromosome)
        starts, stops = _merged([r for r in regions if r.chromosome == chromosome])
        position = variants.position[rows]
        at = np.searchsorted(starts, position, side="right") - 1
        kept[rows] = (at >= 0) & (position <= stops[np.maximum(at, 0)])
    return kept


def _merged(regions: list[Region]) -> tuple[np.ndarray, np.ndarray]:
    """Return starts and ends of the union, ascending."""
    starts: list[int] = []
    stops: list[int] = []
    for region in sorted(regions, key=lambda r: r.start):
        if starts and region.start <= stops[-1] + 1:
            stops[-1] = max(stops[-1], region.stop)
        else:
            starts.append(region.start)
            stops.append(region.stop)
    return np.array(starts, dtype=np.int64), np.array(stops, dtype=np.int64)
