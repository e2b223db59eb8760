"""Parallel ICA on planted sources: recovered, linked, stable over starts, honest on held-out people."""

import numpy as np
import pytest

from brainlocus.cohort.multivariate import (
    PairedTables,
    ParallelIca,
    count_components,
    cross_validate_modes,
    fit_parallel_ica,
    linked_modes,
    plan_folds,
    stable_components,
    standardise,
)
from brainlocus.cohort.multivariate.parallel_ica import _infomax_step

K = 4


def mixed(n=120, v=400, m=300, *, link=0.8, seed=0):
    rng = np.random.default_rng(seed)
    s_x, s_y = rng.laplace(size=(K, v)), rng.laplace(size=(K, m))
    a_x, a_y = rng.standard_normal((n, K)), rng.standard_normal((n, K))
    a_y[:, 2] = link * a_x[:, 1] + np.sqrt(1 - link**2) * a_y[:, 2]
    x = a_x @ s_x + 0.5 * rng.standard_normal((n, v))
    y = a_y @ s_y + 0.5 * rng.standard_normal((n, m))
    return x, y, s_x, s_y, a_x, a_y


def everyone(x):
    rows = np.arange(len(x))
    return standardise(x, np.empty((len(x), 0)), rows, rows[:0])


def matches(found, planted):
    """The largest |correlation| of every planted source with a found one, each of which is used once."""
    alike = np.abs(np.corrcoef(planted, found)[: len(planted), len(planted) :])
    assert len(set(alike.argmax(axis=1))) == len(planted)
    return alike.max(axis=1)


def test_planted_sources_and_their_link_are_found():
    x, y, s_x, s_y, a_x, a_y = mixed()
    one, other = everyone(x), everyone(y)
    found = fit_parallel_ica(one.train, other.train, (K, K))
    # Columns are standardised before the analysis, so are the planted sources.
    assert matches(found[0], s_x / one.spread).min() > 0.95
    assert matches(found[1], s_y / other.spread).min() > 0.95
    links = linked_modes(one, other, *found, 2)
    r = np.corrcoef(links.modes.x_train.T, links.modes.y_train.T)
    planted = np.corrcoef(a_x[:, 1], a_y[:, 2])[0, 1]
    assert r[0, 2] == pytest.approx(planted, abs=0.05)
    linked = np.abs(np.corrcoef(links.modes.x_train[:, 0], a_x[:, 1])[0, 1])
    assert linked > 0.95
    assert r[1, 3] < 0.4


def test_number_of_components_is_that_planted():
    x, y, *_ = mixed()
    assert count_components(x) == K
    assert count_components(y) == K
    # Standardised columns have noise of different size, which takes a few components more.
    assert K <= count_components(everyone(x).train) <= K + 3


def test_components_of_many_starts_are_stable_and_noise_is_not():
    x, y, s_x, *_ = mixed()
    one, other = everyone(x), everyone(y)
    rng = np.random.default_rng(1)
    runs = [fit_parallel_ica(one.train, other.train, (K, K), rng=rng)[0] for _ in range(4)]
    stable = stable_components(runs)
    assert stable.sources.shape[0] == K
    assert stable.quality.min() > 0.9
    assert matches(stable.sources, s_x / one.spread).min() > 0.95
    noise = [rng.standard_normal((K, 300)) for _ in range(4)]
    assert stable_components(noise, least=0.0).quality.max() < 0.5
    # Order and sign of the components of a run are arbitrary.
    turned = [-run[::-1] for run in runs]
    np.testing.assert_allclose(np.sort(stable_components(turned).quality), np.sort(stable.quality), atol=1e-9)


def test_gradient_is_that_of_the_entropy():
    """The natural gradient times W'W^-1 is the derivative of the entropy of g(U), element by element."""
    rng = np.random.default_rng(2)
    z, w = rng.standard_normal((3, 500)), np.eye(3) + 0.1 * rng.standard_normal((3, 3))
    natural, start = _infomax_step(z, w)
    slope = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            moved = w.copy()
            moved[i, j] += 1e-6
            slope[i, j] = (_infomax_step(z, moved)[1] - start) / 1e-6
    np.testing.assert_allclose(natural, slope @ w.T @ w, atol=1e-4)


def test_link_is_held_out_and_absent_in_noise():
    x, y, *_ = mixed()
    plan = plan_folds(120, None, folds=3, inner_folds=2, rng=np.random.default_rng(0))
    method = ParallelIca((K, K))
    nothing = np.empty((120, 0))
    held = cross_validate_modes(method, PairedTables(x, y, nothing), [y, y[::-1].copy()], plan, 1)
    assert held.mean[0, 0] > 0.6
    assert abs(held.mean[1, 0]) < 0.35
    assert held.r_train[1].mean() > held.mean[1, 0]
