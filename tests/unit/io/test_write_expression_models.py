"""Models and covariances that are written are read back as they were, and the same values give the same bytes."""

import sqlite3

import numpy as np
import pytest

from brainlocus.core import ExpressionModel, GeneCovariance
from brainlocus.io import read_covariance, read_expression_model
from brainlocus.io.write_expression_models import CovarianceWriter, write_covariance, write_expression_model


def _model():
    return ExpressionModel(
        tissue="Liver",
        genes=np.array(["ENSG1.2", "ENSG2"]),
        gene_names=np.array(["ALPHA", ""]),
        offsets=np.array([0, 2, 3]),
        snps=np.array(["rs1", "rs2", "rs1"]),
        effect_allele=np.array(["A", "TC", "A"]),
        other_allele=np.array(["G", "T", "G"]),
        weight=np.array([0.1 + 0.2, -1e-17, 0.0]),
        n_snps_in_model=np.array([2, 1]),
        pred_perf_r2=np.array([0.3, np.nan]),
        pred_perf_pval=np.array([1e-300, np.nan]),
        pred_perf_qval=np.array([0.01, np.nan]),
        phi=np.full(2, np.nan),
    )


def test_a_model_is_read_back_as_it_was(tmp_path):
    model = _model()
    write_expression_model(model, tmp_path / "Liver.db", variant_names=np.array(["v1", "v2", "v1"]))
    found = read_expression_model(tmp_path / "Liver.db")
    assert found.tissue == "Liver"
    for name in ("genes", "gene_names", "offsets", "snps", "effect_allele", "other_allele", "weight", "n_snps_in_model",
                 "pred_perf_r2", "pred_perf_pval", "pred_perf_qval", "phi"):  # fmt: skip
        np.testing.assert_array_equal(getattr(found, name), getattr(model, name))
    assert read_expression_model(tmp_path / "Liver.db", snp_key="varID").snps.tolist() == ["v1", "v2", "v1"]


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_expression_model(_model(), tmp_path / name / "m.db", n_samples=5, construction=[("1", 0)])
    assert (tmp_path / "a" / "m.db").read_bytes() == (tmp_path / "b" / "m.db").read_bytes()


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="zip"):
        write_expression_model(_model(), tmp_path / "m.db", gene_types=["x"])
    assert not list(tmp_path.iterdir())


def test_tables_of_predictdb_beside_the_weights(tmp_path):
    path = tmp_path / "m.db"
    write_expression_model(
        _model(), path, gene_types=["protein_coding", ""], n_samples=99, population="EUR", construction=[("1", 3)]
    )
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT * FROM sample_info").fetchall() == [(99, "EUR", "Liver")]
    assert connection.execute("SELECT * FROM construction").fetchall() == [("1", 3)]
    extra = connection.execute('SELECT gene_type, "pred.perf.R2" FROM extra').fetchall()
    connection.close()
    assert extra == [("protein_coding", 0.3), ("", None)]


@pytest.mark.parametrize("name", ["c.txt.gz", "c.txt"])
def test_covariances_are_read_back_as_they_were(tmp_path, name):
    rng = np.random.default_rng(0)
    parts = [
        GeneCovariance(
            np.array([gene]), np.array([0, 3]), np.array(["rs1", "rs2"]), np.array([0, 0, 1]), np.array([0, 1, 1]),
            rng.normal(size=3),
        )
        for gene in ("G1", "G2")
    ]  # fmt: skip
    with CovarianceWriter(tmp_path / name) as writer:
        for part in parts:
            writer.append(part)
    found = read_covariance(tmp_path / name)
    assert found.genes.tolist() == ["G1", "G2"]
    np.testing.assert_array_equal(found.offsets, [0, 3, 6])
    np.testing.assert_array_equal(found.value, np.concatenate([p.value for p in parts]))
    assert found.names[found.second].tolist() == ["rs1", "rs2", "rs2"] * 2
    first = (tmp_path / name).read_bytes()
    write_covariance([found], tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


def test_covariances_that_fail_leave_nothing(tmp_path):
    with pytest.raises(RuntimeError), CovarianceWriter(tmp_path / "c.txt.gz"):
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())
