"""Active sets, compression and splits: cheaper ways to the same factorisation."""

from dataclasses import replace

import numpy as np
import pytest

from brainlocus.images.atlas import MuOptions, adjusted_rand, checked_norms, fit_em, fit_mu, hard_active
from brainlocus.images.atlas.active import (
    active_iterations,
    active_sums,
    active_update,
    choose_active,
    leave_out,
    renew,
    settle_active,
)
from brainlocus.images.atlas.compress import compressed
from brainlocus.images.atlas.iterations import Trace
from brainlocus.images.atlas.passes import Blocks
from brainlocus.images.atlas.refine import soften
from brainlocus.numerics.devices import HOST
from tests.reference.naive_atlas import naive_loss
from tests.reference.naive_opnmf import naive_active_update, naive_change, naive_renew, naive_update
from tests.unit.atlas.test_em import planted
from tests.unit.atlas.test_mu import STRICT, a_start


def blocks(x):
    return Blocks.of(x, HOST, signed=False, resident=False)


def direction(active):
    dense = active.dense()
    return dense / np.linalg.norm(dense)


def sparse(w, kept, families=None):
    active = choose_active(w, kept)
    return active if families is None else replace(active, families=np.array(families, dtype=np.int32))


def a_problem(seed=0):
    """Parcels whose voxels resemble another parcel too, so that entries go and come."""
    rng = np.random.default_rng(seed)
    people = rng.uniform(0.5, 1.5, size=(6, 20))
    mixed = people[rng.integers(0, 6, 300)] + rng.uniform(0, 0.6, (300, 1)) * people[rng.integers(0, 6, 300)]
    return mixed, a_start(mixed, 6, seed) ** 8


def test_all_components_active_are_the_whole_iteration():
    x = np.random.default_rng(0).uniform(size=(500, 20))
    w = a_start(x, 5)
    active = choose_active(w, 9)
    assert active.n_components == 5
    np.testing.assert_array_equal(active.dense(), w)
    changes = active_iterations(blocks(x), active, 3)
    expected = w / np.linalg.norm(w, 2)
    for change in changes:
        new = naive_update(x, expected, 0.5)
        assert change == pytest.approx(
            naive_change(new / np.linalg.norm(new), expected / np.linalg.norm(expected)), rel=1e-6
        )
        expected = new
    np.testing.assert_allclose(direction(active), expected / np.linalg.norm(expected), rtol=1e-9)


def test_the_rest_of_w_is_as_if_it_were_not_there():
    """Two components a voxel: the update of a W in which the others are 0."""
    x, w = a_problem()
    active = choose_active(w, 2)
    given = active.dense()
    assert ((given > 0).sum(axis=1) == 2).all()
    np.testing.assert_array_equal(given.max(axis=1), w.max(axis=1))
    active_iterations(blocks(x), active, 1)
    np.testing.assert_allclose(direction(active), naive_active_update(x, given), rtol=1e-9)


def test_sums_are_those_of_the_dense_matrix():
    x, w = a_problem()
    active = choose_active(w, 3)
    dense = active.dense()
    sums = active_sums(blocks(x), active)
    np.testing.assert_allclose(sums.q, x.T @ dense, rtol=1e-12)
    np.testing.assert_allclose(sums.gram, dense.T @ dense, rtol=1e-12, atol=1e-14)
    assert sums.squares == pytest.approx((dense**2).sum())


@pytest.mark.parametrize("families", [[0] * 6, [0, 0, 0, 1, 1, 1]])
@pytest.mark.parametrize("kept", [1, 2, 4, 6])
def test_whole_iteration_lets_entries_come_back(kept, families):
    """Voxel by voxel against the rule read literally; of families, only where the largest entry's is."""
    x, w = a_problem(1)
    half = slice(0, 150) if families[3] else slice(0, 0)
    w[half, 3:], w[150:, : 3 if families[3] else 0] = 0, 0
    active = sparse(w, kept, families)
    smallest = np.where(active.weights > 0, active.weights, np.inf).argmin(axis=1)
    # Free places, entries that others may replace, and entries about to be given up.
    for rows, factor in ((slice(5, 120), 0.0), (slice(160, 260), 1e-3), (slice(200, 230), 1e-4)):
        if kept > 1:
            active.weights[np.arange(300)[rows], smallest[rows]] *= factor
    given = active.dense()
    change = renew(blocks(x), active)
    expected = naive_renew(x, given, kept, families)
    np.testing.assert_allclose(direction(active), expected, rtol=1e-9, atol=1e-15)
    assert ((active.dense() > 0).sum(axis=1) <= kept).all()
    came = (active.dense() > 0) & (given == 0)
    assert came.any() == (kept > 1)
    if families[3]:
        lead = given.argmax(axis=1) >= 3
        assert not came[lead, :3].any()
        assert not came[~lead, 3:].any()
    assert change == pytest.approx(naive_change(expected, given / np.linalg.norm(given)), rel=1e-6)


