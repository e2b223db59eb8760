"""VCF and BCF: dosages (DS) where a variant has them, else genotype calls (GT).

The effect allele is ALT. A variant with several ALT alleles becomes one row for each: it counts that ALT, every other
allele is "other", and its id gets ``:REF:ALT``. Half calls (``./1``) are missing. A haploid's allele counts twice, so
that men on X have 0 or 2 copies; a haploid's DS, 0 to 1, is doubled. Sites without an ALT allele are left out and
counted.

The sites are read once, when the file is opened, to know where each record begins (see `io.bgzf`); blocks are then
read from there, whether or not the file has an index. Records are parsed by htslib through cyvcf2. Parsing text is
slow: what is used more than once is better converted first (``genotypes convert``).

References
----------
Variant Call Format specification 4.3, BCF2.2; Pedersen & Quinlan (2017), Bioinformatics 33:1867
(10.1093/bioinformatics/btx057).
"""

import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from brainlocus.core.errors import FormatError, SchemaError, import_extra
from brainlocus.core.genotypes import GenotypeBlock
from brainlocus.core.samples import SampleIndex
from brainlocus.core.text import text_array
from brainlocus.core.variants import VariantTable, canonical_chromosome
from brainlocus.io.bgzf import BlockReader
from brainlocus.io.oxford import pedigree_of_ids
from brainlocus.io.plinktext import Pedigree

__all__ = ["VcfSource", "is_vcf", "open_vcf"]

_TOLERANCE = 1e-3
"""How far outside [0, 2] a DS may lie, as rounding makes it; it is then moved to the end."""
_NO_ALLELE = frozenset({".", "", "*", "<*>", "<NON_REF>"})
_BCF = b"BCF\x02"


@dataclass(frozen=True, slots=True, eq=False)
class VcfSource:
    """Genotypes in a VCF or BCF file; implements `GenotypeSource`. Reopens the file by path on every read."""

    path: Path
    samples: SampleIndex
    variants: VariantTable
    pedigree: Pedigree
    header: bytes
    """What precedes the records, with all that htslib wants to know."""
    record: Int64[np.ndarray, " variants"]
    """Record of each variant."""
    allele: Int64[np.ndarray, " variants"]
    """Which ALT of the record, from 1."""
    offsets: Int64[np.ndarray, " bounds"]
    """Virtual offset of each record, and of the end."""
    left_out: dict[str, int]
    """Sites that are not among `variants`, by reason."""

    def read(self, start: int, stop: int) -> GenotypeBlock:
        """Return variants `start` up to but not including `stop`."""
        start, stop = max(start, 0), min(stop, len(self.variants))
        dosage = np.empty((max(stop - start, 0), len(self.samples)), dtype=np.float32)
        if stop <= start:
            return GenotypeBlock(start, dosage)
        first = int(self.record[start])
        row = start
        for k, site in enumerate(self._records(first, int(self.record[stop - 1]) + 1)):
            while row < stop and self.record[row] == first + k:
                self._decode(site, row, dosage[row - start])
                row += 1
        if row != stop:
            raise FormatError(
                f"{self.path}: expected {stop - start} variants from {self._name(start)}, found {row - start}."
            )
        return GenotypeBlock(start, dosage)

    def _records(self, first: int, last: int) -> Iterator[Any]:
        """Yield htslib's records `first` up to but not including `last`, from a small file of their own."""
        cyvcf2 = import_extra("cyvcf2", extra="genotypes")
        with BlockReader(self.path, int(self.offsets[first])) as reader:
            body = reader.read_to(int(self.offsets[last]))
        with tempfile.NamedTemporaryFile(suffix=".bcf" if self.header.startswith(_BCF) else ".vcf") as piece:
            piece.write(self.header)
            piece.write(body)
            piece.flush()
            try:
                with closing(cyvcf2.VCF(piece.name)) as opened:
                    yield from opened
            except Exception as error:
                if type(error) not in (Exception, OSError):  # what cyvcf2 raises
                    raise
                why = str(error).replace(piece.name, "its records")
                raise FormatError(
                    f"{self.path}: htslib cannot read records {first + 1} to {last}: {why}. The file is damaged."
                ) from error

    def _decode(self, site: Any, row: int, dosage: Float32[np.ndarray, " samples"]) -> None:
        allele = int(self.allele[row])
        fields = site.FORMAT or []
        if "DS" not in fields:
            if "GT" not in fields:
                raise FormatError(
                    f"{self._name(row)}: expected DS or GT among its fields, found {':'.join(fields) or 'none'}."
                )
            alleles = site.genotype.array()[:, :-1]
            self._from_calls(alleles, allele, row, dosage)
            return
        values = site.format("DS")
        if values is None or values.shape[1] < allele:
            raise FormatError(f"{self._name(row)}: expected a DS for every ALT allele, found fewer.")
        dosage[:] = values[:, allele - 1]
        if "GT" in fields:
            dosage[_copies(site.genotype.array()[:, :-1]) == 1] *= 2
        outside = (dosage < -_TOLERANCE) | (dosage > 2 + _TOLERANCE)
        if outside.any():
            who = int(np.flatnonzero(outside)[0])
            raise FormatError(
                f"{self._name(row)}: dosages lie in [0, 2], found {float(dosage[who]):g} of participant "
                f"{str(self.samples.ids[who])!r}."
            )
        np.clip(dosage, 0, 2, out=dosage)

    def _from_calls(
        self,
        alleles: Shaped[np.ndarray, "samples ploidy"],
        allele: int,
        row: int,
        dosage: Float32[np.ndarray, " samples"],
    ) -> None:
        copies = _copies(alleles)
        if copies.max(initial=0) > 2:
            who = int(np.argmax(copies))
            raise FormatError(
                f"{self._name(row)}: expected haploid and diploid calls, found {copies[who]} alleles of participant "
                f"{str(self.samples.ids[who])!r}. Leave the variant out (--exclude)."
            )
        dosage[:] = (alleles == allele).sum(axis=1)
        dosage[copies == 1] *= 2
        dosage[(alleles == -1).any(axis=1) | (copies == 0)] = np.nan

    def _name(self, row: int) -> str:
        return f"{self.path}, variant {self.variants.variant_id[row]!r} (record {int(self.record[row]) + 1})"


