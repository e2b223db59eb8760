"""BED files of intervals: chromosome, start, end, tab-separated (UCSC).

Their start is 0-based and their end is not in the interval, so that it becomes ``start + 1`` to ``end`` of a `Region`.
"""

import gzip
from pathlib import Path

from brainlocus.core.errors import FormatError
from brainlocus.core.regions import Region
from brainlocus.core.variants import canonical_chromosome

__all__ = ["is_interval_file", "read_regions"]


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
