"""Genotypes of any supported format, by extension."""

from pathlib import Path
from typing import Literal, TypeAlias

from brainlocus.core.errors import FormatError, nearest
from brainlocus.io.bed import BedSource, open_bed
from brainlocus.io.pgen import PgenSource, open_pgen, pvar_of

__all__ = ["OpenedGenotypes", "genotype_files", "open_genotypes"]

OpenedGenotypes: TypeAlias = BedSource | PgenSource
"""What `open_genotypes` returns: a `GenotypeSource` with the pedigree of its people."""

_SUFFIXES = (".bed", ".pgen")


def open_genotypes(
    path: Path,
    *,
    genome_build: str = "unknown",
    bgen_reference: Literal["first", "last"] = "first",  # noqa: ARG001
) -> OpenedGenotypes:
    """Open a genotype file.

    Parameters
    ----------
    path
        ``.bed`` (with .bim and .fam) or ``.pgen`` (with .pvar[.zst] and .psam).

    Raises
    ------
    FormatError
        Another extension, or the file does not follow its format.
    """
    if path.suffix == ".bed":
        return open_bed(path, genome_build=genome_build)
    if path.suffix == ".pgen":
        return open_pgen(path, genome_build=genome_build)
    raise _unknown(path)


def genotype_files(path: Path) -> list[Path]:
    """Return the file and its companions: everything the genotypes consist of.

    Raises
    ------
    FormatError
        Another extension.
    """
    if path.suffix == ".bed":
        return [path, path.with_suffix(".bim"), path.with_suffix(".fam")]
    if path.suffix == ".pgen":
        return [path, pvar_of(path), path.with_suffix(".psam")]
    raise _unknown(path)


def _unknown(path: Path) -> FormatError:
    found = path.suffix or "none"
    return FormatError(
        f"{path}: expected genotypes ending in {' or '.join(_SUFFIXES)}, found the extension {found}."
        f"{nearest(path.suffix, _SUFFIXES)}"
    )