def _copies(alleles: Shaped[np.ndarray, "samples ploidy"]) -> Shaped[np.ndarray, " samples"]:
    """Return how many alleles each person has, known or not; htslib writes -2 for those beyond the ploidy."""
    return np.asarray((alleles != -2).sum(axis=1))


def is_vcf(path: Path) -> bool:
    """Return whether a name is that of a VCF or BCF file."""
    return path.name.lower().endswith((".vcf", ".vcf.gz", ".vcf.bgz", ".bcf"))


def open_vcf(path: Path, *, genome_build: str = "unknown") -> VcfSource:
    """Open a .vcf, .vcf.gz (bgzip) or .bcf file and read its sites.

    Raises
    ------
    FormatError
        No such file or not of these formats, plain gzip, truncated, a malformed line (which is named), no people.
    MissingExtraError
        cyvcf2 is not installed.
    """
    import_extra("cyvcf2", extra="genotypes")
    if not path.is_file():
        raise FormatError(f"Expected the genotypes at {path}, found no file.")
    with BlockReader(path) as reader:
        magic = reader.read(5)
    sites = _Sites()
    with BlockReader(path) as reader:
        try:
            header = _scan_bcf(reader, path, sites) if magic[:4] == _BCF else _scan_vcf(reader, path, sites)
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{path}: expected text in UTF-8 in record {len(sites.offsets)}, found other bytes."
            ) from error
        except struct.error as error:
            raise FormatError(
                f"{path}, record {len(sites.offsets)}: expected a whole BCF record, found {error}."
            ) from error
    try:
        pedigree = pedigree_of_ids(sites.people)
    except SchemaError as error:
        raise FormatError(f"{path}: {error}") from error
    plain = {c: canonical_chromosome(c) for c in set(sites.chromosome)}
    variants = VariantTable(
        np.array([plain[c] for c in sites.chromosome], dtype=np.str_),
        np.array(sites.position, dtype=np.int64),
        text_array(sites.effect),
        text_array(sites.other),
        text_array(sites.name),
        genome_build,
    )
    record, allele, offsets = (np.array(v, dtype=np.int64) for v in (sites.record, sites.allele, sites.offsets))
    left_out = {"no_alternate_allele": sites.n_without_allele} if sites.n_without_allele else {}
    return VcfSource(path, pedigree.samples, variants, pedigree, header, record, allele, offsets, left_out)


@dataclass(slots=True)
class _Sites:
    """What a scan collects."""

    people: list[str] = field(default_factory=list)
    chromosome: list[str] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    name: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    effect: list[str] = field(default_factory=list)
    record: list[int] = field(default_factory=list)
    allele: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    n_without_allele: int = 0

    def add(self, chromosome: str, position: int, name: str, ref: str, alts: list[str]) -> None:
        """Add a record: one row for each of its ALT alleles."""
        real = [(k, alt) for k, alt in enumerate(alts, start=1) if alt not in _NO_ALLELE]
        if not real:
            self.n_without_allele += 1
        for k, alt in real:
            place = f"{canonical_chromosome(chromosome)}:{position}"
            known = name if name not in (".", "") else place
            self.chromosome.append(chromosome)
            self.position.append(position)
            self.name.append(f"{known}:{ref}:{alt}" if len(alts) > 1 or known == place else known)
            self.other.append(ref)
            self.effect.append(alt)
            self.record.append(len(self.offsets) - 1)
            self.allele.append(k)