def test_voxels_that_a_batch_does_not_have_stay():
    x, w = a_problem(2)
    x[::3] = 0
    active = choose_active(w, 3)
    before = active.dense()
    for step in (active_update, lambda *given: renew(*given, keep_unseen=True)):
        step(blocks(x), active)
        found = active.dense()
        ratio = found[::3].max(axis=1) / before[::3].max(axis=1)
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)  # of the scale of W
        np.testing.assert_array_equal(found[::3] > 0, before[::3] > 0)


@pytest.mark.parametrize("start", ["seeds", "nndsvd"])
def test_active_sets_stay_at_the_loss_of_whole_iterations(start):
    """8 entries a voxel: nowhere more than 1e-4 above whole iterations with the same exponent, and the same parcels."""
    x, _ = planted(n_voxels=1200, n_samples=40, r=12, seed=3)
    common = {"start": start, "exponent": 0.5, "max_iterations": 1_000}
    rng = np.random.default_rng
    whole = fit_mu(x, 12, generator=rng(0), options=MuOptions(**common))
    active = fit_mu(x, 12, generator=rng(0), options=MuOptions(**common, active=8))
    n = min(whole.losses.size, active.losses.size) - 1
    assert n > 20
    # The first is that of the start, whose columns have no common length yet.
    assert (np.sqrt(active.losses[1:n]) <= np.sqrt(whole.losses[1:n]) * (1 + 1e-4)).all()
    assert adjusted_rand(whole.labels, active.labels) > 0.99
    assert ((active.weights > 0).sum(axis=1) <= 8).all()
    assert active.at[-1] == active.changes.size
    raw = active.weights.astype(np.float64) * active.norms
    assert active.losses[-1] == pytest.approx(naive_loss(x.astype(np.float64), raw), rel=1e-5)
    assert active.losses[-2] == pytest.approx(active.losses[-1], rel=1e-5)


def test_from_a_hard_atlas_the_loss_falls():
    """Where whole iterations from the filled start stay above it for long."""
    x, labels = planted(n_voxels=1200, n_samples=40, r=12, seed=3)
    hard = fit_em(x, 12, generator=np.random.default_rng(0))
    active, trace = hard_active(hard, 8, np.float32), Trace(hard.total)
    np.testing.assert_allclose(active.dense(), hard.components(), rtol=1e-6)
    settle_active(blocks(x), active, trace, tolerance=1e-5, max_iterations=200)
    losses = np.array(trace.losses)
    assert losses.size == 9
    assert losses[0] == pytest.approx(hard.losses[-1], rel=1e-5)
    assert (losses[1:] < losses[:-1]).all()
    assert losses[-1] < losses[0] * 0.995
    filled = fit_mu(
        x, 12, generator=np.random.default_rng(0), start=soften(hard, np.float32), options=MuOptions(max_iterations=200)
    )
    assert filled.losses[-1] > losses[0]
    settle_active(blocks(x), active, trace, tolerance=1e-5, max_iterations=4_000)
    assert trace.converged
    assert trace.cosine < 0.1
    assert adjusted_rand(labels, active.dense().argmax(axis=1)) > 0.98


def test_active_sets_wait_until_leaving_out_costs_nothing():
    """Voxels between two parcels need both: with one entry each, everything stays whole."""
    x, w = a_problem(3)
    start = fit_mu(x, 6, generator=np.random.default_rng(0), start=w, options=MuOptions(max_iterations=200)).weights
    total = float((x**2).sum())
    assert leave_out(blocks(x), start, total, 1) is None
    assert leave_out(blocks(x), start, total, 6) is not None
    common = {"max_iterations": 50, "exponent": 0.5}
    whole = fit_mu(x, 6, generator=np.random.default_rng(0), start=start, options=MuOptions(**common))
    active = fit_mu(x, 6, generator=np.random.default_rng(0), start=start, options=MuOptions(**common, active=1))
    np.testing.assert_allclose(active.weights, whole.weights, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(active.losses, whole.losses, rtol=1e-9)
    assert active.changes.size == 50


def test_limits_of_iterations_and_of_time_hold():
    x, _ = planted(n_voxels=600, seed=4)
    rng = np.random.default_rng
    short = fit_mu(x, 4, generator=rng(0), options=MuOptions(start="seeds", active=2, max_iterations=60))
    assert short.changes.size == short.at[-1] == 60
    few = fit_mu(x, 4, generator=rng(0), options=MuOptions(start="seeds", active=2, max_iterations=3))
    assert few.changes.size == 3
    assert few.losses[-1] < few.losses[0]
    assert short.reason == "max_iter"
    timed = fit_mu(x, 4, generator=rng(0), options=MuOptions(start="seeds", active=2, max_seconds=1e-9))
    assert timed.reason == "time"
    assert not timed.converged


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
