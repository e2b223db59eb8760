"""VCF and BCF under the contract of sources, and what is special to them. Files are written here, as text."""

import gzip
import struct
import subprocess
import zlib

import numpy as np
import pytest

from brainlocus.core import FormatError
from brainlocus.io import open_genotypes, open_vcf
from tests.contracts.genotype_contract import DamageContract, GenotypeSourceContract, example

pytest.importorskip("cyvcf2", reason="needs the extra genotypes (cyvcf2)")

CALLS = {0: "0/0", 1: "0/1", 2: "1|1"}


def vcf_text(samples, variants, calls):
    """Return genotypes as VCF: REF is the other allele."""
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    lines = ["##fileformat=VCFv4.3", "\t".join([*columns, *samples.ids.tolist()])]
    for k in range(len(variants)):
        fields = [
            variants.chromosome[k], variants.position[k], variants.variant_id[k], variants.other_allele[k],
            variants.effect_allele[k], ".", "PASS", ".", "GT",
        ]  # fmt: skip
        row = ["./." if c != c else CALLS[int(c)] for c in calls[k].tolist()]
        lines.append("\t".join([*map(str, fields), *row]))
    return "\n".join(lines) + "\n"


def bgzf(data, size=700):
    """Return data in BGZF, in small members so that records span them."""
    out = b""
    for start in [*range(0, len(data), size), len(data)]:
        part = data[start : start + size]
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = packer.compress(part) + packer.flush()
        head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(body) + 25)
        out += head + body + struct.pack("<II", zlib.crc32(part), len(part))
    return out


class TestVcf(DamageContract, GenotypeSourceContract):
    suffix = ".vcf"
    holds_sex = False
    bad_magic = "expected a VCF header"

    def write(self, folder, *, blocks=4, n=11):
        samples, variants, _, calls = example(n)
        path = folder / f"g{self.suffix}"
        path.write_bytes(self.packed(vcf_text(samples, variants, calls).encode()))
        return path, calls

    def packed(self, data):
        return data

    def test_truncated_files_are_refused(self, tmp_path):
        path, _ = self.write(tmp_path)
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(FormatError, match=r"truncated|BGZF block"):
            self.open(path)


class TestVcfGz(TestVcf):
    suffix = ".vcf.gz"
    bad_magic = "expected a VCF header|expected a whole BGZF"

    def packed(self, data):
        return bgzf(data)

    def test_plain_gzip_is_refused(self, tmp_path):
        path, _ = self.write(tmp_path)
        path.write_bytes(gzip.compress(b"##fileformat=VCFv4.3\n"))
        with pytest.raises(
            FormatError, match=r"expected BGZF .written by bgzip., found plain gzip.*bgzip > new.vcf.gz"
        ):
            self.open(path)

    def test_damage_is_named(self, tmp_path):
        path, _ = self.write(tmp_path)
        content = bytearray(path.read_bytes())
        content[200:204] = bytes(4)
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"expected a whole BGZF block at byte 1: "):
            self.open(path)


class TestBcf(TestVcf):
    suffix = ".bcf"
    bad_magic = "expected a VCF header|expected a whole BGZF"

    def write(self, folder, *, blocks=4, n=11):
        import cyvcf2

        text, calls = TestVcf.write(self, folder, n=n)
        text = text.rename(folder / "g.txt.vcf")
        lines = text.read_text().splitlines()
        contigs = [f"##contig=<ID={c}>" for c in ("X", "2", "1")]
        more = [*contigs, '##FORMAT=<ID=GT,Number=1,Type=String,Description="g">']
        text.write_text("\n".join([lines[0], *more, *lines[1:]]) + "\n")
        read = cyvcf2.VCF(str(text))
        out = cyvcf2.Writer(str(folder / "g.bcf"), read, mode="wb")
        for record in read:
            out.write_record(record)
        out.close()
        read.close()
        text.unlink()
        return folder / "g.bcf", calls


HEADER = "##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ta\tb\tc\td\n"


def opened(folder, *records, header=HEADER):
    path = folder / "x.vcf"
    path.write_text(header + "".join(r.replace(" ", "\t") + "\n" for r in records))
    return open_vcf(path)


def test_half_calls_haploids_and_dosages(tmp_path, capfd):
    source = opened(
        tmp_path,
        "chrX 5 rs1 A C . . . GT 0 1 ./1 1|0",
        "X 6 rs2 A C . . . GT . 1/1 1/. 0/0",
        "X 7 rs3;alias A C . . . GT:DS 0/1:1.25 0/0:0.01 ./.:. 1/1:2.0004",
        "X 8 . A C . . . DS 0.5 1 . 2",
        "X 9 rs5 A C . . . GT:DS 0:0.1 1:0.9 0/1:1.1 0/0:-0.0004",
    )
    expected = [
        [0, 2, np.nan, 1], [np.nan, 2, np.nan, 0], [1.25, 0.01, np.nan, 2], [0.5, 1, np.nan, 2], [0.2, 1.8, 1.1, 0],
    ]  # fmt: skip
    np.testing.assert_allclose(source.read(0, 5).dosage, expected, rtol=1e-6)
    assert source.variants.variant_id.tolist() == ["rs1", "rs2", "rs3", "X:8:A:C", "rs5"]
    assert source.variants.chromosome.tolist() == ["X"] * 5
    assert capfd.readouterr() == ("", "")  # htslib has nothing to warn of


