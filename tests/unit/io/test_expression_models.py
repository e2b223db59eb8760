"""PredictDB models and covariances: what is read, and what is refused."""

import numpy as np
import pytest

from brainlocus.core import FormatError, SchemaError
from brainlocus.io import find_covariance, model_tissue, read_covariance, read_expression_model
from tests.real_data import real_data
from tests.twas_files import write_covariance_text, write_db

WEIGHTS = [
    {"rsid": "rs2", "varID": "1_2_A_G_b38", "gene": "G2.1", "weight": 0.0, "ref_allele": "a", "eff_allele": "g"},
    {"rsid": "rs1", "varID": "1_1_A_C_b38", "gene": "G1.4", "weight": -0.5, "ref_allele": "A", "eff_allele": "C"},
    {"rsid": "rs3", "varID": "1_3_A_CT_b38", "gene": "G1.4", "weight": 0.25, "ref_allele": "A", "eff_allele": "CT"},
]
EXTRA = [
    {"gene": "G1.4", "genename": "ONE", "n.snps.in.model": 3, "pred.perf.R2": "0.1", "pred.perf.pval": None,
     "pred.perf.qval": "NA", "phi": 0.02},
    {"gene": "G9", "genename": "NINE", "n.snps.in.model": 1, "pred.perf.R2": 0.1},
]  # fmt: skip


def test_model_by_gene(tmp_path):
    write_db(tmp_path / "T.db", WEIGHTS, EXTRA, order=("varID", "eff_allele", "weight", "gene", "ref_allele", "rsid"))
    model = read_expression_model(tmp_path / "T.db")
    assert model.tissue == "T"
    assert model.genes.tolist() == ["G1.4", "G2.1"]
    assert model.gene_names.tolist() == ["ONE", ""]
    assert model.offsets.tolist() == [0, 2, 3]
    assert model.snps.tolist() == ["rs1", "rs3", "rs2"]
    assert model.effect_allele.tolist() == ["C", "CT", "G"]
    assert model.other_allele.tolist() == ["A", "A", "A"]
    assert model.weight.tolist() == [-0.5, 0.25, 0.0]
    assert model.n_snps_in_model.tolist() == [3, 1]  # as listed; counted where the file says nothing
    np.testing.assert_array_equal(model.pred_perf_r2, [0.1, np.nan])
    assert np.isnan(model.pred_perf_pval).all()
    np.testing.assert_array_equal(model.phi, [0.02, np.nan])
    assert read_expression_model(tmp_path / "T.db", snp_key="varID").snps[0] == "1_1_A_C_b38"
    assert read_expression_model(tmp_path / "T.db", strip_versions=True).genes.tolist() == ["G1", "G2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": None}, "1 that are not: G2.1 rs2"),
        ({"weight": float("inf")}, "finite numbers"),
        ({"gene": "G1.4", "rsid": "rs1"}, "found 1 pairs more often: G1.4 rs1"),
        ({"gene": "G1.9"}, "without versions 1 genes have the id of another: G1"),
    ],
)
def test_bad_weights(tmp_path, change, message):
    write_db(tmp_path / "T.db", [{**WEIGHTS[0], **change}, *WEIGHTS[1:]], EXTRA)
    with pytest.raises(SchemaError, match=message):
        read_expression_model(tmp_path / "T.db", strip_versions="versions" in message)


def test_no_model(tmp_path):
    (tmp_path / "text.db").write_text("weights")
    with pytest.raises(FormatError, match="expected a PredictDB model"):
        read_expression_model(tmp_path / "text.db")
    with pytest.raises(FormatError, match="found nothing"):
        read_expression_model(tmp_path / "absent.db")
    write_db(tmp_path / "T.db", WEIGHTS, EXTRA, order=("rsid", "gene", "weight", "ref_allele"))
    with pytest.raises(SchemaError, match="no column eff_allele"):
        read_expression_model(tmp_path / "T.db")
    write_db(tmp_path / "T.db", WEIGHTS, EXTRA, order=("varID", "gene", "weight", "ref_allele", "eff_allele"))
    with pytest.raises(SchemaError, match="--snp-key"):
        read_expression_model(tmp_path / "T.db")
    whole = tmp_path / "whole.db"
    write_db(whole, WEIGHTS * 1, EXTRA)
    whole.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(FormatError, match=r"whole\.db"):
        read_expression_model(whole)


