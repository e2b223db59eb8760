"""Background removals against their definitions read literally, harmonic fields in closed form, and bad input."""

import numpy as np
import pytest
from scipy import ndimage

from brainlocus.core.gradient_echo import Acquisition
from brainlocus.core.volumes import Grid
from brainlocus.images.qsm.background import remove_background_field
from brainlocus.images.qsm.lbv import LbvSettings, negative_laplacian
from brainlocus.images.qsm.local_field import crop_to_mask, interior
from brainlocus.images.qsm.parabola import ParabolaSettings, parabola_coefficient
from brainlocus.images.qsm.pdf import PdfSettings, outside_operator
from brainlocus.images.qsm.polynomial import PolynomialSettings
from brainlocus.images.qsm.resharp import ResharpSettings, sharp_normal
from brainlocus.images.qsm.spheres import ball_spectrum, ball_weights, inside_ball
from brainlocus.images.qsm.vsharp import SharpSettings, VSharpSettings, ball_shells, radii_mm
from brainlocus.numerics import FourierBox, dipole_field, fast_length
from tests.reference.qsm_background import ball_offsets, dense, naive_lbv, naive_vsharp

UKB_VOXEL = (0.8, 0.8, 3.0)
EVERY_METHOD = [
    VSharpSettings(),
    VSharpSettings(harmonic_degree=4),
    SharpSettings(),
    ResharpSettings(),
    ResharpSettings(max_radius_mm=9.0, min_radius_mm=None),
    PdfSettings(),
    LbvSettings(),
    PolynomialSettings(),
    ParabolaSettings(),
    [LbvSettings(), VSharpSettings()],
    [ParabolaSettings(), PdfSettings()],
]


ROUGH = PolynomialSettings | ParabolaSettings
"""Steps that take a smooth part away, not the background."""


def names(settings):
    return "+".join(type(s).__name__ for s in (settings if isinstance(settings, list) else [settings]))


def acquisition(shape, voxel_size_mm=(1.0, 1.0, 1.0), rotation=None):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) @ np.diag(voxel_size_mm)
    return Acquisition.of(Grid(tuple(shape), affine), (0.0094, 0.02), 3.0)


def positions(shape, voxel_size_mm):
    """Millimetres from the middle of the image."""
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, voxel_size_mm, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def ellipsoid(shape, voxel_size_mm, radii, centre=(0.0, 0.0, 0.0)):
    squares = [((x - c) / r) ** 2 for x, c, r in zip(positions(shape, voxel_size_mm), centre, radii, strict=True)]
    return sum(squares) <= 1


def head(shape=(50, 58, 46), h=2.0, direction=(0.0, 0.0, 1.0)):
    """Brain mask, field of two spheres inside it, and of an air cavity below it; ppm."""
    size = (h, h, h)
    mask = ellipsoid(shape, size, (40.0, 48.0, 36.0))
    inside = 0.1 * ellipsoid(shape, size, (7.0, 7.0, 7.0), (14.0, 4.0, 3.0))
    inside -= 0.05 * ellipsoid(shape, size, (6.0, 9.0, 6.0), (-12.0, -8.0, 5.0))
    air = 9.0 * ellipsoid(shape, size, (8.0, 8.0, 8.0), (0.0, 30.0, -38.0))
    air[mask] = 0
    local = dipole_field(inside.astype(np.float32), size, direction)
    return mask, local, dipole_field(air.astype(np.float32), size, direction)


HEAD = head()
HEAD_ACQUISITION = acquisition((50, 58, 46), (2.0, 2.0, 2.0))


def share_left(result, expected, core):
    """RMS of result minus expected over RMS of expected, mean removed, in `core`."""
    found, wanted = result[core], expected[core]
    return float(np.std(found - wanted) / np.std(wanted))


# Balls


@pytest.mark.parametrize(
    ("size", "radius"), [((1.0, 1.0, 1.0), 3.0), (UKB_VOXEL, 3.0), (UKB_VOXEL, 6.0), ((1.5, 1.0, 2.0), 5.0)]
)
def test_balls_are_drawn_in_millimetres(size, radius):
    assert int(inside_ball(size, radius).sum()) == len(ball_offsets(size, radius))


def test_a_ukb_ball_is_wide_in_plane_and_flat_across_slices():
    assert inside_ball(UKB_VOXEL, 12.0).shape == (31, 31, 9)


