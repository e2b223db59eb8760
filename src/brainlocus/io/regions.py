"""Regions of the genome: ``17:1000000-2000000``, ``X``, or a BED file of intervals.

In text and in `Region`, positions are 1-based and both ends belong to the region. A BED file (UCSC) has the columns
chromosome, start, end, tab-separated; its start is 0-based and its end is not in the interval, so that it becomes
``start + 1`` to ``end``.
"""

import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from brainlocus.core.errors import FormatError, SchemaError
from brainlocus.core.variants import VariantTable, canonical_chromosome

__all__ = ["Region", "in_regions", "is_interval_file", "parse_region", "read_regions"]

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


def read_regions(path: Path) -> list[Region]:
    """Return the intervals of a BED file (UCSC), which may be gzipped.

    Raises
    ------
    FormatError
        Missing, PLINK genotypes, no text, empty, or a line without chromosome, start and end (with the line).
    """
    if not path.is_file():
        raise FormatError(f"Regions: expected a BED file at {path}, found nothing. Check the path.")
    with path.open("rb") as stream:
        head = stream.read(2)
    if head == b"\x6c\x1b":
        raise FormatError(f"{path}: expected a BED file of regions (text), found PLINK genotypes.")
    opened = gzip.open if head == b"\x1f\x8b" else open
    found: list[Region] = []
    try:
        with opened(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                fields = line.split()
                if not fields or line.startswith(("#", "track", "browser")):
                    continue
                if len(fields) < 3 or not (fields[1].isdigit() and fields[2].isdigit()):
                    raise FormatError(
                        f"{path}, line {number}: expected chromosome, start and end, found {line.strip()!r}."
                    )
                start, end = int(fields[1]), int(fields[2])
                if end < start:
                    raise FormatError(f"{path}, line {number}: expected an end not before the start, found {end}.")
                if end > start:
                    found.append(Region(canonical_chromosome(fields[0]), start + 1, end))
    except (UnicodeDecodeError, OSError, EOFError) as error:
        raise FormatError(f"{path}: expected a BED file of regions (text), found {error}.") from error
    if not found:
        raise FormatError(f"{path}: expected regions (chromosome, start, end), found none.")
    return found


def is_interval_file(path: Path) -> bool:
    """Return whether a .bed file holds intervals, which are text, rather than PLINK genotypes."""
    if path.suffix != ".bed" or not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(64)
    return bool(head) and all(byte >= 32 or byte in b"\t\r\n" for byte in head)


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
