"""ComBat against a literal version, the published program, and on ABIDE."""

from pathlib import Path

import numpy as np
import pytest

from brainlocus.cohort.harmonise import CombatOptions, apply_combat, fit_combat, site_effects
from tests.archives import read_archive
from tests.real_data import abide, abide_nuisance
from tests.reference.naive_combat import naive_combat

GOLDEN = Path(__file__).parents[2] / "golden" / "neurocombat" / "golden.npz"


def simulated(seed=0, sizes=(20, 35, 50), p=12):
    rng = np.random.default_rng(seed)
    site = np.repeat([f"s{k}" for k in range(len(sizes))], sizes)
    n = site.size
    covariates = np.column_stack([rng.uniform(20, 80, n), rng.integers(0, 2, n)]).astype(float)
    shift = rng.normal(0, 2, (len(sizes), p))
    spread = rng.uniform(0.6, 1.6, (len(sizes), p))
    code = np.repeat(np.arange(len(sizes)), sizes)
    y = rng.uniform(10, 40, p) + covariates @ rng.normal(0, 0.05, (2, p))
    y = y + shift[code] + spread[code] * rng.standard_normal((n, p))
    return y, site, covariates


def harmonise(y, site, covariates=None, **options):
    model = fit_combat(y, site, covariates=covariates, options=CombatOptions(**options))
    return apply_combat(model, y, site, covariates=covariates).values


def test_against_the_literal_version():
    y, site, covariates = simulated()
    np.testing.assert_allclose(harmonise(y, site, covariates), naive_combat(y, site, covariates), rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "options", "with_covariates"),
    [
        ("eb", {}, True),
        ("no_eb", {"eb": False}, True),
        ("reference_b", {"reference": "b"}, True),
        ("no_covariates", {}, False),
        ("mean_only_no_eb", {"eb": False, "mean_only": True}, True),
    ],
)
def test_against_neurocombat(name, options, with_covariates):
    """Golden numbers of neuroCombat 0.2.12 on simulated input: tests/golden/neurocombat/make_golden.py."""
    golden = read_archive(GOLDEN)
    covariates = golden["covariates"] if with_covariates else None
    found = harmonise(golden["features"], golden["site"], covariates, **options)
    np.testing.assert_allclose(found, golden[name], rtol=1e-11)


def test_applying_to_the_training_people_is_fit_transform_and_subsets_agree():
    y, site, covariates = simulated()
    model = fit_combat(y, site, covariates=covariates)
    whole = apply_combat(model, y, site, covariates=covariates).values
    some = np.random.default_rng(1).permutation(y.shape[0])[:17]
    part = apply_combat(model, y[some], site[some], covariates=covariates[some]).values
    np.testing.assert_allclose(part, whole[some], rtol=1e-12)
    np.testing.assert_allclose(whole, harmonise(y, site, covariates), rtol=1e-10)


def test_order_of_people_sites_and_features_does_not_matter():
    y, site, covariates = simulated()
    whole = harmonise(y, site, covariates)
    rng = np.random.default_rng(2)
    people, features = rng.permutation(y.shape[0]), rng.permutation(y.shape[1])
    renamed = np.array([{"s0": "zz", "s1": "aa", "s2": "mm"}[s] for s in site])
    moved = harmonise(y[people][:, features], renamed[people], covariates[people])
    np.testing.assert_allclose(moved, whole[people][:, features], rtol=1e-10)
    numbers = np.array([int(s[1:]) for s in site])
    np.testing.assert_array_equal(harmonise(y, numbers, covariates), whole)


def test_reference_site_is_bit_identical():
    y, site, covariates = simulated()
    found = harmonise(y, site, covariates, reference="s1")
    np.testing.assert_array_equal(found[site == "s1"], y[site == "s1"])
    assert np.abs(found[site == "s0"] - y[site == "s0"]).min() > 0


def test_planted_site_effects_go_and_covariate_effects_stay():
    y, site, covariates = simulated(sizes=(200, 300, 250), p=20)
    clean = harmonise(y, site, covariates)
    assert site_effects(y, site, covariates=covariates).mean_eta2 > 0.4
    after = site_effects(clean, site, covariates=covariates)
    assert after.mean_eta2 < 0.01
    assert (after.p_spread > 0.05).mean() > 0.9
    # The slopes of the model and of the harmonised data differ by less than the standard error of a slope.
    centred = covariates - covariates.mean(axis=0)
    slopes = np.linalg.lstsq(centred, clean - clean.mean(axis=0), rcond=None)[0]
    model = fit_combat(y, site, covariates=covariates)
    error = model.sigma / np.sqrt((centred**2).sum(axis=0))[:, None]
    assert (np.abs(slopes - model.beta) < error).all()
    assert (np.abs(model.beta) > 3 * error).any(axis=1).all()