def test_each_alternative_allele_is_a_row_of_its_own(tmp_path):
    source = opened(
        tmp_path,
        "1 5 rs1 A C,G . . . GT 0/1 1/2 2/2 ./2",
        "1 6 rs2 A . . . . GT 0/0 0/0 0/0 0/0",
        "1 7 rs3 A *,T . . . GT 0/1 1/2 2/2 0/2",
        "1 8 . A C,G . . . DS 0.5,1 0,2 1,1 .,.",
        "1 9 rs5 A C . . . GT 0/0 1/1 0/1 0/0",
    )
    names = ["rs1:A:C", "rs1:A:G", "rs3:A:T", "1:8:A:C", "1:8:A:G", "rs5"]
    assert source.variants.variant_id.tolist() == names
    assert source.variants.effect_allele.tolist() == ["C", "G", "T", "C", "G", "C"]
    assert source.left_out == {"no_alternate_allele": 1}
    expected = [
        [1, 1, 0, np.nan], [0, 1, 2, np.nan], [0, 1, 2, 1], [0.5, 0, 1, np.nan], [1, 2, 1, np.nan], [0, 2, 1, 0],
    ]  # fmt: skip
    np.testing.assert_array_equal(source.read(0, 6).dosage, expected)
    for start in range(6):
        for stop in range(start, 7):
            np.testing.assert_array_equal(source.read(start, stop).dosage, expected[start:stop] or np.empty((0, 4)))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            "1 5 rs1 A C . . . DS 0 1 2.1 0",
            r"variant 'rs1' .record 1.: dosages lie in .0, 2., found 2.1 of participant 'c'",
        ),
        ("1 5 rs1 A C . . . DS 0 -1 2 0", "found -1 of participant 'b'"),
        ("1 5 rs1 A C . . . GT:DS 0:1.2 0:0 0:0 0:0", "found 2.4 of participant 'a'"),
        (
            "1 5 rs1 A C . . . GT 0/0 0/0/1 0/0 0/1",
            "expected haploid and diploid calls, found 3 alleles of participant 'b'",
        ),
        ("1 5 rs1 A C . . . GQ 1 2 3 4", "expected DS or GT among its fields, found GQ"),
        ("1 5 rs1 A C,G . . . DS 0 0 0 0", "expected a DS for every ALT allele, found fewer"),
    ],
)
def test_bad_genotypes_name_the_variant(tmp_path, record, message):
    header = HEADER.replace("#CHROM", '##FORMAT=<ID=GQ,Number=1,Type=Integer,Description="q">\n#CHROM')
    source = opened(tmp_path, record, header=header)
    with pytest.raises(FormatError, match=message):
        source.read(0, len(source.variants))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "1\t5\trs1\tA\tC\t.\t.\t.\tGT\t0/0\n", "line 3: expected 13 tab-separated columns, found 10"),
        (HEADER + "1\tx\trs1\tA\tC\t.\t.\t.\tGT\t0/0\t0/0\t0/0\t0/0\n", "line 3: expected a position .* found 'x'"),
        (HEADER.split("\n", 1)[1], "expected a VCF header"),
        ("", "expected a VCF header"),
        ("1\t5\trs1\tA\tC\t.\t.\t.\tGT\t0/0\n", "line 1: expected a VCF header"),
        ("\t".join(HEADER.split("\t")[:8]) + "\n", "expected genotypes of people, found sites only"),
        (HEADER.replace("\tb\t", "\ta\t"), "must be unique; 1 occur more than once: 'a'"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "x.vcf").write_text(text)
    with pytest.raises(FormatError, match=message):
        open_genotypes(tmp_path / "x.vcf")


def test_a_pickled_source_reads_the_same_from_another_process(tmp_path):
    import pickle
    import sys

    source = opened(tmp_path, "1 5 rs1 A C . . . GT 0/0 0/1 1/1 ./.", "1 5 rs2 A G . . . GT 0/0 0/1 1/1 1/1")
    (tmp_path / "source.pickle").write_bytes(pickle.dumps(source))
    code = "import pickle, sys; s = pickle.load(open(sys.argv[1], 'rb')); print(s.read(1, 2).dosage.tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "source.pickle")], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[[0.0, 1.0, 2.0, 2.0]]\n", done.stderr
