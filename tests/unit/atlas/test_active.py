"""Active sets, compression and splits: cheaper ways to the same factorisation."""

import numpy as np
import pytest

from brainlocus.images.atlas import MuOptions, adjusted_rand, checked_norms, fit_mu
from brainlocus.images.atlas.active import active_iterations, choose_active, refresh
from brainlocus.images.atlas.compress import compressed
from brainlocus.images.atlas.passes import Blocks
from brainlocus.numerics.devices import HOST
from tests.reference.naive_opnmf import naive_change, naive_update
from tests.unit.atlas.test_em import planted
from tests.unit.atlas.test_mu import STRICT, a_start


def blocks(x):
    return Blocks.of(x, HOST, signed=False, resident=False)


def test_all_components_active_are_the_whole_iteration():
    x = np.random.default_rng(0).uniform(size=(500, 20))
    w = a_start(x, 5)
    active = choose_active(w, 9)
    assert active.left_out == pytest.approx(0.0, abs=1e-12)
    changes = active_iterations(blocks(x), active, 5, 3, exponent=1.0)
    expected = w / np.linalg.norm(w, 2)
    for change in changes:
        new = naive_update(x, expected)
        assert change == pytest.approx(
            naive_change(new / np.linalg.norm(new), expected / np.linalg.norm(expected)), rel=1e-6
        )
        expected = new
    found = np.zeros_like(w)
    np.put_along_axis(found, active.components.astype(int), active.weights, axis=1)
    np.testing.assert_allclose(found / np.linalg.norm(found, 2), expected, rtol=1e-9)


def test_the_rest_of_w_is_as_if_it_were_not_there():
    """Two components a voxel: the update of a W in which the others are 0."""
    x = np.random.default_rng(0).uniform(size=(300, 20))
    w = a_start(x, 6)
    active = choose_active(w, 2)
    sparse = np.zeros_like(w)
    np.put_along_axis(sparse, active.components.astype(int), active.weights, axis=1)
    assert active.left_out == pytest.approx(1 - (sparse**2).sum() / (w**2).sum(), rel=1e-9)
    active_iterations(blocks(x), active, 6, 1, exponent=1.0)
    expected = naive_update(x, sparse)
    expected[sparse == 0] = 0
    found = np.zeros_like(w)
    np.put_along_axis(found, active.components.astype(int), active.weights, axis=1)
    np.testing.assert_allclose(found / np.linalg.norm(found), expected / np.linalg.norm(expected), rtol=1e-9)


def test_refresh_is_a_whole_iteration_for_what_was_active():
    x = np.random.default_rng(1).uniform(size=(300, 20))
    w = a_start(x, 6)
    active = choose_active(w, 2)
    expected = naive_update(x, w)
    left_out = np.ones_like(w, dtype=bool)
    np.put_along_axis(left_out, active.components.astype(int), False, axis=1)
    found = w.copy()
    change = refresh(blocks(x), found, active, 0, exponent=1.0)
    np.testing.assert_allclose(found / np.linalg.norm(found), expected / np.linalg.norm(expected), rtol=1e-9)
    assert change == pytest.approx(naive_change(found / np.linalg.norm(found), w / np.linalg.norm(w)), rel=1e-6)
    late = w.copy()
    refresh(blocks(x), late, active, 24, exponent=1.0)
    np.testing.assert_allclose(late[~left_out], found[~left_out], rtol=1e-12)
    # What is left out goes on in the direction of its ratio, but not beyond the smallest active entry.
    smallest = active.weights.min(axis=1, keepdims=True)
    assert (late < found)[left_out].any()
    assert (late > found)[left_out].any()
    assert (late <= np.maximum(found, smallest) * (1 + 1e-12))[left_out].all()


def test_active_sets_reach_the_loss_of_whole_iterations():
    """At convergence; on the way they are some 1e-4 behind, because what grows is noticed at the next whole one."""
    x, _ = planted(n_voxels=3000, n_samples=60, r=12, seed=3)
    rng = np.random.default_rng
    whole = fit_mu(x, 12, generator=rng(0), options=MuOptions(start="seeds"))
    active = fit_mu(x, 12, generator=rng(0), options=MuOptions(start="seeds", active=8))
    assert whole.converged
    assert active.converged
    assert active.relative_loss == pytest.approx(whole.relative_loss, rel=1e-4)
    assert adjusted_rand(whole.labels, active.labels) > 0.99
    assert active.at[-1] == active.changes.size


def test_active_sets_wait_until_little_is_left_out():
    """Columns that are nearly alike: everything stays whole, and equals the plain iterations."""
    x, _ = planted(n_voxels=600, seed=4)
    start = 1.0 + 0.01 * a_start(x, 4)
    common = {"max_iterations": 100}
    whole = fit_mu(x, 4, generator=np.random.default_rng(0), start=start, options=MuOptions(**common))
    active = fit_mu(x, 4, generator=np.random.default_rng(0), start=start, options=MuOptions(**common, active=2))
    np.testing.assert_allclose(active.weights, whole.weights, rtol=1e-4, atol=1e-7)


def test_active_sets_are_refused_elsewhere():
    x, _ = planted(n_voxels=200)
    with pytest.raises(ValueError, match="on the processor only"):
        fit_mu(x, 4, generator=np.random.default_rng(0), options=MuOptions(active=4), device=STRICT)


def test_compression_keeps_the_energy_it_promises():
    x, _ = planted(n_voxels=2000, n_samples=80, seed=5)
    total = float((x.astype(np.float64) ** 2).sum())
    short = compressed(x, 20, total, generator=np.random.default_rng(0))
    values = np.linalg.svd(x.astype(np.float64), compute_uv=False) ** 2
    q = short.shape[1]
    assert q < 80
    assert values[q:].sum() <= 1e-4 * total or q == 80
    assert q == 20 or values[q - 1 :].sum() > 1e-4 * total
    assert compressed(x, 3, total, generator=np.random.default_rng(0)).shape[1] <= 12


def test_no_compression_is_no_loss():
    """As many vectors as people: the same products, so the same weights."""
    x, _ = planted(n_voxels=500, n_samples=12, seed=6)
    x = x.astype(np.float64)
    start = a_start(x, 4)
    short = compressed(x, 4, float((x**2).sum()) * (1 + 1e-3), generator=np.random.default_rng(0))
    assert short.shape == x.shape
    np.testing.assert_allclose(short @ short.T, x @ x.T, rtol=1e-10)
    common = {"generator": np.random.default_rng(0), "start": start}
    whole = fit_mu(x, 4, options=MuOptions(max_iterations=20), **common)
    less = fit_mu(x, 4, options=MuOptions(max_iterations=20, compress=True), **common)
    # The products that compression clips at 0 are of entries that have none.
    assert less.relative_loss == pytest.approx(whole.relative_loss, rel=2e-3)


def test_compressed_fit_finds_the_parcels_and_says_the_loss_of_the_images():
    x, labels = planted(n_voxels=1500, n_samples=100, seed=7)
    found = fit_mu(x, 4, generator=np.random.default_rng(0), options=MuOptions(start="seeds", compress=True))
    whole = fit_mu(x, 4, generator=np.random.default_rng(0), options=MuOptions(start="seeds"))
    assert adjusted_rand(labels, found.labels) == 1.0
    assert found.relative_loss == pytest.approx(whole.relative_loss, rel=1e-3)
    assert checked_norms(x).sum() == pytest.approx(found.total)
