"""What is drawn of scans: places, thinning, scales, leads, labels and Q-Q curves beside literal readings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from brainlocus.core.text import text_array
from brainlocus.pipeline.figures.gwas import Panel, draw_manhattan, draw_miami, draw_qq
from brainlocus.pipeline.figures.gwas_points import (
    AxisScale,
    genome_layout,
    lead_rows,
    make_scale,
    place_labels,
    place_on_genome,
    qq_band,
    qq_curve,
    qq_curve_of_tests,
    same_sites,
    thin_to_pixels,
)


def test_chromosomes_are_in_order_and_variants_inside_them():
    chromosome = np.array(["X", "2", "MT", "10", "Y", "XY", "2", "GL1"])
    position = np.array([500, 100, 7, 50, 60, 9, 10_100, 3])
    layout = genome_layout(chromosome, position)
    assert layout.names == ("2", "10", "X", "Y", "XY", "MT", "GL1")
    x, number = place_on_genome(layout, chromosome, position)
    assert number.tolist() == [2, 0, 5, 1, 3, 4, 0, 6]
    assert x[1] == 0.0
    assert x[6] == 10_000.0
    assert (x >= layout.start[number]).all()
    assert (x <= layout.stop[number]).all()
    assert (np.diff(layout.start) > 0).all()
    assert (layout.start[1:] > layout.stop[:-1]).all()
    assert place_on_genome(layout, np.array(["5"]), np.array([1]))[1].tolist() == [-1]


def test_one_variant_and_none():
    layout = genome_layout(np.array(["7"]), np.array([1000]))
    assert layout.length > 0
    assert place_on_genome(layout, np.array(["7"]), np.array([1000]))[0][0] == pytest.approx(layout.length / 2)
    assert genome_layout(np.empty(0, dtype="U1"), np.empty(0, dtype=np.int64)).length == 1.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 400))
def test_every_point_left_out_is_under_a_kept_one_of_its_pixel(seed, n):
    rng = np.random.default_rng(seed)
    x, height = rng.uniform(0, 50, n), rng.exponential(2, n)
    kept = thin_to_pixels(x, height, width=50.0, top=float(height.max()), pixels=(13, 7))

    def cell(k):
        return min(int(x[k] / 50 * 13), 12), min(int(height[k] / height.max() * 7), 6)

    highest = {}
    for k in range(n):
        if cell(k) not in highest or height[k] >= height[highest[cell(k)]]:
            highest[cell(k)] = k
    assert kept.tolist() == sorted(highest.values())


@pytest.mark.parametrize("name", ["auto", "linear", "log"])
@pytest.mark.parametrize("top", [3.0, 39.0, 41.0, 400.0, 30_000.0])
def test_scales_rise_and_fit_what_they_show(name, top):
    scale = make_scale(name, [top, 7.3, float("nan")])
    values = np.linspace(0, top, 5_000)
    height = scale.forward(values)
    assert (np.diff(height) > 0).all()
    ticks = scale.ticks()
    assert 2 <= ticks.size <= 20
    assert ticks.max() <= scale.top
    assert (np.diff(ticks) > 0).all()
    assert scale.broken == (name == "auto" and top > 40)
    if scale.broken:  # half of the axis for p down to 1e-20, however small the smallest is
        assert scale.forward(np.array([20.0]))[0] == pytest.approx(scale.forward(np.array([scale.top]))[0] / 2)
        np.testing.assert_array_equal(scale.forward(values[values <= 20]), values[values <= 20])


def naive_leads(chromosome, position, strength, at_least, count):
    left = [k for k in range(len(strength)) if strength[k] >= at_least]
    leads = []
    while left and len(leads) < count:
        best = max(left, key=lambda k: (strength[k], -k))
        leads.append(best)
        left = [k for k in left if chromosome[k] != chromosome[best] or abs(position[k] - position[best]) > 500_000]
    return leads


def test_leads_as_read_literally():
    rng = np.random.default_rng(2)
    chromosome = rng.choice(["1", "2", "X"], 300)
    position = rng.integers(1, 10_000_000, 300)
    strength = np.round(rng.exponential(4, 300), 1)
    for at_least, count in ((5.0, 100), (2.0, 4), (1e9, 5)):
        found = lead_rows(chromosome, position, strength, at_least=at_least, count=count)
        assert found.tolist() == naive_leads(chromosome, position, strength, at_least, count)


def test_sites_of_another_scan():
    found = same_sites(
        np.array(["1", "X"]), np.array([5, 7]), np.array(["1", "2", "X", "X", "1"]), np.array([5, 5, 7, 5, 5])
    )
    assert found.tolist() == [True, False, True, False, True]


@given(st.integers(0, 2**32 - 1), st.integers(0, 15))
def test_labels_do_not_overlap_one_another(seed, n):
    rng = np.random.default_rng(seed)
    x, y, size = rng.uniform(0, 300, n), rng.uniform(0, 60, n), rng.uniform(20, 120, n)
    centre, lower = place_labels(x, y, size, line=10.0, width=300.0)
    assert (lower >= y).all()
    assert ((centre - size / 2 >= -1e-9) & (centre + size / 2 <= 300 + 1e-9)).all()
    for a in range(n):
        for b in range(a):
            beside = abs(centre[a] - centre[b]) >= (size[a] + size[b]) / 2
            assert beside or abs(lower[a] - lower[b]) >= 10.0 - 1e-9


def histogram(values, width=0.01):
    bins, counts = np.unique(np.floor(values / width).astype(int), return_counts=True)
    return bins * width, counts


def test_the_curve_of_a_histogram_is_that_of_its_tests_to_a_bin():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.exponential(1 / np.log(10), 20_000), [12.3, 31.2, 200.0]])
    lower, counts = histogram(np.minimum(values, 40.0))
    curve = qq_curve("y", lower, counts, lambda_gc=1.0, width=0.01, smallest=values[values >= 3.0])
    assert curve.n_tests == values.size
    ordered = np.sort(values)[::-1]
    rank = np.rint(10.0**-curve.expected * (values.size + 1)).astype(int)
    np.testing.assert_allclose(curve.observed, ordered[rank - 1], atol=0.01)
    assert curve.observed[-1] == 200.0
    assert (np.diff(curve.expected) > 0).all()
    assert not np.isfinite(curve.open_above)
    alone = qq_curve("y", lower, counts, lambda_gc=1.0, width=0.01, open_from=39.995)
    assert alone.open_above == pytest.approx(40.0)
    np.testing.assert_allclose(alone.expected[:50], curve.expected[:50])


def test_the_curve_of_tests():
    values = np.random.default_rng(4).exponential(1 / np.log(10), 50_000)
    curve = qq_curve_of_tests("y", np.append(values, np.nan))
    ordered = np.sort(values)[::-1]
    rank = np.rint(10.0**-curve.expected * 50_001).astype(int)
    np.testing.assert_array_equal(curve.observed, ordered[rank - 1])
    assert rank[-1] == 1
    assert rank[0] == 50_000
    expected = np.median(stats.chi2.isf(10.0**-values, 1)) / stats.chi2.ppf(0.5, 1)
    assert curve.lambda_gc == pytest.approx(expected, rel=1e-3)
    assert qq_curve_of_tests("y", np.array([np.nan])).n_tests == 0


def test_the_band_holds_the_order_statistics():
    rng = np.random.default_rng(5)
    expected, low, high = qq_band(100)
    rank = np.rint(10.0**-expected * 101).astype(int)
    p = np.sort(rng.uniform(size=(4_000, 100)), axis=1)[:, rank - 1]
    inside = ((-np.log10(p) >= low) & (-np.log10(p) <= high)).mean(axis=0)
    # 4,000 draws: a standard error of 0.0025 at each of the ranks.
    np.testing.assert_allclose(inside, 0.95, atol=0.013)


def panel(n, **more):
    rng = np.random.default_rng(n)
    chromosome = np.array(["1", "X", "MT"])[np.arange(n) % 3]
    label = text_array([f"rs{k}" for k in range(n)])
    return Panel("y", chromosome, rng.integers(1, 10**8, n), rng.exponential(0.5, n), label, **more)


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


@pytest.mark.parametrize("n", [0, 1, 1_000])
def test_any_number_of_tests_is_drawn_the_same_twice(tmp_path, n):
    some = panel(n, shown_from=2.0 if n == 0 else 0.0, below=np.arange(200)[::-1])
    for name in ("one", "two"):
        draw_manhattan(some, tmp_path / f"{name}-manhattan.png")
        draw_miami(some, panel(3), tmp_path / f"{name}-miami.png", scale="log")
        draw_qq([qq_curve_of_tests("y", some.neg_log10_p)], tmp_path / f"{name}-qq.png")
    for kind in ("manhattan", "miami", "qq"):
        one, two = (tmp_path / f"{name}-{kind}.png" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
        assert png_size(one)[0] >= 600


def test_an_axis_of_thousands_keeps_half_for_the_rest():
    scale = AxisScale("auto", 5_000.0)
    assert scale.forward(np.array([7.3]))[0] == 7.3
    assert scale.forward(np.array([5_000.0]))[0] == pytest.approx(40.0)
