"""Elastic-net models of expression: nested cross-validation against its literal reading, and every rule of status."""

import numpy as np
import pytest
from scipy import stats

from brainlocus.core import VariantTable
from brainlocus.core.expression import GenePlace
from brainlocus.core.text import text_array
from brainlocus.genetics.twas import (
    ElasticNetSettings,
    adjust_expression,
    cis_dosage,
    cis_window,
    draw_folds,
    gene_rng,
    train_elastic_net,
    usable_variants,
)
from tests.reference.twas_training import naive_nested


def _gene(n=60, m=12, *, seed=0, r2=0.5):
    rng = np.random.default_rng(seed)
    x = rng.binomial(2, rng.uniform(0.1, 0.5, m)[:, None], (m, n)).astype(float)
    g = x[0] - 0.5 * x[3]
    y = (g - g.mean()) / g.std() * np.sqrt(r2) + rng.normal(size=n) * np.sqrt(1 - r2)
    return x, adjust_expression(y[None], None)[0]


def test_nested_cross_validation_is_the_one_read_literally():
    x, y = _gene(40, 6)
    settings = ElasticNetSettings(folds=4, patience=None)
    found = train_elastic_net(x, y, gene="ENSG1", seed=3, settings=settings)
    folds = naive_nested(x.T, y, "ENSG1", 3, n_folds=4)
    r = np.array([f[0] for f in folds])
    z = sum(np.arctanh(f[0]) * np.sqrt(f[2] - 3) for f in folds) / np.sqrt(5)
    p = [stats.pearsonr(*_with_r(f[0], f[2])).pvalue for f in folds]
    assert found.status == "ok"
    assert found.rho_avg == pytest.approx(r.mean(), abs=1e-8)
    assert found.rho_sd == pytest.approx(r.std(ddof=1), abs=1e-8)
    assert found.r2 == pytest.approx(np.mean([f[1] for f in folds]), abs=1e-8)
    assert found.z == pytest.approx(z, abs=1e-7)
    assert found.pvalue == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-6)
    assert found.neg_log10_p == pytest.approx(-np.log10(found.pvalue), rel=1e-9)
    assert found.fisher_p == pytest.approx(stats.combine_pvalues(p).pvalue, rel=1e-6)
    np.testing.assert_allclose(found.covariance, np.cov(x[found.variants]), rtol=1e-12)


def _with_r(r, n):
    """Return two samples of size n whose correlation is r."""
    u = np.arange(n) - (n - 1) / 2
    v = np.cos(np.pi * np.arange(n))
    v -= v.mean() + u * (u @ v) / (u @ u)
    return u, r * u / np.sqrt(u @ u) + np.sqrt(1 - r * r) * v / np.sqrt(v @ v)


def test_the_planted_variant_has_the_weight_and_its_sign_follows_the_allele():
    x, y = _gene(150, 20)
    found = train_elastic_net(x, y, gene="a")
    top = found.variants[np.abs(found.weights).argmax()]
    assert top == 0
    assert found.rho_avg > 0.5
    flipped = train_elastic_net(2 - x, y, gene="a")
    np.testing.assert_array_equal(flipped.variants, found.variants)
    np.testing.assert_allclose(flipped.weights, -found.weights, atol=1e-9)
    np.testing.assert_allclose(flipped.covariance, found.covariance, atol=1e-12)


def test_people_without_expression_are_left_out():
    x, y = _gene(90, 10)
    y[::3] = np.nan
    found = train_elastic_net(x, y, gene="a")
    alone = train_elastic_net(np.delete(x, np.s_[::3], axis=1), y[~np.isnan(y)], gene="a")
    assert found.n == 60
    np.testing.assert_array_equal(found.weights, alone.weights)
    assert found.rho_avg == alone.rho_avg


def test_folds_depend_on_seed_and_gene_alone():
    x, y = _gene(50, 5)
    first = train_elastic_net(x, y, gene="a", seed=1)
    train_elastic_net(x, y, gene="b", seed=1)
    assert train_elastic_net(x, y, gene="a", seed=1).rho_avg == first.rho_avg
    assert train_elastic_net(x, y, gene="b", seed=1).rho_avg != first.rho_avg
    assert train_elastic_net(x, y, gene="a", seed=2).rho_avg != first.rho_avg


def test_folds_are_balanced():
    folds = draw_folds(23, 5, gene_rng(0, "a"))
    assert sorted(np.bincount(folds).tolist()) == [4, 4, 5, 5, 5]