def _scan_vcf(reader: BlockReader, path: Path, sites: _Sites) -> bytes:
    """Collect the sites of a VCF and return a header for its pieces."""
    meta: list[bytes] = []
    columns = b""
    number = 0
    while True:
        at, line = reader.tell(), reader.readline()
        number += 1
        if not line:
            break
        if line.startswith(b"##"):
            meta.append(line)
        elif line.startswith(b"#CHROM\t"):
            columns = line
            sites.people = line.decode().rstrip("\r\n").split("\t")[9:]
        elif not line.strip():
            continue
        else:
            if not columns or not meta:
                raise FormatError(
                    f"{path}, line {number}: expected a VCF header (##fileformat..., then #CHROM POS ID ...), found "
                    f"{line[:40]!r}."
                )
            sites.offsets.append(at)
            _add_line(line, number, path, sites)
    if not meta or not columns:
        raise FormatError(f"{path}: expected a VCF header (##fileformat..., then #CHROM POS ID ...), found none.")
    _require_people(path, sites)
    sites.offsets.append(reader.tell())
    return b"".join([*meta, *_missing_definitions(meta, set(sites.chromosome)), columns.rstrip(b"\r\n"), b"\n"])


def _add_line(line: bytes, number: int, path: Path, sites: _Sites) -> None:
    fields = line.split(b"\t", 9)
    found = line.count(b"\t", len(b"\t".join(fields[:9]))) + 9 if len(fields) > 9 else len(fields)
    if found != 9 + len(sites.people):
        raise FormatError(
            f"{path}, line {number}: expected {9 + len(sites.people)} tab-separated columns, found {found}. "
            "The file is damaged or truncated."
        )
    chromosome, position, name, ref, alt = (text.decode() for text in fields[:5])
    if not position.isdigit():
        raise FormatError(f"{path}, line {number}: expected a position (a whole number), found {position!r}.")
    sites.add(chromosome, int(position), name.split(";")[0], ref, alt.split(","))


def _missing_definitions(meta: list[bytes], chromosomes: set[str]) -> list[bytes]:
    """Return header lines that htslib would miss: it warns of every record otherwise."""
    text = b"".join(meta)
    lines = []
    for name in sorted(chromosomes):
        if re.search(rb"##contig=<(.*,)?ID=" + re.escape(name.encode()) + rb"[,>]", text) is None:
            lines.append(b"##contig=<ID=" + name.encode() + b">\n")
    for key, number, kind in ((b"GT", b"1", b"String"), (b"DS", b"A", b"Float")):
        if b"##FORMAT=<ID=" + key + b"," not in text:
            lines.append(b"##FORMAT=<ID=" + key + b",Number=" + number + b",Type=" + kind + b',Description="">\n')
    return lines


def _require_people(path: Path, sites: _Sites) -> None:
    if not sites.people:
        raise FormatError(f"{path}: expected genotypes of people, found sites only.")


def _scan_bcf(reader: BlockReader, path: Path, sites: _Sites) -> bytes:
    """Collect the sites of a BCF and return its header."""
    start = reader.read(9)
    length = struct.unpack("<I", start[5:])[0]
    text = reader.read(length)
    lines = text.rstrip(b"\0").decode().splitlines()
    if not lines or not lines[-1].startswith("#CHROM\t"):
        raise FormatError(f"{path}: expected a header that ends with #CHROM, found another. The file is damaged.")
    sites.people = lines[-1].split("\t")[9:]
    _require_people(path, sites)
    contigs = _contigs(lines)
    while True:
        at, sizes = reader.tell(), reader.read(8)
        sites.offsets.append(at)
        if not sizes:
            break
        shared, individual = struct.unpack("<II", sizes)
        site = reader.read(shared)
        if len(site) != shared or len(reader.read(individual)) != individual:
            raise FormatError(
                f"{path}, record {len(sites.offsets)}: expected a whole record, found the end: truncated."
            )
        chromosome, position = struct.unpack_from("<ii", site)
        if chromosome not in contigs:
            raise FormatError(f"{path}, record {len(sites.offsets)}: its contig {chromosome} is not in the header.")
        n_alleles = struct.unpack_from("<I", site, 16)[0] >> 16
        texts = list(_typed_texts(site, 24, 1 + n_alleles))
        sites.add(contigs[chromosome], position + 1, texts[0].split(";")[0], texts[1], texts[2:])
    return start + text


def _contigs(lines: list[str]) -> dict[int, str]:
    """Return the contigs by their number: IDX, or their order."""
    found: dict[int, str] = {}
    for line in lines:
        if line.startswith("##contig=<"):
            name = re.search(r"[<,]ID=([^,>]+)", line)
            number = re.search(r"[<,]IDX=(\d+)", line)
            if name is not None:
                found[int(number[1]) if number is not None else len(found)] = name[1]
    return found


def _typed_texts(data: bytes, at: int, count: int) -> Iterator[str]:
    """Yield BCF typed strings: a byte of length and type, a longer length as a typed integer after it."""
    for _ in range(count):
        length = data[at] >> 4
        at += 1
        if length == 15:
            kind = data[at] & 15
            size, code = {1: (1, "<b"), 2: (2, "<h"), 3: (4, "<i")}[kind]
            length = struct.unpack_from(code, data, at + 1)[0]
            at += 1 + size
        yield data[at : at + length].decode()
        at += length
