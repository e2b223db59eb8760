"""EM-ONMF against its definition, naive loops and planted parcels."""

import numpy as np
import pytest
from benchmarks.planted_atlas import planted_atlas, true_relative_loss

from brainlocus.core import AlignmentError, Mask
from brainlocus.images.atlas import (
    adjusted_rand,
    atlas_parcellation,
    fit_em,
    fit_em_peak_bytes,
    hoyer_sparsity,
    orthogonal_loss,
)
from brainlocus.images.atlas import blocks as blocks_module
from brainlocus.images.atlas import em as em_module
from brainlocus.images.atlas.blocks import checked_norms
from tests.reference.naive_atlas import naive_adjusted_rand, naive_components, naive_em, naive_loss


def planted(n_voxels=600, n_samples=30, r=4, noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, r, n_voxels))
    people = 1 + 0.3 * rng.standard_normal((r, n_samples))
    x = (
        rng.uniform(0.3, 1, n_voxels)[:, None]
        * people[labels]
        * (1 + noise * rng.standard_normal((n_voxels, n_samples)))
    )
    return np.maximum(x, 0).astype(np.float32), labels


def fit(x, r, seed=0, **options):
    return fit_em(x, r, generator=np.random.default_rng(seed), **options)


def test_planted_parcels_are_found_exactly():
    x, labels = planted()
    result = fit(x, 4)
    assert adjusted_rand(labels, result.labels) == 1.0
    assert result.converged
    assert result.vanished == ()


def test_loss_is_that_of_the_returned_factors():
    x, _ = planted(seed=1)
    result = fit(x, 5, seed=3)
    w = result.components().astype(np.float64)
    assert result.losses[-1] == pytest.approx(naive_loss(x.astype(np.float64), w), rel=1e-6)
    assert result.total == pytest.approx(float((x.astype(np.float64) ** 2).sum()), rel=1e-12)
    np.testing.assert_allclose(result.loadings, w.T @ x, rtol=1e-5)
    np.testing.assert_allclose((w**2).sum(axis=0), 1.0, rtol=1e-6)
    # Never below the optimum for these labels, and at it to the tolerance of the power steps.
    best = naive_loss(x.astype(np.float64), naive_components(x.astype(np.float64), result.labels - 1, 5))
    assert best * (1 - 1e-9) <= result.losses[-1] <= best * (1 + 1e-5)


def test_loss_identity_holds_away_from_orthogonality():
    rng = np.random.default_rng(0)
    x, w = rng.uniform(size=(40, 12)), rng.uniform(size=(40, 3))
    identity = orthogonal_loss(float((x**2).sum()), w.T @ x, w.T @ w)
    assert identity == pytest.approx(naive_loss(x, w), rel=1e-12)


def test_losses_never_rise():
    for seed in range(5):
        x = np.random.default_rng(seed).uniform(size=(400, 20)).astype(np.float32)
        assert (np.diff(fit(x, 7, seed=seed, restarts=1).losses) <= 0).all()


def test_same_passes_as_the_naive_loops():
    """From the same prototypes, converged labels and loss equal those of loops with exact singular vectors."""
    x, _ = planted(n_voxels=200, n_samples=12, seed=2)
    rng = np.random.default_rng(5)
    start = em_module._start(x, checked_norms(x), 3, generator=rng, restarts=3)
    labels, losses = naive_em(x.astype(np.float64), start, 30)
    result = fit(x, 3, seed=5, restarts=3, tolerance=1e-12)
    assert adjusted_rand(labels, result.labels) == 1.0
    assert result.losses[-1] == pytest.approx(losses[-1], rel=1e-6)


def test_one_component_is_the_leading_singular_vector():
    x = np.random.default_rng(0).uniform(size=(300, 25)).astype(np.float32)
    result = fit(x, 1, tolerance=1e-13)
    u, s, _ = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(result.weights, np.abs(u[:, 0]), atol=1e-6)
    assert result.losses[-1] == pytest.approx(float((s[1:] ** 2).sum()), rel=1e-7)


def test_components_are_numbered_by_energy():
    x, _ = planted(seed=4)
    energy = np.sqrt((fit(x, 4).loadings ** 2).sum(axis=1))
    assert (np.diff(energy) <= 0).all()


