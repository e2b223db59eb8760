"""opNMF against the formulas read literally, and its refinement of hard atlases."""

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest

from brainlocus.images.atlas import (
    MuOptions,
    adjusted_rand,
    fit_em,
    fit_mu,
    fit_mu_peak_bytes,
    nndsvd_start,
    refine_soft,
)
from brainlocus.images.atlas import iterations as mu_module
from brainlocus.images.atlas import multiplicative as multiplicative_module
from brainlocus.images.atlas import passes as passes_module
from brainlocus.images.atlas.compress import gram_root, has_gram_root
from brainlocus.images.atlas.soft import mean_cosine
from brainlocus.images.atlas.starts import leading_vectors
from brainlocus.numerics.devices import HOST, Device, named_device
from tests.real_data import real_data
from tests.reference.naive_atlas import naive_loss
from tests.reference.naive_opnmf import (
    naive_active_update,
    naive_change,
    naive_hoyer,
    naive_mean_cosine,
    naive_nndsvd,
    naive_renew,
    naive_update,
)
from tests.unit.atlas.test_em import planted

STRICT = Device(array_api_strict)


def fit(x, r, seed=0, start=None, device=HOST, **options):
    return fit_mu(x, r, generator=np.random.default_rng(seed), options=MuOptions(**options), start=start, device=device)


def a_start(x, r, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 1.0, (x.shape[0], r)).astype(x.dtype)


