"""What ``gwas run`` left in its folder, for the commands that go on from there: figures and exports.

A scan is named by its folder or by the folder ``full/`` in it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from jaxtyping import Float

from brainlocus._version import __version__
from brainlocus.core import ResultTable, SchemaError
from brainlocus.core.errors import FormatError, nearest
from brainlocus.io import SsfMetadata, prepare_ssf, read_results, write_ssf
from brainlocus.pipeline.full_store import FullIndex, iter_full, open_full

__all__ = ["SsfExport", "choose_names", "export_ssf", "file_names", "find_full", "known_build"]

_BUILDS = {"hg19": "GRCh37", "b37": "GRCh37", "37": "GRCh37", "hg38": "GRCh38", "b38": "GRCh38", "38": "GRCh38"}


def find_full(folder: Path) -> Path:
    """Return the folder ``full/`` of a scan, given itself or the folder of the scan.

    Raises
    ------
    FormatError
        There is none; the message says how to make it.
    """
    for place in (folder, folder / "full"):
        if (place / "traits.json").is_file():
            return place
    raise FormatError(
        f"{folder}: expected the folder of gwas run --full, or full/ in it (with traits.json), found neither. Every "
        "test is kept only with --full; run the scan with it."
    )


def choose_names(wanted: Sequence[str], names: Sequence[str], where: Path) -> list[str]:
    """Return the traits that names or patterns (``C32_*``) choose, in the order of `names`; all without any.

    Raises
    ------
    SchemaError
        One chooses nothing; the message has the nearest name.
    """
    for pattern in wanted:
        if not any(name == pattern or fnmatchcase(name, pattern) for name in names):
            raise SchemaError(f"{where}: there is no trait {pattern!r}.{nearest(pattern, list(names))}")
    if not wanted:
        return list(names)
    return [name for name in names if any(name == w or fnmatchcase(name, w) for w in wanted)]


def known_build(recorded: str, given: str, where: Path) -> str:
    """Return the genome build, which a file for others has to state.

    Raises
    ------
    SchemaError
        Neither the scan nor the option says it, or they differ.
    """
    stated = _BUILDS.get(given.lower(), given)
    found = _BUILDS.get(recorded.lower(), recorded)
    if found in {"", "unknown"}:
        found = ""
    if stated in {"", "unknown"}:
        stated = found
    if not stated:
        raise SchemaError(
            f"{where}: the genome build of the positions is not known, and GWAS-SSF states it. Give it, such as "
            "--genome-build GRCh37."
        )
    if found and stated != found:
        raise SchemaError(f"{where}: the positions are of {found}, --genome-build says {given}. Leave the option out.")
    return stated


def file_names(traits: Sequence[str]) -> list[str]:
    """Return a file name for every trait: its own with odd characters replaced, a number added where two agree.

    Examples
    --------
    >>> file_names(["C32_1", "grey/white", "grey white"])
    ['C32_1', 'grey_white', 'grey_white-2']
    """
    taken: set[str] = set()
    found = []
    for trait in traits:
        plain = re.sub(r"[^\w.+-]", "_", trait).lstrip(".") or "trait"
        name, number = plain, 1
        while name.lower() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.lower())
        found.append(name)
    return found


@dataclass(frozen=True, slots=True)
class SsfExport:
    """What an export wrote."""

    files: dict[str, int]
    """Rows by file name."""
    n_left_out: int
    """Variants that the standard has no place for."""
    n_other_alleles: int
    """Variants whose alleles are not of A, C, G, T."""


def export_ssf(
    full: Path, out: Path, *, traits: Sequence[str], genome_build: str, date: str, covariates: tuple[str, ...] = ()
) -> Iterator[SsfExport]:
    """Write one GWAS-SSF file per trait into `out`; yield after every one, with all that was written so far.

    Parameters
    ----------
    date
        Of the metadata, ISO 8601.
    covariates
        Named in the metadata.
    """
    index = open_full(full)
    build = known_build(index.variants.genome_build, genome_build, full)
    results = iter_full(index, traits)
    shared = prepare_ssf(index.variants, _info(index))
    done: dict[str, int] = {}
    for trait, name, table in zip(traits, file_names(traits), results, strict=True):
        people, cases = index.most_people(trait)
        about = SsfMetadata(trait, build, people, date, f"brainlocus {__version__}", cases, covariates)
        if len(table):
            done[f"{name}.tsv.gz"] = write_ssf(shared, table, out / f"{name}.tsv.gz", about)
        yield SsfExport(dict(done), shared.n_left_out, shared.n_other_alleles)


def _info(index: FullIndex) -> Float[np.ndarray, " variants"] | None:
    """Return the imputation quality that the scan found, when its folder is still around the tests."""
    path = index.folder.parent / "variants.parquet"
    if not path.is_file():
        return None
    table: ResultTable = read_results(path)
    fits = "info" in table.names and len(table) == len(index.variants)
    if not fits or not np.array_equal(table["position"], index.variants.position):
        return None
    return np.asarray(table["info"], dtype=np.float64)
