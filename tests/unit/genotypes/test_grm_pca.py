"""GRM against one pair at a time; components against a full decomposition."""

import numpy as np
import pytest
from tests.reference.genotypes import naive_grm
from tests.unit.genotypes.test_counts_qc import source_of

from brainlocus.core import ArrayGenotypes, ResourceError, SampleIndex
from brainlocus.genetics.genotypes import genetic_relationships, principal_components


def structured(rng, m, n, groups=3, spread=0.15):
    base = rng.uniform(0.2, 0.8, m)
    shifted = np.clip(base[:, None] + rng.normal(0, spread, (m, groups)), 0.05, 0.95)
    of = np.arange(n) % groups
    return rng.binomial(2, shifted[:, of]).astype(np.float32), of


@pytest.mark.parametrize("scale", ["expected", "observed"])
@pytest.mark.parametrize("missing", ["pairwise", "mean"])
def test_grm_is_the_mean_of_products(scale, missing):
    rng = np.random.default_rng(1)
    dosage, _ = structured(rng, 60, 15)
    dosage[5] = 2  # constant: left out
    dosage[rng.random(dosage.shape) < 0.05] = np.nan
    expected, count = naive_grm(dosage, scale=scale, missing=missing)
    grm = genetic_relationships(source_of(dosage), scale=scale, missing=missing)
    # float32 products accumulated in float64: 1e-6 of the diagonal, which is about 1.
    np.testing.assert_allclose(grm.matrix, expected, atol=3e-6)
    np.testing.assert_array_equal(np.broadcast_to(grm.n_variants, count.shape), count)


def test_grm_without_variation_or_memory_is_refused():
    with pytest.raises(ValueError, match="No variant varies"):
        genetic_relationships(source_of(np.zeros((4, 6), dtype=np.float32)))
    dosage, _ = structured(np.random.default_rng(0), 20, 30)
    with pytest.raises(ResourceError, match="30 people needs"):
        genetic_relationships(source_of(dosage), memory_bytes=1000)


def test_exact_components_are_eigenvectors_and_separate_populations():
    rng = np.random.default_rng(2)
    dosage, of = structured(rng, 500, 90)
    dosage[rng.random(dosage.shape) < 0.02] = np.nan
    found = principal_components(source_of(dosage), 5)
    grm, _ = naive_grm(dosage[:, :], scale="expected", missing="mean")
    values = np.linalg.eigvalsh(grm)[::-1][:5]
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-4)
    residual = grm @ found.scores - found.scores * found.eigenvalues
    assert np.abs(residual).max() < 1e-4
    between = [found.scores[of == g, :2].mean(axis=0) for g in range(3)]
    within = max(found.scores[of == g, :2].std(axis=0).max() for g in range(3))
    gaps = [np.linalg.norm(between[a] - between[b]) for a in range(3) for b in range(a)]
    assert min(gaps) > 4 * within
    largest = np.nanargmax(np.abs(found.loadings), axis=0)
    assert (found.loadings[largest, np.arange(5)] > 0).all()
    np.testing.assert_allclose(np.nansum(found.loadings**2, axis=0), 1, rtol=1e-4)


def test_krylov_agrees_with_exact():
    rng = np.random.default_rng(3)
    dosage, _ = structured(rng, 800, 250, groups=4)
    exact = principal_components(source_of(dosage), 6, exact=True)
    krylov = principal_components(source_of(dosage), 6, exact=False, rng=np.random.default_rng(5))
    np.testing.assert_allclose(krylov.eigenvalues, exact.eigenvalues, rtol=1e-4)  # methods/gwas.md 5
    # Three components stand out (four populations): the angle between the leading subspaces is below 1e-3.
    overlap = np.linalg.svd(exact.scores[:, :3].T @ krylov.scores[:, :3])[1]
    assert np.sqrt(1 - overlap.min() ** 2) < 1e-3
    assert krylov.residual < 1e-5


def test_sample_order_only_permutes_scores():
    rng = np.random.default_rng(4)
    dosage, _ = structured(rng, 300, 60)
    source = source_of(dosage)
    order = rng.permutation(60)
    shuffled = ArrayGenotypes(SampleIndex(source.samples.ids[order]), source.variants, dosage[:, order].copy())
    here, there = principal_components(source, 2), principal_components(shuffled, 2)
    np.testing.assert_allclose(there.scores, here.scores[order], atol=1e-4)
    with pytest.raises(ValueError, match="60 components were asked of 60 people"):
        principal_components(source, 60)
