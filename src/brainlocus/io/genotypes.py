"""Genotypes of any supported format, by extension."""

from pathlib import Path
from typing import Literal, TypeAlias

from brainlocus.core.errors import FormatError, nearest
from brainlocus.io.bed import BedSource, open_bed
from brainlocus.io.bgen import BgenSource, open_bgen, sample_of
from brainlocus.io.pgen import PgenSource, open_pgen, pvar_of
from brainlocus.io.vcf import VcfSource, is_vcf, open_vcf

__all__ = ["OpenedGenotypes", "genotype_files", "open_genotypes"]

OpenedGenotypes: TypeAlias = BedSource | PgenSource | BgenSource | VcfSource
"""What `open_genotypes` returns: a `GenotypeSource` with the pedigree of its people."""

_SUFFIXES = (".bed", ".pgen", ".bgen", ".vcf.gz", ".vcf", ".bcf")


def open_genotypes(
    path: Path,
    *,
    genome_build: str = "unknown",
    bgen_reference: Literal["first", "last"] = "first",
    bgen_sample: Path | None = None,
) -> OpenedGenotypes:
    """Open a genotype file.

    Parameters
    ----------
    path
        ``.bed`` (with .bim and .fam), ``.pgen`` (with .pvar[.zst] and .psam), ``.bgen`` (ids in it or in a .sample
        file), or ``.vcf.gz`` (bgzip), ``.vcf``, ``.bcf``.
    bgen_reference
        Of a BGEN file: which allele is the reference; the other one is the effect allele.
    bgen_sample
        Of a BGEN file: its .sample file, when its name is another.

    Raises
    ------
    FormatError
        Another extension, or the file does not follow its format.
    """
    if path.suffix == ".bed":
        return open_bed(path, genome_build=genome_build)
    if path.suffix == ".pgen":
        return open_pgen(path, genome_build=genome_build)
    if path.suffix == ".bgen":
        return open_bgen(path, genome_build=genome_build, reference=bgen_reference, sample=bgen_sample)
    if is_vcf(path):
        return open_vcf(path, genome_build=genome_build)
    raise _unknown(path)


def genotype_files(path: Path) -> list[Path]:
    """Return the file and its companions: everything the genotypes consist of (an index of them is no part).

    Raises
    ------
    FormatError
        Another extension.
    """
    if path.suffix == ".bed":
        return [path, path.with_suffix(".bim"), path.with_suffix(".fam")]
    if path.suffix == ".pgen":
        return [path, pvar_of(path), path.with_suffix(".psam")]
    if path.suffix == ".bgen":
        return [path, *([sample_of(path)] if sample_of(path).is_file() else [])]
    if is_vcf(path):
        return [path]
    raise _unknown(path)


def _unknown(path: Path) -> FormatError:
    found = path.suffix or "none"
    return FormatError(
        f"{path}: expected genotypes ending in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}, found the extension "
        f"{found}.{nearest(path.suffix, _SUFFIXES)}"
    )