@pytest.mark.parametrize("degree", [2, 4])
@pytest.mark.parametrize(
    ("size", "radius"), [((1.0, 1.0, 1.0), 3.0), (UKB_VOXEL, 5.0), (UKB_VOXEL, 12.0), ((1.5, 1.5, 1.5), 4.0)]
)
def test_weighted_balls_have_the_mean_value_property(size, radius, degree):
    weights = ball_weights(size, radius, degree)
    x, y, z = positions(weights.shape, size)
    harmonic = [x, y * z, x**2 - z**2, x**2 + y**2 - 2 * z**2, x**3 - 3 * x * y**2]
    if degree == 4:
        harmonic += [x**4 - 6 * x**2 * z**2 + z**4, x**4 - 6 * x**2 * y**2 + y**4, x * y * (x**2 - y**2)]
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert weights[inside_ball(size, radius)].min() > 0
    for polynomial in harmonic:
        assert (weights * polynomial).sum() == pytest.approx(0, abs=1e-10 * radius**4)


def test_plain_balls_on_thick_slices_lack_it():
    """The reason for weights: at 0.8 x 0.8 x 3 mm, a 3 mm ball sees x^2 - z^2 as a fifth of its radius squared."""
    weights = ball_weights(UKB_VOXEL, 3.0)
    x, _, z = positions(weights.shape, UKB_VOXEL)
    assert (weights * (x**2 - z**2)).sum() == pytest.approx(0.2 * 9, rel=0.05)


def test_a_ball_too_small_for_a_degree_takes_the_one_below():
    """Six neighbours cannot average x^4 - 6 x^2 y^2 + y^4 to 0 but with all weight in the middle."""
    np.testing.assert_allclose(ball_weights((1.0, 1.0, 1.0), 1.0, 4), ball_weights((1.0, 1.0, 1.0), 1.0, 0), atol=1e-12)


def test_ball_spectrum_is_the_transform_of_the_weights():
    box = FourierBox.around((9, 11, 7), UKB_VOXEL, 8.0)
    weights = ball_weights(UKB_VOXEL, 5.0)
    kernel = np.zeros(box.padded)
    for step in ball_offsets(UKB_VOXEL, 5.0):
        kernel[step] += weights.max()
    np.testing.assert_allclose(ball_spectrum(box, 5.0), np.fft.rfftn(kernel), atol=1e-6)


def test_a_ball_larger_than_its_box_is_refused():
    with pytest.raises(ValueError, match=r"A ball of 12 mm spans .* more than the padded box"):
        ball_spectrum(FourierBox.around((8, 8, 8), (1.0, 1.0, 1.0)), 12.0)


# Radii and masks


def test_radii_fall_from_the_largest_and_end_at_the_largest_voxel_edge():
    assert radii_mm(12.0, None, 1.0, UKB_VOXEL) == tuple(float(r) for r in range(12, 2, -1))
    assert radii_mm(6.0, None, 2.0, (1.5, 1.5, 1.5)) == (6.0, 4.0, 2.0, 1.5)
    assert radii_mm(6.0, 6.0, 1.0, (1.5, 1.5, 1.5)) == (6.0,)


@pytest.mark.parametrize(
    "settings",
    [
        VSharpSettings(min_radius_mm=1.0),
        SharpSettings(radius_mm=2.0),
        ResharpSettings(max_radius_mm=6.0, min_radius_mm=2.9),
    ],
)
def test_a_radius_below_the_largest_voxel_edge_is_refused(settings):
    shape = (40, 40, 12)
    with pytest.raises(
        ValueError, match=r"Background-field removal: a radius of .* below the largest voxel edge, 3 mm"
    ):
        remove_background_field(
            np.zeros(shape, np.float32), np.ones(shape, bool), acquisition(shape, UKB_VOXEL), settings=settings
        )


@pytest.mark.parametrize(("largest", "smallest", "step"), [(3.0, 5.0, 1.0), (6.0, 3.0, 0.0), (6.0, 3.0, float("nan"))])
def test_radii_out_of_order_are_refused(largest, smallest, step):
    with pytest.raises(ValueError, match="largest radius of at least the smallest and a positive step"):
        radii_mm(largest, smallest, step, (1.0, 1.0, 1.0))


