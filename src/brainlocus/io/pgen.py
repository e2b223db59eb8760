"""PLINK 2 binary genotypes (.pgen, .pvar[.zst], .psam) through Pgenlib: hard calls and dosages.

The effect allele is ALT. Phase is ignored; variants with several ALT alleles are refused.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Bool, Float32, Int8
from numba import njit

from brainlocus.core.errors import FormatError, import_extra
from brainlocus.core.genotypes import GenotypeBlock, PackedBlock
from brainlocus.core.samples import SampleIndex
from brainlocus.core.variants import VariantTable
from brainlocus.io.blockwriter import BlockWriter
from brainlocus.io.plinktext import Pedigree, read_psam
from brainlocus.io.varianttext import read_pvar

__all__ = ["PgenSource", "PgenWriter", "open_pgen"]

_MAGIC = b"\x6c\x1b"
_MISSING = np.float32(-9)
_PACK_ROWS = 64
"""Variants that are packed while they are in the processor's cache."""
_INDEX_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class PgenSource:
    """Genotypes in a .pgen file; implements `GenotypeSource`. Reopens the file by path on every read."""

    path: Path
    samples: SampleIndex
    variants: VariantTable
    pedigree: Pedigree
    has_dosage: Bool[np.ndarray, " variants"]
    """Which variants have dosages besides hard calls."""

    def read(self, start: int, stop: int) -> GenotypeBlock:
        """Return variants `start` up to but not including `stop`."""
        start, stop = max(start, 0), min(stop, len(self.variants))
        dosage = np.empty((max(stop - start, 0), len(self.samples)), dtype=np.float32)
        if dosage.size:
            reader = _kept_reader(self.path, len(self.samples), len(self.variants))
            try:
                reader.read_dosages_range(start, stop, dosage)
            except RuntimeError as error:
                raise self._damaged(start, stop, error) from error
            _mark_missing(dosage)
        return GenotypeBlock(start, dosage)

    def read_packed(self, start: int, stop: int) -> PackedBlock | None:
        """Return the same variants in two bits a call; None when one of them has dosages."""
        start, stop = max(start, 0), min(stop, len(self.variants))
        if self.has_dosage[start:stop].any():
            return None
        n = len(self.samples)
        codes = np.zeros((max(stop - start, 0), (n + 3) // 4), dtype=np.uint8)
        reader = _kept_reader(self.path, n, len(self.variants))
        for first in range(start, stop, _PACK_ROWS):
            last = min(first + _PACK_ROWS, stop)
            calls = np.empty((last - first, n), dtype=np.int8)
            try:
                reader.read_range(first, last, calls)
            except RuntimeError as error:
                raise self._damaged(first, last, error) from error
            _pack(calls, codes[first - start : last - start])
        return PackedBlock(start, codes, n)

    def _damaged(self, start: int, stop: int, error: RuntimeError) -> FormatError:
        return FormatError(
            f"{self.path}: Pgenlib cannot read variants {start + 1} to {stop}: {error}. The file is damaged."
        )


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
        return PgenSource(path, pedigree.samples, variants, pedigree, _with_dosage(path, len(variants)))


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
            whole = (known == np.rint(known)).all(axis=1)
            for row, is_whole in zip(known, whole.tolist(), strict=True):
                if is_whole:
                    self._writer.append_biallelic(row.astype(np.int8))
                else:
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
            f"{_plain(error)}. The file is damaged or the companions belong to another."
        ) from error


def _plain(error: Exception) -> str:
    """Return what Pgenlib says, which it gives as bytes with a newline."""
    given = error.args[0] if error.args else error
    return (given.decode(errors="replace") if isinstance(given, bytes) else str(given)).strip().rstrip(".")


_open = threading.local()


def _kept_reader(path: Path, n_samples: int, n_variants: int) -> Any:
    """Return this thread's reader of a file, which is opened again only when another file is read or it changed.

    Opening reads the index of all variants: too long for every run of a few variants of a large file.
    """
    about = path.stat()
    key = (path, about.st_ino, about.st_mtime_ns, about.st_size)
    if getattr(_open, "key", None) != key:
        _open.key = None
        _open.reader = _reader(path, n_samples, n_variants)
        _open.key = key
    return _open.reader


def _with_dosage(path: Path, n_variants: int) -> Bool[np.ndarray, " variants"]:
    """Return which variants have a dosage track, from the index; all of them where the storage mode is another.

    PGEN specification: byte 3 is the storage mode (01 .bed, 02 hard calls of fixed width, 10 records of their own
    types); the records' types stand in blocks of 65,536 variants. A type of four bits has no dosages, one of eight
    has them when bit 5 or 6 is set.
    """
    with path.open("rb") as stream:
        head = stream.read(12)
        if head[2] in (1, 2):
            return np.zeros(n_variants, dtype=bool)
        if head[2] != 0x10 or len(head) < 12:
            return np.ones(n_variants, dtype=bool)
        found = np.zeros(n_variants, dtype=bool)
        kind, allele_bytes, flags = head[11] & 15, head[11] >> 4 & 3, head[11] >> 6
        if kind < 4:
            return found
        if kind > 7:
            return np.ones(n_variants, dtype=bool)
        n_blocks = -(-n_variants // _INDEX_BLOCK)
        stream.seek(12 + 8 * n_blocks)
        for start in range(0, n_variants, _INDEX_BLOCK):
            size = min(_INDEX_BLOCK, n_variants - start)
            types = np.frombuffer(stream.read(size), dtype=np.uint8)
            found[start : start + types.size] = types & 0x60 != 0
            stream.seek(size * (kind - 3 + allele_bytes) + (size + 7) // 8 * (flags == 3), 1)
    return found


@njit(cache=True, nogil=True)
@no_type_check
def _mark_missing(dosage):  # noqa: ANN001, ANN202
    for j in range(dosage.shape[0]):
        for i in range(dosage.shape[1]):
            if dosage[j, i] == np.float32(-9):
                dosage[j, i] = np.float32(np.nan)


@njit(cache=True, nogil=True)
@no_type_check
def _pack(calls, codes):  # noqa: ANN001, ANN202
    """Fill PLINK 1 codes: two copies 0, missing (-9) 1, one copy 2, none 3."""
    n = calls.shape[1]
    for j in range(calls.shape[0]):
        for k in range(n // 4):
            byte = 0
            for i in range(4):
                g = calls[j, 4 * k + i]
                byte |= (1 if g < 0 else (3 - g if g < 2 else 0)) << (2 * i)
            codes[j, k] = byte
        for i in range(n - n % 4, n):
            g = calls[j, i]
            codes[j, n // 4] |= (1 if g < 0 else (3 - g if g < 2 else 0)) << (2 * (i % 4))
