"""MR-JTI: the steps read literally, the published example, and awkward variants."""

import numpy as np
import pytest

from brainlocus.core import Instruments, SchemaError
from brainlocus.genetics.twas import MrJtiSettings, mr_jti
from tests.reference.mendelian import naive_mr_jti
from tests.unit.twas.example import mr_example


def _simulated(seed=0, n=30, effect=-0.6, outliers=4, shift=3.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = effect * x + 0.3 * rng.normal(size=n)
    y[:outliers] += shift
    p = rng.uniform(0.06, 1, n)
    p[: outliers + 3] = rng.uniform(0, 0.04, outliers + 3)
    names = np.array([f"rs{k}" for k in range(n)])
    return Instruments(names, x, y, None, rng.uniform(0.5, 1, n), p, rng.uniform(1, 20, n))


def test_all_steps_agree_with_the_specification_read_literally():
    given = _simulated()
    settings = MrJtiSettings(bootstrap=12, repeats=2, alpha=0.2)
    found = mr_jti(given, settings, rng=np.random.default_rng(7))
    expected = naive_mr_jti(
        given.exposure_beta,
        given.outcome_beta,
        given.outcome_p,
        given.ld_score,
        bootstrap=12,
        folds=5,
        repeats=2,
        alpha=0.2,
        rng=np.random.default_rng(7),
    )
    assert found.penalty == pytest.approx(expected.pop("penalty"), rel=1e-10)
    for name, values in expected.items():
        # Both descents stop at steps of 1e-10 or less.
        np.testing.assert_allclose(getattr(found, name), values, atol=1e-8, err_msg=name)
    assert (found.n, found.n_pleiotropic, found.status) == (30, 7, "ok")
    np.testing.assert_array_equal(found.significant, found.lower * found.upper > 0)


def test_the_published_example():
    """twas.md 5.1: expression about -0.714 (sd over seeds 0.002), interval about (-0.88, -0.51), ldsc about -0.060."""
    instruments = mr_example()
    settings = MrJtiSettings(alpha=0.05 / 100, repeats=1)
    runs = [mr_jti(instruments, settings, rng=np.random.default_rng(seed)) for seed in range(6)]
    for run in runs:
        assert (run.n, run.n_pleiotropic) == (145, 50)
        assert run.terms[:2].tolist() == ["expression", "ldsc"]
        assert run.estimate[0] == pytest.approx(-0.714, abs=0.008)
        assert run.estimate[1] == pytest.approx(-0.060, abs=0.008)
        assert run.significant[:2].tolist() == [True, False]
    # Ends of the range of 500 draws: their standard deviations over 30 seeds are 0.06 and 0.04.
    assert np.mean([run.lower[0] for run in runs]) == pytest.approx(-0.88, abs=0.05)
    assert np.mean([run.upper[0] for run in runs]) == pytest.approx(-0.51, abs=0.05)
    assert np.std([run.estimate[0] for run in runs]) < 0.005
    assert 0.13 <= mr_jti(instruments, MrJtiSettings(bootstrap=1)).penalty <= 0.21


def test_repeats_make_the_choice_of_lambda_stable():
    instruments = _simulated(5, n=40)

    def spread(repeats):
        settings = MrJtiSettings(bootstrap=1, repeats=repeats)
        return np.std([np.log(mr_jti(instruments, settings, rng=np.random.default_rng(s)).penalty) for s in range(6)])

    assert spread(10) < spread(1)


def test_planted_pleiotropy_is_found_and_the_effect_recovered():
    given = _simulated(2, n=120, effect=-0.6, outliers=5, shift=6.0)
    found = mr_jti(given, MrJtiSettings(bootstrap=200, alpha=0.05))
    assert found.slope == pytest.approx(-0.6, abs=0.15)
    named = set(found.terms[2:][found.significant[2:]].tolist())
    assert {"rs0", "rs1", "rs2", "rs3", "rs4"} <= named
    sure = found.selection_frequency[2:] > 0.9
    assert set(found.terms[2:][sure].tolist()) == {"rs0", "rs1", "rs2", "rs3", "rs4"}
    assert found.heterogeneous_share == found.significant[2:].sum() / 120


def test_without_a_significant_variant_it_is_least_squares():
    rng = np.random.default_rng(2)
    x, ld = rng.normal(size=40), rng.uniform(1, 9, 40)
    y = 0.2 * x + rng.normal(size=40)
    given = Instruments(np.array([f"v{k}" for k in range(40)]), x, y, None, None, np.full(40, 0.5), ld)
    found = mr_jti(given, MrJtiSettings(bootstrap=300))
    assert found.terms.tolist() == ["expression", "ldsc"]
    assert (found.penalty, found.n_pleiotropic, found.heterogeneous_share) == (0.0, 0, 0.0)

    def standard(c):
        return (c - c.mean()) / c.std(ddof=1)

    expected = np.linalg.lstsq(np.column_stack([standard(x), standard(ld)]), standard(y), rcond=None)[0]
    np.testing.assert_allclose(found.coefficient, expected, atol=1e-12)
    # 300 draws of standard error 0.16: their mean is within 0.03 or so of the coefficient.
    np.testing.assert_allclose(found.estimate, expected, atol=0.05)
    assert found.lower[0] < found.coefficient[0] < found.upper[0]


def test_all_indicators_is_more_columns_than_variants():
    given = _simulated(3, n=25)
    small = Instruments(
        given.variants, given.exposure_beta, given.outcome_beta, None, None, np.full(25, 0.01), given.ld_score
    )
    found = mr_jti(small, MrJtiSettings(bootstrap=20))
    assert found.n_pleiotropic == 25
    assert np.isfinite(found.estimate).all()


def test_equal_ld_scores_are_left_out_and_said():
    given = _simulated()
    flat = Instruments(
        given.variants, given.exposure_beta, given.outcome_beta, None, None, given.outcome_p, np.full(30, 2.0)
    )
    found = mr_jti(flat, MrJtiSettings(bootstrap=400))
    assert np.isnan(found.estimate[1])
    assert not found.significant[1]
    assert np.isfinite(np.delete(found.estimate, 1)).all()
    assert found.notes == ("ldsc is left out: all LD scores are equal",)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"exposure_beta": np.ones(30)}, "all effects on expression are equal"),
        ({"outcome_beta": np.zeros(30)}, "all effects on the phenotype are equal"),
        ({"exposure_beta": np.r_[np.full(11, np.nan), np.arange(19.0)]}, "too few variants: 19 have every value"),
    ],
)
def test_what_cannot_be_fitted_has_a_status(change, status):
    given = _simulated()
    columns = {name: getattr(given, name) for name in given.__slots__} | change
    found = mr_jti(Instruments(**columns))
    assert found.status.startswith(status)
    assert np.isnan(found.estimate).all()
    assert not found.significant.any()


