"""BGEN under the contract, and what is special to it."""

import struct
import zlib

import numpy as np
import pytest

from brainlocus.core import AlignmentError, FormatError, ProbabilitySource
from brainlocus.io import BgenWriter, open_bgen
from brainlocus.io.bgenindex import index_of
from tests.contracts.genotype_contract import DamageContract, GenotypeWriterContract, example
from tests.reference.genotypes import naive_bgen


class TestBgen(DamageContract, GenotypeWriterContract):
    writer = BgenWriter
    suffix = ".bgen"
    holds_dosages = True
    optional = (".sample",)
    derived = (".bgen.bgi",)
    bad_magic = r"expected the magic bytes 'bgen' at byte 17, found 50 4b"
    magic_at = 16

    def test_truncated_and_long_files_without_an_index(self, tmp_path):
        path, _ = self.write(tmp_path)
        index_of(path).unlink()
        content = path.read_bytes()
        path.write_bytes(content[:-9])
        with pytest.raises(FormatError, match=rf"expected {len(content)} bytes .* variant 23 of 23 .* truncated"):
            self.open(path)
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(FormatError, match=r"variant \d+ of 23 .*truncated"):
            self.open(path)
        path.write_bytes(content[:40])
        with pytest.raises(FormatError, match="more bytes in the sample ids"):
            self.open(path)
        path.write_bytes(content + b"\0")
        with pytest.raises(FormatError, match="too long"):
            self.open(path)


class TestBgenZstd16(TestBgen):
    def writer(self, *arguments):  # type: ignore[override]
        return BgenWriter(*arguments, bits=16, compression="zstd")


def write_bgen(path, blocks, *, ids=("a", "b", "c"), layout=2, compression=0, alleles=("A", "C"), n=None):
    """Write a BGEN file from the uncompressed genotype block of each variant."""
    n = len(ids) if n is None else n
    squeeze = {0: bytes, 1: zlib.compress}[compression]
    identifiers = b"".join(struct.pack("<H", len(i)) + i.encode() for i in ids)
    identifiers = struct.pack("<II", 8 + len(identifiers), len(ids)) + identifiers
    header = struct.pack("<III4sI", 20, len(blocks), n, b"bgen", compression | layout << 2 | 1 << 31)
    out = struct.pack("<I", len(header + identifiers)) + header + identifiers
    for k, block in enumerate(blocks):
        head = struct.pack("<I", n) if layout == 1 else b""
        for text in (f"id{k}", f"rs{k}", "0X"):
            head += struct.pack("<H", len(text)) + text.encode()
        head += struct.pack("<I", 7 + k) + (struct.pack("<H", len(alleles)) if layout == 2 else b"")
        head += b"".join(struct.pack("<I", len(a)) + a.encode() for a in alleles)
        body = squeeze(block)
        if layout == 2:
            head += struct.pack("<I", len(body) + (4 if compression else 0))
            head += struct.pack("<I", len(block)) if compression else b""
        elif compression:
            head += struct.pack("<I", len(body))
        out += head + body
    path.write_bytes(out)
    return path


