"""sopNMF: epochs against the formulas, best of all epochs, and going on after an interruption."""

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest

from brainlocus.images.atlas import (
    ActiveSet,
    BatchOptions,
    MuOptions,
    adjusted_rand,
    checked_norms,
    fit_batches,
    fit_batches_peak_bytes,
    fit_em,
    fit_mu,
    hard_active,
    initial_weights,
)
from brainlocus.numerics.devices import HOST, Device
from brainlocus.pipeline.atlas_checkpoint import read_checkpoint, write_checkpoint
from tests.reference.naive_atlas import naive_loss
from tests.reference.naive_opnmf import naive_active_update, naive_epoch, naive_renew
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


# Active sets


def test_a_sparse_fit_never_holds_two_whole_matrices():
    """W whole is 48 MB; the bound has room for one."""
    import tracemalloc

    x, labels = planted(n_voxels=60_000, n_samples=20, r=200, seed=8)
    components = np.zeros((60_000, 4), dtype=np.int32)
    components[:, 0] = labels
    weights = np.zeros((60_000, 4), dtype=np.float32)
    weights[:, 0] = np.linalg.norm(x, axis=1)
    start = ActiveSet(components, weights, np.zeros(200, dtype=np.int32))
    rows, norms = np.ascontiguousarray(x.T), checked_norms(x)
    fit(x[:500], a_start(x[:500], 4), 10, active=2, max_epochs=1)
    tracemalloc.start()
    fit_batches(
        rows, norms, start, options=BatchOptions(10, active=4, max_epochs=2), generator=np.random.default_rng(0),
        voxel_major=x,
    )  # fmt: skip
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    bound = fit_batches_peak_bytes(60_000, 20, 200, 10, sparse=4)
    assert peak <= bound < 3 * 4 * 60_000 * 200


def test_sparse_epochs_are_those_of_the_formulas():
    """From a hard atlas: the first batch is a whole one, then 24 active ones, then a whole one again."""
    x, _ = planted(n_voxels=300, n_samples=40, noise=0.2, seed=8)
    x = x.astype(np.float64)
    hard = fit_em(x.astype(np.float32), 4, generator=np.random.default_rng(0))
    found = fit(x, hard_active(hard, 3, np.float64), 4, active=3, max_epochs=3)
    rng = np.random.default_rng(0)
    w = hard.components().astype(np.float64)
    losses, step = [naive_loss(x, w / np.linalg.norm(w, 2))], 0
    for _ in range(3):
        order = rng.permutation(40)
        for start in range(0, 40, 4):
            part = x[:, np.sort(order[start : start + 4])]
            w = naive_renew(part, w, 3, [0] * 4) if step % 25 == 0 else naive_active_update(part, w)
            step += 1
        losses.append(naive_loss(x, w / np.linalg.norm(w, 2)))
    np.testing.assert_allclose(found.losses[:4], losses, rtol=1e-6)
    assert ((found.weights > 0).sum(axis=1) <= 3).all()


def test_weights_turn_sparse_on_the_way_and_the_loss_stays():
    x, labels = planted(n_voxels=1200, n_samples=60, r=6, seed=9)
    start = initial_weights(
        x, 6, checked_norms(x), generator=np.random.default_rng(0), options=MuOptions(start="seeds")
    )
    states = []
    active = fit(x, start, 16, active=4, patience=5, checkpoint=states.append)
    whole = fit(x, start, 16, patience=5)
    assert isinstance(states[-1].weights, ActiveSet)
    assert active.relative_loss < whole.relative_loss * (1 + 1e-4)
    assert adjusted_rand(labels, active.labels) == 1.0
    assert active.losses[-1] == pytest.approx(active.losses.min(), rel=1e-5)


def test_interrupted_sparse_fit_goes_on_to_the_same_bytes(tmp_path):
    """Through the file that is kept after every epoch."""
    x, _ = planted(n_voxels=500, seed=10)
    hard = fit_em(x, 4, generator=np.random.default_rng(0))
    start = hard_active(hard, 2, np.float32)
    kept = []

    def keep(state):
        path = tmp_path / f"{state.epoch}.npz"
        write_checkpoint(state, path, digest="same")
        kept.append(path)

    whole = fit(x, start, 8, active=2, max_epochs=12, checkpoint=keep)
    for epoch in (1, 5, 12):
        state = read_checkpoint(kept[epoch - 1], digest="same")
        on = fit(x, start, 8, seed=99, active=2, max_epochs=12, state=state)
        np.testing.assert_array_equal(on.weights, whole.weights)
        np.testing.assert_array_equal(on.losses, whole.losses)
        np.testing.assert_array_equal(on.changes, whole.changes)


@pytest.mark.parametrize(
    ("more", "message"),
    [({"device": Device(array_api_strict)}, "on the processor only"), ({"epoch_loss": "running"}, "leave out running")],
)
def test_active_batches_are_refused_elsewhere(more, message):
    x, _ = planted(n_voxels=100)
    with pytest.raises(ValueError, match=message):
        fit(x, a_start(x, 4), 8, active=2, **more)


def test_changes_of_sparse_weights_are_those_of_dense_ones():
    x, _ = planted(n_voxels=500, seed=11)
    hard = fit_em(x, 4, generator=np.random.default_rng(0))
    states = []
    found = fit(x, hard_active(hard, 2, np.float32), 8, active=2, max_epochs=3, checkpoint=states.append)
    for k in (1, 2):
        new, old = states[k].weights.dense(), states[k - 1].weights.dense()
        assert found.changes[k] == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-5)
