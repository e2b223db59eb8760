"""All dipole inversions alike: accuracy, invariances, geometry, bad input, array-API namespaces."""

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest

from brainlocus.core import AlignmentError
from brainlocus.core.gradient_echo import Acquisition
from brainlocus.core.volumes import Grid
from brainlocus.images.qsm.dipole_problem import prepare_dipole_problem
from brainlocus.images.qsm.ilsqr import IlsqrSettings
from brainlocus.images.qsm.inversion import INVERSIONS, invert_dipole
from brainlocus.images.qsm.lsqr import LsqrSettings
from brainlocus.images.qsm.nltv import NltvSettings
from brainlocus.images.qsm.rts import RtsSettings
from brainlocus.images.qsm.tkd import TkdSettings
from brainlocus.images.qsm.tv import TvSettings, published_tv_settings
from tests.unit.qsm.inversion_case import B0, SIZES, case, nrmse

TV = TvSettings(max_iterations=30, padding_mm=6.0)
START = LsqrSettings(max_iterations=20, padding_mm=6.0)
SETTINGS = {
    "tkd": TkdSettings(padding_mm=6.0),
    "lsqr": START,
    "ilsqr": IlsqrSettings(start=START, max_iterations=20),
    "tv": TV,
    "rts": RtsSettings(start=START, variation=TV),
    "nltv": NltvSettings(variation=TV),
}
LIMIT = {"tkd": 40.0, "lsqr": 52.0, "ilsqr": 33.0, "tv": 12.0, "rts": 27.0, "nltv": 12.0}
METHODS = sorted(SETTINGS)
ROUNDING = 2e-5
"""Largest difference in ppm that float32 makes; the maps reach 0.2."""


@pytest.fixture(scope="module")
def phantom():
    return case()


def solve(phantom, method, **options):
    settings = options.pop("settings", SETTINGS[method])
    return invert_dipole(
        options.pop("field", phantom.field),
        options.pop("mask", phantom.mask),
        settings=settings,
        voxel_size_mm=options.pop("sizes", phantom.sizes),
        b0_direction=options.pop("b0", phantom.b0),
        **options,
    )


def test_every_method_has_settings():
    assert sorted(INVERSIONS) == METHODS
    assert all(isinstance(SETTINGS[name], kind) for name, kind in INVERSIONS.items())


@pytest.mark.parametrize("method", METHODS)
def test_phantom_comes_back(phantom, method):
    found = solve(phantom, method)
    error = nrmse(found.chi_ppm, phantom.chi, phantom.mask)
    assert error < LIMIT[method]
    assert found.method == method
    assert found.chi_ppm.dtype == np.float32
    assert not found.chi_ppm[~phantom.mask].any()
    assert (found.n_iterations == 0) == (method == "tkd")