def block_of(ploidy, values, *, bits=8, phased=0, n=None):
    """Return a genotype block of layout 2 from ploidy bytes and stored whole numbers."""
    packed = sum(int(v) << bits * k for k, v in enumerate(values))
    data = packed.to_bytes((len(values) * bits + 7) // 8, "little")
    n = len(ploidy) if n is None else n
    return struct.pack("<IHBB", n, 2, 1, 2) + bytes(ploidy) + bytes((phased, bits)) + data


@pytest.mark.parametrize("bits", [1, 2, 3, 7, 8, 9, 12, 16, 17, 24, 31, 32])
@pytest.mark.parametrize("phased", [0, 1])
@pytest.mark.parametrize("reference", ["first", "last"])
def test_every_width_against_the_formula(tmp_path, bits, phased, reference):
    rng = np.random.default_rng(bits)
    full = 2**bits - 1
    ids = [f"p{k}" for k in range(13)]
    blocks, expected = [], []
    for haploids in (False, True):
        ploidy = [int(c) | (0x80 if m else 0) for c, m in zip(
            rng.integers(1, 3, 13) if haploids else [2] * 13, rng.random(13) < 0.2, strict=True)]  # fmt: skip
        values = []
        for code in ploidy:
            a = int(rng.integers(0, full + 1))
            b = int(rng.integers(0, (full if phased else full - a) + 1))
            values.append([0] * (code & 3) if code & 0x80 else [a, b][: code & 3])
        blocks.append(block_of(ploidy, [v for pair in values for v in pair], bits=bits, phased=phased))
        expected.append(naive_bgen(ploidy, values, bits, phased=bool(phased), flip=reference == "last"))
    for compression in (0, 1):
        path = write_bgen(tmp_path / f"{compression}.bgen", blocks, ids=ids, compression=compression)
        source = open_bgen(path, reference=reference)
        assert isinstance(source, ProbabilitySource)
        dosage, known = source.read(0, 2).dosage, source.read_probabilities(0, 2)
        for k, (one, two) in enumerate(expected):
            np.testing.assert_allclose(dosage[k], one + 2 * two, rtol=2e-7, atol=2e-7)  # float32
            np.testing.assert_allclose(known.one[k], one, atol=6e-8)
            np.testing.assert_allclose(known.two[k], two, atol=6e-8)
        assert source.variants.effect_allele.tolist() == [{"first": "C", "last": "A"}[reference]] * 2
        assert source.variants.chromosome.tolist() == ["X", "X"]


@pytest.mark.parametrize("compression", [0, 1])
def test_layout_one(tmp_path, compression):
    rows = np.array(
        [[0, 0, 0, 32768, 0, 0, 0, 16384, 16384], [8192, 8192, 8192, 0, 32768, 0, 0, 0, 32767]], dtype="<u2"
    )
    path = write_bgen(tmp_path / "x.bgen", [r.tobytes() for r in rows], layout=1, compression=compression)
    source = open_bgen(path)
    np.testing.assert_allclose(source.read(0, 2).dosage, [[np.nan, 0, 1.5], [1, 1, 2]], rtol=1e-7)
    known = source.read_probabilities(0, 2)
    np.testing.assert_allclose(known.two, [[np.nan, 0, 0.5], [1 / 3, 0, 1]], rtol=1e-7)
    np.testing.assert_allclose(open_bgen(path, reference="last").read(0, 1).dosage, [[np.nan, 2, 0.5]])
    bad = rows.copy()
    bad[1, 3:6] = 20000
    path = write_bgen(tmp_path / "x.bgen", [r.tobytes() for r in bad], layout=1, compression=compression)
    with pytest.raises(
        FormatError, match=r"variant 'rs1' .number 2.: the probabilities of participant 'b' sum to more"
    ):
        open_bgen(path).read(0, 2)
    head = struct.pack("<H", 3) + b"id1"
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 3) + head, struct.pack("<I", 4) + head))
    with pytest.raises(FormatError, match=r"expected 3 people in variant 2 of 2 .* found 4"):
        open_bgen(path)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (block_of([2, 2, 2], [255, 0, 200, 56, 0, 0]), "participant 'b' sum to more than 1"),
        (block_of([2, 2, 2], [65535, 0, 65535, 1, 0, 0], bits=16), "participant 'b' sum to more than 1"),
        (block_of([2, 2, 3], [255, 0, 255, 0, 1, 1, 1]), "found person 3 with 3 copies"),
        (block_of([2, 2, 0], [255, 0, 255, 0]), "found person 3 with 0 copies"),
        (block_of([2, 2, 2], [255, 0, 255]), "expected 6 bytes of probabilities, found 3"),
        (block_of([2, 2, 2], [0] * 6, n=4), "expected 3 people and 2 alleles in the genotypes, found 4 and 2"),
        (block_of([2, 2, 2], [0] * 6, phased=3), "expected phased 0 or 1 and 1 to 32 bits, found 3 and 8"),
        (b"12345678", "expected at least 13 bytes"),
    ],
)
def test_damaged_blocks_name_the_variant(tmp_path, block, message):
    good = block_of([2, 2, 2], [255, 0, 200, 55, 0, 0])
    path = write_bgen(tmp_path / "x.bgen", [good, block, good], compression=1)
    source = open_bgen(path)
    source.read(0, 1)
    source.read(2, 3)
    with pytest.raises(FormatError, match=rf"x.bgen, variant 'rs1' .number 2.: .*{message}"):
        source.read(0, 3)