def test_same_seed_same_fit_and_order_of_images_does_not_matter():
    x, _ = planted(n_voxels=2000, seed=6)
    first, again = fit(x, 6, seed=1), fit(x, 6, seed=1)
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.losses, again.losses)
    # With the planted number of components: more would cut noise, where rounding decides single voxels.
    first = fit(x, 4, seed=1)
    shuffled = fit(np.ascontiguousarray(x[:, np.random.default_rng(0).permutation(x.shape[1])]), 4, seed=1)
    np.testing.assert_array_equal(first.labels, shuffled.labels)
    assert shuffled.losses[-1] == pytest.approx(first.losses[-1], rel=1e-9)


def test_block_size_and_memory_map_change_nothing(monkeypatch, tmp_path):
    x, _ = planted(n_voxels=3000, seed=7)
    whole = fit(x, 4)
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 256 * 4 * x.shape[1])
    blocks = fit(np.load(tmp_path / "x.npy", mmap_mode="r"), 4)
    np.testing.assert_array_equal(whole.labels, blocks.labels)
    assert blocks.losses[-1] == pytest.approx(whole.losses[-1], rel=1e-9)


def test_empty_voxels_are_left_out_and_counted():
    x, labels = planted()
    x[::50] = 0
    result = fit(x, 4)
    assert result.n_empty_voxels == 12
    assert (result.labels[::50] == 0).all()
    assert (result.weights[::50] == 0).all()
    kept = x.any(axis=1)
    assert adjusted_rand(labels[kept], result.labels[kept]) == 1.0


def test_fewer_directions_than_components_vanish_and_keep_their_number():
    x = np.repeat(np.random.default_rng(0).uniform(1, 2, (2, 10)), 20, axis=0).astype(np.float32)
    result = fit(x, 4)
    assert len(result.vanished) == 2
    assert result.vanished == (3, 4)
    assert result.relative_loss < 1e-6
    assert not (np.isin(result.labels, result.vanished)).any()


@pytest.mark.parametrize(
    ("bad", "message"), [(-1.0, "voxel 7 of image 3 is -1"), (np.nan, "voxel 7 of image 3 is nan")]
)
def test_bad_values_are_named(bad, message):
    x, _ = planted()
    x[7, 3] = bad
    with pytest.raises(ValueError, match=message):
        fit(x, 4)


def test_too_many_components_are_refused():
    x, _ = planted(n_voxels=20)
    with pytest.raises(ValueError, match=r"30 components were asked of 20 non-zero voxels"):
        fit(x, 30)


def test_hoyer_sparsity_of_equal_parts():
    """Four equal parts: 1 - 1/sqrt(4), up to the finite number of voxels."""
    labels = np.repeat([1, 2, 3, 4], 100).astype(np.int32)
    assert hoyer_sparsity(labels, np.full(400, 0.1), 4) == pytest.approx(0.5 / (1 - 1 / 40), rel=1e-12)


def test_adjusted_rand_counts_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, 40), rng.integers(0, 4, 40)
    assert adjusted_rand(a, b) == pytest.approx(naive_adjusted_rand(a, b), abs=1e-12)
    assert adjusted_rand(a, (a + 1) % 3) == 1.0


def test_parcellation_lies_on_the_mask():
    x, _ = planted(n_voxels=27)
    mask = Mask(np.ones((3, 3, 3), dtype=bool), np.eye(4))
    parcels = atlas_parcellation(fit(x, 2), mask)
    assert parcels.names == {1: "C2_1", 2: "C2_2"}
    assert parcels.labels.min() == 1
    with pytest.raises(AlignmentError, match=r"27 voxels, the fit 26"):
        atlas_parcellation(fit(x[:26], 2), mask)


def test_peak_memory_stays_within_the_declared_bound():
    """tracemalloc sees NumPy's arrays; X itself is outside of it."""
    import tracemalloc

    x, _ = planted(n_voxels=60_000, n_samples=50, r=8, seed=8)
    fit(x[:500], 2)
    tracemalloc.start()
    fit(x, 8, restarts=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= fit_em_peak_bytes(*x.shape, 8)


def test_simulated_grey_matter_reaches_the_true_parcels():
    """The benchmark's recipe at 4 mm (at 6 mm the smoothing blurs the parcels beyond recognition, and a fit has a
    lower loss than the truth)."""
    truth = planted_atlas(n_samples=150, n_parcels=12, resolution=4)
    result = fit(truth.images, 12)
    assert adjusted_rand(truth.labels, result.labels) >= 0.91
    assert result.relative_loss <= true_relative_loss(truth)


@pytest.mark.slow
def test_planted_problem_of_the_specification():
    truth = planted_atlas()
    for seed in range(3):
        result = fit(truth.images, 32, seed=seed)
        assert adjusted_rand(truth.labels, result.labels) >= 0.91
        assert result.relative_loss <= 0.053
