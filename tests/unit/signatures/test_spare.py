"""SPARE: no leakage, known weights, stated figures."""

import numpy as np
import pytest

from brainlocus.cohort.harmonise import CombatOptions, SmoothOptions, apply_combat, fit_combat, site_effects
from brainlocus.cohort.signatures import (
    SpareOptions,
    SparePerformance,
    apply_spare,
    cohens_d,
    held_out_splits,
    mean_scores,
    train_spare,
)
from brainlocus.pipeline.models import ComBatHarmoniser
from tests.real_data import abide, real_data

QUICK = SpareOptions(repeats=4, inner_folds=4, costs=(1e-4, 1e-2, 1.0))


class Fitted:
    def __init__(self, model):
        self.model = model

    def apply(self, features, batch, covariates):
        return apply_combat(self.model, features, batch, covariates=covariates).values


class Combat:
    """ComBat as the injected harmoniser; counts whom it was fitted on."""

    def __init__(self):
        self.sizes = []

    def fit(self, features, batch, covariates):
        self.sizes.append(len(batch))
        return Fitted(fit_combat(features, batch, covariates=covariates))


def simulated(n=200, p=10, effect=1.0, seed=0):
    rng = np.random.default_rng(seed)
    diagnosis = (rng.uniform(size=n) < 0.4).astype(np.int64)
    features = rng.standard_normal((n, p))
    features[:, 0] += effect * diagnosis
    return features, diagnosis


def train(features, diagnosis, seed=0, options=QUICK, **inputs):
    return train_spare(features, diagnosis, generator=np.random.default_rng(seed), options=options, **inputs)


def test_scores_are_those_of_scikit_learn_on_each_training_set():
    from sklearn.svm import SVC

    features, diagnosis = simulated()
    options = SpareOptions(repeats=3, costs=(0.01,))
    result = train(features, diagnosis, options=options)
    generator = np.random.default_rng(0)
    splits = held_out_splits(diagnosis, np.full(200, ""), repeats=3, share=0.2, generator=generator)
    for repeat, (fit_rows, test_rows) in enumerate(splits):
        centre, spread = features[fit_rows].mean(axis=0), features[fit_rows].std(axis=0, ddof=1)
        z = (features - centre) / spread
        machine = SVC(C=0.01, kernel="linear", class_weight="balanced").fit(z[fit_rows], diagnosis[fit_rows])
        chosen = result.repeat == repeat
        np.testing.assert_array_equal(result.row[chosen], test_rows)
        np.testing.assert_allclose(result.score[chosen], machine.decision_function(z[test_rows]), atol=1e-3)


def test_planted_effect_is_found():
    features, diagnosis = simulated(n=400, effect=2.0)
    result = train(features, diagnosis)
    summary = result.performance.summary()
    # One feature shifted by 2 sd: the best rule is right in Phi(1) = 0.841 of each class.
    assert summary["balanced_accuracy"]["mean"] == pytest.approx(0.841, abs=0.05)
    assert summary["auc"]["mean"] == pytest.approx(0.921, abs=0.04)
    assert np.abs(result.pattern).argmax() == 0
    assert result.pattern[0] > 0
    assert np.abs(result.model.weights).argmax() == 0


def test_final_model_scores_new_people():
    features, diagnosis = simulated(n=300, effect=2.0)
    result = train(features[:200], diagnosis[:200])
    score = apply_spare(result.model, features[200:])
    assert ((score > 0) == diagnosis[200:]).mean() > 0.7
    features[205, 3] = np.nan
    with_gap = apply_spare(result.model, features[200:])
    assert np.isnan(with_gap[5])
    np.testing.assert_array_equal(np.delete(with_gap, 5), np.delete(score, 5))
    with pytest.raises(ValueError, match="10 features and 0 covariates, found 9 and 0"):
        apply_spare(result.model, features[:, 1:])


def test_nobody_is_in_training_and_test_and_sites_are_in_both():
    rng = np.random.default_rng(0)
    diagnosis = rng.integers(0, 2, 150)
    batch = rng.choice(["a", "b", "c", "d"], 150, p=[0.6, 0.3, 0.08, 0.02])
    for fit_rows, test_rows in held_out_splits(diagnosis, batch, repeats=20, share=0.2, generator=rng):
        assert not set(fit_rows) & set(test_rows)
        assert len(fit_rows) + len(test_rows) == 150
        assert test_rows.size == 30
        assert set(batch[test_rows]) <= set(batch[fit_rows])
        assert abs(diagnosis[test_rows].mean() - diagnosis.mean()) < 0.1


def test_harmoniser_sees_training_people_only():
    features, diagnosis = simulated(n=160)
    batch = np.repeat(["a", "b"], 80)
    harmoniser = Combat()
    result = train(features, diagnosis, batch=batch, harmoniser=harmoniser)
    n_train = result.performance.n_train
    assert harmoniser.sizes == [n_train] * 4 + [160]
    assert n_train + result.performance.n_test == 160