def test_covariates_by_name_in_any_order():
    y, site, covariates = simulated()
    model = fit_combat(y, site, covariates=covariates, covariate_names=["age", "sex"])
    here = apply_combat(model, y, site, covariates=covariates, covariate_names=["age", "sex"]).values
    there = apply_combat(model, y, site, covariates=covariates[:, ::-1], covariate_names=["sex", "age"]).values
    np.testing.assert_array_equal(here, there)
    with pytest.raises(ValueError, match=r"preserves .*age.*sex"):
        apply_combat(model, y, site, covariates=covariates, covariate_names=["age", "bmi"])


def test_mean_only_shrinks_with_the_true_site_sizes():
    y, site, covariates = simulated(sizes=(100, 100), p=30)
    found = harmonise(y, site, covariates, mean_only=True)
    assert site_effects(found, site, covariates=covariates).mean_eta2 < 0.001


def test_missing_values_use_the_people_who_have_the_feature():
    """Without shrinkage features do not talk to each other: each column equals ComBat on its own complete rows."""
    y, site, covariates = simulated()
    holes = y.copy()
    holes[np.random.default_rng(3).uniform(size=y.shape) < 0.1] = np.nan
    holes[:, 0] = y[:, 0]
    found = harmonise(holes, site, covariates, eb=False)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(holes))
    for k in range(y.shape[1]):
        rows = ~np.isnan(holes[:, k])
        alone = harmonise(holes[rows, k : k + 1], site[rows], covariates[rows], eb=False)
        np.testing.assert_allclose(found[rows, k : k + 1], alone, rtol=1e-10)
    with_eb = harmonise(holes, site, covariates)
    assert np.isfinite(with_eb[~np.isnan(holes)]).all()


def test_site_that_lacks_a_feature_and_sites_of_one_person():
    y, site, covariates = simulated(sizes=(1, 30, 40, 3))
    model = fit_combat(y, site, covariates=covariates)
    assert any("'s0' has 1 person" in note for note in model.notes)
    assert any("'s3' has 3 people" in note for note in model.notes)
    np.testing.assert_array_equal(model.delta[0], 1.0)
    assert np.isfinite(apply_combat(model, y, site, covariates=covariates).values).all()
    y[site == "s3", 2] = np.nan
    found = harmonise(y, site, covariates)
    assert np.isnan(found[site == "s3", 2]).all()
    assert np.isfinite(np.delete(found, 2, axis=1)).all()


def test_constant_features_pass_through_and_are_listed():
    y, site, covariates = simulated()
    y[:, 4] = 7.25
    model = fit_combat(y, site, covariates=covariates, feature_names=[f"f{k}" for k in range(12)])
    assert model.passed_through == ("f4",)
    found = apply_combat(model, y, site, covariates=covariates).values
    np.testing.assert_array_equal(found[:, 4], 7.25)
    others = np.delete(y, 4, axis=1)
    np.testing.assert_allclose(np.delete(found, 4, axis=1), harmonise(others, site, covariates), rtol=1e-12)


def test_feature_constant_within_one_site():
    y, site, _ = simulated()
    y[site == "s0", 3] = 5.0
    model = fit_combat(y, site)
    assert any("constant within a site ('s0')" in note for note in model.notes)
    assert np.isfinite(apply_combat(model, y, site).values).all()


def test_one_feature_has_no_shrinkage():
    y, site, covariates = simulated()
    model = fit_combat(y[:, :1], site, covariates=covariates)
    assert any("at least two features" in note for note in model.notes)
    one = apply_combat(model, y[:, :1], site, covariates=covariates).values
    np.testing.assert_allclose(one, harmonise(y, site, covariates, eb=False)[:, :1], rtol=1e-13)


def test_unknown_sites():
    y, site, covariates = simulated(sizes=(60, 60, 60))
    known = site != "s2"
    model = fit_combat(y[known], site[known], covariates=covariates[known])
    with pytest.raises(ValueError, match="1 sites are unknown to the model: 's2'; it knows s0, s1"):
        apply_combat(model, y, site, covariates=covariates)
    empty = apply_combat(model, y, site, covariates=covariates, unknown="nan")
    assert np.isnan(empty.values[~known]).all()
    assert np.isfinite(empty.values[known]).all()
    assert empty.missing_sites == ("s2",)
    guessed = apply_combat(model, y, site, covariates=covariates, unknown="estimate")
    assert guessed.estimated_sites == ("s2",)
    np.testing.assert_array_equal(guessed.values[known], empty.values[known])
    before = np.abs(y[~known].mean(axis=0) - guessed.values[known].mean(axis=0)).mean()
    after = np.abs(guessed.values[~known].mean(axis=0) - guessed.values[known].mean(axis=0)).mean()
    assert after < 0.3 * before


