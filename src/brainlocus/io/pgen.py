"""PLINK 2 binary genotypes (.pgen, .pvar[.zst], .psam) through Pgenlib: hard calls and dosages.

The effect allele is ALT. Phase is ignored; variants with several ALT alleles are refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int8

from brainlocus.core.errors import FormatError, import_extra
from brainlocus.core.genotypes import GenotypeBlock
from brainlocus.core.samples import SampleIndex
from brainlocus.core.variants import VariantTable
from brainlocus.io.blockwriter import BlockWriter
from brainlocus.io.plinktext import Pedigree, read_psam
from brainlocus.io.varianttext import read_pvar

__all__ = ["PgenSource", "PgenWriter", "open_pgen"]

_MAGIC = b"\x6c\x1b"
_MISSING = np.float32(-9)


@dataclass(frozen=True, slots=True, eq=False)
class PgenSource:
    """Genotypes in a .pgen file; implements `GenotypeSource`. Reopens the file by path on every read."""

    path: Path
    samples: SampleIndex
    variants: VariantTable
    pedigree: Pedigree

    def read(self, start: int, stop: int) -> GenotypeBlock:
        """Return variants `start` up to but not including `stop`."""
        start, stop = max(start, 0), min(stop, len(self.variants))
        dosage = np.empty((max(stop - start, 0), len(self.samples)), dtype=np.float32)
        if dosage.size:
            with _reader(self.path, len(self.samples), len(self.variants)) as reader:
                try:
                    reader.read_dosages_range(start, stop, dosage)
                except RuntimeError as error:
                    raise FormatError(
                        f"{self.path}: Pgenlib cannot read variants {start + 1} to {stop}: {error}. "
                        "The file is damaged."
                    ) from error
            dosage[dosage == _MISSING] = np.nan
        return GenotypeBlock(start, dosage)


def open_pgen(path: Path, *, genome_build: str = "unknown") -> PgenSource:
    """Open a .pgen file with the .pvar (or .pvar.zst) and .psam beside it.

    Raises
    ------
    FormatError
        A companion is missing or malformed (with the line), the magic bytes are wrong, the counts do not meet,
        the file is truncated, or a variant has several ALT alleles.
    MissingExtraError
        Pgenlib is not installed.
    """
    pvar, psam = pvar_of(path), path.with_suffix(".psam")
    for file, what in ((path, "genotypes"), (pvar, "variants"), (psam, "people")):
        if not file.is_file():
            raise FormatError(f"Expected the {what} at {file}, found no file. .pgen, .pvar and .psam go together.")
    with path.open("rb") as stream:
        head = stream.read(2)
    if head != _MAGIC:
        raise FormatError(
            f"{path}: expected the magic bytes 6c 1b of a .pgen file, found {head.hex(' ') or 'nothing'}."
        )
    pedigree = read_psam(psam)
    variants = read_pvar(pvar, genome_build=genome_build)
    with _reader(path, len(pedigree.samples), len(variants)):
        return PgenSource(path, pedigree.samples, variants, pedigree)


def pvar_of(path: Path) -> Path:
    """Return the variant file of a .pgen: the plain .pvar, or .pvar.zst when only that is there."""
    compressed = path.with_suffix(".pvar.zst")
    return compressed if compressed.is_file() and not path.with_suffix(".pvar").is_file() else path.with_suffix(".pvar")


class PgenWriter(BlockWriter):
    """Writes .pgen, .pvar and .psam: hard calls, or dosages to 1/16384.

    Parameters
    ----------
    dosages
        Whether dosages that are no whole numbers will come; whole numbers and missing calls are kept exactly.
    """

    suffix = ".pgen"
    _writer: Any

    def __init__(
        self,
        prefix: Path,
        samples: SampleIndex,
        variants: VariantTable,
        sex: Int8[np.ndarray, " samples"] | None = None,
        *,
        dosages: bool = False,
    ) -> None:
        super().__init__(prefix, samples, variants, sex)
        self.dosages = dosages

    def _open(self, partial: Path) -> None:
        pgenlib = import_extra("pgenlib", extra="genotypes")
        self._writer = pgenlib.PgenWriter(
            str(partial).encode(),
            len(self.samples),
            variant_ct=len(self.variants),
            nonref_flags=True,
            dosage_present=self.dosages,
        )

    def _write(self, dosage: Float32[np.ndarray, "variants samples"]) -> None:
        known = np.where(np.isnan(dosage), _MISSING, dosage)
        if self.dosages:
            for row in known:
                self._writer.append_dosages(np.ascontiguousarray(row))
            return
        calls = known.astype(np.int8)
        if not np.array_equal(calls, known):
            bad = float(dosage[calls != known].flat[0])
            raise FormatError(f"{self.path}: hard calls were announced, found a dosage of {bad}. Use dosages=True.")
        self._writer.append_biallelic_batch(np.ascontiguousarray(calls))

    def _close(self, *, whole: bool) -> None:
        # Pgenlib can close only a file that has all its variants; another one is dropped as it is.
        if whole:
            self._writer.close()
        self._writer = None

    def _companions(self) -> dict[str, Iterator[str]]:
        return {".pvar": self._pvar_lines(), ".psam": self._psam_lines()}

    def _pvar_lines(self) -> Iterator[str]:
        table = self.variants
        yield "#CHROM\tPOS\tID\tREF\tALT\n"
        rows = zip(
            table.chromosome.tolist(),
            table.position.tolist(),
            table.variant_id.tolist(),
            table.other_allele.tolist(),
            table.effect_allele.tolist(),
            strict=True,
        )
        for row in rows:
            yield "\t".join(map(str, row)) + "\n"

    def _psam_lines(self) -> Iterator[str]:
        sex = np.zeros(len(self.samples), dtype=np.int8) if self.sex is None else self.sex
        codes = {0: "NA", 1: "1", 2: "2"}
        yield "#IID\tSEX\n"
        for participant, code in zip(self.samples.ids.tolist(), sex.tolist(), strict=True):
            yield f"{participant}\t{codes[code]}\n"


def _reader(path: Path, n_samples: int, n_variants: int) -> Any:
    """Return an open Pgenlib reader after its own checks of counts and size."""
    pgenlib = import_extra("pgenlib", extra="genotypes")
    try:
        return pgenlib.PgenReader(str(path).encode(), raw_sample_ct=n_samples, variant_ct=n_variants)
    except RuntimeError as error:
        raise FormatError(
            f"{path}: expected {n_samples} people (.psam) and {n_variants} variants (.pvar); Pgenlib cannot open it: "
            f"{error}. The file is damaged or the companions belong to another."
        ) from error
