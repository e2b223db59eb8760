"""The simulated cohort has the truth it says it has."""

import numpy as np
import pytest
from scipy.special import ndtr

from brainlocus.core import SampleIndex
from brainlocus.simulate import (
    achievable_balanced_accuracy,
    draw_people,
    map_model,
    participants_table,
    phenotype_table,
    plan_causal_variants,
    plant_regions,
    simulate_chromosome,
    simulate_map,
)

pytest.importorskip("msprime", reason="msprime (extra 'simulate') is not installed")


@pytest.fixture(scope="module")
def people():
    return SampleIndex.of([f"sub-{k:03d}" for k in range(400)])


@pytest.fixture(scope="module")
def chromosome(people):
    return simulate_chromosome("7", people, n_variants=600, length_bp=3_000_000, maf=0.02, rng=np.random.default_rng(3))


@pytest.fixture(scope="module")
def truth(people):
    rng = np.random.default_rng(5)
    genetic = rng.normal(size=(400, 6))
    return draw_people(people, genetic, h2=0.4, n_sites=3, prevalence=0.3, n_scores=2, rng=rng)


def test_genotypes_look_human(chromosome):
    dosage = np.vstack([b.dosage for b in chromosome.blocks(100)])
    assert dosage.shape == (600, 400)
    assert set(np.unique(dosage)) == {0.0, 1.0, 2.0}
    np.testing.assert_allclose(dosage.mean(axis=1) / 2, chromosome.frequency)
    assert np.minimum(chromosome.frequency, 1 - chromosome.frequency).min() >= 0.02
    assert (np.diff(chromosome.variants.position) >= 0).all()
    # Linkage disequilibrium falls with distance: neighbours correlate, variants 1 Mb apart hardly.
    r2 = np.corrcoef(dosage) ** 2
    distance = np.abs(np.subtract.outer(chromosome.variants.position, chromosome.variants.position))
    near, far = r2[(distance > 0) & (distance < 10_000)].mean(), r2[distance > 1_000_000].mean()
    assert near > 0.1
    assert far < 0.02
    # Hardy-Weinberg holds: observed and expected heterozygosity agree.
    heterozygosity = (dosage == 1).mean(axis=1)
    expected = 2 * chromosome.frequency * (1 - chromosome.frequency)
    assert abs((heterozygosity - expected).mean()) < 0.01


def test_block_size_and_seed(chromosome, people):
    whole = np.vstack([b.dosage for b in chromosome.blocks(1000)])
    np.testing.assert_array_equal(np.vstack([b.dosage for b in chromosome.blocks(7)]), whole)
    again = simulate_chromosome(
        "7", people, n_variants=600, length_bp=3_000_000, maf=0.02, rng=np.random.default_rng(3)
    )
    np.testing.assert_array_equal(np.vstack([b.dosage for b in again.blocks(1000)]), whole)


def test_causal_variants_are_common_and_apart():
    rng = np.random.default_rng(0)
    position = np.sort(rng.integers(1, 50_000_000, 3000))
    frequency = rng.uniform(0.01, 0.5, 3000)
    plan = plan_causal_variants(
        frequency, position, np.ones(3000, dtype=int), n_regions=5, n_causal=2, strong_variance=0.05, h2=0.4,
        n_background=50, rng=rng,
    )  # fmt: skip
    rows = plan.strong.ravel()
    assert frequency[rows].min() >= 0.15
    assert np.diff(np.sort(position[rows])).min() >= 1_500_000
    with pytest.raises(ValueError, match="do not fit"):
        plan_causal_variants(
            frequency, position // 100, np.ones(3000, dtype=int), n_regions=5, n_causal=2, strong_variance=0.05,
            h2=0.4, n_background=50, rng=rng,
        )  # fmt: skip


def test_people_have_the_planted_heritability_and_sites(truth):
    np.testing.assert_allclose(truth.genetic.var(axis=0), 0.4)
    assert truth.h2 == pytest.approx(np.full(6, 0.4), abs=0.1)
    within = truth.brain - truth.scanned
    for site in range(3):
        assert within[truth.site == site].std(axis=0).max() > 0
    share = truth.replication.mean()
    assert share == pytest.approx(1 / 3, abs=0.02)


def test_scans_of_one_site_differ_from_the_truth_by_shift_and_scale(truth):
    fixed = (
        np.outer((truth.age_years - 50) / 10, truth.age_effect)
        + np.outer(truth.sex, truth.sex_effect)
        - np.outer(truth.diagnosis, truth.diagnosis_effect)
    )
    expected = truth.site_shift[truth.site] + truth.site_scale[truth.site] * (truth.brain - fixed) + fixed
    np.testing.assert_allclose(truth.scanned, expected)


def test_achievable_accuracy_is_that_of_the_best_linear_rule(truth):
    best = achievable_balanced_accuracy(truth)
    fixed = np.outer((truth.age_years - 50) / 10, truth.age_effect) + np.outer(truth.sex, truth.sex_effect)
    scores = truth.brain - fixed
    patients, controls = scores[truth.diagnosis == 1], scores[truth.diagnosis == 0]
    covariance = np.cov(np.vstack([patients - patients.mean(0), controls - controls.mean(0)]), rowvar=False)
    weights = np.linalg.solve(covariance, truth.diagnosis_effect)
    gap = weights @ truth.diagnosis_effect / np.sqrt(weights @ covariance @ weights)
    assert best == pytest.approx(ndtr(gap / 2), abs=0.02)


def test_tables(truth):
    table = participants_table(truth)
    assert table.names == ("age", "sex", "site", "diagnosis", "split")
    phenotypes = phenotype_table(truth, n_noise=4, missing=0.1, rng=np.random.default_rng(0))
    values = phenotypes.matrix()
    assert np.isnan(values).mean() == pytest.approx(0.1, abs=0.03)
    assert phenotypes.column("history_1").kind == "binary"


def test_maps_carry_the_scores():
    model = map_model(8, 4, np.random.default_rng(1))
    scores = np.array([3.0, 0.0, -3.0, 0.0])
    rng = np.random.default_rng(2)
    mean = np.mean([simulate_map(model, scores, rng) for _ in range(30)], axis=0)
    assert (mean[~model.mask.data] == 0).all()
    for k, score in enumerate(scores):
        inside = model.regions.labels == k + 1
        ratio = mean[inside].sum() / model.template[inside].sum()
        assert ratio == pytest.approx(1 + 0.1 * score, abs=0.03)


def test_regions_fill_the_mask():
    inside = np.zeros((12, 12, 12), dtype=bool)
    inside[2:10, 2:10, 2:10] = True
    labels = plant_regions(inside, 6, np.random.default_rng(0))
    assert (labels[~inside] == 0).all()
    assert sorted(np.unique(labels[inside])) == [1, 2, 3, 4, 5, 6]
    sizes = np.bincount(labels[inside])[1:]
    assert sizes.min() > 0.3 * sizes.max()
    with pytest.raises(ValueError, match="do not fit"):
        plant_regions(inside, 600, np.random.default_rng(0))
