"""PLINK's text companions: .fam and .psam (people), .bim and .pvar (variants).

References
----------
PLINK 1.9 and 2.0 file format reference (Chang et al. 2015, 10.1186/s13742-015-0047-8).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int8, Shaped

from brainlocus.core.errors import FormatError, import_extra
from brainlocus.core.phenotypes import Column, PhenotypeTable
from brainlocus.core.samples import SampleIndex
from brainlocus.core.variants import VariantTable

__all__ = [
    "Pedigree",
    "check_plain_ids",
    "explained",
    "format_bim",
    "format_fam",
    "open_text",
    "pedigree_of",
    "read_fam",
    "read_fields",
    "read_psam",
]

_MISSING_PHENOTYPE = frozenset({"NA", "na", "nan", "NaN", "-9", ""})
_SEX = {"1": 1, "2": 2, "M": 1, "F": 2, "m": 1, "f": 2}


@dataclass(frozen=True, slots=True, eq=False)
class Pedigree:
    """What a .fam or .psam file says about its people."""

    samples: SampleIndex
    """The individual ids (IID), in file order."""
    sex: Int8[np.ndarray, " samples"]
    """1 male, 2 female, 0 unknown."""
    father: Shaped[np.ndarray, " samples"]
    """Father's id as written; ``"0"`` where unknown."""
    mother: Shaped[np.ndarray, " samples"]
    phenotypes: PhenotypeTable
    """Every column after the sex, as numbers (NaN = missing; -9 is missing here)."""

    @property
    def founders(self) -> Bool[np.ndarray, " samples"]:
        """Whether neither parent is among the samples."""
        return (self.samples.indices_of(self.father) < 0) & (self.samples.indices_of(self.mother) < 0)


def read_fam(path: Path) -> Pedigree:
    """Return the people of a .fam file, with as many phenotype columns as it has.

    Raises
    ------
    FormatError
        A line has another number of fields than the first, fewer than five, a phenotype that is not a number,
        or an id that occurred before (with the line).
    """
    rows = read_fields(path, smallest=5, what="family, individual, father, mother, sex")
    names = [f"phenotype_{k}" for k in range(1, len(rows[0][1]) - 4)] if rows else []
    return pedigree_of(
        path,
        ids=[(line, f[1]) for line, f in rows],
        sex=[f[4] for _, f in rows],
        parents=[(f[2], f[3]) for _, f in rows],
        phenotypes={name: [(line, f[5 + k]) for line, f in rows] for k, name in enumerate(names)},
    )


def read_psam(path: Path) -> Pedigree:
    """Return the people of a .psam file (with its ``#FID``/``#IID`` header, or laid out as a .fam without one).

    Raises
    ------
    FormatError
        The header has no IID, or a line does not fit it (with the line).
    """
    rows = read_fields(path, smallest=1, what="the columns of the header")
    if not rows or not rows[0][1][0].startswith("#"):
        return read_fam(path)
    header = [rows[0][1][0][1:], *rows[0][1][1:]]
    if "IID" not in header:
        raise FormatError(f"{path}, line {rows[0][0]}: expected a column IID in the header, found {header}.")
    at = {name: k for k, name in enumerate(header)}
    people = rows[1:]
    extra = [name for name in header if name not in ("FID", "IID", "SID", "PAT", "MAT", "SEX")]
    numeric = {name: [(line, f[at[name]]) for line, f in people] for name in extra}
    return pedigree_of(
        path,
        ids=[(line, f[at["IID"]]) for line, f in people],
        sex=[f[at["SEX"]] if "SEX" in at else "0" for _, f in people],
        parents=[(f[at["PAT"]] if "PAT" in at else "0", f[at["MAT"]] if "MAT" in at else "0") for _, f in people],
        phenotypes={name: cells for name, cells in numeric.items() if _all_numeric(cells)},
    )


def check_plain_ids(samples: SampleIndex) -> None:
    """Refuse ids that PLINK's and GCTA's files, whose fields are separated by blanks, cannot hold.

    Raises
    ------
    FormatError
        An id has a space or a tab in it.
    """
    bad = [name for name in samples.ids.tolist() if len(name.split()) != 1]
    if bad:
        raise FormatError(
            f"{len(bad)} participant ids have blanks, which PLINK and GCTA files cannot hold: "
            f"{', '.join(map(repr, bad[:3]))}. Replace the blanks."
        )