@pytest.mark.parametrize(
    ("n", "m", "change", "status"),
    [
        (60, 0, None, "no_variants"),
        (60, 1, None, "one_variant"),
        (19, 5, None, "few_people"),
        (60, 5, 0.0, "constant_expression"),
        (60, 5, np.nan, "constant_expression"),
    ],
)
def test_genes_that_cannot_be_trained_have_a_status(n, m, change, status):
    x, y = _gene(n, max(m, 4))
    if change is not None:
        y = np.full(n, change)
    found = train_elastic_net(x[:m], y, gene="a")
    assert found.status == status
    assert found.weights.size == 0
    assert np.isnan(found.rho_avg)


def test_noise_gives_no_model():
    rng = np.random.default_rng(4)
    kept = 0
    for k in range(8):
        x, _ = _gene(60, 15, seed=k)
        found = train_elastic_net(x, adjust_expression(rng.normal(size=(1, 60)), None)[0], gene=f"g{k}")
        assert found.status in ("ok", "not_predictive", "no_variant_chosen")
        assert (found.weights.size > 0) == (found.status == "ok")
        kept += found.status == "ok"
    assert kept <= 2


@pytest.mark.slow
def test_models_of_noise_are_kept_no_more_often_than_p_says():
    """400 genes without any effect: p < 0.05 and rho above 0.1 in at most 5 % of them, but for chance."""
    rng = np.random.default_rng(8)
    kept = strong = 0
    for k in range(400):
        x, _ = _gene(100, 40, seed=k)
        found = train_elastic_net(x, adjust_expression(rng.normal(size=(1, 100)), None)[0], gene=f"g{k}")
        kept += found.status == "ok"
        strong += found.neg_log10_p > -np.log10(0.05)
    assert kept <= 400 * 0.05 + 3 * np.sqrt(400 * 0.05 * 0.95)
    assert strong <= 400 * 0.05 + 3 * np.sqrt(400 * 0.05 * 0.95)


def test_expression_is_the_scaled_residual_of_least_squares():
    rng = np.random.default_rng(2)
    c = np.column_stack([rng.normal(size=30), rng.integers(0, 2, 30)])
    y = rng.normal(size=(3, 30)) + c[:, 0]
    y[1, :4] = np.nan
    y[2] = 7.0
    found = adjust_expression(y, c)
    for gene in (0, 1):
        known = ~np.isnan(y[gene])
        design = np.column_stack([np.ones(known.sum()), c[known]])
        residual = y[gene, known] - design @ np.linalg.lstsq(design, y[gene, known], rcond=None)[0]
        np.testing.assert_allclose(found[gene, known], residual / residual.std(ddof=1), atol=1e-10)
        assert np.isnan(found[gene, ~known]).all()
    assert np.isnan(found[2]).all()


def test_a_gene_with_fewer_people_than_covariates_has_no_expression():
    rng = np.random.default_rng(2)
    y = rng.normal(size=(1, 10))
    y[0, 4:] = np.nan
    assert np.isnan(adjust_expression(y, rng.normal(size=(10, 3)))).all()


def test_variants_without_id_palindromic_or_named_twice_are_left_out():
    ids = ["rs1", ".", "rs2", "rs3", "rs1", "", "rs4", "rs5"]
    effect = ["A", "A", "A", "c", "G", "A", "AT", "T"]
    other = ["G", "G", "T", "G", "A", "C", "A", "G"]
    n = len(ids)
    table = VariantTable(
        np.array(["1"] * n), np.arange(1, n + 1), text_array(effect), text_array(other), text_array(ids), "GRCh38"
    )
    kept, counts = usable_variants(table)
    assert np.flatnonzero(kept).tolist() == [0, 6, 7]
    assert counts == {"variants_without_id": 2, "variants_palindromic": 2, "variants_of_an_id_already_seen": 1}


def test_dosages_rare_or_constant_are_dropped_and_missing_calls_filled():
    dosage = np.array([[0, 1, np.nan, 2], [0, 0, 0, 0], [np.nan] * 4, [0, 0, 0, 1], [2, 2, 2, 1]], dtype=np.float32)
    found = cis_dosage(dosage, min_maf=0.2)
    assert found.rows.tolist() == [0]
    np.testing.assert_allclose(found.dosage, [[0, 1, 1, 2]])
    assert (found.n_rare, found.n_filled) == (4, 1)
    assert cis_dosage(dosage, min_maf=0.0).rows.tolist() == [0, 3, 4]
    assert cis_dosage(dosage, min_maf=0.125).rows.tolist() == [0, 3, 4]


def test_windows_of_gene_and_of_start():
    gene = GenePlace("g", "", "", "1", 500_000, 700_000, "-")
    assert cis_window(gene, 1000.0) == (1, 1_700_000)
    assert cis_window(gene, 100.0, "start") == (400_000, 600_000)