def test_few_draws_for_a_small_alpha_are_said():
    found = mr_jti(_simulated(), MrJtiSettings(bootstrap=100, alpha=0.001))
    assert found.notes == ("the interval at alpha 0.001 is the range of 100 draws; 10000 are advised",)


def test_order_of_variants_changes_nothing_and_other_allele_negates_nothing():
    given = _simulated()
    settings = MrJtiSettings(bootstrap=20, repeats=2)
    plain = mr_jti(given, settings, rng=np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(30)
    mixed = Instruments(*(None if c is None else c[order] for c in (getattr(given, s) for s in given.__slots__)))
    again = mr_jti(mixed, settings, rng=np.random.default_rng(0))
    np.testing.assert_allclose(again.estimate, plain.estimate, atol=1e-8)
    assert again.terms.tolist() == plain.terms.tolist()
    scaled = Instruments(
        given.variants, 3 * given.exposure_beta, -2 * given.outcome_beta, None, None, given.outcome_p, given.ld_score
    )
    other = mr_jti(scaled, settings, rng=np.random.default_rng(0))
    np.testing.assert_allclose(other.estimate, -plain.estimate, atol=1e-8)
    assert other.slope == pytest.approx(-2 / 3 * plain.slope)


def test_equal_weights_are_no_weights():
    given = _simulated()
    columns = {name: getattr(given, name) for name in given.__slots__} | {"outcome_se": np.full(30, 0.2)}
    settings = [MrJtiSettings(bootstrap=15, repeats=2, weighted=weighted) for weighted in (False, True)]
    one, two = (mr_jti(Instruments(**columns), s, rng=np.random.default_rng(0)) for s in settings)
    np.testing.assert_allclose(one.estimate, two.estimate, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"outcome_p": np.r_[1.5, np.full(29, 0.1)]}, "p must lie between 0 and 1, found 1.5 at rs0"),
        ({"outcome_se": np.r_[np.ones(29), 0.0]}, "outcome_se must be above 0, found 0.0 at rs29"),
        ({"variants": np.array(["rs1"] * 2 + [f"r{k}" for k in range(28)])}, "A variant may occur once"),
        ({"exposure_beta": np.r_[np.inf, np.ones(29)]}, "exposure_beta of rs0 is infinite"),
        ({"ld_score": None}, "Expected ld_score of the variants, found none"),
    ],
)
def test_bad_input(change, said):
    given = _simulated()
    columns = {name: getattr(given, name) for name in given.__slots__} | change
    with pytest.raises(SchemaError, match=said):
        mr_jti(Instruments(**columns))


@pytest.mark.parametrize("wrong", [{"folds": 1}, {"alpha": 0.0}, {"bootstrap": 0}, {"min_variants": 5}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ValueError, match="MR-JTI needs"):
        MrJtiSettings(**wrong)