def curved_by_age(n=240, seed=4):
    """Features that follow age in a curve, sites of different ages with an offset each, and a diagnosis."""
    rng = np.random.default_rng(seed)
    batch = np.repeat(["a", "b"], n // 2)
    age = rng.uniform(20, 60, n) + 20 * (batch == "b")
    diagnosis = (rng.uniform(size=n) < 0.5).astype(np.int64)
    features = rng.standard_normal((n, 8)) + 0.004 * ((age - 50) ** 2)[:, None] + 1.5 * (batch == "b")[:, None]
    features[:, 0] += 0.8 * diagnosis
    return features, diagnosis, batch, np.column_stack([age, rng.integers(0, 2, n)]).astype(float)


@pytest.mark.parametrize("bounds", [None, (10.0, 95.0)])
def test_curves_inside_each_training_set_are_those_fitted_by_hand(bounds):
    """ComBat-GAM on the training rows of a hold-out, applied to everyone, then scaled and classified."""
    from sklearn.svm import SVC

    features, diagnosis, batch, preserved = curved_by_age()
    combat = CombatOptions(smooth=(SmoothOptions("age", bounds),))
    options = SpareOptions(repeats=3, inner_folds=4, costs=(0.01,))
    result = train(
        features, diagnosis, options=options, batch=batch, preserved=preserved,
        harmoniser=ComBatHarmoniser(combat, ("age", "sex")),
    )  # fmt: skip
    splits = held_out_splits(diagnosis, batch, repeats=3, share=0.2, generator=np.random.default_rng(0))
    for repeat, (fit_rows, test_rows) in enumerate(splits):
        model = fit_combat(
            features[fit_rows], batch[fit_rows], covariates=preserved[fit_rows], covariate_names=("age", "sex"),
            options=combat,
        )  # fmt: skip
        clean = apply_combat(model, features, batch, covariates=preserved).values
        z = (clean - clean[fit_rows].mean(axis=0)) / clean[fit_rows].std(axis=0, ddof=1)
        machine = SVC(C=0.01, kernel="linear", class_weight="balanced").fit(z[fit_rows], diagnosis[fit_rows])
        chosen = result.repeat == repeat
        np.testing.assert_array_equal(result.row[chosen], test_rows)
        np.testing.assert_allclose(result.score[chosen], machine.decision_function(z[test_rows]), atol=1e-3)
        # Knots are those of the training people, not of everyone.
        low, high = model.smooth[0].extent
        assert (low, high) == (bounds or (preserved[fit_rows, 0].min(), preserved[fit_rows, 0].max()))


def test_curves_leak_nothing_of_held_out_people():
    features, diagnosis, batch, preserved = curved_by_age()
    inputs = {"batch": batch, "harmoniser": ComBatHarmoniser(CombatOptions(smooth=(SmoothOptions("age"),)), ("age",))}
    before = train(features, diagnosis, preserved=preserved[:, :1], **inputs)
    person = int(before.row[0])
    changed, older = features.copy(), preserved[:, :1].copy()
    changed[person] += 100.0
    older[person] += 30.0
    after = train(changed, diagnosis, preserved=older, **inputs)
    same = (before.repeat == before.repeat[0]) & (before.row != person)
    np.testing.assert_array_equal(before.score[same], after.score[same])
    assert before.score[before.row == person][0] != after.score[after.row == person][0]


def test_changing_held_out_people_does_not_change_what_others_score():
    """Garbage in one held-out person leaves that repeat's other scores alone: all fitting is on training rows."""
    features, diagnosis = simulated(n=160)
    age = np.random.default_rng(1).uniform(20, 80, (160, 1))
    batch = np.repeat(["a", "b"], 80)
    inputs = {"covariates": age, "batch": batch, "harmoniser": Combat()}
    before = train(features, diagnosis, **inputs)
    person = int(before.row[0])
    changed = features.copy()
    changed[person] += 100.0
    after = train(changed, diagnosis, **inputs)
    np.testing.assert_array_equal(before.row, after.row)
    same = (before.repeat == before.repeat[0]) & (before.row != person)
    np.testing.assert_array_equal(before.score[same], after.score[same])
    assert before.score[before.row == person][0] != after.score[after.row == person][0]


def test_covariate_effects_come_from_controls():
    """Age shifts every feature; patients are older. Without an effect of disease the score must not see age."""
    rng = np.random.default_rng(0)
    diagnosis = np.repeat([0, 1], 200)
    age = rng.normal(50, 8, 400) + 15 * diagnosis
    features = rng.standard_normal((400, 8)) + 0.1 * age[:, None]
    raw = train(features, diagnosis).performance.balanced_accuracy.mean()
    corrected = train(features, diagnosis, covariates=age[:, None]).performance.balanced_accuracy.mean()
    assert raw > 0.7
    assert abs(corrected - 0.5) < 0.07


@pytest.mark.parametrize("with_combat", [False, True])
def test_random_labels_with_site_structure_give_chance(with_combat):
    """structural.md 9: sites differ strongly, the labels are random within sites: 0.5 +- 0.05."""
    rng = np.random.default_rng(2)
    batch = np.repeat(["a", "b", "c"], 120)
    shift = {s: rng.normal(0, 3, 15) for s in "abc"}
    features = rng.standard_normal((360, 15)) + np.array([shift[s] for s in batch])
    accuracy = []
    for seed in range(4):
        diagnosis = np.random.default_rng(seed).permutation(np.tile([0, 1], 180)).astype(np.int64)
        result = train(
            features, diagnosis, seed=seed, batch=batch, harmoniser=Combat() if with_combat else None
        )  # fmt: skip
        accuracy.append(result.performance.balanced_accuracy.mean())
    assert np.mean(accuracy) == pytest.approx(0.5, abs=0.05)


def test_figures_by_definition():
    score, diagnosis = np.array([1.0, -1.0, 2.0, 3.0, 0.5]), np.array([0, 0, 1, 1, 0])
    pooled = (2 * score[diagnosis == 0].var(ddof=1) + score[diagnosis == 1].var(ddof=1)) / 3
    expected = (2.5 - score[diagnosis == 0].mean()) / np.sqrt(pooled)
    assert cohens_d(score, diagnosis) == pytest.approx(expected, rel=1e-12)
    values = np.array([0.6, 0.7, 0.8])
    summary = SparePerformance(values, values, values, values, values, n_train=80, n_test=20).summary()
    assert summary["auc"]["sd"] == pytest.approx(0.1)
    assert summary["auc"]["standard_error"] == pytest.approx(0.1 * np.sqrt(1 / 3 + 20 / 80))


def test_mean_scores_and_reproducibility():
    features, diagnosis = simulated()
    one, two = train(features, diagnosis, seed=3), train(features, diagnosis, seed=3)
    np.testing.assert_array_equal(one.score, two.score)
    score, times = mean_scores(one, 200)
    assert times.sum() == one.score.size
    person = int(one.row[0])
    assert score[person] == pytest.approx(one.score[one.row == person].mean())
    assert np.isnan(score[times == 0]).all()


def test_bad_input():
    features, diagnosis = simulated()
    with pytest.raises(ValueError, match=r"must be 0 \(control\) or 1 \(patient\), both present; found \[0\]"):
        train(features, np.zeros(200, dtype=np.int64))
    with pytest.raises(ValueError, match="The smaller class has 3 people; 4 folds need 6"):
        train(features, (np.arange(200) < 3).astype(np.int64))
    with pytest.raises(ValueError, match="Harmonisation was asked for without sites"):
        train(features, diagnosis, harmoniser=Combat())
    features[4, 7] = np.nan
    with pytest.raises(ValueError, match="feature 8 is not, and 1 people are concerned"):
        train(features, diagnosis)


def test_constant_feature_carries_nothing():
    features, diagnosis = simulated()
    features[:, 5] = 3.0
    result = train(features, diagnosis)
    assert result.model.weights[5] == 0
    assert np.isfinite(result.score).all()


@pytest.mark.slow
def test_abide_figures_of_the_specification():
    """structural.md 7: ASD 0.62 +- 0.03 raw, lower without the sites (0.57 +- 0.03 there); sex 0.76 +- 0.04, d 1.35."""
    table, _ = abide()
    names = [c for c in table.columns[6:] if table[c].nunique() > 1]
    features = table[names].to_numpy(dtype=float)
    assert features.shape == (1031, 203)
    site = table["site"].astype(str).to_numpy(dtype=str)
    sex = (table["sex"] == "M").to_numpy().astype(np.int64)
    asd = table["asd"].to_numpy().astype(np.int64)
    options = SpareOptions(repeats=10)
    raw = train(features, asd, options=options).performance.balanced_accuracy.mean()
    preserved = np.column_stack([table["age"], sex]).astype(float)
    clean = train(features, asd, options=options, batch=site, harmoniser=Combat(), preserved=preserved)
    assert raw == pytest.approx(0.62, abs=0.03)
    assert clean.performance.balanced_accuracy.mean() < raw
    centred = features - np.stack([features[site == s].mean(axis=0) for s in site])
    without_means = train(centred, asd, options=options).performance.balanced_accuracy.mean()
    assert without_means == pytest.approx(0.57, abs=0.03)
    found = train(features, sex, options=options).performance
    assert found.balanced_accuracy.mean() == pytest.approx(0.76, abs=0.04)
    assert found.cohens_d.mean() == pytest.approx(1.35, abs=0.2)
    assert site_effects(features, site).mean_eta2 > 0.15


@pytest.mark.slow
def test_fcon_sex():
    """structural.md 7: 0.79 +- 0.03, d 1.6. That is with site means removed beforehand; raw features give more."""
    import pandas as pd

    table = pd.read_csv(real_data("structural/tabular/fcon1000_destrieux.csv"))
    features = table.drop(columns=["sub_id", "age", "sex", "site", "avg_en"])
    features = features.loc[:, features.std() > 0]
    features = (features - features.groupby(table["site"]).transform("mean")).to_numpy(dtype=float)
    result = train(features, table["sex"].to_numpy().astype(np.int64), options=SpareOptions(repeats=10))
    assert result.performance.balanced_accuracy.mean() == pytest.approx(0.79, abs=0.03)
    assert result.performance.cohens_d.mean() == pytest.approx(1.6, abs=0.2)
