"""Each dipole inversion against its formula read literally (tests/reference/qsm_inversion.py)."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from scipy import ndimage

from brainlocus.images.qsm import ilsqr as ilsqr_module
from brainlocus.images.qsm.dipole_problem import DipoleProblem, prepare_dipole_problem
from brainlocus.images.qsm.ilsqr import (
    IlsqrSettings,
    estimate_streaks,
    fast_estimate,
    ilsqr_steps,
    smoothness_weights,
    weighted_laplacian,
)
from brainlocus.images.qsm.lsqr import (
    HalfSpectrumProduct,
    LsqrSettings,
    falling_weight,
    laplacian_weight,
    weighted_least_squares,
)
from brainlocus.images.qsm.nltv import NltvSettings, invert_nltv
from brainlocus.images.qsm.tkd import TkdSettings, invert_tkd, mean_psf
from brainlocus.images.qsm.tv import TvSettings, invert_tv, published_tv_settings
from brainlocus.numerics import FourierBox, dipole_field, dipole_kernel
from tests.reference import qsm_inversion as naive
from tests.unit.qsm.inversion_case import case, nrmse

OBLIQUE = (0.36, 0.48, 0.8)


def problem_of(phantom, padding_mm=6.0, **options) -> DipoleProblem:
    return prepare_dipole_problem(
        phantom.field, phantom.mask, phantom.sizes, phantom.b0, padding_mm=padding_mm, **options
    )


def odd_problem(seed=0, shape=(15, 13, 11), sizes=(1.0, 0.8, 1.5), b0=OBLIQUE, **options):
    """A problem in a box of odd lengths, whose kernel the oracle writes down without thinking of Nyquist."""
    phantom = case(shape=shape, sizes=sizes, b0=b0, seed=seed)
    bare = problem_of(phantom, padding_mm=0.0, **options)
    odd = tuple(n + 2 - n % 2 + 1 for n in bare.box.shape)
    box = FourierBox(bare.box.shape, odd, sizes)
    place = replace(bare, box=box)
    return replace(
        place,
        kernel=dipole_kernel(box, b0),
        field_ppm=place.put_image(bare.get_image(bare.field_ppm)),
        inside=place.put_image(bare.mask.astype(np.float32)),
        weight=place.put_image(bare.get_image(bare.weight)),
    )


@pytest.fixture(scope="module")
def problem():
    return odd_problem()


@pytest.fixture(scope="module")
def kernel(problem):
    return naive.naive_kernel(problem.box.padded, problem.box.voxel_size_mm, OBLIQUE)


@pytest.fixture(scope="module")
def head():
    return case(shape=(44, 48, 40))


def test_truncated_division_is_the_formula(problem, kernel):
    expected = naive.naive_tkd(problem.field_ppm, kernel, 0.15)
    np.testing.assert_allclose(invert_tkd(problem, TkdSettings()).chi_ppm, expected, atol=1e-6)


def test_point_spread_scale_is_the_mean_over_all_of_k(problem, kernel):
    share = np.where(np.abs(kernel) > 0.15, 1, np.abs(kernel) / 0.15)
    share[0, 0, 0] = 0
    assert mean_psf(problem, 0.15) == pytest.approx(share.mean(), rel=1e-5)
    scaled = invert_tkd(problem, TkdSettings(scale_by_psf=True)).chi_ppm
    np.testing.assert_allclose(scaled, invert_tkd(problem, TkdSettings()).chi_ppm / share.mean(), atol=1e-6)
    even = problem_of(case(shape=(20, 18, 16)))
    whole = naive.naive_kernel(even.box.padded, even.box.voxel_size_mm, (0.0, 0.0, 1.0))
    share = np.where(np.abs(whole) > 0.15, 1, np.abs(whole) / 0.15)
    share[0, 0, 0] = 0
    assert mean_psf(even, 0.15) == pytest.approx(share.mean(), rel=1e-5)


def test_published_total_variation_is_the_formula(problem, kernel):
    settings = replace(published_tv_settings(), max_iterations=12, tolerance=1e-12)
    found = invert_tv(problem, settings)
    expected = naive.naive_published_tv(problem.field_ppm, kernel, problem.box.voxel_size_mm, 2e-4, 12)
    assert found.n_iterations == 12
    np.testing.assert_allclose(found.chi_ppm, expected, atol=2e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"relaxation": 1.0},
        {"mu": 0.3, "rho_factor": 300.0},
        {"support_factor": 1.0},
    ],
)
def test_splits_change_the_way_not_the_solution(problem, kernel, changes):
    settings = TvSettings(tolerance=1e-7, max_iterations=3000, outside=0.01, **changes)
    inside = problem.inside > 0
    reference = invert_tv(problem, replace(TvSettings(outside=0.01), tolerance=1e-7, max_iterations=3000)).chi_ppm
    found = invert_tv(problem, settings).chi_ppm
    assert np.abs(found - reference)[inside].max() < 5e-4


def test_total_variation_minimises_its_objective(problem, kernel):
    settings = TvSettings(tolerance=1e-8, max_iterations=3000, outside=0.01, free_boundary=False)
    chi = invert_tv(problem, settings).chi_ppm.astype(np.float64)
    arguments = (problem.field_ppm, problem.inside > 0, kernel, problem.box.voxel_size_mm, 2e-4, 0.01)
    least = naive.naive_objective(chi, *arguments)
    rng = np.random.default_rng(1)
    for scale in (1e-3, 1e-2):
        for _ in range(10):
            other = chi + scale * rng.normal(size=chi.shape)
            assert naive.naive_objective(other, *arguments) > least
    # Along a smooth direction, and towards the truth, where noise does not decide.
    for other in (0.98 * chi, 1.02 * chi, np.where(arguments[1], chi, 0.9 * chi)):
        assert naive.naive_objective(other, *arguments) > least * (1 - 1e-6)


def test_nonlinear_fidelity_is_the_linear_one_for_small_angles_and_forgives_wraps(head):
    problem = problem_of(head)
    linear = invert_tv(problem, TvSettings(max_iterations=40)).chi_ppm
    small = invert_nltv(problem, NltvSettings(radians_per_ppm=0.5, variation=TvSettings(max_iterations=40))).chi_ppm
    np.testing.assert_allclose(small, linear, atol=2e-4)
    rng = np.random.default_rng(0)
    wrapped = head.mask & (rng.uniform(size=head.mask.shape) < 0.03)
    radians = 16.05
    field = np.where(wrapped, head.field + np.float32(2 * np.pi / radians), head.field)
    broken = problem_of(replace(head, field=field))
    variation = TvSettings(max_iterations=60)
    error = {
        name: nrmse(broken.restore(found.chi_ppm), head.chi, head.mask)
        for name, found in (
            ("linear", invert_tv(broken, variation)),
            ("nonlinear", invert_nltv(broken, NltvSettings(radians, variation))),
        )
    }
    assert error["nonlinear"] < 15 < 60 < error["linear"]


def test_edges_of_the_magnitude_help_and_need_a_magnitude(head):
    plain = problem_of(head, magnitude=(1 - 2 * head.chi).astype(np.float32))
    settings = TvSettings(regularisation=1e-3, max_iterations=60)
    error = [
        nrmse(plain.restore(invert_tv(plain, s).chi_ppm), head.chi, head.mask)
        for s in (settings, replace(settings, edge_share=0.1))
    ]
    assert error[1] < error[0]
    with pytest.raises(ValueError, match="needs a magnitude image"):
        invert_tv(problem_of(head), replace(settings, edge_share=0.1))


def test_sources_outside_the_mask_take_up_left_over_background_fields(head):
    shell = ndimage.binary_dilation(head.mask, iterations=3) & ~ndimage.binary_dilation(head.mask)
    sources = ndimage.gaussian_filter(np.where(shell, np.random.default_rng(0).normal(size=shell.shape), 0), 2) * shell
    left = dipole_field(sources.astype(np.float32), head.sizes, head.b0)
    left *= np.float32(0.006 / left[head.mask].std())
    broken = problem_of(replace(head, field=head.field + left))
    error = {
        outside: nrmse(broken.restore(invert_tv(broken, TvSettings(outside=outside)).chi_ppm), head.chi, head.mask)
        for outside in (3e-4, np.inf)
    }
    assert error[3e-4] < 0.75 * error[np.inf]


def test_offset_is_found(head):
    off = problem_of(replace(head, field=head.field + np.float32(0.01)))
    settings = TvSettings(outside=np.inf, max_iterations=100)
    kept, fitted = (
        nrmse(off.restore(invert_tv(off, s).chi_ppm), head.chi, head.mask)
        for s in (settings, replace(settings, fit_offset=True))
    )
    assert fitted < 15 < kept


def test_least_squares_iterates_are_those_of_the_dense_system():
    problem = odd_problem(shape=(9, 8, 7), sizes=(1.0, 1.0, 1.5))
    shape = problem.box.padded
    kernel = naive.naive_kernel(shape, problem.box.voxel_size_mm, OBLIQUE)
    weight = problem.put_image(laplacian_weight(problem, LsqrSettings())).astype(float)
    dipole = naive.dense(lambda image: naive.convolve(kernel, image), shape)
    normal = dipole @ (weight.ravel()[:, None] * dipole)
    right = dipole @ (weight * problem.field_ppm).ravel()
    expected = naive.naive_conjugate_gradients(normal, right, 6)
    found = weighted_least_squares(problem, LsqrSettings(max_iterations=6, tolerance=1e-12))
    image = problem.box.backward_padded(found.x)
    np.testing.assert_allclose(image.ravel(), expected, atol=2e-5 * np.abs(expected).max())


def test_inner_product_of_half_spectra_is_that_of_the_images():
    rng = np.random.default_rng(0)
    for padded in ((6, 5, 8), (6, 5, 7)):
        box = FourierBox(padded, padded, (1.0, 1.0, 1.0))
        base = problem_of(case(shape=(12, 12, 12)))
        product = HalfSpectrumProduct(replace(base, box=box))
        x, y = rng.normal(size=(2, *padded)).astype(np.float32)
        assert product(box.forward(x), box.forward(y)) == pytest.approx(x.size * float((x * y).sum()), rel=1e-4)


@pytest.mark.parametrize("b0", [(0.0, 0.0, 1.0), OBLIQUE])
def test_dot_products_of_every_operator_and_its_adjoint(b0):
    problem = problem_of(case(shape=(21, 18, 16), sizes=(0.8, 0.8, 2.0), b0=b0))
    box, rng = problem.box, np.random.default_rng(0)
    settings = IlsqrSettings()
    x, y = rng.normal(size=(2, *box.padded)).astype(np.float32)
    weights = smoothness_weights(problem, fast_estimate(problem), settings)
    smooth = weighted_laplacian(problem, weights)
    cone = (np.abs(problem.kernel) < settings.cone).astype(np.float32)
    product = HalfSpectrumProduct(problem)

    def check(left, right):
        assert left == pytest.approx(right, rel=1e-5, abs=1e-5 * np.sqrt(float((x**2).sum() * (y**2).sum())))

    def real(a, b):
        return float((a.astype(float) * b).sum())

    check(real(smooth(x).copy(), y), real(x, smooth(y).copy()))
    dipole = [box.backward_padded(problem.kernel * box.forward(a)) for a in (x, y)]
    check(real(dipole[0], y), real(x, dipole[1]))
    # Rectangular operators of the cone: B_a = W_a d_a F^-1 C and its adjoint C F d_a^T W_a.
    spectrum = box.forward(x)
    for axis, size in enumerate(box.voxel_size_mm):
        weight = np.sqrt(weights[axis])
        image = box.backward_padded(cone * spectrum)
        forward = weight * (np.roll(image, -1, axis=axis) - image) / size
        flow = weight * y / size
        adjoint = cone * box.forward((np.roll(flow, 1, axis=axis) - flow).astype(np.float32))
        check(real(forward, y), product(spectrum, adjoint) / x.size)
    normal = [cone * box.forward(smooth(box.backward_padded(cone * box.forward(a)))) for a in (x, y)]
    check(product(normal[0], box.forward(y)) / x.size, product(box.forward(x), normal[1]) / x.size)


def test_streaks_are_the_least_squares_solution_on_the_cone():
    problem = odd_problem(shape=(9, 8, 7), sizes=(1.0, 1.0, 1.5))
    shape, sizes = problem.box.padded, problem.box.voxel_size_mm
    kernel = naive.naive_kernel(shape, sizes, OBLIQUE)
    settings = IlsqrSettings(cone=0.05, max_iterations=400, tolerance=1e-6)
    chi = problem.field_ppm * 10
    weights = smoothness_weights(problem, fast_estimate(problem), settings)
    found = problem.box.backward_padded(estimate_streaks(problem, chi, weights, settings).x)
    cone = (np.abs(kernel) < settings.cone).astype(float)
    rows = [
        naive.dense(lambda s, a=a: np.sqrt(weights[a]) * naive.gradient(naive.convolve(cone, s), sizes)[a], shape)
        for a in range(3)
    ]
    matrix = np.concatenate(rows)
    target = np.concatenate([(np.sqrt(weights[a]) * naive.gradient(chi, sizes)[a]).ravel() for a in range(3)])
    expected = scipy.linalg.lstsq(matrix, target, cond=1e-10, lapack_driver="gelsy")[0]
    left = float(((target - matrix @ found.ravel()) ** 2).sum())
    least = float(((target - matrix @ expected) ** 2).sum())
    start = float((target**2).sum())
    assert least < 0.9 * start
    assert left == pytest.approx(least, rel=1e-3, abs=1e-6 * start)


def test_streaks_touch_nothing_off_the_cone(head):
    problem, settings = problem_of(head), IlsqrSettings()
    steps = ilsqr_steps(problem, settings)
    off = np.abs(problem.kernel) >= settings.cone
    assert not steps.streaks.x[off].any()
    start = problem.box.forward(steps.start_map)
    corrected = problem.box.forward(steps.start_map - problem.box.backward_padded(steps.streaks.x))
    np.testing.assert_allclose(corrected[off], start[off], atol=1e-5 * np.abs(start).max())


def test_streak_removal_improves_the_start_and_signed_weights_make_it_worse(head, monkeypatch):
    problem, settings = problem_of(head), IlsqrSettings()

    def error(image):
        return nrmse(problem.restore(image), head.chi, head.mask)

    steps = ilsqr_steps(problem, settings)
    streaks = problem.box.backward_padded(steps.streaks.x)
    start, corrected = error(steps.start_map), error(steps.start_map - streaks)
    assert corrected < 0.75 * start

    def signed(values, mask, full, zero):
        low, high = np.percentile(values[mask], [full, zero])
        return np.where(mask, np.clip((high - values) / (high - low), 0, 1), 0).astype(np.float32)

    monkeypatch.setattr(ilsqr_module, "falling_weight", signed)
    wrong = problem.box.backward_padded(ilsqr_steps(problem, settings).streaks.x)
    assert error(steps.start_map - wrong) > 1.3 * corrected


def test_more_iterations_of_the_start_undo_the_underestimation(head):
    problem = problem_of(head)
    slopes = []
    for n in (4, 8, 20):
        image = problem.restore(problem.box.backward_padded(
            weighted_least_squares(problem, LsqrSettings(max_iterations=n, tolerance=1e-6)).x
        ))  # fmt: skip
        truth = head.chi[head.mask] - head.chi[head.mask].mean()
        slopes.append(float(truth @ image[head.mask]) / float(truth @ truth))
    assert slopes[0] < slopes[1] < slopes[2] < 1


def test_weights_fall_between_percentiles_of_magnitudes():
    values = np.array([-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0], dtype=np.float32).reshape(3, 3, 1)
    mask = np.ones(values.shape, dtype=bool)
    mask[0, 0, 0] = False
    weight = falling_weight(values, mask, 0.0, 100.0)
    np.testing.assert_allclose(weight.ravel(), [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0], atol=1e-6)
    np.testing.assert_array_equal(falling_weight(np.zeros_like(values), mask, 50.0, 70.0), mask)