def test_a_damaged_compressed_block_names_the_variant(tmp_path):
    samples, variants, sex, calls = example()
    for compression in ("zlib", "zstd"):
        with BgenWriter(tmp_path / "g", samples, variants, sex, compression=compression) as out:
            out.append(calls)
        source = open_bgen(tmp_path / "g.bgen")
        content = bytearray(source.path.read_bytes())
        end = int(source.starts[20] + source.sizes[20])
        content[end - 25 : end - 15] = bytes(10)
        source.path.write_bytes(content)
        with pytest.raises(
            FormatError, match=r"variant 'rs20' .number 21.: (the compressed genotypes are damaged|expected)"
        ):
            open_bgen(source.path).read(0, 23)


def test_variants_of_several_alleles_are_left_out_and_counted(tmp_path):
    path = write_bgen(tmp_path / "x.bgen", [b"", b""], alleles=("A", "C", "G"))
    source = open_bgen(path)
    assert len(source.variants) == 0
    assert source.left_out == {"not_biallelic": 2}


def test_people_come_from_the_file_the_sample_file_or_both(tmp_path):
    samples, variants, sex, calls = example()
    with BgenWriter(tmp_path / "g", samples, variants, sex) as out:
        out.append(calls)
    path, sample = tmp_path / "g.bgen", tmp_path / "g.sample"
    lines = sample.read_text().splitlines()
    assert lines[:2] == ["ID_1 ID_2 missing sex", "0 0 0 D"]

    def check(error, message, changed):
        sample.write_text("\n".join(changed) + "\n")
        with pytest.raises(error, match=message):
            open_bgen(path)

    check(AlignmentError, "expected the 11 people of the BGEN file, found 10", lines[:-1])
    swapped = [*lines[:2], lines[3], lines[2], *lines[4:]]
    check(AlignmentError, "person 1 is '001', in the BGEN file it is '000'", swapped)
    check(FormatError, "line 4: expected 4 fields .* found 2", [*lines[:3], "a b", *lines[4:]])
    check(FormatError, "expected two header lines", lines[2:])
    sample.write_text("\n".join([*lines[:2], *(f"0 {line.split()[1]} 0 2" for line in lines[2:])]))
    assert open_bgen(path).samples == samples
    assert open_bgen(path).pedigree.sex.tolist() == [2] * 11
    other = tmp_path / "elsewhere.txt"
    sample.rename(other)
    assert open_bgen(path).samples == samples
    assert open_bgen(path, sample=other).pedigree.sex.tolist() == [2] * 11


def test_files_without_ids_need_a_sample_file(tmp_path):
    path = write_bgen(tmp_path / "x.bgen", [block_of([2, 2, 2], [0] * 6)])
    content = path.read_bytes()
    flags = struct.unpack_from("<I", content, 20)[0] & ~(1 << 31)
    offset = struct.unpack_from("<I", content)[0]
    path.write_bytes(struct.pack("<I", 20) + content[4:20] + struct.pack("<I", flags) + content[4 + offset :])
    with pytest.raises(
        FormatError, match=r"expected the ids of 3 people in it or in x.sample beside it, found neither"
    ):
        open_bgen(path)
    (tmp_path / "x.sample").write_text("ID_1\n0\nu\nv\n")
    with pytest.raises(FormatError, match=r"expected 3 people, found 2 in the .sample file"):
        open_bgen(path)
    (tmp_path / "x.sample").write_text("ID_1\n0\nu\nv\nu\n")
    with pytest.raises(FormatError, match="line 5: participant 'u' was already on line 3"):
        open_bgen(path)
    (tmp_path / "x.sample").write_text("ID_1\n0\nu\nv\nw\n")
    assert open_bgen(path).samples.ids.tolist() == ["u", "v", "w"]
    twice = write_bgen(tmp_path / "y.bgen", [block_of([2, 2, 2], [0] * 6)], ids=("a", "b", "a"))
    with pytest.raises(FormatError, match="must be unique; 1 occur more than once: 'a'"):
        open_bgen(twice)


