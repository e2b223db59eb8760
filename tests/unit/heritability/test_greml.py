"""REML by one decomposition against dense matrices, and the mouse check set."""

import os
from pathlib import Path

import numpy as np
import pytest
from tests.reference.greml import naive_reml, naive_restricted_log_likelihood

from brainlocus.core import Grm, ResourceError, SampleIndex, quantitative_table, select_genotypes
from brainlocus.genetics.genotypes import count_genotypes, genetic_relationships
from brainlocus.genetics.heritability import decompose_grm, fit_reml, greml, restricted_log_likelihood
from brainlocus.io import open_bed
from brainlocus.numerics import covariate_basis, project_out


def make(rng, n=120, m=400, q=4, h2=(0.0, 0.3, 0.6, 0.9)):
    dosage = rng.binomial(2, 0.4, (m, n)).astype(float)
    # Families make the GRM informative at this size.
    dosage[:, 1::2] = np.where(rng.random((m, n // 2)) < 0.5, dosage[:, ::2], dosage[:, 1::2])
    x = (dosage - dosage.mean(1, keepdims=True)) / dosage.std(1, keepdims=True)
    grm = x.T @ x / m
    covariates = rng.normal(size=(n, 2))
    root = np.linalg.cholesky(grm + 1e-9 * np.eye(n))
    noise = rng.normal(size=(n, q))
    traits = root @ rng.normal(size=(n, q)) * np.sqrt(h2) + noise * np.sqrt(1 - np.array(h2))
    return Grm(SampleIndex.of(range(n)), grm, float(m)), covariates, traits + covariates @ rng.normal(size=(2, q))


def test_fit_is_dense_reml():
    rng = np.random.default_rng(1)
    grm, covariates, traits = make(rng)
    people = grm.samples
    table = greml(
        grm,
        quantitative_table(people, list("abcd"), traits),
        covariates=quantitative_table(people, ["u", "v"], covariates),
    )
    x = np.column_stack([np.ones(len(people)), covariates])
    for k in range(4):
        h, error, value = naive_reml(traits[:, k], x, grm.matrix)
        assert table["h2"][k] == pytest.approx(h, abs=2e-6)
        assert table["log_likelihood"][k] == pytest.approx(value, abs=1e-6)
        assert table["h2_standard_error"][k] == pytest.approx(error, rel=1e-3)
    assert table["status"].tolist() == ["ok"] * 4


def test_likelihood_at_any_h_is_dense():
    rng = np.random.default_rng(2)
    grm, covariates, traits = make(rng, n=40, m=100)
    basis = covariate_basis(covariates).q
    decomposition = decompose_grm(grm.matrix, basis)
    assert decomposition.eigenvalues.size == 40 - 3
    eta2 = (decomposition.rotation @ project_out(basis, traits)) ** 2
    x = np.column_stack([np.ones(40), covariates])
    for h in (0.0, 0.25, 0.8):
        ours = restricted_log_likelihood(decomposition, eta2, np.full(4, h))
        dense = [naive_restricted_log_likelihood(traits[:, k], x, grm.matrix, h)[0] for k in range(4)]
        np.testing.assert_allclose(ours, dense, rtol=1e-9)


def test_boundary_and_unconstrained():
    rng = np.random.default_rng(3)
    grm, covariates, _ = make(rng)
    basis = covariate_basis(covariates).q
    decomposition = decompose_grm(grm.matrix, basis)
    # A trait with less likeness among relatives than chance: h2 at its lower bound.
    weights = np.where(decomposition.eigenvalues > 1, 0.3, 1.7)
    trait = decomposition.rotation.T @ (np.sqrt(weights) * rng.choice([-1, 1], weights.size))
    fit = fit_reml(decomposition, trait[:, None])
    assert fit.h2[0] == 0.0
    assert fit.boundary[0]
    assert fit.neg_log10_p[0] == 0.0
    free = fit_reml(decomposition, trait[:, None], unconstrained=True)
    assert free.h2[0] < -0.1
    assert free.log_likelihood[0] > fit.log_likelihood[0]


def test_missing_people_are_left_out_per_trait_and_statuses_are_given():
    rng = np.random.default_rng(4)
    grm, _, traits = make(rng)
    traits[:30, 1] = np.nan
    traits[:, 2] = 3.0
    traits[2:, 3] = np.nan
    table = greml(grm, quantitative_table(grm.samples, list("abcd"), traits))
    assert table["status"].tolist() == ["ok", "ok", "constant", "too_few_people"]
    assert table["n"].tolist() == [120, 90, 120, 2]
    assert np.isnan(table["h2"][2:]).all()
    alone = greml(grm, quantitative_table(grm.samples, ["b"], traits[:, 1:2]))
    assert table["h2"][1] == pytest.approx(alone["h2"][0], abs=1e-12)
    h, _, _ = naive_reml(traits[30:, 1], np.ones((90, 1)), grm.matrix[30:, 30:])
    assert table["h2"][1] == pytest.approx(h, abs=2e-6)


def test_bad_input_is_refused():
    rng = np.random.default_rng(5)
    grm, _, traits = make(rng)
    traits[0, 0] = np.inf
    with pytest.raises(ValueError, match="infinite values: a"):
        greml(grm, quantitative_table(grm.samples, list("abcd"), traits))
    with pytest.raises(ResourceError, match="REML of 120 people needs"):
        greml(grm, quantitative_table(grm.samples, ["b"], traits[:, 1:2]), memory_bytes=1000)
    hole = grm.matrix.copy()
    hole[0, 1] = np.nan
    with pytest.raises(ValueError, match="missing entries"):
        decompose_grm(hole, covariate_basis(np.empty((120, 0))).q)


MOUSE = Path(os.environ.get("BRAINLOCUS_DATA", "/nowhere")) / "genotypes/mouse_hs1940/mouse_hs1940.bed"


@pytest.mark.skipif(not MOUSE.exists(), reason="needs BRAINLOCUS_DATA with genotypes/mouse_hs1940")
@pytest.mark.parametrize(
    ("trait", "n", "m", "pve", "likelihood"),
    [(0, 1410, 10_768, 0.601486, -1587.33), (1, 757, None, 0.589507, None), (2, 653, None, 0.661111, None)],
)
def test_mouse_check_set(trait, n, m, pve, likelihood):
    """methods/gwas.md 6.1: variants judged among the phenotyped, GRM over all 1,940, mean-imputed unit variance."""
    source = open_bed(MOUSE)
    table = source.pedigree.phenotypes
    observed = ~np.isnan(table.columns[trait].values)
    counts = count_genotypes(select_genotypes(source, samples=source.samples.take(observed)))
    frequency = counts.effect_allele_frequency
    keep = (counts.missing_rate <= 0.05) & (np.minimum(frequency, 1 - frequency) >= 0.01)
    grm = genetic_relationships(select_genotypes(source, variants=keep), scale="observed", missing="mean")
    row = greml(grm, table, names=[table.names[trait]])
    assert int(row["n"][0]) == n
    if m is not None:
        assert int(keep.sum()) == m
    assert row["pve"][0] == pytest.approx(pve, abs=5e-6)
    if likelihood is not None:
        assert row["log_likelihood"][0] == pytest.approx(likelihood, abs=0.01)
