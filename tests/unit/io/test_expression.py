"""Expression matrices, places of genes, covariates and similarities: every form, and what is refused."""

import gzip

import numpy as np
import pytest

from brainlocus.core import AlignmentError, FormatError, SampleIndex, SchemaError
from brainlocus.io.expression import (
    expression_samples,
    read_expression,
    read_expression_covariates,
    read_gene_places,
    read_similarity,
)
from tests.real_data import real_data


def _write(path, text):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt") as stream:
        stream.write(text)
    return path


FORMS = {
    "x.bed.gz": "#chr\tstart\tend\tgene_id\ta\tb\nchr2\t9\t10\tG1\t1\t2\nchrX\t99\t100\tG2\tNA\t0.5\n",
    "x.bed": "chr\tstart\tend\tpid\tgid\tstrand\ta\tb\n2\t9\t10\tG1\tG1\t+\t1\t2\nX\t99\t100\tG2\tG2\t-\t\t0.5\n",
    "x.tsv": "gene_id\ta\tb\nG1\t1\t2\nG2\tNA\t0.5\n",
    "x.csv.gz": "Name,Description,a,b\nG1,one,1,2\nG2,two,nan,0.5\n",
    "x.gct.gz": "#1.2\n2\t2\nName\tDescription\ta\tb\nG1\tone\t1\t2\nG2\ttwo\t\t0.5\n",
    "x.txt": "participant_id\tG1\tG2\na\t1\tNA\nb\t2\t0.5\n",
    "y.tsv": "#FID\tIID\tG1\tG2\nf\ta\t1\tNA\nf\tb\t2\t0.5\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_the_same_matrix(tmp_path, name):
    path = _write(tmp_path / name, FORMS[name])
    found = read_expression(path)
    assert found.genes.tolist() == ["G1", "G2"]
    assert found.samples.ids.tolist() == ["a", "b"]
    np.testing.assert_array_equal(found.values, [[1, 2], [np.nan, 0.5]])
    assert expression_samples(path).ids.tolist() == ["a", "b"]
    if ".bed" in name:
        assert [(p.gene, p.chromosome, p.start, p.stop) for p in found.places] == [
            ("G1", "2", 10, 10),
            ("G2", "X", 100, 100),
        ]
    else:
        assert found.places == ()


def test_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"gene": ["G1", "G2"], "a": [1, None], "b": [2.0, 0.5]}), path)
    np.testing.assert_array_equal(read_expression(path).values, [[1, 2], [np.nan, 0.5]])


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("what\ta\nG1\t1\n", SchemaError, "Rename the column of the ids"),
        ("gene_id\ta\ta\nG1\t1\t1\n", SchemaError, "found twice: a"),
        ("gene_id\ta\nG1\t1\nG1\t2\n", SchemaError, "may have one row"),
        ("gene_id\ta\nG1\tlow\n", FormatError, "a number in every cell"),
        ("gene_id\ta\nG1\tinf\n", FormatError, "infinite"),
        ("gene_id\nG1\n", FormatError, "columns of expression"),
        ("#chr\tstart\tend\tgene_id\n1\t1\t2\tG\n", FormatError, "expected #chr, start, end, gene_id and samples"),
    ],
)
def test_bad_matrices_are_refused_with_the_file(tmp_path, text, error, message):
    path = _write(tmp_path / "x.tsv", text)
    with pytest.raises(error, match=message) as caught:
        read_expression(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_absent(tmp_path):
    with pytest.raises(FormatError, match="found nothing"):
        read_expression(tmp_path / "x.tsv")


def test_places_of_genes_by_any_name(tmp_path):
    simplified = _write(
        tmp_path / "a.txt.gz",
        "chr\tleft\tright\tstrand\tgeneid_full\tgeneid\tgenetype\tgenename\n"
        "chr1\t11869\t14409\t+\tENSG1.5_2\tENSG1\tlincRNA\t DDX11L1\n",
    )
    gtf = _write(
        tmp_path / "a.gtf.gz",
        "##x\n"
        'chr1\tHAVANA\tgene\t11869\t14409\t.\t+\t.\tgene_id "ENSG1.5_2"; gene_type "lincRNA"; gene_name "DDX11L1";\n'
        'chr1\tHAVANA\texon\t1\t2\t.\t+\t.\tgene_id "ENSG1.5_2";\n',
    )
    for path in (simplified, gtf):
        (place,) = read_gene_places(path)
        assert (place.gene, place.name, place.kind, place.chromosome) == ("ENSG1.5_2", "DDX11L1", "lincRNA", "1")
        assert (place.start, place.stop, place.strand) == (11869, 14409, "+")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gene\tchr\tstart\nG\t1\t2\n", "there is no stop"),
        ("gene\tchr\tstart\tstop\nG\t1\tx\t2\n", "line 2: expected a position in column start"),
        ("gene\tchr\tstart\tstop\nG\t1\t5\t2\n", "line 2: expected an end not before the start"),
    ],
)
def test_bad_places_are_refused(tmp_path, text, message):
    with pytest.raises((FormatError, SchemaError), match=message):
        read_gene_places(_write(tmp_path / "x.tsv", text))


def test_covariates_either_way_round(tmp_path):
    people = SampleIndex.of(["a", "b", "c"])
    down = _write(tmp_path / "d.tsv", "participant_id\tage\tsex\nb\t3\tF\na\t2\tM\nz\t1\tM\n")
    across = _write(tmp_path / "a.txt", "ID\tb\ta\tz\nPC1\t0.1\t0.2\t0.3\nsex\t1\t2\tNA\n")
    assert read_expression_covariates(down, people).names == ("age", "sex")
    found = read_expression_covariates(across, people)
    assert found.samples.ids.tolist() == ["b", "a", "z"]
    np.testing.assert_array_equal(found.matrix(), [[0.1, 1], [0.2, 2], [0.3, np.nan]])
    strangers = _write(tmp_path / "s.tsv", "participant_id\tage\nx\t3\n")
    with pytest.raises(AlignmentError, match="in neither"):
        read_expression_covariates(strangers, people)
    both = _write(tmp_path / "b.tsv", "ID\ta\tb\nc\t1\t2\n")
    with pytest.raises(AlignmentError, match="in both"):
        read_expression_covariates(both, people)


def test_similarities_are_square(tmp_path):
    path = _write(tmp_path / "s.tsv", "tissue\tB\tA\nA\t0.5\t1\nB\t1\t0.4\n")
    names, values = read_similarity(path)
    assert names == ["B", "A"]
    np.testing.assert_array_equal(values, [[1, 0.4], [0.5, 1]])
    with pytest.raises(SchemaError, match="square"):
        read_similarity(_write(tmp_path / "t.tsv", "tissue\tB\tA\nA\t0.5\t1\n"))


def test_the_published_table_of_genes():
    places = read_gene_places(real_data("twas/genes/gencode.v32.GRCh37.simplified.txt.gz"))
    assert len(places) == 62_300
    (apoe,) = [p for p in places if p.name == "APOE"]
    assert (apoe.chromosome, apoe.start, apoe.stop, apoe.strand) == ("19", 45_409_048, 45_412_650, "+")
    assert apoe.gene.split(".")[0] == "ENSG00000130203"