def test_an_index_of_another_file_is_refused(tmp_path):
    samples, variants, sex, calls = example()
    for name, rows in (("g", calls), ("h", calls[::-1])):
        with BgenWriter(tmp_path / name, samples, variants, sex) as out:
            out.append(np.ascontiguousarray(rows))
    index_of(tmp_path / "h.bgen").replace(index_of(tmp_path / "g.bgen"))
    with pytest.raises(FormatError, match=r"g.bgen.bgi: expected the index of g.bgen .*another beginning"):
        open_bgen(tmp_path / "g.bgen")
    index_of(tmp_path / "g.bgen").write_text("no database, but long enough to be looked at" * 50)
    with pytest.raises(FormatError, match="expected an index of bgenix, found"):
        open_bgen(tmp_path / "g.bgen")
    index_of(tmp_path / "g.bgen").unlink()
    np.testing.assert_array_equal(open_bgen(tmp_path / "g.bgen").read(0, 23).dosage, calls)


@pytest.mark.parametrize("bits", [8, 16])
def test_dosages_and_probabilities_come_back_within_their_rounding(tmp_path, bits):
    samples, variants, sex, calls = example()
    rng = np.random.default_rng(1)
    dosage = np.where(np.isnan(calls), calls, rng.uniform(0, 2, calls.shape)).astype(np.float32)
    with BgenWriter(tmp_path / "d", samples, variants, sex, bits=bits) as out:
        out.append(dosage)
    back = open_bgen(tmp_path / "d.bgen").read(0, 23).dosage
    np.testing.assert_allclose(back, dosage, atol=0.5 / (2**bits - 1) + 1e-6)
    with BgenWriter(tmp_path / "again", samples, variants, sex, bits=bits) as out:
        out.append(back)
    np.testing.assert_array_equal(open_bgen(tmp_path / "again.bgen").read(0, 23).dosage, back)
    p = rng.dirichlet((0.3, 0.3, 0.3), calls.shape).astype(np.float32)
    p[np.isnan(calls)] = np.nan
    with BgenWriter(tmp_path / "p", samples, variants, sex, bits=bits) as out:
        out.append_probabilities(p[..., 1], p[..., 2])
    known = open_bgen(tmp_path / "p.bgen").read_probabilities(0, 23)
    np.testing.assert_allclose(known.one, p[..., 1], atol=1 / (2**bits - 1))
    np.testing.assert_allclose(known.two, p[..., 2], atol=1 / (2**bits - 1))
    with BgenWriter(tmp_path / "q", samples, variants, sex, bits=bits) as out:
        out.append_probabilities(known.one, known.two)
    assert (tmp_path / "q.bgen").read_bytes() == (tmp_path / "p.bgen").read_bytes()
    with (
        pytest.raises(FormatError, match="probabilities that sum to 1"),
        BgenWriter(tmp_path / "r", samples, variants) as out,
    ):
        out.append_probabilities(p[..., 1] + 1, p[..., 2])


def test_families_in_the_ids_agree_with_a_sample_file(tmp_path):
    path = write_bgen(tmp_path / "x.bgen", [block_of([2, 2, 2], [0] * 6)], ids=("f_1", "f_2", "g_1"))
    (tmp_path / "x.sample").write_text("ID_1 ID_2\n0 0\nf 1\nf 2\ng 3\n")
    with pytest.raises(AlignmentError, match="person 1 is '1', in the BGEN file it is 'f_1'"):
        open_bgen(path)
    path = write_bgen(tmp_path / "x.bgen", [block_of([2, 2, 2], [0] * 6)], ids=("f_1", "f_2", "g_3"))
    assert open_bgen(path).samples.ids.tolist() == ["1", "2", "3"]