def test_bad_input_is_named():
    y, site, covariates = simulated()
    with pytest.raises(ValueError, match="at least two sites, found 1: s0"):
        fit_combat(y[:20], site[:20])
    confounded = np.column_stack([covariates[:, 0], site == "s1"]).astype(float)
    with pytest.raises(ValueError, match=r"'asd' is confounded with the sites.*0 throughout site 's0'.*site 's1'"):
        fit_combat(y, site, covariates=confounded, covariate_names=["age", "asd"])
    collinear = np.column_stack([covariates[:, 0], 2 * covariates[:, 0] + (site == "s1")])
    with pytest.raises(ValueError, match="are combinations of the other covariates and the sites"):
        fit_combat(y, site, covariates=collinear, covariate_names=["age", "twice"])
    with pytest.raises(ValueError, match="'t' is confounded with the sites: it is constant"):
        fit_combat(y, site, covariates=np.ones((len(y), 1)), covariate_names=["t"])
    covariates[3, 0] = np.nan
    with pytest.raises(ValueError, match=r"1 people lack a covariate \(rows 4\)"):
        fit_combat(y, site, covariates=covariates)
    with pytest.raises(ValueError, match="reference site 'x' does not occur"):
        fit_combat(y, site, options=CombatOptions(reference="x"))
    nameless = site.copy()
    nameless[5] = ""
    with pytest.raises(ValueError, match=r"1 people have no site \(rows 6\)"):
        fit_combat(y, nameless)
    y[0, 2] = np.inf
    with pytest.raises(ValueError, match="'feature 3' has an infinite value"):
        fit_combat(y, site)


def test_site_effects_equal_statsmodels():
    import pandas as pd
    import statsmodels.formula.api as smf
    from scipy import stats
    from statsmodels.stats.anova import anova_lm

    y, site, covariates = simulated(p=3)
    y[4, 1] = np.nan
    found = site_effects(y, site, covariates=covariates)
    for k in range(3):
        frame = pd.DataFrame({"y": y[:, k], "a": covariates[:, 0], "b": covariates[:, 1], "s": site}).dropna()
        small, full = smf.ols("y ~ a + b", frame).fit(), smf.ols("y ~ a + b + s", frame).fit()
        row = anova_lm(small, full).iloc[1]
        assert found.eta2[k] == pytest.approx(row["ss_diff"] / small.ssr, rel=1e-8)
        assert found.p_location[k] == pytest.approx(row["Pr(>F)"], rel=1e-6)
        groups = [full.resid[frame["s"] == s] for s in ("s0", "s1", "s2")]
        assert found.p_spread[k] == pytest.approx(stats.levene(*groups, center="median").pvalue, rel=1e-6)


def test_abide_figures_of_the_specification():
    """structural.md 4.5: 1,031 people, 201 features, 34 sites."""
    table, names = abide()
    y = table[names].to_numpy(dtype=float)
    site = table["site"].astype(str).to_numpy(dtype=str)
    assert y.shape == (1031, 201)
    assert np.unique(site).size == 34
    nuisance = abide_nuisance(table)
    preserved = nuisance[:, [0, 3, 4]]
    before = site_effects(y, site, covariates=nuisance)
    clean = harmonise(y, site, preserved)
    after = site_effects(clean, site, covariates=nuisance)
    plain = site_effects(harmonise(y, site, preserved, eb=False), site, covariates=nuisance)
    assert before.mean_eta2 == pytest.approx(0.208, abs=5e-4)
    assert after.mean_eta2 == pytest.approx(0.0107, abs=5e-5)
    assert plain.mean_eta2 == pytest.approx(0.008, abs=5e-4)
    assert (before.p_location < 0.05).mean() == pytest.approx(0.985, abs=5e-4)
    assert (after.p_location < 0.05).mean() == pytest.approx(0.010, abs=5e-4)
    assert (before.p_spread < 0.05).mean() == pytest.approx(0.40, abs=5e-3)
    assert (after.p_spread < 0.05).mean() == 0
    # Age is preserved within 0.01: its partial R2 given sex and diagnosis, mean over features.
    assert age_r2(y, nuisance) == pytest.approx(0.122, abs=5e-4)
    assert age_r2(clean, nuisance) == pytest.approx(0.115, abs=5e-4)


def age_r2(y, nuisance):
    """Mean partial R2 of age^1..3 given sex and diagnosis."""

    def rss(columns):
        design = np.column_stack([np.ones(len(y)), columns / columns.std(axis=0)])
        return ((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum(axis=0)

    return float((1 - rss(nuisance) / rss(nuisance[:, 3:])).mean())
