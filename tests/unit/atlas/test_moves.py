"""Merge-and-split moves: costs, gains, and the way out of a local optimum."""

import numpy as np
import pytest

from brainlocus.images.atlas import adjusted_rand, fit_em
from brainlocus.images.atlas.moves import apply_moves, propose_moves


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
    (move,) = propose_moves(rows, stuck, prototypes)[0]
    assert {move.first, move.second} == {1, 2}
    assert move.third == 0
    promised = loss(rows, stuck) - loss(rows, truth)
    assert move.gain == pytest.approx(promised, rel=0.1)
    new = np.argmax(rows @ apply_moves(prototypes, [move]).T, axis=1)
    assert adjusted_rand(new, truth) > 0.95


def test_nothing_is_gained_at_the_optimum():
    rows, truth = planted(1)
    prototypes = np.stack([leading(rows[truth == k].astype(np.float64)) for k in range(6)])
    trials = propose_moves(rows, truth, prototypes)
    assert all(move.gain < 1e-3 * loss(rows, truth) for moves in trials for move in moves)
    assert propose_moves(rows, np.minimum(truth, 1), prototypes[:2]) == []


def test_moves_that_share_no_component_are_made_together():
    """Three pairs that share a prototype and three parcels cut in two: all are mended by the first trial."""
    rows, truth = planted(2, n_components=12)
    stuck = truth.copy()
    for pair in range(3):
        shared, cut = 2 * pair, 6 + pair
        stuck[truth == shared + 1] = shared
        stuck[np.flatnonzero(truth == cut)[::2]] = shared + 1
    prototypes = np.stack([leading(rows[stuck == k].astype(np.float64)) for k in range(12)])
    trials = propose_moves(rows, stuck, prototypes)
    assert len(trials[0]) >= 3
    for moves in trials:
        assert len(set.union(*(move.components for move in moves))) == 3 * len(moves)
        assert [move.gain for move in moves] == sorted((move.gain for move in moves), reverse=True)
    assert {move.third for move in trials[0][:3]} == {0, 2, 4}
    assert [len(moves) for moves in trials[:2]] == [len(trials[0]), len(trials[0]) // 2]
    new = np.argmax(rows @ apply_moves(prototypes, trials[0]).T, axis=1)
    assert adjusted_rand(new, truth) > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_one_start_is_enough(seed):
    rows, truth = planted(seed, n_components=10)
    fit = fit_em(rows, 10, generator=np.random.default_rng(seed), restarts=1)
    assert fit.losses[-1] <= loss(rows, truth)
    assert adjusted_rand(fit.labels.astype(np.int64), truth) > 0.95