def test_covariance(tmp_path):
    rows = [
        ("G1", "rs1", "rs1", 0.5), ("G1", "rs1", "rs3", -0.25), ("G1", "rs3", "rs1", -0.25), ("G1", "rs3", "rs3", 0.75),
        ("G2", "rs2", "rs2", "NA"),
    ]  # fmt: skip
    for name, delimiter in (("T.txt.gz", " "), ("U.txt", "\t")):
        write_covariance_text(tmp_path / name, rows, delimiter)
        found = read_covariance(tmp_path / name)
        assert found.genes.tolist() == ["G1", "G2"]
        assert found.offsets.tolist() == [0, 3, 3]
        pairs = [(found.names[a], found.names[b]) for a, b in zip(found.first, found.second, strict=True)]
        assert pairs == [("rs1", "rs1"), ("rs1", "rs3"), ("rs3", "rs3")]
        assert found.value.tolist() == [0.5, -0.25, 0.75]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("G1", "a", "a", 1), ("G2", "b", "b", 1), ("G1", "c", "c", 1)],
            "line 4: expected the rows of a gene",
        ),
        ([("G1", "a", "b", 1), ("G1", "a", "b", 1)], "line 3: G1 a b is listed a second time"),
        ([("G1", "a", "b", 1), ("G1", "b", "a", 2)], "lines 2 and 3: G1 a b has the values 1 and 2"),
        ([("G1", "a", "a", "x")], "expected lines of GENE RSID1 RSID2 VALUE"),
    ],
)
def test_bad_covariance(tmp_path, rows, message):
    write_covariance_text(tmp_path / "T.txt", rows)
    with pytest.raises(FormatError, match=message):
        read_covariance(tmp_path / "T.txt")


def test_no_covariance(tmp_path):
    (tmp_path / "T.txt").write_text("gene snp\n")
    with pytest.raises(FormatError, match="found 'gene snp'"):
        read_covariance(tmp_path / "T.txt")
    with pytest.raises(FormatError, match="found nothing"):
        read_covariance(tmp_path / "absent.txt")


def test_names_of_files(tmp_path):
    assert model_tissue(tmp_path / "JTI_Brain_Cortex.db", r"JTI_(.+)\.db") == "Brain_Cortex"
    with pytest.raises(SchemaError, match="does not match"):
        model_tissue(tmp_path / "X.db", r"JTI_(.+)\.db")
    model = tmp_path / "mashr_Liver.db"
    assert find_covariance(model) is None
    (tmp_path / "mashr_Liver_cov.txt.gz").write_bytes(b"")
    assert find_covariance(model) == tmp_path / "mashr_Liver_cov.txt.gz"
    (tmp_path / "mashr_Liver.txt.gz").write_bytes(b"")
    assert find_covariance(model) == tmp_path / "mashr_Liver.txt.gz"


def test_published_models():
    folder = real_data("twas/models")
    model = read_expression_model(folder / "mashr_liver" / "mashr_Liver.db")
    assert (model.genes.size, model.weight.size) == (12_714, 19_170)
    assert np.isnan(model.pred_perf_r2).all()
    covariance = read_covariance(folder / "mashr_liver" / "mashr_Liver_cov_varid.txt.gz")
    assert covariance.value.size == 26_593
    old = read_expression_model(folder / "gtex_v6_three_genes" / "db" / "TW_Liver_0.5.db")
    assert old.genes.tolist() == ["ENSG00000234745.5"]
    assert old.pred_perf_r2[0] == pytest.approx(0.0773266258622137, rel=1e-15)
