"""Permutation kernels against refitted models, blocks by their definition, tails of known distributions."""

import numpy as np
import pytest
import scipy.stats
from tests.reference.naive_permutation import naive_freedman_lane

from brainlocus.numerics import (
    covariate_basis,
    family_wise_p,
    flip_people,
    freedman_lane_r,
    permutation_rows,
    permute_people,
    project_out,
    tail_p,
)

N, V, B = 40, 6, 5


@pytest.mark.parametrize("k", [0, 3])
def test_every_permutation_is_a_regression(k):
    rng = np.random.default_rng(k)
    covariates, x, y = rng.normal(size=(N, k)), rng.normal(size=(N, 2)), rng.normal(size=(N, V))
    y += covariates.sum(axis=1, keepdims=True)
    order = permute_people(rng, N, B)
    q = covariate_basis(covariates).q
    freed, left = project_out(q, x), project_out(q, y)
    freed, left = freed / np.linalg.norm(freed, axis=0), left / np.linalg.norm(left, axis=0)
    rows = permutation_rows(q, freed, order)
    r = freedman_lane_r(rows, left.astype(np.float32), n_targets=2, n_others=k).astype(float)
    t = r * np.sqrt((N - k - 2) / (1 - r**2))
    for b in range(B):
        # x[order] = P'x, so the outcome is permuted by the inverse order.
        inverse = np.argsort(order[b])
        for target in range(2):
            expected = [naive_freedman_lane(x[:, target], covariates, y[:, v], inverse) for v in range(V)]
            np.testing.assert_allclose(t[b, target], expected, atol=2e-5)  # single precision


@pytest.mark.parametrize("k", [0, 3])
@pytest.mark.parametrize("shuffled", [False, True])
def test_every_flip_is_a_regression(k, shuffled):
    """Signs of residuals flipped, with and without people that change places, and the model fitted again."""
    rng = np.random.default_rng(k)
    covariates, x, y = rng.normal(size=(N, k)), rng.normal(size=(N, 2)), rng.normal(size=(N, V))
    y += covariates.sum(axis=1, keepdims=True)
    order = permute_people(rng, N, B) if shuffled else np.tile(np.arange(N), (B, 1))
    signs = flip_people(rng, N, B)
    q = covariate_basis(covariates).q
    freed, left = project_out(q, x), project_out(q, y)
    freed, left = freed / np.linalg.norm(freed, axis=0), left / np.linalg.norm(left, axis=0)
    rows = permutation_rows(q, freed, order, signs)
    r = freedman_lane_r(rows, left.astype(np.float32), n_targets=2, n_others=k + 1).astype(float)
    t = r * np.sqrt((N - k - 2) / (1 - r**2))
    for b in range(B):
        inverse = np.argsort(order[b])
        for target in range(2):
            expected = [
                naive_freedman_lane(x[:, target], covariates, y[:, v], inverse, signs[b][inverse]) for v in range(V)
            ]
            np.testing.assert_allclose(t[b, target], expected, atol=2e-5)  # single precision


def test_signs():
    blocks = np.array([0, 0, 1, 1, 1, 2])
    whole = flip_people(np.random.default_rng(0), 6, 200, blocks=blocks, mode="whole")
    assert (whole[:, [0, 2, 2]] == whole[:, [1, 3, 4]]).all()
    assert len(np.unique(whole, axis=0)) == 8
    single = flip_people(np.random.default_rng(0), 6, 600, blocks=blocks)
    assert len(np.unique(single, axis=0)) == 64
    assert set(np.unique(single)) == {-1.0, 1.0}
    with pytest.raises(ValueError, match="All people are in one block"):
        flip_people(np.random.default_rng(0), 3, 2, blocks=np.zeros(3), mode="whole")


def test_within_blocks_nobody_leaves():
    blocks = np.array(["a", "b"] * 10)
    order = permute_people(np.random.default_rng(0), 20, 50, blocks=blocks)
    assert (blocks[order] == blocks).all()
    assert (np.sort(order, axis=1) == np.arange(20)).all()
    assert len(np.unique(order, axis=0)) > 40


def test_whole_blocks_stay_together():
    blocks = np.array([0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4])
    order = permute_people(np.random.default_rng(0), 11, 60, blocks=blocks, mode="whole")
    moved = blocks[order]
    assert (np.sort(order, axis=1) == np.arange(11)).all()
    for rows in ([0, 1], [5, 6], [2, 3, 4], [7, 8, 9]):
        assert (moved[:, rows] == moved[:, rows[:1]]).all()
        assert (np.diff(order[:, rows], axis=1) > 0).all()
    assert (order[:, 10] == 10).all()
    assert len(np.unique(order, axis=0)) == 4


def test_nothing_to_permute():
    with pytest.raises(ValueError, match="nothing to permute within"):
        permute_people(np.random.default_rng(0), 3, 1, blocks=np.arange(3))
    with pytest.raises(ValueError, match="nothing to permute in whole"):
        permute_people(np.random.default_rng(0), 3, 1, blocks=np.array([0, 0, 1]), mode="whole")


def test_counted_p():
    p = family_wise_p(np.array([0.5, 2.0, 9.0, np.nan]), np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(p, [1.0, 0.75, 0.25, np.nan])


@pytest.mark.parametrize(("name", "most"), [("gumbel", 3.0), ("heavy", 3.0), ("chi", 8.0)])
def test_the_tail_is_that_of_the_distribution(name, most):
    """At p of 1e-3 to 1e-4 from 5,000 draws; too large, not too small, where the tail is lighter than exponential."""
    laws = {"gumbel": scipy.stats.gumbel_r(5, 0.5), "chi": scipy.stats.chi(8), "heavy": scipy.stats.genpareto(0.15)}
    rng, at = np.random.default_rng(1), np.array([1e-3, 3e-4, 1e-4])
    ratios = [tail_p(laws[name].isf(at), laws[name].rvs(5000, random_state=rng), rng) / at for _ in range(6)]
    mean = np.exp(np.nanmean(np.log(ratios), axis=0))
    assert mean.min() > 0.5
    assert mean.max() < most


def test_a_tail_that_ends_is_counted():
    null = np.random.default_rng(0).uniform(size=2000)
    p = family_wise_p(np.linspace(0.9, 5, 50), null, rng=np.random.default_rng(1))
    assert (np.diff(p) <= 0).all()
    assert p[-1] == pytest.approx(1 / 2001)


def test_small_p_fall_beyond_what_is_counted():
    null = np.random.default_rng(0).gumbel(size=2000)
    p = family_wise_p(np.linspace(8, 20, 20), null, rng=np.random.default_rng(1))
    assert (np.diff(p) < 0).all()
    assert 0 < p[-1] < 1e-6
