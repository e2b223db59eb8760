"""PLINK 1 binary genotypes (.bed, .bim, .fam), variant-major.

Two bits a genotype, four genotypes a byte, low bits first: 00 two copies of A1, 01 missing, 10 one copy,
11 none. The effect allele is A1, the fifth .bim column.

References
----------
PLINK 1.9 file format reference, section .bed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from brainlocus.core.errors import FormatError
from brainlocus.core.genotypes import GenotypeBlock, PackedBlock
from brainlocus.core.samples import SampleIndex
from brainlocus.core.variants import VariantTable
from brainlocus.io.blockwriter import BlockWriter
from brainlocus.io.plinktext import Pedigree, format_bim, format_fam, read_fam
from brainlocus.io.varianttext import read_bim
from brainlocus.numerics.packed import decode_packed

__all__ = ["BedSource", "BedWriter", "open_bed"]

_MAGIC = b"\x6c\x1b"
_VARIANT_MAJOR = b"\x01"
_HEADER_BYTES = 3


_ENCODE = np.array([3, 2, 0, 1], dtype=np.uint8)
"""Two-bit code of 0, 1, 2 copies and of a missing call."""


@dataclass(frozen=True, slots=True, eq=False)
class BedSource:
    """Genotypes in a .bed file; implements `GenotypeSource`. Reopens the file by path on every read."""

    path: Path
    samples: SampleIndex
    variants: VariantTable
    pedigree: Pedigree

    def read(self, start: int, stop: int) -> GenotypeBlock:
        """Return variants `start` up to but not including `stop`."""
        block = self.read_packed(start, stop)
        return GenotypeBlock(block.start, decode_packed(block.codes, block.n_samples))

    def read_packed(self, start: int, stop: int) -> PackedBlock:
        """Return the same variants as the file holds them, two bits a call."""
        start, stop = max(start, 0), min(stop, len(self.variants))
        n_variants, n_samples = max(stop - start, 0), len(self.samples)
        row_bytes = (n_samples + 3) // 4
        packed = np.fromfile(
            self.path, dtype=np.uint8, count=n_variants * row_bytes, offset=_HEADER_BYTES + start * row_bytes
        )
        if packed.size != n_variants * row_bytes:
            raise FormatError(f"{self.path} became shorter while it was read; expected variants up to {stop}.")
        codes = packed.reshape(n_variants, row_bytes)
        if n_samples % 4:
            codes[:, -1] &= (1 << 2 * (n_samples % 4)) - 1
        return PackedBlock(start, codes, n_samples)


def open_bed(path: Path, *, genome_build: str = "unknown") -> BedSource:
    """Open a .bed file with the .bim and .fam beside it.

    Raises
    ------
    FormatError
        A companion is missing, the magic bytes are wrong or say sample-major, the size does not fit the number
        of people and variants (expected and found are given), or a line of .bim or .fam is malformed.
    """
    bim, fam = path.with_suffix(".bim"), path.with_suffix(".fam")
    for file, what in ((path, "genotypes"), (bim, "variants"), (fam, "people")):
        if not file.is_file():
            raise FormatError(
                f"Expected the {what} at {file}, found no file. The three of .bed, .bim, .fam go together."
            )
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    if head[:2] != _MAGIC:
        raise FormatError(
            f"{path}: expected the magic bytes 6c 1b of a .bed file, found {head[:2].hex(' ') or 'nothing'}."
        )
    if head[2:] != _VARIANT_MAJOR:
        raise FormatError(
            f"{path}: expected byte 3 to be 01 (variant-major), found {head[2:].hex() or 'nothing'}"
            f"{' (sample-major)' if head[2:] == bytes(1) else ''}. Rewrite it with plink1.9 --make-bed."
        )
    pedigree = read_fam(fam)
    variants = read_bim(bim, genome_build=genome_build)
    expected = _HEADER_BYTES + len(variants) * ((len(pedigree.samples) + 3) // 4)
    found = path.stat().st_size
    if found != expected:
        raise FormatError(
            f"{path}: expected {expected} bytes for {len(variants)} variants x {len(pedigree.samples)} people, found "
            f"{found}. The file is {'truncated' if found < expected else 'too long'}, or .bim/.fam belong to another."
        )
    return BedSource(path, pedigree.samples, variants, pedigree)


class BedWriter(BlockWriter):
    """Writes .bed, .bim and .fam: hard calls only.

    Examples
    --------
    ``with BedWriter(prefix, samples, variants) as writer: writer.append(block)``
    """

    suffix = ".bed"
    _stream: IO[bytes]

    def _open(self, partial: Path) -> None:
        self._stream = partial.open("wb")
        self._stream.write(_MAGIC + _VARIANT_MAJOR)

    def _write(self, dosage: Float32[np.ndarray, "variants samples"]) -> None:
        calls = np.where(np.isnan(dosage), np.float32(3), dosage)
        codes = calls.astype(np.uint8)
        if not np.array_equal(codes, calls):
            bad = float(dosage[(codes != calls)].flat[0])
            raise FormatError(
                f"{self.path}: .bed holds 0, 1, 2 or missing, found a dosage of {bad}. Write PGEN instead."
            )
        self._stream.write(_pack(_ENCODE[codes]).tobytes())

    def _close(self, *, whole: bool) -> None:  # noqa: ARG002
        self._stream.close()

    def _companions(self) -> dict[str, Iterator[str]]:
        return {".bim": format_bim(self.variants), ".fam": format_fam(self.samples, self.sex)}


def _pack(codes: UInt8[np.ndarray, "variants samples"]) -> Shaped[np.ndarray, "variants bytes"]:
    n_variants, n_samples = codes.shape
    padded = np.zeros((n_variants, 4 * ((n_samples + 3) // 4)), dtype=np.uint8)
    padded[:, :n_samples] = codes
    quads = padded.reshape(n_variants, -1, 4)
    return np.asarray(quads[..., 0] | quads[..., 1] << 2 | quads[..., 2] << 4 | quads[..., 3] << 6)