def test_residual_of_total_variation_is_the_noise(phantom):
    found = solve(phantom, "tv", settings=replace(TV, max_iterations=150))
    assert found.residual_ppm == pytest.approx(0.00115, rel=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_same_bytes_twice_and_with_two_workers(phantom, method):
    first = solve(phantom, method).chi_ppm
    np.testing.assert_array_equal(solve(phantom, method).chi_ppm, first)
    np.testing.assert_allclose(solve(phantom, method, workers=2).chi_ppm, first, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_image_larger_than_the_mask_changes_nothing(phantom, method):
    wide = [(3, 0), (1, 5), (0, 2)]
    found = solve(
        phantom, method, field=np.pad(phantom.field, wide, constant_values=np.nan), mask=np.pad(phantom.mask, wide)
    )
    _, y, z = phantom.mask.shape
    np.testing.assert_array_equal(found.chi_ppm[3:, 1 : 1 + y, :z], solve(phantom, method).chi_ppm)


# Forward differences have a direction, which the flip turns round: the methods with gradients change by that. Root mean
# square in ppm, of maps whose standard deviation is 0.025.
FLIPPED = {"tkd": 1e-6, "lsqr": 1e-6, "ilsqr": 1e-4, "tv": 2e-3, "rts": 2.5e-3, "nltv": 2e-3}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axis", [0, 2])
def test_flipped_axis_with_its_main_field_gives_the_flipped_map(method, axis):
    oblique = case(shape=(30, 28, 32), b0=(0.36, 0.48, 0.8))
    settings = SETTINGS[method]
    straight = solve(oblique, method, settings=settings).chi_ppm
    b0 = tuple(-c if a == axis else c for a, c in enumerate(oblique.b0))
    flipped = solve(
        oblique, method, field=np.flip(oblique.field, axis).copy(), mask=np.flip(oblique.mask, axis).copy(), b0=b0
    ).chi_ppm
    difference = np.flip(flipped, axis) - straight
    assert np.sqrt((difference[oblique.mask] ** 2).mean()) < FLIPPED[method]


@pytest.mark.parametrize("method", METHODS)
def test_permuted_axes_with_their_sizes_and_main_field_give_the_permuted_map(method):
    thick = case(shape=(32, 30, 18), sizes=(1.0, 1.2, 2.0), b0=(0.0, 0.6, 0.8))
    order = (2, 0, 1)
    straight = solve(thick, method).chi_ppm
    permuted = solve(
        thick,
        method,
        field=np.ascontiguousarray(thick.field.transpose(order)),
        mask=np.ascontiguousarray(thick.mask.transpose(order)),
        sizes=tuple(thick.sizes[a] for a in order),
        b0=tuple(thick.b0[a] for a in order),
    ).chi_ppm
    np.testing.assert_allclose(permuted, straight.transpose(order), atol=3e-4)


@pytest.mark.parametrize("method", ["tkd", "lsqr", "ilsqr"])
def test_linear_methods_scale_with_the_field(phantom, method):
    double = solve(phantom, method, field=2 * phantom.field).chi_ppm
    np.testing.assert_allclose(double, 2 * solve(phantom, method).chi_ppm, atol=ROUNDING)


@pytest.mark.parametrize("method", ["tv", "rts"])
def test_total_variation_scales_with_field_and_regularisation(phantom, method):
    # tau and mu are ratios of squares and do not change; rho follows lambda, so that it is held.
    once = replace(TV, rho_factor=100.0)
    twice = replace(TV, regularisation=4e-4, rho_factor=50.0)
    settings = [s if method == "tv" else RtsSettings(start=START, variation=s) for s in (once, twice)]
    found = [
        solve(phantom, method, settings=s, field=f * phantom.field).chi_ppm
        for s, f in zip(settings, (1, 2), strict=True)
    ]
    np.testing.assert_allclose(found[1], 2 * found[0], atol=ROUNDING)


@pytest.mark.parametrize("method", METHODS)
def test_oblique_thick_slices_and_odd_sizes(method):
    thick = case(shape=(41, 39, 17), sizes=(0.8, 0.8, 2.0), b0=(0.0, 0.28, 0.96))
    found = solve(thick, method)
    assert nrmse(found.chi_ppm, thick.chi, thick.mask) < 1.35 * LIMIT[method]
    ignored = solve(thick, method, b0=(0.0, 0.0, 1.0))
    assert nrmse(ignored.chi_ppm, thick.chi, thick.mask) > nrmse(found.chi_ppm, thick.chi, thick.mask) + 4


@pytest.mark.parametrize("method", ["lsqr", "ilsqr", "tv", "nltv", "rts"])
def test_weights_leave_bad_voxels_out(phantom, method):
    rng = np.random.default_rng(3)
    bad = phantom.mask & (rng.uniform(size=phantom.mask.shape) < 0.02)
    field = np.where(bad, phantom.field + np.float32(0.2), phantom.field)
    weight = np.where(bad, 0.0, 1.0)
    plain = nrmse(solve(phantom, method, field=field).chi_ppm, phantom.chi, phantom.mask)
    weighted = nrmse(solve(phantom, method, field=field, weight=weight).chi_ppm, phantom.chi, phantom.mask)
    # The fast estimate of iLSQR, which only finds edges, does not see the weights.
    assert weighted < LIMIT[method] + (9 if method == "ilsqr" else 4)
    assert weighted < plain - 3


@pytest.mark.parametrize("method", METHODS)
def test_array_api_namespace_gives_the_same_map(method):
    small = case(shape=(20, 18, 16))
    settings = SETTINGS[method]
    host = solve(small, method, settings=settings)
    device = solve(small, method, settings=settings, namespace=array_api_strict)
    assert device.n_iterations == host.n_iterations
    np.testing.assert_allclose(
        device.chi_ppm, host.chi_ppm, atol=2e-4 if method in ("lsqr", "ilsqr", "rts") else ROUNDING
    )


@pytest.mark.parametrize(
    "settings",
    [
        published_tv_settings(),
        replace(TV, isotropic=False, fit_offset=True),
        replace(TV, outside=np.inf),
        replace(TV, outside=0.0),
        NltvSettings(variation=replace(TV, fit_offset=True)),
    ],
)
def test_array_api_namespace_gives_the_same_map_with_other_choices(settings):
    small = case(shape=(20, 18, 16))
    host = solve(small, "tv", settings=settings)
    device = solve(small, "tv", settings=settings, namespace=array_api_strict)
    np.testing.assert_allclose(device.chi_ppm, host.chi_ppm, atol=ROUNDING)


def test_acquisition_gives_the_geometry(phantom):
    acquisition = Acquisition.of(Grid(phantom.mask.shape, np.eye(4)), (0.01,), 3.0)
    found = invert_dipole(phantom.field, phantom.mask, acquisition, settings=SETTINGS["tkd"])
    np.testing.assert_array_equal(found.chi_ppm, solve(phantom, "tkd").chi_ppm)
    with pytest.raises(ValueError, match="acquisition, or both"):
        invert_dipole(phantom.field, phantom.mask, settings=TV, voxel_size_mm=SIZES)


def test_one_voxel_and_a_field_of_zeros_have_an_answer():
    field, mask = np.zeros((8, 8, 8), dtype=np.float32), np.zeros((8, 8, 8), dtype=bool)
    mask[3, 4, 5] = True
    for method in METHODS:
        found = invert_dipole(field, mask, settings=SETTINGS[method], voxel_size_mm=SIZES, b0_direction=B0)
        assert not found.chi_ppm.any()


def test_bad_input_is_named(phantom):
    def prepare(**changes):
        arguments = {
            "local_field_ppm": phantom.field, "mask": phantom.mask, "voxel_size_mm": SIZES, "b0_direction": B0,
        }  # fmt: skip
        return prepare_dipole_problem(**(arguments | changes))

    with pytest.raises(ValueError, match="mask of the dipole inversion is empty"):
        prepare(mask=np.zeros_like(phantom.mask))
    with pytest.raises(AlignmentError, match=r"mask has shape \(3, 3, 3\)"):
        prepare(mask=np.ones((3, 3, 3), dtype=bool))
    with pytest.raises(AlignmentError, match="weight has shape"):
        prepare(weight=np.ones((3, 3, 3)))
    broken = phantom.field.copy()
    broken[20, 20, 18] = np.nan
    with pytest.raises(ValueError, match="local field is not finite in 1 voxels"):
        prepare(local_field_ppm=broken)
    with pytest.raises(ValueError, match="weights of at least 0"):
        prepare(weight=-np.ones(phantom.mask.shape))
    with pytest.raises(ValueError, match="All weights inside the mask are 0"):
        prepare(weight=np.zeros(phantom.mask.shape))
    with pytest.raises(ValueError, match="voxel sizes above 0"):
        prepare(voxel_size_mm=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="unit vector"):
        prepare(b0_direction=(0.0, 0.0, 2.0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: TkdSettings(threshold=0.0),
        lambda: LsqrSettings(full_percentile=99.95),
        lambda: IlsqrSettings(cone=0.5),
        lambda: IlsqrSettings(smooth_percentile=80.0),
        lambda: TvSettings(regularisation=0.0),
        lambda: TvSettings(relaxation=2.0),
        lambda: TvSettings(outside=-1.0),
        lambda: RtsSettings(threshold=0.7),
        lambda: RtsSettings(fidelity=0.0),
        lambda: NltvSettings(radians_per_ppm=0.0),
        lambda: NltvSettings(variation=published_tv_settings()),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match=r"xpected|must be"):
        make()
