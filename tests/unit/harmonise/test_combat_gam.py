"""ComBat-GAM against a literal version, neuroHarmonize, a planted truth, and on real tables."""

from pathlib import Path

import numpy as np
import pytest

from brainlocus.cohort.harmonise import (
    CombatOptions,
    SmoothOptions,
    apply_combat,
    fit_combat,
    preserved_columns,
    site_effects,
    smooth_effect,
)
from brainlocus.cohort.harmonise.smooth import GRID, place_knots, roughness, spline_basis
from tests.archives import read_archive
from tests.real_data import abide, abide_nuisance, real_data
from tests.reference.naive_combat_gam import b_spline, naive_combat_gam

GOLDEN = Path(__file__).parents[2] / "golden" / "neuroharmonize" / "golden.npz"
NAMES = ("age", "sex")


def simulated(seed=0, sizes=(40, 55, 70), p=10, noise=1.0):
    """Sites of different ages, curved effects of age."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(len(sizes)), sizes)
    n = code.size
    age = rng.uniform(15, 60, n) + 15.0 * (code % 3)
    sex = rng.integers(0, 2, n).astype(float)
    curve = np.outer(((age - 45) / 15) ** 2, rng.normal(0, 1, p)) + np.outer(np.sin(age / 10), rng.normal(0, 2, p))
    y = rng.uniform(10, 40, p) + curve + np.outer(sex, rng.normal(0, 0.5, p))
    y += rng.normal(0, 2, (len(sizes), p))[code]
    y += noise * rng.uniform(0.6, 1.6, (len(sizes), p))[code] * rng.standard_normal((n, p))
    return y, np.array([f"s{c}" for c in code]), np.column_stack([age, sex]), curve


def fit(y, site, covariates, *, smooth=("age",), names=NAMES, bounds=None, weight=None, **options):
    terms = tuple(SmoothOptions(name, bounds=bounds, weight=weight) for name in smooth)
    chosen = CombatOptions(smooth=terms, **options)
    return fit_combat(y, site, covariates=covariates, covariate_names=names, options=chosen)


def harmonise(y, site, covariates, **options):
    return apply_combat(fit(y, site, covariates, **options), y, site, covariates=covariates).values


def test_basis_penalty_and_tangents():
    x = np.random.default_rng(0).gamma(2.0, 12.0, 80)
    knots = place_knots(x, SmoothOptions("age", bounds=(-1.0, 200.0)))
    basis = spline_basis(knots, x)
    literal = np.array([[b_spline(k, 3, knots, v) for k in range(10)] for v in x])
    np.testing.assert_allclose(basis, literal, atol=1e-13)
    np.testing.assert_allclose(basis.sum(axis=1), 1.0, rtol=1e-13)
    # Straight lines have no curvature; a parabola's is known: (2)^2 over the range.
    greville = np.array([knots[k + 1 : k + 4].mean() for k in range(10)])
    parabola = np.linalg.lstsq(spline_basis(knots, np.linspace(-1, 200, 99)), np.linspace(-1, 200, 99) ** 2)[0]
    penalty = roughness(knots)
    assert greville @ penalty @ greville == pytest.approx(0, abs=1e-9)
    assert parabola @ penalty @ parabola == pytest.approx(4 * 201, rel=1e-8)
    beyond = spline_basis(knots, np.array([-1.0, -2.0, -3.0, 200.0, 210.0, 220.0]))
    np.testing.assert_allclose(beyond[0] - beyond[1], beyond[1] - beyond[2], atol=1e-12)
    np.testing.assert_allclose(beyond[5] - beyond[4], beyond[4] - beyond[3], atol=1e-12)
    np.testing.assert_allclose(beyond @ greville, [-1, -2, -3, 200, 210, 220], rtol=1e-12)


def test_against_the_literal_version():
    y, site, covariates, _ = simulated(sizes=(30, 35, 40), p=6)
    age = covariates[:, 0]
    model = fit(y, site, covariates)
    grid = GRID * (age.max() - age.min()) ** 3
    clean, weight, edf = naive_combat_gam(y, site, age, covariates[:, 1:], grid)
    np.testing.assert_allclose(model.smooth[0].weight, weight, rtol=1e-12)
    np.testing.assert_allclose(model.smooth[0].edf, edf - 4, rtol=1e-7)  # three sites and sex
    np.testing.assert_allclose(apply_combat(model, y, site, covariates=covariates).values, clean, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("eb", {}),
        ("no_eb", {"eb": False}),
        ("reference_b", {"reference": "b"}),
        ("bounds_5_97", {"bounds": (5.0, 97.0)}),
    ],
)
def test_against_neuroharmonize(name, options):
    """Golden numbers of neuroHarmonize 2.5.2 with one weight: tests/golden/neuroharmonize/make_golden.py."""
    golden = read_archive(GOLDEN)
    # statsmodels' penalised least squares takes its alpha twice.
    weight = 2.0 * float(golden["alpha"])
    found = harmonise(golden["features"], golden["site"], golden["covariates"], weight=weight, **options)
    np.testing.assert_allclose(found, golden[name], rtol=1e-10)


def test_applying_against_neuroharmonize():
    golden = read_archive(GOLDEN)
    kept = golden["kept"]
    model = fit(golden["features"], golden["site"], golden["covariates"], weight=2.0 * float(golden["alpha"]))
    new = golden["features"][kept] + 1.0
    found = apply_combat(model, new, golden["site"][kept], covariates=golden["covariates"][kept]).values
    np.testing.assert_allclose(found, golden["applied"], rtol=1e-10)


def test_against_neuroharmonize_with_the_weights_of_its_own_search():
    golden = read_archive(GOLDEN)
    assert np.unique(golden["chosen"]).size > 3
    for alpha in np.unique(golden["chosen"]):
        features = golden["chosen"] == alpha
        y = golden["features"][:, features]
        found = harmonise(y, golden["site"], golden["covariates"], weight=2.0 * alpha, eb=False)
        np.testing.assert_allclose(found, golden["own_choice"][:, features], rtol=1e-8)


def test_planted_curves_are_found_and_sites_go():
    y, site, covariates, curve = simulated(sizes=(300, 300, 300), p=20)
    model = fit(y, site, covariates)
    found = smooth_effect(model.smooth[0], covariates[:, 0])
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    error = found - (curve - curve.mean(axis=0))
    # A curve of about 8 degrees of freedom on 900 people of spread 1.1: 0.1 of a unit.
    assert np.sqrt((error**2).mean()) < 0.15
    clean = apply_combat(model, y, site, covariates=covariates).values
    straight = fit(y, site, covariates, smooth=())
    columns = preserved_columns(model, covariates)
    assert site_effects(clean, site, covariates=columns).mean_eta2 < 0.002
    left = site_effects(apply_combat(straight, y, site, covariates=covariates).values, site, covariates=columns)
    assert left.mean_eta2 > 0.05


def test_a_straight_effect_keeps_a_straight_line():
    """Without curvature the smoothest weight is the commonest, and with it ComBat-GAM is ComBat."""
    rng = np.random.default_rng(5)
    _, site, covariates, _ = simulated(sizes=(200, 200, 200))
    y = 0.05 * covariates[:, :1] + rng.standard_normal((600, 30))
    model = fit(y, site, covariates)
    # Cross-validation takes the straight line in about half of such features (Wood 2017, 6.2.4).
    assert (model.smooth[0].edf < 1.01).mean() > 0.35
    assert model.smooth[0].edf.mean() < 2.2
    stiff = harmonise(y, site, covariates, weight=1e12)
    np.testing.assert_allclose(stiff, harmonise(y, site, covariates, smooth=()), atol=1e-6)


def test_applying_to_the_training_people_and_to_some_of_them():
    y, site, covariates, _ = simulated()
    model = fit(y, site, covariates)
    whole = apply_combat(model, y, site, covariates=covariates)
    assert whole.extrapolated == ()
    some = np.random.default_rng(1).permutation(y.shape[0])[:17]
    part = apply_combat(
        model, y[some], site[some], covariates=covariates[some][:, ::-1], covariate_names=("sex", "age")
    )
    np.testing.assert_allclose(part.values, whole.values[some], rtol=1e-12)


def test_order_of_people_sites_and_features_and_the_unit_of_age_do_not_matter():
    y, site, covariates, _ = simulated()
    whole = harmonise(y, site, covariates)
    rng = np.random.default_rng(2)
    people, features = rng.permutation(y.shape[0]), rng.permutation(y.shape[1])
    renamed = np.array([{"s0": "zz", "s1": "aa", "s2": "mm"}[s] for s in site])
    moved = harmonise(y[people][:, features], renamed[people], covariates[people])
    np.testing.assert_allclose(moved, whole[people][:, features], rtol=1e-9)
    days = covariates * [365.25, 1.0]
    np.testing.assert_allclose(harmonise(y, site, days), whole, rtol=1e-9)
    here, there = fit(y, site, covariates).smooth[0], fit(y, site, days).smooth[0]
    np.testing.assert_allclose(there.weight, here.weight * 365.25**3, rtol=1e-9)


def test_beyond_the_bounds_the_curve_is_straight_and_counted():
    y, site, covariates, _ = simulated()
    model = fit(y, site, covariates)
    high = covariates[:, 0].max()
    ages = np.array([high, high + 10, high + 20, high + 1000])
    curve = smooth_effect(model.smooth[0], ages)
    step = curve[1] - curve[0]
    np.testing.assert_allclose(curve[2] - curve[1], step, rtol=1e-8)
    np.testing.assert_allclose(curve[3] - curve[0], 100 * step, rtol=1e-8)
    old = covariates.copy()
    old[:5, 0] = high + 10
    old[5:8, 0] = covariates[:, 0].min() - 3
    assert apply_combat(model, y, site, covariates=old).extrapolated == (("age", 8),)
    wide = fit(y, site, covariates, bounds=(0.0, 120.0))
    assert apply_combat(wide, y, site, covariates=old).extrapolated == ()
    assert wide.smooth[0].extent == (0.0, 120.0)


def test_reference_new_and_one_person_sites():
    y, site, covariates, _ = simulated(sizes=(60, 60, 60, 1))
    reference = harmonise(y, site, covariates, reference="s1")
    np.testing.assert_array_equal(reference[site == "s1"], y[site == "s1"])
    model = fit(y, site, covariates)
    assert any("'s3' has 1 person" in note for note in model.notes)
    assert np.isfinite(apply_combat(model, y, site, covariates=covariates).values).all()
    known = np.isin(site, ["s0", "s1"])
    part = fit(y[known], site[known], covariates[known])
    guessed = apply_combat(part, y, site, covariates=covariates, unknown="estimate")
    assert guessed.estimated_sites == ("s2", "s3")
    assert any("'s3' has 1 person" in note for note in guessed.notes)
    assert np.isfinite(guessed.values).all()
    effect = covariates @ part.beta + smooth_effect(part.smooth[0], covariates[:, 0])
    assert site_effects(y - effect, site).mean_eta2 > 0.3
    assert site_effects(guessed.values - effect, site).mean_eta2 < 0.01


def test_missing_values_use_the_people_who_have_the_feature():
    """Without shrinkage each column equals ComBat-GAM on its own people, given the knots of everyone."""
    y, site, covariates, _ = simulated(p=5)
    holes = y.copy()
    holes[np.random.default_rng(3).uniform(size=y.shape) < 0.1] = np.nan
    model = fit(holes, site, covariates, eb=False)
    found = apply_combat(model, holes, site, covariates=covariates).values
    np.testing.assert_array_equal(np.isnan(found), np.isnan(holes))
    knots = model.smooth[0].knots
    splines = spline_basis(knots, covariates[:, 0])
    for k in range(5):
        rows = ~np.isnan(holes[:, k])
        one_hot = np.array([[float(s == t) for t in ("s0", "s1", "s2")] for s in site[rows]])
        design = np.hstack([one_hot, covariates[rows, 1:], splines[rows, 1:]])
        penalty = np.zeros((13, 13))
        penalty[4:, 4:] = roughness(knots)[1:, 1:] * model.smooth[0].weight[k]
        b = np.linalg.solve(design.T @ design + penalty, design.T @ y[rows, k])
        sigma = np.sqrt(((y[rows, k] - design @ b) ** 2).mean())
        assert model.sigma[k] == pytest.approx(sigma, rel=1e-8)
        assert model.beta[1, k] == pytest.approx(b[3], rel=1e-6)
    assert np.isfinite(harmonise(holes, site, covariates)[~np.isnan(holes)]).all()
    empty = holes.copy()
    empty[:, 2] = np.nan
    empty[5:, 3] = np.nan  # fewer people than degrees of freedom
    found = harmonise(empty, site, covariates)
    assert np.isnan(found[:, 2]).all()
    assert np.isfinite(found[:, [0, 1, 4]][~np.isnan(empty[:, [0, 1, 4]])]).all()


def test_ages_in_whole_years_with_ties_and_constant_features():
    y, site, covariates, _ = simulated()
    covariates[:, 0] = np.round(covariates[:, 0] / 12)
    y[:, 3] = 2.5
    model = fit(y, site, covariates)
    assert 5 < np.unique(covariates[:, 0]).size < 10
    assert model.passed_through == ("feature 4",)
    found = apply_combat(model, y, site, covariates=covariates).values
    np.testing.assert_array_equal(found[:, 3], 2.5)
    assert np.isfinite(found).all()


def test_two_smooth_terms():
    rng = np.random.default_rng(8)
    y, site, covariates, curve = simulated(sizes=(200, 200, 200), p=8)
    size = rng.uniform(1000, 2000, 600)
    second = np.outer(np.cos(size / 150), rng.normal(0, 1.5, 8))
    both = np.column_stack([covariates, size])
    names = ("age", "sex", "size")
    model = fit(y + second, site, both, smooth=("age", "size"), names=names)
    for term, truth, x in ((model.smooth[0], curve, both[:, 0]), (model.smooth[1], second, size)):
        error = smooth_effect(term, x) - (truth - truth.mean(axis=0))
        assert np.sqrt((error**2).mean()) < 0.2
    whole = apply_combat(model, y + second, site, covariates=both).values
    turned = fit(y + second, site, both[:, ::-1], smooth=("size", "age"), names=names[::-1])
    other = apply_combat(turned, y + second, site, covariates=both[:, ::-1]).values
    assert np.abs(whole - other).max() < 0.1  # grids of ratios differ slightly
    # At its weights, the fit is the minimiser of the penalised squares.
    one_hot = np.array([[float(s == t) for t in ("s0", "s1", "s2")] for s in site])
    columns = [spline_basis(t.knots, x)[:, 1:] for t, x in zip(model.smooth, (both[:, 0], size), strict=True)]
    design = np.hstack([one_hot, both[:, 1:2], *columns])
    for k in range(8):
        penalty = np.zeros((22, 22))
        for j, term in enumerate(model.smooth):
            part = slice(4 + 9 * j, 13 + 9 * j)
            penalty[part, part] = term.weight[k] * roughness(term.knots)[1:, 1:]
        inverse = np.linalg.inv(design.T @ design + penalty)
        residual = (y + second)[:, k] - design @ (inverse @ design.T @ (y + second)[:, k])
        assert model.sigma[k] == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-8)
        edf = np.diag(inverse @ design.T @ design)
        assert model.smooth[0].edf[k] == pytest.approx(edf[4:13].sum(), rel=1e-6)
        assert model.smooth[1].edf[k] == pytest.approx(edf[13:].sum(), rel=1e-6)


def test_bad_input_is_named():
    y, site, covariates, _ = simulated()
    with pytest.raises(ValueError, match=r"smooth covariate 'icv' is not among the covariates \['age', 'sex'\]"):
        fit(y, site, covariates, smooth=("icv",))
    with pytest.raises(ValueError, match="'sex' has 2 distinct values, a curve needs 5 or more"):
        fit(y, site, covariates, smooth=("sex",))
    with pytest.raises(ValueError, match="Bounds 20 to 97 of the smooth covariate 'age' leave out"):
        fit(y, site, covariates, bounds=(20.0, 97.0))
    with pytest.raises(ValueError, match="at most 3 different smooth covariates"):
        fit(y, site, covariates, smooth=("age", "age"))
    nested = covariates.copy()
    nested[:, 0] = 20.0 + 10.0 * (site == "s1")
    with pytest.raises(ValueError, match="'age' is confounded with the sites"):
        fit(y, site, nested)
    mixed = CombatOptions(smooth=(SmoothOptions("age", weight=1.0), SmoothOptions("sex")))
    with pytest.raises(ValueError, match="for every smooth covariate, or for none"):
        fit_combat(y, site, covariates=covariates, covariate_names=NAMES, options=mixed)


def test_abide_is_no_worse_than_classic_combat():
    """structural.md 4.5: site metrics of ComBat-GAM are at most those of ComBat; age is preserved within 0.01."""
    from tests.unit.harmonise.test_combat import age_r2

    table, names = abide()
    y, site = table[names].to_numpy(dtype=float), table["site"].astype(str).to_numpy(dtype=str)
    nuisance = abide_nuisance(table)
    covariates = np.column_stack([table["age"], nuisance[:, 3:]])
    columns = ("age", "sex", "asd")
    classic = harmonise(y, site, covariates, smooth=(), names=columns)
    model = fit(y, site, covariates, names=columns)
    clean = apply_combat(model, y, site, covariates=covariates).values
    assert (model.smooth[0].edf >= 1).all()
    for adjusted in (nuisance, preserved_columns(model, covariates)):
        before, after = (site_effects(v, site, covariates=adjusted) for v in (classic, clean))
        assert after.mean_eta2 <= before.mean_eta2 or after.mean_eta2 < 0.005
        assert (after.p_location < 0.05).mean() <= (before.p_location < 0.05).mean()
    assert site_effects(clean, site, covariates=nuisance).mean_eta2 < 0.005
    # The age effect within sites stays; what sites added to the rest goes, so that age's share of it grows.
    assert age_r2(clean, nuisance) > age_r2(y, nuisance) - 0.01
    one_hot = (site[:, None] == np.unique(site)[1:]).astype(float)
    inside = [site_age_r2(v, np.column_stack([one_hot, nuisance[:, 3:]]), nuisance[:, :3]) for v in (y, clean)]
    assert inside[1] == pytest.approx(inside[0], abs=0.002)


def site_age_r2(y, base, age):
    """Mean partial R2 of age^1..3 given sites, sex and diagnosis."""

    def rss(columns):
        design = np.column_stack([np.ones(len(y)), columns])
        return ((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum(axis=0)

    return float((1 - rss(np.column_stack([base, age / age.std(axis=0)])) / rss(base)).mean())


def openneuro(part):
    """Thickness, site, and age and sex: the training sites of FCON1000 or a part of six other data sets."""
    import pandas as pd

    folder = "structural/tabular"
    fcon = pd.read_csv(real_data(f"{folder}/fcon1000_destrieux.csv"))
    table = fcon if part == "fcon" else pd.read_csv(real_data(f"{folder}/openneuro6_destrieux_{part}.csv"))
    names = [c for c in fcon.columns if c.endswith("_thickness")]
    site = table["site"].astype(str).to_numpy(dtype=str)
    return table[names].to_numpy(dtype=float), site, table[["age", "sex"]].to_numpy(dtype=float)


def test_fcon1000_is_no_worse_than_classic_combat():
    y, site, covariates = openneuro("fcon")
    model = fit(y, site, covariates)
    clean = apply_combat(model, y, site, covariates=covariates).values
    columns = preserved_columns(model, covariates)
    classic = site_effects(harmonise(y, site, covariates, smooth=()), site, covariates=columns).mean_eta2
    assert site_effects(y, site, covariates=columns).mean_eta2 > 0.2
    assert site_effects(clean, site, covariates=columns).mean_eta2 < classic / 2


def test_six_data_sets_that_are_added_to_fcon1000():
    """A fifth of their people adapts the model; in the others, whom it never saw, the site effects are gone."""
    y, site, covariates = (np.concatenate(both) for both in zip(openneuro("fcon"), openneuro("a"), strict=True))
    model = fit(y, site, covariates, bounds=(5.0, 97.0))
    new, new_site, new_covariates = openneuro("b")
    found = apply_combat(model, new, new_site, covariates=new_covariates)
    assert found.extrapolated == ()
    effect = new_covariates @ model.beta + smooth_effect(model.smooth[0], new_covariates[:, 0])
    before, after = (site_effects(v - effect, new_site).mean_eta2 for v in (new, found.values))
    assert before > 0.2
    assert after < 0.05


def test_six_data_sets_that_the_model_never_saw():
    y, site, covariates = openneuro("fcon")
    model = fit(y, site, covariates, bounds=(5.0, 97.0))
    new, new_site, new_covariates = openneuro("b")
    found = apply_combat(model, new, new_site, covariates=new_covariates, unknown="estimate")
    assert set(found.estimated_sites) == set(new_site)
    effect = new_covariates @ model.beta + smooth_effect(model.smooth[0], new_covariates[:, 0])
    before, after = (site_effects(v - effect, new_site).mean_eta2 for v in (new, found.values))
    assert before > 0.2
    assert after < 0.001