@pytest.mark.parametrize(("shape", "size"), [((21, 24, 19), (1.0, 1.0, 1.0)), ((25, 22, 9), UKB_VOXEL)])
def test_shells_hold_the_largest_ball_that_fits(shape, size):
    generator = np.random.default_rng(0)
    mask = ellipsoid(shape, size, [n * h / 2 for n, h in zip(shape, size, strict=True)])
    mask &= generator.random(shape) > 0.002
    radii = radii_mm(7.0, None, 1.0, size)
    shells = ball_shells(mask, FourierBox.around(shape, size, 10.0), radii)
    naive = np.zeros(shape)
    padded = np.pad(mask, 8).astype(float)
    for radius in radii[::-1]:
        steps = ball_offsets(size, radius)
        share = sum(np.roll(padded, step, (0, 1, 2)) for step in steps)[8:-8, 8:-8, 8:-8] / len(steps)
        naive[mask & (share > 0.999)] = radius
    found = np.zeros(shape)
    for radius, shell in shells.items():
        found[shell] = radius
    np.testing.assert_array_equal(found, naive)


def test_large_balls_forgive_one_voxel_in_a_thousand_and_small_ones_none():
    mask = np.ones((33, 33, 33), dtype=bool)
    mask[16, 16, 16] = False
    box = FourierBox.around(mask.shape, (1.0, 1.0, 1.0), 14.0)
    assert ball_shells(mask, box, (12.0,))[12.0][16, 16, 17]  # 7153 voxels, 7 forgiven
    assert ball_shells(mask, box, (12.0, 1.0), 1.0)[1.0][16, 16, 18]
    assert not ball_shells(mask, box, (5.0,))[5.0][16, 16, 17]  # 515 voxels


def test_with_all_voxels_asked_for_shells_are_distances_to_the_rim():
    """A ball lies in the mask when the nearest voxel outside is farther than its radius."""
    shape = (40, 36, 14)
    mask = ellipsoid(shape, UKB_VOXEL, (15.0, 14.0, 20.0))
    distance = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=UKB_VOXEL)[1:-1, 1:-1, 1:-1]
    for radius, shell in ball_shells(mask, FourierBox.around(shape, UKB_VOXEL, 15.0), (9.5, 6.0, 3.5), 1.0).items():
        np.testing.assert_array_equal(
            shell, (distance > radius) & (distance <= {9.5: np.inf, 6.0: 9.5, 3.5: 6.0}[radius])
        )


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(ValueError, match="share of a ball above 0 and at most 1"):
        remove_background_field(HEAD[1], HEAD[0], HEAD_ACQUISITION, settings=VSharpSettings(mask_share=share))


# V-SHARP


@pytest.mark.parametrize(("shape", "size"), [((11, 12, 10), (1.0, 1.0, 1.0)), ((15, 14, 5), UKB_VOXEL)])
def test_vsharp_equals_the_naive_one(shape, size):
    generator = np.random.default_rng(1)
    field = generator.normal(size=shape).astype(np.float32)
    mask = ellipsoid(shape, size, [0.5 * n * h for n, h in zip(shape, size, strict=True)])
    settings = VSharpSettings(max_radius_mm=4.0)
    found = remove_background_field(field, mask, acquisition(shape, size), settings=settings)
    used = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {a}))) for a in range(3)]
    assert all(
        u[0] == 0 and u[-1] == n - 1 for u, n in zip(used, shape, strict=True)
    )  # the naive one pads the whole image
    padded = [fast_length(n + int(np.ceil((4.0 + max(size)) / h))) for n, h in zip(shape, size, strict=True)]
    radii = radii_mm(4.0, None, 1.0, size)
    expected, valid = naive_vsharp(field.astype(float), mask, size, radii, settings.threshold, padded)
    np.testing.assert_array_equal(found.mask, valid)
    # Division by kernels down to the threshold of 0.05 enlarges single-precision errors twentyfold.
    np.testing.assert_allclose(found.local_field_ppm, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("size", "degree"), [((1.0, 1.0, 1.0), 0), (UKB_VOXEL, 2), (UKB_VOXEL, 4), ((1.5, 1.5, 1.5), 4)]
)
def test_vsharp_takes_harmonic_polynomials_away(size, degree):
    shape = tuple(int(40 / h) for h in size)
    x, y, z = (p / 20 for p in positions(shape, size))
    harmonic = 1 + x - 2 * y + x * z + x**2 - z**2 + (2 * z**3 - 3 * z * (x**2 + y**2))
    if degree == 4:
        harmonic += 8 * z**4 - 24 * z**2 * (x**2 + y**2) + 3 * (x**2 + y**2) ** 2
    mask = ellipsoid(shape, size, (19.0, 19.0, 19.0))
    settings = VSharpSettings(
        max_radius_mm=8.0, min_radius_mm=4.0 if degree < 4 else 5.0, harmonic_degree=degree, mask_share=1.0
    )
    found = remove_background_field(harmonic.astype(np.float32), mask, acquisition(shape, size), settings=settings)
    assert harmonic[mask].std() > 0.5
    assert np.abs(found.local_field_ppm).max() < 2e-5


