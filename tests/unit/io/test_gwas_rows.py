"""GWAS of any program: presets, compression, delimiters, and numbers that are not simple."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainlocus.core import FormatError, SchemaError
from brainlocus.io.gwas_columns import PRESETS, choose_columns
from brainlocus.io.gwas_rows import GwasReader, gwas_header

WANTED = np.array(["rs1", "rs3", "rs4"])


def read(path, wanted=WANTED, given=None, **options):
    told, columns = choose_columns(gwas_header(path), given=given, where=str(path))
    return told, GwasReader(wanted, **options).read(path, columns)


def alleles(rows):
    return [
        (str(rows.alleles[e]), str(rows.alleles[o])) for e, o in zip(rows.effect_allele, rows.other_allele, strict=True)
    ]


BIG40 = """chr rsid pos a1 a2 beta se pval(-log10)
01 rs1 10 a g 0.5 0.25 1.34
01 rs2 20 A G 0.5 0.25 1.34
01 rs3 30 C T -0.5 0.25 350.5
01  40 C T -0.5 0.25 1
"""


@pytest.mark.parametrize("how", ["plain", "gz", "members", "zst", "crlf"])
def test_big40_however_it_is_packed(tmp_path, how):
    data = BIG40.encode()
    lines = data.splitlines(keepends=True)
    packed = {
        "plain": data,
        "gz": gzip.compress(data),
        # bgzip writes many members, and an empty one at the end.
        "members": gzip.compress(lines[0]) + gzip.compress(b"".join(lines[1:])) + gzip.compress(b""),
        "zst": pa.Codec("zstd").compress(data, asbytes=True),
        "crlf": data.replace(b"\n", b"\r\n"),
    }[how]
    path = tmp_path / "0001.txt"
    path.write_bytes(packed)
    told, rows = read(path)
    assert told == "big40"
    assert rows.snp.tolist() == [0, 1]
    assert alleles(rows) == [("G", "A"), ("T", "C")]
    assert rows.beta.tolist() == [0.5, -0.5]
    assert rows.standard_error.tolist() == [0.25, 0.25]
    assert rows.neg_log10_p.tolist() == [1.34, 350.5]
    assert (rows.n_read, rows.n_without_id) == (4, 1)
    assert rows.examples == ("rs1", "rs2", "rs3")


PROGRAMS = {
    "regenie": (
        "CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ N TEST BETA SE CHISQ LOG10P\n1 1 rs1 A C 0.2 9 ADD 0.1 0.05 4 1.3\n"
        "1 1 rs1 A C 0.2 9 DOM 9 1 4 1.3\n"
    ),
    "plink2": (
        "#CHROM\tPOS\tID\tREF\tALT\tA1\tTEST\tOBS_CT\tBETA\tSE\tT_STAT\tP\n1\t1\trs1\tA\tC\tC\tADD\t9\t0.1\t0.05\t2\t.05\n"
        "1\t1\trs1\tA\tC\tC\tage\t9\t9\t1\t2\t.05\n1\t3\trs3\tG\tT\tG\tADD\t9\t0.1\t0.05\t2\t.05\n"
    ),
    "saige": "CHR POS MarkerID Allele1 Allele2 AF_Allele2 BETA SE p.value\n1 1 rs1 A C 0.2 0.1 0.05 0.05\n",
    "metal": "MarkerName\tAllele1\tAllele2\tFreq1\tEffect\tStdErr\tP-value\nrs1\tc\ta\t0.2\t0.1\t0.05\t0.05\n",
    "glgc": "MarkerName Allele1 Allele2 GC.Zscore GC.Pvalue Effect StdErr\nrs1 c a 2 0.05 0.1 0.05\n",
    "enigma": "SNP A1 A2 FREQ1 BETA1 SE P N MARKER CHR BP\nrs1 C A 0.2 0.1 0.05 0.05 9 1:1 1 1\n",
    "gwas-ssf": (
        "chromosome\tbase_pair_location\teffect_allele\tother_allele\tbeta\tstandard_error\teffect_allele_frequency\t"
        "p_value\trsid\n1\t1\tC\tA\t0.1\t0.05\t0.2\t0.05\trs1\n"
    ),
    "brainlocus": (
        "variant_id,chromosome,position,effect_allele,other_allele,beta,standard_error,neg_log10_p\nrs1,1,1,C,A,0.1,0.05,1.3\n"
    ),
}


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_presets_count_the_effect_allele(tmp_path, program):
    path = tmp_path / "scan.txt"
    path.write_text(PROGRAMS[program])
    told, rows = read(path)
    assert told == program
    assert rows.snp[0] == 0
    assert alleles(rows)[0] == ("C", "A")
    assert rows.beta[0] == 0.1
    assert rows.standard_error[0] == 0.05
    if program in ("regenie", "plink2"):
        assert 9 not in rows.beta
    if program == "plink2":
        assert alleles(rows)[1] == ("G", "T")  # A1 is REF: the other allele is ALT


def test_ldsc_has_z(tmp_path):
    (tmp_path / "x.sumstats").write_text("SNP\tA1\tA2\tN\tZ\nrs1\tC\tA\t9\t2.5\n")
    told, rows = read(tmp_path / "x.sumstats")
    assert told == "ldsc"
    assert rows.z.tolist() == [2.5]
    assert rows.beta is None
    assert set(PRESETS) == {*PROGRAMS, "big40", "ldsc"}


def test_p_that_no_double_holds(tmp_path):
    (tmp_path / "x.txt").write_text(
        "snp\teffect_allele\tother_allele\tor\tp\nrs1\tC\tA\t2\t3.5e-412\nrs3\tC\tA\t0.5\t0\nrs4\tC\tA\t-1\t1.5\n"
    )
    _, rows = read(tmp_path / "x.txt")
    assert rows.neg_log10_p[0] == pytest.approx(412 - np.log10(3.5), abs=1e-9)
    assert rows.neg_log10_p[1] == np.inf
    assert np.isnan(rows.neg_log10_p[2])
    assert rows.beta[:2].tolist() == [np.log(2), np.log(0.5)]
    assert np.isnan(rows.beta[2])


def test_padded_columns(tmp_path):
    (tmp_path / "x.assoc").write_text(
        " CHR   SNP     A1  other_allele   BETA    SE \n   1   rs1     C   A    0.5   0.25 \n"
    )
    _, rows = read(tmp_path / "x.assoc", given={"effect_allele": "A1"})
    assert rows.beta.tolist() == [0.5]
    assert alleles(rows) == [("C", "A")]


def test_comment_lines(tmp_path):
    (tmp_path / "x.tsv").write_text("##source\nsnp\teffect_allele\tother_allele\tz\nrs4\tC\tA\t-1\n")
    assert read(tmp_path / "x.tsv")[1].z.tolist() == [-1.0]


def test_signs(tmp_path):
    text = "snp\teffect_allele\tother_allele\tp\tdir\nrs1\tC\tA\t.5\t+\nrs3\tC\tA\t.5\t-\nrs4\tC\tA\t.5\t-2.5\n"
    (tmp_path / "x.tsv").write_text(text)
    assert read(tmp_path / "x.tsv", given={"sign": "dir"})[1].sign.tolist() == [1, -1, -1]


def test_decimal_commas_only_where_said(tmp_path):
    (tmp_path / "x.tsv").write_text("snp\teffect_allele\tother_allele\tz\nrs1\tC\tA\t-1,5\n")
    with pytest.raises(FormatError, match="--decimal-comma"):
        read(tmp_path / "x.tsv")
    assert read(tmp_path / "x.tsv", decimal_comma=True)[1].z.tolist() == [-1.5]


def test_by_position(tmp_path):
    (tmp_path / "x.txt").write_text("chr pos effect_allele other_allele z\nchr01 10 C A 2\n23 7 C A 3\n")
    _, rows = read(tmp_path / "x.txt", np.array(["1:10", "X:7"]), by_position=True)
    assert rows.snp.tolist() == [0, 1]
    assert rows.z.tolist() == [2, 3]


def test_parquet(tmp_path):
    table = pa.table({"SNP": ["rs0", "rs4"], "A1": ["C", "c"], "A2": ["A", "a"], "Z": [1.0, None]})
    pq.write_table(table, tmp_path / "x.parquet")
    told, rows = read(tmp_path / "x.parquet")
    assert told == "ldsc"
    assert rows.snp.tolist() == [2]
    assert np.isnan(rows.z[0])


def test_next_file_of_the_same_variants_and_of_others(tmp_path, monkeypatch):
    """Rows are searched once where blocks repeat, and again where one cell differs."""
    texts = [BIG40, BIG40.replace("0.25 1.34", "0.50 1.34"), BIG40.replace("rs3 30 C T", "rs3 30 C G")]
    reader, searched = GwasReader(WANTED), []
    match = GwasReader._match
    monkeypatch.setattr(GwasReader, "_match", lambda *a: searched.append(1) or match(*a))
    found = []
    for k, text in enumerate(texts):
        path = tmp_path / f"{k}.txt"
        path.write_text(text)
        found.append(reader.read(path, choose_columns(gwas_header(path))[1]))
        alone = GwasReader(WANTED)
        alone_rows = alone.read(path, choose_columns(gwas_header(path))[1])
        searched.pop()
        assert alleles(found[-1]) == alleles(alone_rows)
        np.testing.assert_array_equal(found[-1].standard_error, alone_rows.standard_error)
    assert len(searched) == 2
    assert found[1].standard_error.tolist() == [0.5, 0.25]
    assert alleles(found[2])[1] == ("G", "C")


@pytest.mark.parametrize(
    ("header", "given", "message"),
    [
        ("snp A1 A2 beta se", {}, "which columns are the effect and the other allele"),
        ("x effect_allele other_allele z", {}, "expected a column of SNP ids"),
        ("snp effect_allele other_allele beta", {}, "expected z, or beta"),
        ("snp effect_allele other_allele p", {}, "expected z, or beta"),
        ("snp effect_allele other_allele z", {"zz": "z"}, "no field 'zz'"),
        ("snp effect_allele other_allele z", {"beta": "b"}, "no column 'b'"),
    ],
)
def test_columns_that_are_not_known(header, given, message):
    with pytest.raises(SchemaError, match=message):
        choose_columns(header.split(), given=given)
    with pytest.raises(SchemaError, match=r"no preset 'big4'\. Did you mean 'big40'"):
        choose_columns(header.split(), preset="big4")


def test_bad_files(tmp_path):
    columns = choose_columns(["SNP", "A1", "A2", "Z"])[1]
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(FormatError, match="empty file"):
        gwas_header(tmp_path / "empty.txt")
    with pytest.raises(FormatError, match="found nothing"):
        gwas_header(tmp_path / "absent.txt")
    (tmp_path / "ragged.txt").write_text("SNP A1 A2 Z\nrs1 A C\n")
    with pytest.raises(FormatError, match=r"ragged\.txt"):
        GwasReader(WANTED).read(tmp_path / "ragged.txt", columns)
    (tmp_path / "text.txt").write_text("SNP A1 A2 Z\nrs1 A C high\n")
    with pytest.raises(FormatError, match="expected numbers in column 'Z', found 'high'"):
        GwasReader(WANTED).read(tmp_path / "text.txt", columns)
    whole = gzip.compress(b"SNP A1 A2 Z\n" + b"rs1 A C 1\n" * 5000)
    (tmp_path / "cut.txt.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"cut\.txt\.gz"):
        GwasReader(WANTED).read(tmp_path / "cut.txt.gz", columns)
