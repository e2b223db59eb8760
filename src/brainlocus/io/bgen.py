"""BGEN 1.1, 1.2 and 1.3: imputed genotypes as probabilities, one compressed block a variant.

Layout 1 (zlib or none) and layout 2 (zlib, zstd or none; 1 to 32 bits a probability; phased and unphased) are read,
for diploids and haploids; a haploid's allele counts twice (0 or 2 copies). The dosage of an unphased diploid is
``P(AB) + 2 (1 - P(AA) - P(AB))``, of a phased one the sum over its haplotypes.

The effect allele is the second one; with ``reference="last"`` the first one is counted. Variants with another number of
alleles than two are left out and counted.

References
----------
BGEN format specification 1.1 to 1.3; Band & Marchini (2018), bioRxiv 308296 (10.1101/308296).
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from jaxtyping import Float32, Int8, Int64

from brainlocus.core.errors import FormatError, SchemaError, import_extra
from brainlocus.core.genotypes import GenotypeBlock, ProbabilityBlock
from brainlocus.core.samples import SampleIndex
from brainlocus.core.text import text_array
from brainlocus.core.variants import VariantTable, canonical_chromosome, concat_variants
from brainlocus.io._bgen_kernels import (
    OK,
    blank,
    decode_8bit,
    decode_8bit_probabilities,
    decode_bits,
    decode_layout1,
    diploids,
    encode_dosages,
    encode_probabilities,
)
from brainlocus.io.atomic import partial_name
from brainlocus.io.bgenindex import (
    BgenHeader,
    VariantEntry,
    index_of,
    read_entry,
    read_header,
    read_index,
    scan_variants,
    write_index,
)
from brainlocus.io.blockwriter import BlockWriter
from brainlocus.io.oxford import format_sample, pedigree_of_ids, read_oxford_sample
from brainlocus.io.plinktext import Pedigree

__all__ = ["BgenSource", "BgenWriter", "open_bgen", "sample_of"]

_NOTHING = np.empty(0, dtype=np.float32)
_HEAD_BYTES, _MOST_BYTES = 10, 9
"""Of the genotypes of a variant: before them, and of one diploid with probabilities of 32 bits."""
_CHUNK = 1 << 16
"""Variants that become arrays together when a file is opened: as Python objects they take ten times the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class BgenSource:
    """Genotypes in a .bgen file; implements `GenotypeSource` and `ProbabilitySource`. Reopens the file by path."""

    path: Path
    samples: SampleIndex
    variants: VariantTable
    pedigree: Pedigree
    header: BgenHeader
    starts: Int64[np.ndarray, " variants"]
    """Byte at which each variant begins."""
    sizes: Int64[np.ndarray, " variants"]
    reference: Literal["first", "last"]
    left_out: dict[str, int]
    """Variants of the file that are not among `variants`, by reason."""

    def read(self, start: int, stop: int) -> GenotypeBlock:
        """Return variants `start` up to but not including `stop`."""
        start, stop = max(start, 0), min(stop, len(self.variants))
        dosage = np.empty((max(stop - start, 0), len(self.samples)), dtype=np.float32)
        for k, block in enumerate(self._blocks(start, stop)):
            self._check(_decode(block, self.header, self._flip, dosage[k], _NOTHING, _NOTHING), start + k)
        return GenotypeBlock(start, dosage)

    def read_probabilities(self, start: int, stop: int) -> ProbabilityBlock:
        """Return the probabilities of one and of two copies of the effect allele."""
        start, stop = max(start, 0), min(stop, len(self.variants))
        one, two = (np.empty((max(stop - start, 0), len(self.samples)), dtype=np.float32) for _ in range(2))
        for k, block in enumerate(self._blocks(start, stop)):
            self._check(_decode(block, self.header, self._flip, _NOTHING, one[k], two[k]), start + k)
        return ProbabilityBlock(start, one, two)

    @property
    def _flip(self) -> bool:
        return self.reference == "last"

    def _blocks(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the uncompressed genotype block of each variant."""
        if stop <= start:
            return
        inflate = _inflater(self.header)
        with self.path.open("rb") as stream:
            for row in range(start, stop):
                yield self._block(stream, row, inflate)

    def _block(self, stream: IO[bytes], row: int, inflate: Callable[[bytes, int], bytes]) -> bytes:
        stream.seek(int(self.starts[row]))
        read_entry(stream, self.header, int(self.starts[row]), self.path, self._where(row))
        end = int(self.starts[row] + self.sizes[row])
        data = stream.read(end - stream.tell())
        if stream.tell() != end:
            raise FormatError(f"{self.path} became shorter while it was read; expected {end} bytes.")
        if self.header.layout == 2 and self.header.compression == 0:
            return data[4:]
        if self.header.layout == 1:
            expected, body = 6 * self.header.n_samples, data[4 if self.header.compression else 0 :]
        else:
            expected, body = struct.unpack("<I", data[4:8])[0], data[8:]
        if self.header.compression == 0:
            return body
        if expected > _HEAD_BYTES + _MOST_BYTES * self.header.n_samples:  # before it claims memory
            raise FormatError(
                f"{self._where(row)}: found {expected} bytes of genotypes, more than {self.header.n_samples} haploids "
                "and diploids can take. The file is damaged, or the variant has more copies: leave it out (--exclude)."
            )
        try:
            found = inflate(body, expected)
        except Exception as error:
            if not isinstance(error, zlib.error) and type(error).__name__ != "ZstdError":
                raise
            raise FormatError(f"{self._where(row)}: the compressed genotypes are damaged ({error}).") from error
        if len(found) != expected:
            raise FormatError(
                f"{self._where(row)}: expected {expected} bytes of genotypes, found {len(found)}. The file is damaged."
            )
        return found

    def _where(self, row: int) -> str:
        return f"{self.path}, variant {self.variants.variant_id[row]!r} (number {row + 1})"

    def _check(self, found: "int | str", row: int) -> None:
        if isinstance(found, str):
            raise FormatError(f"{self._where(row)}: {found}.")
        if found != OK:
            raise FormatError(
                f"{self._where(row)}: the probabilities of participant {str(self.samples.ids[found])!r} sum to more "
                "than 1. The file is damaged or was not written to the specification."
            )


def _inflater(header: BgenHeader) -> Callable[[bytes, int], bytes]:
    if header.compression == 2:
        zstandard = import_extra("zstandard", extra="genotypes")
        decompressor = zstandard.ZstdDecompressor()

        def unzstd(data: bytes, size: int) -> bytes:
            if zstandard.frame_content_size(data) > size:
                return b""
            found: bytes = decompressor.decompress(data, max_output_size=size)
            return found

        return unzstd

    def inflate(data: bytes, size: int) -> bytes:
        return zlib.decompress(data, bufsize=max(size, 1))

    return inflate


def _decode(
    block: bytes,
    header: BgenHeader,
    flip: bool,
    dosage: Float32[np.ndarray, " samples"],
    one: Float32[np.ndarray, " some"],
    two: Float32[np.ndarray, " some"],
) -> "int | str":
    """Fill dosage, or one and two; return OK, the person whose probabilities are impossible, or what is wrong."""
    n = header.n_samples
    if header.layout == 1:
        stored = np.frombuffer(block, dtype="<u2")
        if stored.size != 3 * n:
            return f"expected {6 * n} bytes of genotypes, found {len(block)}"
        return int(decode_layout1(stored, flip, dosage, one, two))
    if len(block) < 10 + n:
        return f"expected at least {10 + n} bytes of genotypes, found {len(block)}"
    found_n, n_alleles = struct.unpack_from("<IH", block)
    if found_n != n or n_alleles != 2:
        return f"expected {n} people and 2 alleles in the genotypes, found {found_n} and {n_alleles}"
    ploidy = np.frombuffer(block, dtype=np.uint8, count=n, offset=8)
    phased, bits = block[8 + n], block[9 + n]
    if phased > 1 or not 1 <= bits <= 32:
        return f"expected phased 0 or 1 and 1 to 32 bits, found {phased} and {bits}"
    stored = np.frombuffer(block, dtype=np.uint8, offset=10 + n)
    all_diploid, some_missing = diploids(ploidy)
    if all_diploid and bits == 8 and stored.size == 2 * n and not (phased and one.size):
        if one.size:
            fine = decode_8bit_probabilities(stored, flip, one, two)
        else:
            fine = decode_8bit(stored, bool(phased), flip, dosage)
        if fine:
            for values in (one, two) if one.size else (dosage,):
                if some_missing:
                    blank(ploidy, values)
            return OK
    copies = ploidy & 0x3F
    if stored.size != (int(copies.sum(dtype=np.int64)) * bits + 7) // 8 or (
        n and not 1 <= copies.min() <= copies.max() <= 2
    ):
        # With two alleles, haploids store one value and diploids two, phased or not.
        return _unreadable(copies, bits, stored.size)
    return int(decode_bits(ploidy, stored, bits, bool(phased), flip, dosage, one, two))


def _unreadable(copies: np.ndarray, bits: int, found: int) -> str:
    other = np.flatnonzero((copies < 1) | (copies > 2))
    if other.size:
        return (
            f"expected haploids and diploids, found person {other[0] + 1} with {copies[other[0]]} copies of the "
            "chromosome. Leave the variant out (--exclude)"
        )
    expected = (int(copies.sum(dtype=np.int64)) * bits + 7) // 8
    return f"expected {expected} bytes of probabilities, found {found}"


def sample_of(path: Path) -> Path:
    """Return the .sample file that goes with a BGEN file by its name."""
    return path.with_suffix(".sample")


def open_bgen(
    path: Path,
    *,
    genome_build: str = "unknown",
    reference: Literal["first", "last"] = "first",
    sample: Path | None = None,
) -> BgenSource:
    """Open a .bgen file: with its .bgi index, or by reading what precedes each variant's genotypes.

    Parameters
    ----------
    reference
        Which allele is the reference; the other one is counted.
    sample
        The .sample file; by default the one of the same name, if there is one.

    Raises
    ------
    FormatError
        Not a BGEN file of a known layout, truncated, a wrong index, no ids of people.
    AlignmentError
        The ids in the .sample file and in the BGEN file differ.
    """
    if not path.is_file():
        raise FormatError(f"Expected the genotypes at {path}, found no file.")
    header = read_header(path)
    pedigree = _people(path, header, sample)
    if len(pedigree.samples) != header.n_samples:
        raise FormatError(
            f"{path}: expected {header.n_samples} people, found {len(pedigree.samples)} in the .sample file. "
            "It belongs to another."
        )
    entries = read_index(path, header)
    entries = scan_variants(path, header) if entries is None else entries
    tables, places, n_other = [_variants([], genome_build, reference)], [np.empty((0, 2), dtype=np.int64)], 0
    while chunk := list(islice(entries, _CHUNK)):
        kept = [e for e in chunk if len(e.alleles) == 2]
        n_other += len(chunk) - len(kept)
        tables.append(_variants(kept, genome_build, reference))
        places.append(np.array([(e.start, e.size) for e in kept], dtype=np.int64).reshape(-1, 2))
    starts, sizes = np.concatenate(places).T.copy()
    left_out = {"not_biallelic": n_other} if n_other else {}
    variants = concat_variants(tables)
    return BgenSource(path, pedigree.samples, variants, pedigree, header, starts, sizes, reference, left_out)


def _people(path: Path, header: BgenHeader, sample: Path | None) -> Pedigree:
    beside = sample_of(path)
    if sample is not None or beside.is_file():
        return read_oxford_sample(sample or beside, header.sample_ids)
    if header.sample_ids is None:
        raise FormatError(
            f"{path}: expected the ids of {header.n_samples} people in it or in {beside.name} beside it, found "
            "neither. Give the .sample file with --bgen-sample."
        )
    try:
        return pedigree_of_ids(header.sample_ids)
    except SchemaError as error:
        raise FormatError(f"{path}: {error}") from error


def _variants(entries: Sequence[VariantEntry], genome_build: str, reference: str) -> VariantTable:
    plain = {c: canonical_chromosome(c or "0") for c in {e.chromosome for e in entries}}
    effect, other = (1, 0) if reference == "first" else (0, 1)
    return VariantTable(
        np.array([plain[e.chromosome] for e in entries], dtype=np.str_),
        np.array([e.position for e in entries], dtype=np.int64),
        text_array([e.alleles[effect] for e in entries]),
        text_array([e.alleles[other] for e in entries]),
        text_array([_name(e, plain[e.chromosome]) for e in entries]),
        genome_build,
    )


def _name(entry: VariantEntry, chromosome: str) -> str:
    """Return the rsid, or place and alleles where there is none."""
    if entry.name not in ("", "."):
        return entry.name
    return ":".join((chromosome, str(entry.position), *entry.alleles))


class BgenWriter(BlockWriter):
    """Writes .bgen (layout 2), its .bgi index and a .sample file; the second allele is the effect allele.

    Whole numbers and missing calls are kept exactly. A dosage does not say how sure a genotype is: it is written as the
    two genotypes around it (1.3 copies as P(1) = 0.7, P(2) = 0.3), as PLINK 2 does, to 1 / (2^bits - 1); INFO computed
    from such a file is too high. `append_probabilities` keeps probabilities.

    Parameters
    ----------
    bits
        Bits a probability, 8 or 16.
    compression
        ``zlib`` (BGEN 1.2, read by all programs) or ``zstd`` (1.3).
    """

    suffix = ".bgen"
    _stream: IO[bytes]

    def __init__(
        self,
        prefix: Path,
        samples: SampleIndex,
        variants: VariantTable,
        sex: Int8[np.ndarray, " samples"] | None = None,
        *,
        bits: Literal[8, 16] = 8,
        compression: Literal["zlib", "zstd"] = "zlib",
    ) -> None:
        super().__init__(prefix, samples, variants, sex)
        self.bits, self.compression = bits, compression
        self._entries: list[VariantEntry] = []
        self._compress: Callable[[bytes], bytes] = zlib.compress

    def _open(self, partial: Path) -> None:
        if self.compression == "zstd":
            compressor: Any = import_extra("zstandard", extra="genotypes").ZstdCompressor()
            self._compress = compressor.compress
        ids = [name.encode() for name in self.samples.ids.tolist()]
        block = b"".join(struct.pack("<H", len(name)) + name for name in ids)
        identifiers = struct.pack("<II", 8 + len(block), len(ids)) + block
        flags = (2 if self.compression == "zstd" else 1) | 2 << 2 | 1 << 31
        header = struct.pack("<III4sI", 20, len(self.variants), len(ids), b"bgen", flags)
        self._stream = partial.open("wb")
        self._stream.write(struct.pack("<I", len(header) + len(identifiers)) + header + identifiers)

    def _write(self, dosage: Float32[np.ndarray, "variants samples"]) -> None:
        ploidy, values = self._buffers()
        for k, row in enumerate(dosage):
            encode_dosages(row, 2**self.bits - 1, ploidy, values)
            self._write_variant(self._written + k, ploidy, values)

    def append_probabilities(
        self, one: Float32[np.ndarray, "variants samples"], two: Float32[np.ndarray, "variants samples"]
    ) -> None:
        """Write the next variants from the probabilities of one and two copies; NaN = missing.

        Raises
        ------
        AlignmentError
            Other people or more variants than announced.
        FormatError
            Probabilities below 0, or whose sum is above 1.
        """
        outside = (np.minimum(one, two) < 0) | (one + two > 1 + 1e-3)
        if outside.any():
            row, column = np.argwhere(outside)[0]
            raise FormatError(
                f"Variant {self.variants.variant_id[self._written + row]!r}: expected probabilities that sum to 1 at "
                f"most, found {float(one[row, column])} and {float(two[row, column])}."
            )
        self._check(np.clip(one + 2 * two, 0, 2))
        ploidy, values = self._buffers()
        for k in range(one.shape[0]):
            encode_probabilities(one[k], two[k], 2**self.bits - 1, ploidy, values)
            self._write_variant(self._written + k, ploidy, values)
        self._written += one.shape[0]

    def _buffers(self) -> tuple[np.ndarray, np.ndarray]:
        n = len(self.samples)
        return np.empty(n, dtype=np.uint8), np.empty(2 * n, dtype="<u1" if self.bits == 8 else "<u2")

    def _write_variant(self, row: int, ploidy: np.ndarray, values: np.ndarray) -> None:
        n = len(self.samples)
        about = struct.pack("<IHBB", n, 2, 2, 2) + ploidy.tobytes() + bytes((0, self.bits))
        genotypes = about + values.tobytes()
        packed = self._compress(genotypes)
        table, start = self.variants, self._stream.tell()
        name = str(table.variant_id[row])
        chromosome, position = str(table.chromosome[row]), int(table.position[row])
        alleles = (str(table.other_allele[row]), str(table.effect_allele[row]))
        texts = [name.encode(), name.encode(), chromosome.encode()]
        head = b"".join(struct.pack("<H", len(text)) + text for text in texts)
        head += struct.pack("<IH", position, 2)
        head += b"".join(struct.pack("<I", len(a.encode())) + a.encode() for a in alleles)
        self._stream.write(head + struct.pack("<II", len(packed) + 4, len(genotypes)) + packed)
        self._entries.append(VariantEntry(chromosome, position, name, alleles, start, self._stream.tell() - start))

    def _close(self, *, whole: bool) -> None:
        self._stream.close()
        if whole:
            write_index(partial_name(self.path), self.path.name, self._entries, partial_name(index_of(self.path)))

    def _further(self) -> Sequence[Path]:
        return (index_of(self.path),)

    def _companions(self) -> dict[str, Iterator[str]]:
        return {".sample": format_sample(self.samples, self.sex)}