def test_vsharp_with_one_radius_is_sharp():
    mask, local, outside = HEAD
    field = local + outside
    one = remove_background_field(field, mask, HEAD_ACQUISITION, settings=SharpSettings(radius_mm=6.0))
    settings = VSharpSettings(max_radius_mm=6.0, min_radius_mm=6.0)
    same = remove_background_field(field, mask, HEAD_ACQUISITION, settings=settings)
    np.testing.assert_array_equal(one.local_field_ppm, same.local_field_ppm)


def test_a_higher_threshold_gives_up_more_of_the_spectrum():
    mask, local, _ = HEAD
    power = [
        float(
            (
                remove_background_field(
                    local, mask, HEAD_ACQUISITION, settings=VSharpSettings(threshold=t)
                ).local_field_ppm
                ** 2
            ).sum()
        )
        for t in (0.02, 0.3, 0.8)
    ]
    assert power[0] > power[1] > power[2] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (VSharpSettings(threshold=-0.1), "threshold of at least 0, found -0.1"),
        (VSharpSettings(harmonic_degree=3), "harmonic degree of 0, 2 or 4, found 3"),
    ],
)
def test_impossible_vsharp_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        remove_background_field(HEAD[1], HEAD[0], HEAD_ACQUISITION, settings=settings)


# RESHARP


def test_resharp_operator_is_symmetric_and_positive():
    shape, size = (15, 12, 9), (1.0, 1.5, 2.0)
    mask = ellipsoid(shape, size, (8.0, 8.0, 8.0))
    box = FourierBox.around(shape, size, 6.0)
    apply = sharp_normal(box, mask, ball_shells(mask, box, (4.0, 3.0, 2.0)), 2)
    generator = np.random.default_rng(2)
    x, y = (np.where(mask, generator.normal(size=shape), 0).astype(np.float32) for _ in range(2))
    left, right = float((apply(x) * y).sum()), float((x * apply(y)).sum())
    assert left == pytest.approx(right, rel=1e-5)
    assert float((apply(x) * x).sum()) > 0


def test_resharp_equals_a_dense_solution():
    shape = (9, 8, 7)
    mask = np.ones(shape, dtype=bool)
    mask[0, 0] = False
    field = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    settings = ResharpSettings(
        max_radius_mm=2.0, min_radius_mm=1.0, step_mm=1.0, regularisation=0.02, tolerance=1e-5, max_iterations=400
    )
    found = remove_background_field(field, mask, acquisition(shape), settings=settings)
    box = FourierBox.around(shape, (1.0, 1.0, 1.0), 3.0)
    shells = ball_shells(mask, box, (2.0, 1.0))
    rows = []
    for radius, shell in shells.items():
        steps = ball_offsets((1.0, 1.0, 1.0), radius)
        for voxel in np.argwhere(shell):
            row = np.zeros(shape)
            row[tuple(voxel)] += 1
            for step in steps:
                row[tuple(voxel + step)] -= 1 / len(steps)
            rows.append(row.ravel())
    high_pass = np.array(rows)
    normal = high_pass.T @ high_pass
    expected = np.linalg.solve(normal + 0.02 * np.eye(field.size), normal @ field.ravel().astype(float)).reshape(shape)
    assert found.converged
    np.testing.assert_allclose(found.local_field_ppm[found.mask], expected[found.mask], atol=2e-4)


def test_regularisation_shrinks_the_local_field():
    mask, local, outside = HEAD
    spread = [
        remove_background_field(
            local + outside, mask, HEAD_ACQUISITION, settings=ResharpSettings(regularisation=r)
        ).local_field_ppm.std()
        for r in (1e-3, 1e-1, 10.0)
    ]
    assert spread[0] > spread[1] > spread[2] > 0


def test_negative_regularisation_is_refused():
    with pytest.raises(ValueError, match="regularisation of at least 0, found -1"):
        remove_background_field(HEAD[1], HEAD[0], HEAD_ACQUISITION, settings=ResharpSettings(regularisation=-1.0))