@pytest.mark.parametrize("exponent", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("device", [HOST, STRICT], ids=["numpy", "array-api-strict"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_iterations_are_those_of_the_formulas(exponent, device, dtype, tolerance):
    """Three in a row, several blocks, a voxel that is zero throughout; float32 to its rounding."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(700, 9)).astype(dtype)
    w = a_start(x, 4)
    expected = w.astype(np.float64) / np.linalg.norm(w.astype(np.float64), 2)
    changes = []
    for _ in range(3):
        new = naive_update(x.astype(np.float64), expected, exponent)
        changes.append(naive_change(new, expected))
        expected = new
    found = fit(x, 4, start=w, device=device, max_iterations=3, exponent=exponent)
    order = np.argsort(-np.linalg.norm((expected / np.linalg.norm(expected, axis=0)).T @ x, axis=1))
    np.testing.assert_allclose(found.weights * found.norms, expected[:, order], rtol=10 * tolerance, atol=tolerance)
    np.testing.assert_allclose(found.changes, changes, rtol=100 * tolerance)
    assert found.reason == "max_iter"
    assert not found.converged
    assert "limit of iterations" in found.warnings[0]


def test_losses_are_those_of_the_residuals(monkeypatch):
    monkeypatch.setattr(mu_module, "CHECK_EVERY", 2)
    x, _ = planted(n_voxels=400, seed=1)
    x64 = x.astype(np.float64)
    w = a_start(x, 4).astype(np.float64)
    w /= np.linalg.norm(w, 2)
    expected = []
    for _ in range(5):
        expected.append(naive_loss(x64, w))
        w = naive_update(x64, w)
    expected.append(naive_loss(x64, w))
    found = fit(x64, 4, start=a_start(x, 4).astype(np.float64), max_iterations=5)
    np.testing.assert_allclose(found.losses, np.array(expected)[[0, 2, 4, 5]], rtol=1e-9)
    assert found.at.tolist() == [0, 2, 4, 5]
    single = fit(x, 4, start=a_start(x, 4), max_iterations=5)
    np.testing.assert_allclose(single.losses, found.losses, rtol=1e-5)
    assert found.total == pytest.approx(float((x64**2).sum()), rel=1e-12)
    assert found.unit_loss == pytest.approx(naive_loss(x64, found.weights), rel=1e-9)
    assert found.relative_loss == pytest.approx(np.sqrt(expected[-1] / found.total), rel=1e-9)


def test_quality_measures_are_those_of_their_definitions():
    x, _ = planted(n_voxels=300, seed=3)
    x64 = x.astype(np.float64)
    found = fit(x64, 4, max_iterations=30)
    w = found.weights
    cosines = w.T @ w
    np.testing.assert_allclose(np.diag(cosines), 1.0, rtol=1e-12)
    assert found.quality.mean_cosine == pytest.approx(naive_mean_cosine(w), rel=1e-9)
    assert found.quality.orthogonality_error == pytest.approx(np.linalg.norm(cosines - np.eye(4)), rel=1e-9)
    assert found.quality.hoyer_sparsity == pytest.approx(naive_hoyer(w), rel=1e-9)
    raw = w * found.norms
    assert found.quality.explained == pytest.approx(1 - naive_loss(x64, raw) / (x64**2).sum(), rel=1e-9)
    centred = x64 - x64.mean(axis=1, keepdims=True)
    expected = 1 - naive_loss(centred, raw) / (centred**2).sum()
    assert found.quality.explained_centred == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(found.loadings, w.T @ x64, rtol=1e-10)
    np.testing.assert_array_equal(found.labels, 1 + w.argmax(axis=1))
    energy = np.linalg.norm(found.loadings, axis=1)
    assert (np.diff(energy) <= 0).all()


@pytest.mark.parametrize("shape", [(300, 20), (20, 300)], ids=["more voxels", "more images"])
def test_nndsvd_is_that_of_its_paper(shape):
    x = np.random.default_rng(1).gamma(2.0, size=shape)
    found = nndsvd_start(x, 6, generator=np.random.default_rng(0))
    np.testing.assert_allclose(found, naive_nndsvd(x, 6), rtol=1e-6, atol=1e-9)


def test_randomised_decomposition_finds_the_same_vectors():
    x, _ = planted(n_voxels=2000, n_samples=120, r=5, seed=4)
    exact = nndsvd_start(x, 5, generator=np.random.default_rng(0))
    rough = nndsvd_start(x, 5, generator=np.random.default_rng(0), randomised=True)
    again = nndsvd_start(x, 5, generator=np.random.default_rng(0), randomised=True)
    np.testing.assert_array_equal(rough, again)
    # Entries at the border of a sign change differ; the columns do not.
    cosines = (exact * rough).sum(axis=0) / np.linalg.norm(exact, axis=0) / np.linalg.norm(rough, axis=0)
    assert (cosines > 0.9999).all()
    # Values of the randomised decomposition are from below, within the share that subspace iteration leaves.
    values, found = (leading_vectors(x, 5, generator=np.random.default_rng(0), randomised=k)[1] for k in (False, True))
    np.testing.assert_allclose(found, values, rtol=1e-4)


@pytest.mark.parametrize("fill", ["column", "constant", "mean", "random", "none"])
def test_fills_of_the_start(fill):
    x, _ = planted(n_voxels=500, seed=5)
    w = nndsvd_start(x, 4, generator=np.random.default_rng(0), fill=fill)
    plain = nndsvd_start(x, 4, generator=np.random.default_rng(0), fill="none")
    holes = plain < 1e-10
    assert holes[:, 1:].any(axis=0).all()
    np.testing.assert_array_equal(w[~holes], plain[~holes])
    expected = {"column": np.broadcast_to(1e-3 * plain.max(axis=0), w.shape)[holes], "constant": 0.1,
                "mean": x.mean(dtype=np.float64), "none": plain[holes]}  # fmt: skip
    if fill == "random":
        assert (w[holes] <= x.mean() / 100).all()
        assert np.unique(w[holes]).size > 100
    else:
        np.testing.assert_allclose(w[holes], expected[fill], rtol=1e-5)


def test_zeros_stay_where_the_support_is_frozen():
    x, _ = planted(n_voxels=500, seed=5)
    start = nndsvd_start(x, 4, generator=np.random.default_rng(0), fill="none")
    found = fit(x, 4, fill="none", max_iterations=20)
    assert int((found.weights == 0).sum()) == int((start == 0).sum()) > 0


@pytest.mark.parametrize("start", ["nndsvd", "seeds"])
def test_planted_parcels_are_found(start):
    x, labels = planted(seed=6, noise=0.02)
    found = fit_mu(x, 4, generator=np.random.default_rng(0), options=MuOptions(start=start))
    assert found.converged
    assert found.reason == "tol"
    assert found.warnings == ()
    assert adjusted_rand(labels, found.labels) == 1.0
    assert found.quality.mean_cosine < 0.1
    assert found.vanished == ()
    # Converged means: the loss stalled over the last fifty iterations, and the change is below the tolerance.
    before = fit_mu(
        x, 4, generator=np.random.default_rng(0), options=MuOptions(start=start, max_iterations=found.changes.size - 50)
    )
    assert not before.converged
    assert 0 < before.losses[-1] - found.losses[-1] < 1e-5 * before.losses[-1]
    assert found.changes[-1] < 1e-5


def test_alike_components_are_not_called_converged(monkeypatch):
    """A single pattern asked for three parts: nothing tells them apart, whatever the change of W."""
    monkeypatch.setattr(mu_module, "PLATEAU_ITERATIONS", 120)
    rng = np.random.default_rng(0)
    x = np.outer(rng.uniform(1, 2, 300), rng.uniform(1, 2, 20))
    found = fit(x, 3, start=1.0 + 0.01 * a_start(x, 3))
    assert found.reason == "early_stop"
    assert not found.converged
    assert "still alike (mean cosine 1.00" in found.warnings[0]
    assert found.changes[-1] < 1e-5


def test_rank_one_data_leave_dead_components_with_their_numbers():
    rng = np.random.default_rng(0)
    x = np.outer(rng.uniform(1, 2, 300), rng.uniform(1, 2, 20))
    found = fit(x, 3, max_iterations=200)
    assert found.vanished == (2, 3)
    assert found.relative_loss < 1e-6
    assert (found.weights[:, 1:] == 0).all()
    assert np.isfinite(found.weights).all()


def test_one_component_is_the_leading_singular_vector():
    x = np.random.default_rng(0).uniform(size=(300, 25))
    found = fit(x, 1)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(found.weights[:, 0], np.abs(u[:, 0]), atol=1e-6)
    assert found.losses[-1] == pytest.approx(float((s[1:] ** 2).sum()), rel=1e-7)
    assert found.quality.mean_cosine == 0.0


def test_order_of_images_and_duplicates_do_not_matter():
    x, _ = planted(n_voxels=800, seed=7)
    x = x.astype(np.float64)
    first = fit(x, 4, max_iterations=100)
    shuffled = fit(x[:, np.random.default_rng(0).permutation(x.shape[1])].copy(), 4, max_iterations=100)
    doubled = fit(np.concatenate([x, x], axis=1), 4, max_iterations=100)
    np.testing.assert_allclose(first.weights, shuffled.weights, atol=1e-8)
    np.testing.assert_allclose(first.weights, doubled.weights, atol=1e-8)
    assert doubled.losses[-1] == pytest.approx(2 * first.losses[-1], rel=1e-8)


def test_same_seed_same_fit():
    x, _ = planted(n_voxels=900, seed=8)
    one, two = (
        fit_mu(x, 4, generator=np.random.default_rng(3), options=MuOptions(start="seeds", max_iterations=20))
        for _ in range(2)
    )
    np.testing.assert_array_equal(one.weights, two.weights)
    np.testing.assert_array_equal(one.losses, two.losses)


def test_block_size_memory_map_and_device_change_nothing(monkeypatch, tmp_path):
    x, _ = planted(n_voxels=3000, seed=9)
    whole = fit(x, 4, max_iterations=40)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    strict = fit(mapped, 4, max_iterations=40, device=STRICT)
    streamed = fit(mapped, 4, max_iterations=40, device=STRICT, resident=False)
    np.testing.assert_array_equal(strict.weights, streamed.weights)
    monkeypatch.setattr(passes_module, "UPDATE_BYTES", 256 * 4 * x.shape[1])
    blocks = fit(mapped, 4, max_iterations=40)
    for other in (strict, blocks):
        np.testing.assert_allclose(whole.weights, other.weights, atol=1e-5)
        assert other.losses[-1] == pytest.approx(whole.losses[-1], rel=1e-5)


# Fewer voxels than people


def table(dtype=np.float64, seed=0, n_voxels=30, n_samples=200):
    """Regions of many people, with a few columns that depend on each other and one region that is 0."""
    x, labels = planted(n_voxels=n_voxels, n_samples=n_samples, noise=0.2, seed=seed)
    x[5] = 0
    x[9] = x[8]
    return x.astype(dtype), labels


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("device", [HOST, STRICT], ids=["numpy", "array-api-strict"])
def test_a_table_has_the_losses_of_its_plain_iterations(dtype, device):
    x, _ = table(dtype)
    assert has_gram_root(*x.shape)
    start = a_start(x, 4)
    present = x.any(axis=1)
    x64, w = x[present].astype(np.float64), start[present].astype(np.float64)
    w /= np.linalg.norm(w, 2)
    expected = []
    for iteration in range(76):
        if iteration % 25 == 0:
            expected.append(naive_loss(x64, w))
        w = naive_update(x64, w)
    found = fit(x, 4, start=start, max_iterations=75, device=device)
    np.testing.assert_allclose(found.losses[:4], expected, rtol=1e-10 if dtype is np.float64 else 1e-6)
    assert found.losses[-1] == pytest.approx(expected[-1], rel=1e-10 if dtype is np.float64 else 1e-6)
    assert found.weights.dtype == dtype
    assert found.loadings.shape == (4, 200)
    assert found.n_empty_voxels == 1


@pytest.mark.parametrize("options", [{}, {"active": 3}, {"exponent": 0.5}])
def test_a_converged_table_is_that_of_the_plain_iterations(monkeypatch, options):
    x, _ = table(n_voxels=60, seed=1)
    fast = fit(x, 4, **options)
    refined = refine_soft(x, fit_em(x.astype(np.float32), 4, generator=np.random.default_rng(0)), refinement="mu")
    monkeypatch.setattr(multiplicative_module, "has_gram_root", lambda *_: False)
    plain = fit(x, 4, **options)
    again = refine_soft(x, fit_em(x.astype(np.float32), 4, generator=np.random.default_rng(0)), refinement="mu")
    assert fast.losses[-1] == pytest.approx(plain.losses[-1], rel=1e-6)
    assert refined.refined_loss == pytest.approx(again.refined_loss, rel=1e-6)
    np.testing.assert_array_equal(fast.labels, plain.labels)


def test_the_root_of_a_table_is_exact_and_has_its_rank():
    x, _ = table()
    root = gram_root(x)
    assert root.shape == (30, 28)  # one region is 0, two are equal
    np.testing.assert_allclose(root @ root.T, x @ x.T, rtol=1e-12, atol=1e-12 * float((x**2).sum()))
    assert gram_root(x.astype(np.float32)).dtype == np.float64
    assert gram_root(x[:, :3]).shape[1] == 3
    assert not has_gram_root(30, 30)
    assert not has_gram_root(2_501, 10_000)


def test_peak_memory_of_a_table_stays_within_the_declared_bound():
    import tracemalloc

    x = np.random.default_rng(0).uniform(0.5, 1, (700, 1_500)).astype(np.float32)
    fit(x[:50], 2, max_iterations=2)
    tracemalloc.start()
    fit(x, 8, max_iterations=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= fit_mu_peak_bytes(*x.shape, 8)


def test_empty_voxels_are_left_out_and_counted():
    x, _ = planted(seed=10)
    kept = x.any(axis=1)
    kept[::50] = False
    x[::50] = 0
    found, without = fit(x, 4, max_iterations=50), fit(np.ascontiguousarray(x[kept]), 4, max_iterations=50)
    assert found.n_empty_voxels == 12
    assert (found.labels[~kept] == 0).all()
    assert (found.weights[~kept] == 0).all()
    np.testing.assert_allclose(found.weights[kept], without.weights, atol=1e-5)


@pytest.mark.parametrize(
    ("bad", "message"), [(-1.0, "voxel 7 of image 3 is -1"), (np.nan, "voxel 7 of image 3 is nan"), (np.inf, "is inf")]
)
def test_bad_values_are_named(bad, message):
    x, _ = planted()
    x[7, 3] = bad
    with pytest.raises(ValueError, match=message):
        fit(x, 4)


@pytest.mark.parametrize(
    ("r", "start", "message"),
    [
        (0, "nndsvd", "at least 1, got 0"),
        (30, "nndsvd", r"fewer components than voxels \(600\) and images \(30\), got 30"),
        (601, "seeds", "601 components were asked of 600 non-zero voxels"),
    ],
)
def test_too_many_components_are_refused(r, start, message):
    x, _ = planted()
    with pytest.raises(ValueError, match=message):
        fit_mu(x, r, generator=np.random.default_rng(0), options=MuOptions(start=start))


def test_a_limit_of_time_is_named():
    x, _ = planted()
    found = fit(x, 4, max_seconds=0.0)
    assert found.reason == "time"
    assert found.changes.size == 1
    assert "limit of time" in found.warnings[0]


def test_lanczos_norm_is_that_of_the_whole_decomposition(monkeypatch):
    x = np.random.default_rng(0).uniform(size=(200, 40))
    plain = fit(x, 12, max_iterations=10)
    monkeypatch.setattr(mu_module, "LANCZOS", 2)
    np.testing.assert_allclose(fit(x, 12, max_iterations=10).weights, plain.weights, atol=1e-10)


def test_peak_memory_stays_within_the_declared_bound():
    import tracemalloc

    x, _ = planted(n_voxels=60_000, n_samples=50, r=8, seed=8)
    fit(x[:500], 2, max_iterations=2)
    tracemalloc.start()
    fit(x, 8, max_iterations=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= fit_mu_peak_bytes(*x.shape, 8)


def test_devices_by_name():
    assert named_device("cpu") is HOST
    with pytest.raises(ValueError, match="expected cpu or cuda, found 'gpu'"):
        named_device("gpu")


def test_mean_cosine_of_an_empty_column_is_zero():
    assert mean_cosine(np.diag([1.0, 0.0, 4.0])) == 0.0


# Refinement of hard atlases


@pytest.mark.parametrize("method", ["mu", "quasi-newton"])
def test_refinement_keeps_the_better_of_two_losses(method):
    x, labels = planted(seed=11)
    x64 = x.astype(np.float64)
    hard = fit_em(x, 4, generator=np.random.default_rng(0))
    found = refine_soft(x64, hard, refinement=method)
    assert found.method == method
    kept = found.fit.weights * found.fit.norms
    assert naive_loss(x64, kept) == pytest.approx(min(found.hard_loss, found.refined_loss), rel=1e-6)
    assert found.hard_loss == pytest.approx(hard.losses[-1], rel=1e-5)
    assert (found.kept == "em") == (found.hard_loss <= found.refined_loss)
    assert adjusted_rand(labels, found.fit.labels) == 1.0


def test_multiplicative_refinement_starts_from_the_hard_atlas_itself():
    """25 iterations, one whole and 24 active, read literally; with 4 entries a voxel nothing is left out for good."""
    x, _ = planted(seed=12)
    x64 = x.astype(np.float64)
    hard = fit_em(x, 4, generator=np.random.default_rng(0))
    found = refine_soft(x64, hard, refinement="mu", max_iterations=25)
    assert found.fit.losses[0] == pytest.approx(hard.losses[-1], rel=1e-9)
    w = naive_renew(x64, hard.components().astype(np.float64), 4, [0] * 4)
    for _ in range(24):
        w = naive_active_update(x64, w)
    assert found.refined_loss == pytest.approx(naive_loss(x64, w / np.linalg.norm(w, 2)), rel=1e-6)
    assert found.kept == "refined"


def test_refined_components_stay_in_their_parents():
    x, _ = planted(n_voxels=600, n_samples=40, r=6, noise=0.3, seed=15)
    hard = fit_em(x, 6, generator=np.random.default_rng(0))
    parents = np.array([1, 1, 2, 2, 2, 3])
    for refinement in ("mu", "quasi-newton"):
        found = refine_soft(x, hard, refinement=refinement, parents=parents)
        assert found.kept == "refined"
        # Components are numbered anew by energy: the parent of each is that of the voxels it wins.
        own = parents[hard.labels - 1]
        for k in range(6):
            assert np.unique(own[found.fit.weights[:, k] > 1e-12]).size == 1
        assert ((found.fit.weights > 1e-6).sum(axis=1) > 1).any()


def test_quasi_newton_ends_in_a_constrained_minimum():
    """The gradient of the residual's loss, by differences, points out of the non-negative orthant or vanishes."""
    x, _ = planted(n_voxels=40, n_samples=15, noise=0.3, seed=13)
    x64 = x.astype(np.float64)
    x64 /= np.sqrt((x64**2).sum())
    found = refine_soft(x64, fit_em(x64.astype(np.float32), 3, generator=np.random.default_rng(0)))
    assert found.kept == "refined"
    assert found.fit.converged
    w = found.fit.weights * found.fit.norms
    for j in range(0, 40, 3):
        for k in range(3):
            step = np.zeros_like(w)
            step[j, k] = 1e-6
            slope = (naive_loss(x64, w + step) - naive_loss(x64, w - step)) / 2e-6
            assert slope > -1e-4
            assert w[j, k] < 1e-4 or slope < 1e-4


def thickness(name):
    import pandas as pd

    table = pd.read_csv(real_data(f"structural/tabular/{name}.csv"))
    if "anatomy_qc" in table:
        table = table[table["anatomy_qc"].isin([1, 2])]
    return np.ascontiguousarray(table[[c for c in table if c.endswith("_thickness")]].to_numpy(dtype=float).T)


@pytest.mark.slow
@pytest.mark.parametrize("r", [4, 8])
@pytest.mark.parametrize("name", ["abide_impac_freesurfer", "fcon1000_destrieux"])
def test_refined_thickness_is_within_a_five_thousandth_of_the_converged_updates(name, r):
    import time

    x = thickness(name)
    began = time.process_time()
    slow = min((fit_mu(x, r, generator=np.random.default_rng(0), options=replace(MuOptions(), start=s)) for s in
                ("nndsvd", "seeds")), key=lambda f: f.relative_loss)  # fmt: skip
    middle = time.process_time()
    found = refine_soft(x, fit_em(x.astype(np.float32), r, generator=np.random.default_rng(0)))
    assert found.fit.relative_loss <= slow.relative_loss * 1.0002
    assert time.process_time() - middle <= 0.1 * (middle - began)