def format_fam(samples: SampleIndex, sex: Int8[np.ndarray, " samples"] | None) -> Iterator[str]:
    """Yield the lines of a .fam file: each person a family, no parents, no phenotype."""
    for k, participant in enumerate(samples.ids.tolist()):
        yield f"{participant}\t{participant}\t0\t0\t{0 if sex is None else int(sex[k])}\t-9\n"


def format_bim(variants: VariantTable) -> Iterator[str]:
    """Yield the lines of a .bim file; A1 is the effect allele."""
    for chromosome, name, position, a1, a2 in zip(
        variants.chromosome.tolist(),
        variants.variant_id.tolist(),
        variants.position.tolist(),
        variants.effect_allele.tolist(),
        variants.other_allele.tolist(),
        strict=True,
    ):
        yield f"{chromosome}\t{name}\t0\t{position}\t{a1}\t{a2}\n"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what is no text, and a broken .zst, into a message that names the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: expected text in UTF-8, but byte {error.start + 1} is no text.") from None
    except (OSError, EOFError) as error:
        raise FormatError(f"{path}: cannot be read to its end, it may be truncated: {error}") from error
    except Exception as error:
        if type(error).__name__ != "ZstdError":
            raise
        raise FormatError(f"{path}: expected a whole .zst file, found one that cannot be read: {error}") from error


def open_text(path: Path) -> TextIOWrapper:
    """Open a text file, compressed when it ends in .zst."""
    if path.suffix == ".zst":
        zstandard = import_extra("zstandard", extra="genotypes")
        stream: TextIOWrapper = zstandard.open(path, "rt", encoding="utf-8")
        return stream
    return path.open(encoding="utf-8")


def read_fields(path: Path, *, smallest: int, what: str, exact: int | None = None) -> list[tuple[int, list[str]]]:
    """Return line numbers and whitespace-separated fields, every line of the same length."""
    rows: list[tuple[int, list[str]]] = []
    with explained(path), open_text(path) as stream:
        for number, text in enumerate(stream, start=1):
            fields = text.split()
            if not fields or text.startswith("##"):
                continue
            expected = exact if exact is not None else (len(rows[0][1]) if rows else len(fields))
            if len(fields) != expected or len(fields) < smallest:
                wanted = max(expected, smallest)
                raise FormatError(f"{path}, line {number}: expected {wanted} fields ({what}), found {len(fields)}.")
            rows.append((number, fields))
    return rows


def _all_numeric(cells: list[tuple[int, str]]) -> bool:
    try:
        for _, text in cells:
            float("nan" if text in _MISSING_PHENOTYPE else text)
    except ValueError:
        return False
    return True


def _numbers(path: Path, name: str, cells: list[tuple[int, str]]) -> Float[np.ndarray, " samples"]:
    values = np.empty(len(cells))
    for k, (line, text) in enumerate(cells):
        try:
            values[k] = np.nan if text in _MISSING_PHENOTYPE else float(text)
        except ValueError:
            raise FormatError(f"{path}, line {line}: expected a number or NA in {name}, found {text!r}.") from None
    return values


def pedigree_of(
    path: Path,
    *,
    ids: list[tuple[int, str]],
    sex: list[str],
    parents: list[tuple[str, str]],
    phenotypes: dict[str, list[tuple[int, str]]],
) -> Pedigree:
    """Return people from cells with the lines they stand on.

    Raises
    ------
    FormatError
        A participant who occurs twice, or a phenotype that is no number (with the line).
    """
    first: dict[str, int] = {}
    for line, participant in ids:
        if participant in first:
            raise FormatError(
                f"{path}, line {line}: participant {participant!r} was already on line {first[participant]}; "
                "ids must be unique. Keep one line per participant."
            )
        first[participant] = line
    samples = SampleIndex.of(list(first))
    columns = tuple(Column(name, _numbers(path, name, cells)) for name, cells in phenotypes.items())
    return Pedigree(
        samples,
        np.array([_SEX.get(code, 0) for code in sex], dtype=np.int8),
        np.array([father for father, _ in parents], dtype=np.str_),
        np.array([mother for _, mother in parents], dtype=np.str_),
        PhenotypeTable(samples, columns),
    )