# PDF


@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), (0.36, 0.48, 0.8)])
def test_pdf_operator_and_its_adjoint(direction):
    shape, size = (11, 9, 8), (1.0, 0.8, 3.0)
    mask = ellipsoid(shape, size, (5.0, 3.0, 10.0))
    box = FourierBox.around(shape, size, 6.0)
    field_of, source_of = outside_operator(box, mask, direction)
    generator = np.random.default_rng(4)
    chi = generator.normal(size=box.padded).astype(np.float32)
    field = generator.normal(size=shape).astype(np.float32)
    assert float((field_of(chi) * field).sum()) == pytest.approx(
        float((chi * source_of(field)).sum()), rel=1e-4, abs=1e-5
    )
    assert not source_of(field)[: shape[0], : shape[1], : shape[2]][mask].any()


def test_pdf_equals_a_dense_least_squares():
    shape = (5, 4, 4)
    mask = np.zeros(shape, dtype=bool)
    mask[1:4, 1:3, 1:3] = True
    generator = np.random.default_rng(5)
    field = generator.normal(size=shape).astype(np.float32)
    weight = generator.uniform(0.5, 2, shape).astype(np.float32)
    crop, chosen = (3, 2, 2), (slice(1, 4), slice(1, 3), slice(1, 3))
    box = FourierBox.around(crop, (1.0, 1.0, 1.0), 2.0)
    field_of, _ = outside_operator(box, mask[chosen], (0.0, 0.0, 1.0))
    matrix = dense(field_of, box.padded) * weight[chosen].ravel()[:, None]
    # More sources than voxels: conjugate gradients from 0 end at the fit of least norm, here of the field itself.
    chi = np.linalg.pinv(matrix, rcond=1e-4) @ (weight * field)[chosen].ravel()
    expected = field[chosen] - field_of(chi.reshape(box.padded).astype(np.float32))
    settings = PdfSettings(tolerance=1e-5, max_iterations=200, padding_mm=1.0, peel=0)
    found = remove_background_field(field, mask, acquisition(shape), settings=settings, weight=weight)
    np.testing.assert_allclose(found.local_field_ppm[chosen], expected, atol=2e-3)


def test_pdf_trusts_voxels_by_their_weight():
    """A patch of wild field with weight next to 0 changes little elsewhere; with full weight it does."""
    mask, local, outside = HEAD
    field = local + outside
    wild = ellipsoid(mask.shape, (2.0, 2.0, 2.0), (6.0, 6.0, 6.0), (0.0, -42.0, 0.0)) & mask
    spoiled = np.where(wild, np.float32(3), field)
    low = np.where(wild, np.float32(1e-3), np.float32(1))
    settings = PdfSettings(tolerance=0.02)
    core = interior(interior(mask)) & ~ndimage.binary_dilation(wild, iterations=2)
    clean = remove_background_field(field, mask, HEAD_ACQUISITION, settings=settings).local_field_ppm
    change = [
        np.abs(
            remove_background_field(spoiled, mask, HEAD_ACQUISITION, settings=settings, weight=w).local_field_ppm
            - clean
        )[core].mean()
        for w in (low, None)
    ]
    assert change[0] < 0.2 * change[1]


@pytest.mark.parametrize("value", [-1.0, np.nan, 0.0])
def test_impossible_weights_are_refused(value):
    mask, local, _ = HEAD
    with pytest.raises(ValueError, match="expected a weight that is finite and at least 0"):
        remove_background_field(
            local, mask, HEAD_ACQUISITION, settings=PdfSettings(), weight=np.full(mask.shape, value, np.float32)
        )


# LBV


@pytest.mark.parametrize(("shape", "size"), [((12, 10, 11), (1.0, 1.0, 1.0)), ((13, 12, 7), UKB_VOXEL)])
def test_lbv_equals_a_sparse_direct_solution(shape, size):
    field = np.random.default_rng(6).normal(size=shape).astype(np.float32)
    mask = ellipsoid(shape, size, [0.5 * n * h for n, h in zip(shape, size, strict=True)])
    settings = LbvSettings(peel=0, tolerance=1e-6)
    found = remove_background_field(field, mask, acquisition(shape, size), settings=settings)
    expected, inside = naive_lbv(field.astype(float), mask, size)
    np.testing.assert_array_equal(found.mask, inside)
    np.testing.assert_allclose(found.local_field_ppm, expected, atol=3e-5)
    assert found.converged
    assert found.n_iterations > 0


