"""The one-step inversion against its objective read literally, and what it promises of background."""

from dataclasses import replace

import numpy as np
import pytest

from brainlocus.images.qsm.dipole_problem import prepare_dipole_problem
from brainlocus.images.qsm.single_step import SingleStepSettings, invert_single_step
from brainlocus.numerics import dipole_field
from tests.reference import qsm_inversion as naive
from tests.unit.qsm.inversion_case import case, nrmse
from tests.unit.qsm.test_inversion_oracles import odd_problem

SMALL = SingleStepSettings(radii_mm=(4.0, 2.0), harmonic_degree=0)


def naive_ball(shape, sizes, radius):
    """Mean over the voxels within a radius, as a kernel around the box's first voxel."""
    ball = np.zeros(shape)
    for index in np.ndindex(*shape):
        steps = [i if i <= n // 2 else i - n for i, n in zip(index, shape, strict=True)]
        ball[index] = sum((s * h) ** 2 for s, h in zip(steps, sizes, strict=True)) <= (radius * (1 + 1e-6)) ** 2
    return ball / ball.sum()


def naive_shells(problem, radii):
    """Return (H_r on the spectrum, M_r) for each radius, M_r by looking at every ball."""
    shape, sizes = problem.box.padded, problem.box.voxel_size_mm
    inside = problem.inside > 0
    taken = np.zeros(shape, dtype=bool)
    shells = []
    for radius in radii:
        ball = naive_ball(shape, sizes, radius)
        spectrum = np.fft.fftn(ball)
        share = np.fft.ifftn(np.fft.fftn(inside.astype(float)) * spectrum).real
        where = (share > 0.999) & inside & ~taken
        taken |= where
        shells.append((1 - spectrum, where))
    return shells


def naive_objective(chi, problem, kernel, shells, regularisation):
    spectrum, field = np.fft.fftn(chi), np.fft.fftn(problem.field_ppm.astype(float))
    misfit = 0.0
    for high_pass, where in shells:
        difference = np.fft.ifftn(high_pass * (kernel * spectrum - field)).real
        misfit += 0.5 * float((problem.weight * difference**2)[where].sum())
    length = np.sqrt(sum(g**2 for g in naive.gradient(chi, problem.box.voxel_size_mm)))
    return misfit + regularisation * float(length.sum())


@pytest.mark.parametrize("sizes", [(1.0, 1.0, 1.0), (1.0, 0.8, 1.5)])
def test_the_map_minimises_the_objective_among_maps_that_are_0_outside(sizes):
    problem = odd_problem(shape=(21, 19, 17), sizes=sizes)
    settings = replace(SMALL, tolerance=1e-6, max_iterations=4000)
    solved = invert_single_step(problem, settings)
    assert solved.converged
    inside = problem.inside > 0
    chi = np.where(inside, problem.put_image(solved.chi_ppm[problem.region]), 0).astype(float)
    kernel = naive.naive_kernel(problem.box.padded, sizes, (0.36, 0.48, 0.8))
    # The largest voxel edge follows as the last radius.
    radii = (*(radius for radius in settings.radii_mm if radius > max(sizes)), max(sizes))
    shells = naive_shells(problem, radii)
    assert all(where.any() for _, where in shells)
    union = np.logical_or.reduce([where for _, where in shells])
    np.testing.assert_array_equal(problem.put_image(solved.mask[problem.region].astype(np.float32)) > 0, union)

    def objective(image):
        return naive_objective(image, problem, kernel, shells, settings.regularisation)

    least = objective(chi)
    assert least < 0.9 * objective(np.zeros_like(chi))
    rng = np.random.default_rng(1)
    noise = [np.where(inside, rng.normal(size=chi.shape), 0) for _ in range(12)]
    smooth = [np.where(inside, np.cos(a * np.indices(chi.shape)[k] / 3), 0) for a in (0.5, 1.0) for k in range(3)]
    for direction in (*noise, *smooth, chi / np.abs(chi).max(), inside.astype(float)):
        for step in (-3e-3, -3e-4, 3e-4, 3e-3):
            assert objective(chi + step * direction) > least * (1 - 1e-5)


def outside_field(phantom, strength=30.0):
    """The field of strong sources beyond the mask: a plate and a cavity."""
    chi = np.zeros(phantom.mask.shape, dtype=np.float32)
    chi[:, :, :2] = -6.0
    chi[:5, -6:, 4:12] = strength
    chi[phantom.mask] = 0
    return dipole_field(chi, phantom.sizes, phantom.b0)


def solve(phantom, field, settings=None, **options):
    problem = prepare_dipole_problem(field, phantom.mask, phantom.sizes, phantom.b0, **options)
    return invert_single_step(problem, settings or SingleStepSettings(radii_mm=(6.0, 3.0)))


@pytest.mark.parametrize(
    ("sizes", "b0"),
    [((1.0, 1.0, 1.0), (0.0, 0.0, 1.0)), ((1.0, 1.0, 2.0), (0.0, 0.0, 1.0)), ((1.0, 1.0, 1.0), (0.0, 0.6, 0.8))],
)
def test_sources_outside_the_mask_hardly_change_the_map(sizes, b0):
    phantom = case(shape=(48, 52, 40), sizes=sizes, b0=b0)
    background = outside_field(phantom)
    inside = phantom.mask
    assert background[inside].std() > 4 * phantom.field[inside].std()
    alone, both = solve(phantom, phantom.field), solve(phantom, phantom.field + background)
    np.testing.assert_array_equal(alone.mask, both.mask)
    difference = (both.chi_ppm - alone.chi_ppm)[alone.mask]
    assert (difference - difference.mean()).std() < 0.1 * phantom.chi[inside].std()
    assert nrmse(both.chi_ppm, phantom.chi, both.mask) < 75


def test_the_residual_is_the_filtered_field_that_is_left():
    phantom = case(shape=(40, 44, 36))
    found = solve(phantom, phantom.field)
    assert not found.residual_ppm[~found.mask].any()
    assert found.residual_ppm[found.mask].std() < 2 * 0.00115


def test_weights_leave_out_what_they_say():
    phantom = case(shape=(40, 44, 36))
    broken = phantom.field.copy()
    spot = (slice(18, 20), slice(20, 22), slice(16, 18))
    broken[spot] += 1.0
    weight = np.ones(phantom.mask.shape, dtype=np.float32)
    weight[spot] = 0
    clean = solve(phantom, phantom.field)
    # The spot is in the balls of its neighbours, so that only a part of it can be forgiven.
    errors = [nrmse(solve(phantom, broken, weight=w).chi_ppm, clean.chi_ppm, clean.mask) for w in (None, weight)]
    assert errors[1] < errors[0]


def test_a_twice_stronger_field_with_twice_the_regularisation_has_twice_the_map():
    phantom = case(shape=(36, 40, 32))
    once = solve(phantom, phantom.field)
    # rho as before: the same path, iteration by iteration.
    settings = SingleStepSettings(radii_mm=(6.0, 3.0), regularisation=4e-4, rho_factor=50.0)
    twice = solve(phantom, 2 * phantom.field, settings)
    np.testing.assert_allclose(twice.chi_ppm, 2 * once.chi_ppm, atol=2e-5)


def test_threads_change_nothing():
    phantom = case(shape=(36, 40, 32))
    one, two = (solve(phantom, phantom.field, workers=n) for n in (1, 2))
    np.testing.assert_array_equal(one.chi_ppm, two.chi_ppm)


def test_radii_below_the_thickest_voxel_are_that_voxel():
    phantom = case(shape=(36, 40, 16), sizes=(1.0, 1.0, 3.0))
    settings = [SingleStepSettings(radii_mm=radii) for radii in ((6.0, 3.0), (6.0, 3.0, 2.0), (6.0, 1.0))]
    maps = [solve(phantom, phantom.field, s).chi_ppm for s in settings]
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


def test_a_mask_too_thin_for_every_ball_is_refused():
    phantom = case(shape=(36, 40, 32))
    mask = np.zeros_like(phantom.mask)
    mask[5:30, 5:30, 15:17] = True
    with pytest.raises(ValueError, match=r"radi|ball"):
        solve(replace(phantom, mask=mask), phantom.field)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("radii_mm", ()),
        ("radii_mm", (3.0, 6.0)),
        ("radii_mm", (6.0, 0.0)),
        ("regularisation", 0.0),
        ("regularisation", float("nan")),
        ("tolerance", 0.0),
        ("max_iterations", 0),
        ("relaxation", 2.0),
        ("support_factor", -1.0),
        ("padding_mm", -1.0),
        ("harmonic_degree", -2),
    ],
)
def test_wrong_settings_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        SingleStepSettings(**{name: value})
