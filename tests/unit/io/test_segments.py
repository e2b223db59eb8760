"""Readers of copy-number calls and regions."""

import numpy as np
import pytest

from brainlocus.core import FormatError
from brainlocus.io import read_array_quality, read_named_regions, read_segments

PENNCNV = """NOTICE: something
chr1:156783977-156788016  numsnp=6    length=4,040   state2,cn=1 /data/split/father.txt startsnp=rs1 endsnp=rs2
chrX:474990-534211   numsnp=12   length=59,222  state5,cn=3 child.txt.gz startsnp=rs3 endsnp=rs4 conf=14.575
"""
PLINK = """ FID IID CHR BP1 BP2 TYPE SCORE SITES
 f1 p1 4 71338469 71459318 1 27 5
 f1 p2 23 100 200 3 0 9
"""
TABLE = "ID\tchr\tstart\tend\tcopies\tnsnp\tscore\np1\tchr4\t100\t300\t1\t20\t\np2\t05\t100\t300\t4\t20\t3.5\n"


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_three_formats(tmp_path):
    penncnv = read_segments(written(tmp_path, "calls.rawcnv", PENNCNV), genome_build="GRCh37")
    assert penncnv.participant_id.tolist() == ["father", "child"]
    assert penncnv.chromosome.tolist() == ["1", "X"]
    assert (penncnv.start.tolist(), penncnv.stop.tolist()) == ([156783977, 474990], [156788016, 534211])
    assert (penncnv.copies.tolist(), penncnv.n_snps.tolist()) == ([1, 3], [6, 12])
    assert np.isnan(penncnv.score[0])
    assert penncnv.score[1] == 14.575
    assert penncnv.length.tolist() == [4040, 59222]  # as the file states
    plink = read_segments(written(tmp_path, "calls.cnv", PLINK), genome_build="GRCh37")
    assert plink.participant_id.tolist() == ["p1", "p2"]
    assert plink.chromosome.tolist() == ["4", "X"]
    assert (plink.copies.tolist(), plink.n_snps.tolist(), plink.score.tolist()) == ([1, 3], [5, 9], [27.0, 0.0])
    table = read_segments(written(tmp_path, "calls.tsv", TABLE), genome_build="GRCh38")
    assert table.chromosome.tolist() == ["4", "5"]
    assert table.copies.tolist() == [1, 4]
    assert table.genome_build == "GRCh38"


def test_regions_and_quality(tmp_path):
    text = "chromosome\tstart\tend\tname\tdirection\tLOEUF\n16\t1\t9\tA\tdeletion\t0.3\n16\t5\t9\tB\t\t\n"
    found = read_named_regions(written(tmp_path, "loci.tsv", text), genome_build="GRCh37")
    assert found.name.tolist() == ["A", "B"]
    assert found.direction.tolist() == ["deletion", "both"]
    assert found.loeuf[0] == 0.3
    assert np.isnan(found.loeuf[1])
    text = "File\tLRR_SD\tBAF_median\tBAF_drift\tWF\nx/p1.txt\t0.2\t0.5\t0\t-0.01\n"
    ids, quality = read_array_quality(written(tmp_path, "qc.tsv", text))
    assert ids.tolist() == ["p1"]
    assert {n: v[0] for n, v in quality.items()} == {
        "lrr_sd": 0.2, "baf_median": 0.5, "baf_drift": 0.0, "gc_wave": -0.01
    }  # fmt: skip


BAD = [
    ("calls.txt", "chr1 100 200\n", "line 1: expected 'chr1:100-200 numsnp"),
    ("calls.cnv", "FID IID CHR\n", "line 1: expected FID IID CHR BP1"),
    ("calls.cnv", PLINK + "f p3 1 2\n", "line 4: expected 8 fields, found 4"),
    ("calls.tsv", TABLE.replace("copies", "state"), "expected a column copies .or copies, type, cn"),
    ("calls.tsv", TABLE.replace("\t100\t", "\tten\t", 1), "row 1: expected a number for start, found 'ten'"),
    ("calls.tsv", TABLE.replace("\t4\t20", "\t1.5\t20"), "row 2: expected a whole number for copies, found '1.5'"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_bad_files(tmp_path, name, text, message):
    with pytest.raises(FormatError, match=message):
        read_segments(written(tmp_path, name, text), genome_build="GRCh37")


def test_bad_direction(tmp_path):
    text = "chromosome\tstart\tend\tname\tdirection\n16\t1\t9\tA\tloss\n"
    with pytest.raises(FormatError, match="row 1: expected deletion, duplication, both, found 'loss'"):
        read_named_regions(written(tmp_path, "loci.tsv", text), genome_build="GRCh37")
