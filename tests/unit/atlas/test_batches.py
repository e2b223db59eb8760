"""sopNMF: epochs against the formulas, best of all epochs, and going on after an interruption."""

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest

from brainlocus.images.atlas import (
    BatchOptions,
    MuOptions,
    adjusted_rand,
    checked_norms,
    fit_batches,
    fit_batches_peak_bytes,
    fit_mu,
    initial_weights,
)
from brainlocus.numerics.devices import HOST, Device
from tests.reference.naive_atlas import naive_loss
from tests.reference.naive_opnmf import naive_epoch
from tests.unit.atlas.test_em import planted
from tests.unit.atlas.test_mu import a_start


def fit(x, start, batch_size, seed=0, device=HOST, **options):
    more = {name: options.pop(name) for name in ("state", "checkpoint", "voxel_major") if name in options}
    return fit_batches(
        np.ascontiguousarray(x.T), checked_norms(x), start, options=BatchOptions(batch_size, **options),
        generator=np.random.default_rng(seed), device=device, **more,
    )  # fmt: skip


@pytest.mark.parametrize("device", [HOST, Device(array_api_strict)], ids=["numpy", "array-api-strict"])
@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("batch_size", [7, 30, 100])
def test_epochs_are_those_of_the_formulas(batch_size, exponent, device):
    """30 images in batches of 7: the last has 2 and is not dropped."""
    x = np.random.default_rng(0).uniform(0.1, 1, size=(300, 30))
    start = a_start(x, 4)
    found = fit(x, start, batch_size, exponent=exponent, max_epochs=2, device=device)
    rng = np.random.default_rng(0)
    w = start / np.linalg.norm(start, 2)
    losses = [naive_loss(x, w)]
    for _ in range(2):
        order = rng.permutation(30)
        w = naive_epoch(x, w, [order[i : i + batch_size] for i in range(0, 30, batch_size)], exponent)
        w /= np.linalg.norm(w, 2)
        losses.append(naive_loss(x, w))
    np.testing.assert_allclose(found.losses[:3], losses, rtol=1e-9)
    assert found.losses[-1] == pytest.approx(min(losses), rel=1e-9)
    assert found.loss_kind == "exact"
    assert found.at.tolist() == [0, 1, 2, int(np.argmin(losses))]


def test_one_batch_of_everything_is_the_batch_algorithm():
    x, _ = planted(seed=1)
    x = x.astype(np.float64)
    start = a_start(x, 4)
    whole = fit_mu(x, 4, generator=np.random.default_rng(0), start=start, options=MuOptions(max_iterations=5))
    batches = fit(x, start, 30, exponent=1.0, max_epochs=5)
    assert batches.losses[5] == pytest.approx(whole.losses[-1], rel=1e-9)


@pytest.mark.parametrize("epoch_loss", ["exact", "running"])
def test_planted_parcels_are_found_and_the_end_is_that_of_patience(epoch_loss):
    x, labels = planted(n_voxels=1500, n_samples=60, seed=2)
    norms = checked_norms(x)
    rng = np.random.default_rng(0)
    start = initial_weights(x, 4, norms, generator=rng, options=MuOptions(start="seeds"))
    found = fit(x, start, 16, patience=5, epoch_loss=epoch_loss)
    assert found.reason == "early_stop"
    assert found.converged
    assert found.warnings == ()
    assert found.loss_kind == epoch_loss
    assert adjusted_rand(labels, found.labels) == 1.0
    raw = found.weights.astype(np.float64) * found.norms
    assert found.losses[-1] == pytest.approx(naive_loss(x.astype(np.float64), raw), rel=1e-5)
    if epoch_loss == "exact":
        assert found.losses[-1] == pytest.approx(found.losses.min(), rel=1e-5)
        roots = np.sqrt(found.losses[:-1])
        best = np.minimum.accumulate(roots)
        improved = np.flatnonzero(roots[1:] < best[:-1] * (1 - 1e-5)) + 1
        assert roots.size - 1 - improved[-1] == 5


def test_interrupted_fit_goes_on_as_if_nothing_had_happened():
    x, _ = planted(n_voxels=500, seed=3)
    start = a_start(x, 4)
    states = []
    whole = fit(x, start, 8, max_epochs=12, checkpoint=states.append)
    assert [s.epoch for s in states] == list(range(1, 13))
    for epoch in (1, 7, 12):
        on = fit(x, np.zeros_like(start), 8, seed=99, max_epochs=12, state=states[epoch - 1])
        np.testing.assert_array_equal(on.weights, whole.weights)
        np.testing.assert_array_equal(on.losses, whole.losses)
        np.testing.assert_array_equal(on.changes, whole.changes)


def test_same_seed_same_fit_and_another_seed_another_order():
    x, _ = planted(n_voxels=500, seed=4)
    start = a_start(x, 4)
    one, two, other = (fit(x, start, 8, seed=s, max_epochs=3) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.weights, two.weights)
    assert not np.array_equal(one.weights, other.weights)


def test_a_voxel_that_some_batches_do_not_have_is_kept():
    x, _ = planted(n_voxels=400, seed=5)
    x[::4, :20] = 0
    found = fit(x, a_start(x, 4), 5, max_epochs=15)
    assert (found.labels > 0).all()
    assert (found.weights[::4].max(axis=1) > 1e-4).all()


def test_voxel_major_copy_gives_the_same_measures():
    x, _ = planted(n_voxels=500, seed=6)
    start = a_start(x, 4)
    one, two = fit(x, start, 8, max_epochs=2), fit(x, start, 8, max_epochs=2, voxel_major=x)
    np.testing.assert_array_equal(one.weights, two.weights)
    assert one.quality == two.quality


def test_limit_of_epochs_and_wrong_batch_size():
    x, _ = planted(n_voxels=200)
    found = fit(x, a_start(x, 3), 10, max_epochs=1)
    assert found.reason == "max_iter"
    assert "limit of epochs" in found.warnings[0]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        fit(x, a_start(x, 3), 0)


def test_peak_memory_stays_within_the_declared_bound():
    import tracemalloc

    x, _ = planted(n_voxels=60_000, n_samples=50, r=8, seed=8)
    start = a_start(x, 8)
    rows, norms = np.ascontiguousarray(x.T), checked_norms(x)
    options = replace(BatchOptions(10), max_epochs=2)
    fit(x[:500], start[:500], 10, max_epochs=1)
    tracemalloc.start()
    fit_batches(rows, norms, start, options=options, generator=np.random.default_rng(0), voxel_major=x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= fit_batches_peak_bytes(*x.shape, 8, 10)