def test_lbv_takes_a_dipole_field_away_but_for_the_stencil():
    """Between a dipole outside, harmonic in the continuum, and its 7-point solution lies the stencil's error."""
    shape, size = (40, 40, 40), (1.0, 1.0, 1.0)
    x, y, z = positions(shape, size)
    z = z + 40
    distance = np.sqrt(x**2 + y**2 + z**2)
    dipole = (1e4 * (3 * z**2 / distance**2 - 1) / distance**3).astype(np.float32)
    mask = ellipsoid(shape, size, (18.0, 18.0, 18.0))
    found = remove_background_field(dipole, mask, acquisition(shape), settings=LbvSettings(peel=0, tolerance=1e-5))
    assert found.local_field_ppm[found.mask].std() < 1e-3 * dipole[mask].std()


def test_lbv_peels_layers():
    mask, local, _ = HEAD
    masks = [remove_background_field(local, mask, HEAD_ACQUISITION, settings=LbvSettings(peel=n)).mask for n in (0, 2)]
    np.testing.assert_array_equal(masks[0], interior(mask))
    np.testing.assert_array_equal(masks[1], interior(interior(interior(mask))))
    with pytest.raises(ValueError, match="layers of at least 0, found -1"):
        remove_background_field(local, mask, HEAD_ACQUISITION, settings=LbvSettings(peel=-1))


