"""Merge-and-split moves: costs, gains, and the way out of a local optimum."""

import numpy as np
import pytest

from brainlocus.images.atlas import adjusted_rand, fit_em
from brainlocus.images.atlas.moves import propose_moves


def planted(seed, n_components=6, size=120, n_samples=80, noise=0.3):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n_components, n_samples))
    labels = np.repeat(np.arange(n_components), size)
    rows = rng.uniform(0.5, 1, (labels.size, 1)) * (
        1 + 0.15 * scores[labels] + noise * rng.normal(size=(labels.size, n_samples))
    )
    return np.maximum(rows, 0).astype(np.float32), labels


def leading(rows):
    vector = np.linalg.svd(rows, full_matrices=False)[2][0]
    return vector * np.sign(vector.sum())


def loss(rows, labels):
    return sum(
        (rows[labels == k] ** 2).sum() - np.linalg.svd(rows[labels == k], compute_uv=False)[0] ** 2
        for k in np.unique(labels)
    )


def test_the_move_out_of_a_local_optimum_is_proposed_first():
    rows, truth = planted(0)
    # Components 0 and 1 share a prototype; component 2 is cut in two.
    stuck = truth.copy()
    stuck[truth == 1] = 0
    half = np.flatnonzero(truth == 2)[::2]
    stuck[half] = 1
    prototypes = np.stack([leading(rows[stuck == k].astype(np.float64)) for k in range(6)])
    move = propose_moves(rows, stuck, prototypes)[0]
    assert {move.first, move.second} == {1, 2}
    assert move.third == 0
    promised = loss(rows, stuck) - loss(rows, truth)
    assert move.gain == pytest.approx(promised, rel=0.1)
    new = np.argmax(rows @ move.apply(prototypes).T, axis=1)
    assert adjusted_rand(new, truth) > 0.95


def test_nothing_is_gained_at_the_optimum():
    rows, truth = planted(1)
    prototypes = np.stack([leading(rows[truth == k].astype(np.float64)) for k in range(6)])
    assert all(move.gain < 1e-3 * loss(rows, truth) for move in propose_moves(rows, truth, prototypes))
    assert propose_moves(rows, np.minimum(truth, 1), prototypes[:2]) == []


@pytest.mark.parametrize("seed", range(5))
def test_one_start_is_enough(seed):
    rows, truth = planted(seed, n_components=10)
    fit = fit_em(rows, 10, generator=np.random.default_rng(seed), restarts=1)
    assert fit.losses[-1] <= loss(rows, truth)
    assert adjusted_rand(fit.labels.astype(np.int64), truth) > 0.95