def test_laplacian_of_a_quadratic_is_constant_on_voxels_that_are_not_cubes():
    shape, size = (8, 7, 6), (1.0, 2.0, 3.0)
    x, y, z = positions(shape, size)
    image = (x**2 + 2 * y**2 - z**2).astype(np.float32)
    inner = negative_laplacian(size)(image)[1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(inner, -4.0, atol=1e-4)  # 2 + 4 - 2


# Polynomial


def test_polynomial_is_taken_away_exactly_and_its_order_holds():
    shape, size = (20, 18, 9), (1.0, 1.0, 3.0)
    x, y, z = positions(shape, size)
    mask = ellipsoid(shape, size, (9.0, 8.0, 12.0))
    cubic = (1 + x * y - 0.1 * z**2 + 0.01 * x**2 * z).astype(np.float32)
    left = [
        np.abs(
            remove_background_field(
                cubic, mask, acquisition(shape, size), settings=PolynomialSettings(order=n)
            ).local_field_ppm
        ).max()
        for n in (2, 3)
    ]
    assert left[0] > 0.1
    assert left[1] < 1e-4


def test_polynomial_needs_as_many_voxels_as_coefficients():
    mask = np.zeros((6, 6, 6), dtype=bool)
    mask[:2, :2, :2] = True
    with pytest.raises(ValueError, match=r"order 2 \(10 coefficients\) and 8 voxels"):
        remove_background_field(
            np.zeros(mask.shape, np.float32), mask, acquisition(mask.shape), settings=PolynomialSettings()
        )


# Parabola


@pytest.mark.parametrize("size", [(2.0, 2.0, 2.0), (1.6, 1.6, 4.0)])
def test_the_parabola_is_found_whatever_the_harmonic_rest(size):
    shape = tuple(int(90 / h) for h in size)
    x, y, z = positions(shape, size)
    mask = ellipsoid(shape, size, (42.0, 40.0, 38.0))
    harmonic = 0.1 + 0.01 * x - 2e-4 * (x**2 - z**2) + 1e-4 * y * z + 3e-6 * (x**3 - 3 * x * y**2)
    planted = -1.5e-5
    field = (harmonic + planted * (x**2 + y**2 + z**2)).astype(np.float32)
    cropped = crop_to_mask(field, mask)
    assert parabola_coefficient(cropped, size, 16.0) == pytest.approx(planted, rel=0.01)
    found = remove_background_field(field, mask, acquisition(shape, size), settings=ParabolaSettings())
    rest = (found.local_field_ppm - harmonic)[mask]
    assert np.ptp(rest) < 0.02 * abs(planted) * 42**2  # a constant remains: x counts from the mask's middle
    np.testing.assert_array_equal(found.mask, mask)


def test_a_parabola_would_pass_for_a_local_field_and_local_fields_hardly_for_a_parabola():
    mask, local, outside = HEAD
    x, y, z = positions(mask.shape, (2.0, 2.0, 2.0))
    bowl = (-1.5e-5 * (x**2 + y**2 + z**2)).astype(np.float32)
    core = ellipsoid(mask.shape, (2.0, 2.0, 2.0), (26.0, 32.0, 24.0))
    left = [
        share_left(
            remove_background_field(local + outside + bowl, mask, HEAD_ACQUISITION, settings=s).local_field_ppm,
            local,
            core,
        )
        for s in (PdfSettings(), [ParabolaSettings(), PdfSettings()])
    ]
    assert left[0] > 0.5
    assert left[1] < 0.2
    assert abs(parabola_coefficient(crop_to_mask(local, mask), (2.0, 2.0, 2.0), 16.0)) < 0.05 * 1.5e-5


def test_a_small_mask_halves_the_parabolas_ball():
    mask = ellipsoid((20, 20, 20), (2.0, 2.0, 2.0), (11.0, 11.0, 11.0))
    x, y, z = positions(mask.shape, (2.0, 2.0, 2.0))
    bowl = (2e-5 * (x**2 + y**2 + z**2)).astype(np.float32)
    assert parabola_coefficient(crop_to_mask(bowl, mask), (2.0, 2.0, 2.0), 16.0) == pytest.approx(2e-5, rel=0.01)


# All methods


@pytest.mark.parametrize("settings", [s for s in EVERY_METHOD if not isinstance(s, ROUGH)], ids=names)
def test_outside_sources_go_and_inside_sources_stay(settings):
    mask, local, outside = HEAD
    core = ellipsoid(mask.shape, (2.0, 2.0, 2.0), (26.0, 32.0, 24.0))
    gone = remove_background_field(outside, mask, HEAD_ACQUISITION, settings=settings)
    kept = remove_background_field(local, mask, HEAD_ACQUISITION, settings=settings)
    assert (gone.mask & core).sum() == core.sum()
    assert np.std(gone.local_field_ppm[core]) < 0.06 * np.std(outside[core])
    assert share_left(kept.local_field_ppm, local, core) < 0.3
    assert not kept.local_field_ppm[~kept.mask].any()
    assert (kept.mask & ~mask).sum() == 0


@pytest.mark.parametrize("settings", EVERY_METHOD, ids=names)
def test_twice_the_field_has_twice_the_local_field(settings):
    mask, local, outside = HEAD
    one = remove_background_field(local + outside, mask, HEAD_ACQUISITION, settings=settings).local_field_ppm
    two = remove_background_field(2 * (local + outside), mask, HEAD_ACQUISITION, settings=settings).local_field_ppm
    np.testing.assert_allclose(two, 2 * one, atol=2e-5)


@pytest.mark.parametrize("settings", EVERY_METHOD, ids=names)
@pytest.mark.parametrize("change", ["flip", "permute"])
def test_axis_flips_and_permutations_change_nothing(settings, change):
    mask, local, outside = HEAD
    plain = remove_background_field(local + outside, mask, HEAD_ACQUISITION, settings=settings)
    order = (2, 0, 1) if change == "permute" else (0, 1, 2)

    def turn(image):
        return np.ascontiguousarray(image.transpose(order) if change == "permute" else image[::-1, :, ::-1])

    rotation = np.eye(3)[:, list(order)] if change == "permute" else np.diag([-1.0, 1.0, -1.0])
    turned = remove_background_field(
        turn(local + outside),
        turn(mask),
        acquisition(turn(mask).shape, (2.0, 2.0, 2.0), rotation),
        settings=settings,
    )
    np.testing.assert_array_equal(turned.mask, turn(plain.mask))
    # Sums run in another order; the outside field reaches 2 ppm, and a solver may stop one iteration apart.
    np.testing.assert_allclose(turned.local_field_ppm, turn(plain.local_field_ppm), atol=2e-4)


@pytest.mark.parametrize("settings", EVERY_METHOD, ids=names)
def test_odd_shapes_thick_slices_and_an_oblique_field(settings):
    shape, size = (59, 63, 21), (1.6, 1.6, 4.0)
    c, s = np.cos(0.4), np.sin(0.4)
    rotation = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    oblique = acquisition(shape, size, rotation)
    assert oblique.oblique_degrees > 20
    mask = ellipsoid(shape, size, (42.0, 44.0, 36.0))
    inside = 0.1 * ellipsoid(shape, size, (8.0, 8.0, 8.0))
    local = dipole_field(inside.astype(np.float32), size, oblique.b0_direction)
    air = (9.0 * ellipsoid(shape, size, (8.0, 8.0, 8.0), (0.0, 38.0, -34.0)) * ~mask).astype(np.float32)
    total = local + dipole_field(air, size, oblique.b0_direction)
    found = remove_background_field(total, mask, oblique, settings=settings)
    core = ellipsoid(shape, size, (20.0, 20.0, 20.0))
    assert share_left(found.local_field_ppm, local, core) < (3.0 if isinstance(settings, ROUGH) else 0.35)


@pytest.mark.parametrize("settings", EVERY_METHOD, ids=names)
def test_workers_and_the_field_outside_the_mask_change_nothing(settings):
    mask, local, outside = HEAD
    field = local + outside
    spoiled = np.where(mask, field, np.float32(np.nan))
    one = remove_background_field(field, mask, HEAD_ACQUISITION, settings=settings)
    two = remove_background_field(spoiled, mask, HEAD_ACQUISITION, settings=settings, workers=2)
    np.testing.assert_array_equal(one.local_field_ppm, two.local_field_ppm)
    assert one.local_field_ppm.dtype == np.float32


@pytest.mark.parametrize("settings", EVERY_METHOD, ids=names)
def test_bad_fields_and_masks_are_named(settings):
    mask, local, _ = HEAD
    run = lambda f, m: remove_background_field(f, m, HEAD_ACQUISITION, settings=settings)  # noqa: E731
    with pytest.raises(ValueError, match=r"Background-field removal: the mask is empty"):
        run(local, np.zeros_like(mask))
    hole = local.copy()
    hole[25, 29, 23] = np.nan
    with pytest.raises(ValueError, match=r"Background-field removal: the field is not finite in 1 voxels of the mask"):
        run(hole, mask)
    with pytest.raises(ValueError, match=r"Background-field removal: the field has shape .*, the mask \(49, 58, 46\)"):
        run(local, mask[:-1])


@pytest.mark.parametrize("settings", [s for s in EVERY_METHOD if not isinstance(s, PolynomialSettings)], ids=names)
def test_a_mask_too_thin_is_named(settings):
    mask = np.zeros(HEAD[0].shape, dtype=bool)
    mask[10:40, 10:40, 20] = True
    with pytest.raises(ValueError, match=r"Background-field removal: no (ball of|voxel of the mask)"):
        remove_background_field(HEAD[1], mask, HEAD_ACQUISITION, settings=settings)


def test_a_small_mask_uses_the_balls_that_fit():
    """No ball of 12 mm fits a mask 15 mm across: the largest that does is used, and undone."""
    mask = ellipsoid(HEAD[0].shape, (2.0, 2.0, 2.0), (7.5, 7.5, 7.5), (14.0, 4.0, 3.0))
    found = remove_background_field(HEAD[1], mask, HEAD_ACQUISITION, settings=VSharpSettings())
    assert found.mask.any()
    assert np.isfinite(found.local_field_ppm).all()


def test_methods_run_one_after_another():
    mask, local, outside = HEAD
    first = remove_background_field(local + outside, mask, HEAD_ACQUISITION, settings=LbvSettings())
    second = remove_background_field(
        first.local_field_ppm, first.mask, HEAD_ACQUISITION, settings=VSharpSettings(max_radius_mm=6.0)
    )
    both = remove_background_field(
        local + outside, mask, HEAD_ACQUISITION, settings=[LbvSettings(), VSharpSettings(max_radius_mm=6.0)]
    )
    np.testing.assert_array_equal(both.local_field_ppm, second.local_field_ppm)
    assert both.n_iterations == first.n_iterations
    with pytest.raises(ValueError, match="at least one method's settings"):
        remove_background_field(local, mask, HEAD_ACQUISITION, settings=[])


def test_a_solver_that_stops_early_says_so():
    mask, local, outside = HEAD
    for settings in (PdfSettings(max_iterations=2), ResharpSettings(max_iterations=2), LbvSettings(max_iterations=2)):
        found = remove_background_field(local + outside, mask, HEAD_ACQUISITION, settings=settings)
        assert (found.n_iterations, found.converged) == (2, False)


def test_field_and_acquisition_share_a_shape():
    with pytest.raises(ValueError, match=r"the acquisition \(50, 58, 46\)"):
        remove_background_field(
            np.zeros((4, 4, 4), np.float32), np.ones((4, 4, 4), bool), HEAD_ACQUISITION, settings=VSharpSettings()
        )
