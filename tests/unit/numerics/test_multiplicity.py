from functools import partial

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from tests.reference import naive_multiplicity as naive

from brainlocus.numerics import benjamini_hochberg_q, benjamini_yekutieli_q, bonferroni_p, holm_p, scoped
from brainlocus.numerics.multiplicity import _SUMMED, _harmonic

FOUR = {"fdr_bh": benjamini_hochberg_q, "fdr_by": benjamini_yekutieli_q, "bonferroni": bonferroni_p, "holm": holm_p}


def some_p(n=400, seed=3):
    rng = np.random.default_rng(seed)
    p = np.concatenate([rng.uniform(size=n), rng.uniform(size=n // 4) * 1e-4])
    return np.append(p, p[:20])  # ties


@pytest.mark.parametrize("method", FOUR)
def test_equal_to_statsmodels(method):
    p = some_p()
    np.testing.assert_allclose(FOUR[method](-np.log10(p)), multipletests(p, method=method)[1], rtol=1e-12)


@pytest.mark.parametrize("method", FOUR)
def test_missing_are_no_tests_and_stay_missing(method):
    p = some_p(50)
    with_gaps = np.insert(-np.log10(p), [0, 7, 30], np.nan)
    found = FOUR[method](with_gaps)
    assert np.isnan(found).tolist() == np.isnan(with_gaps).tolist()
    np.testing.assert_array_equal(found[~np.isnan(found)], FOUR[method](-np.log10(p)))
    assert np.isnan(FOUR[method](np.full(3, np.nan))).all()
    assert FOUR[method](np.zeros(0)).size == 0


@pytest.mark.parametrize("method", FOUR)
def test_the_smallest_of_a_larger_table_are_corrected_as_in_the_whole(method):
    p = np.sort(some_p(60))
    whole = FOUR[method](-np.log10(p))
    # A step-up takes its minimum over larger p-values too: cut where that minimum lies inside the part.
    part = next(k for k in range(5, p.size) if whole[k] > whole[k - 1])
    np.testing.assert_allclose(FOUR[method](-np.log10(p[:part]), n_tests=p.size), whole[:part], rtol=1e-12)
    with pytest.raises(ValueError, match="at least the 5 given; found 4"):
        FOUR[method](-np.log10(p[:5]), n_tests=4)


@pytest.mark.parametrize(
    ("function", "oracle"),
    [
        (holm_p, naive.holm),
        (benjamini_hochberg_q, naive.benjamini_hochberg),
        (benjamini_yekutieli_q, naive.benjamini_yekutieli),
    ],
)
def test_equal_to_the_formula_read_literally(function, oracle):
    p = some_p(40, seed=5)
    for m in (p.size, 1000):
        np.testing.assert_allclose(function(-np.log10(p), n_tests=m), oracle(p.tolist(), m), rtol=1e-12)


@pytest.mark.parametrize("method", FOUR)
def test_p_that_underflow_keep_their_order(method):
    found = FOUR[method](np.array([400.0, np.inf, 2.0]))
    assert found[0] == found[1] == 0.0
    assert 0 < found[2] <= 1


def test_groups_are_corrected_apart():
    p = -np.log10(some_p(100))
    codes = np.random.default_rng(0).integers(-1, 4, p.size)
    found = scoped(benjamini_hochberg_q, p, codes)
    for group in range(4):
        np.testing.assert_array_equal(found[codes == group], benjamini_hochberg_q(p[codes == group]))
    assert np.isnan(found[codes < 0]).all()
    np.testing.assert_array_equal(scoped(bonferroni_p, p, np.zeros(p.size, dtype=int)), bonferroni_p(p))
    assert np.isnan(scoped(holm_p, p, np.full(p.size, -1))).all()
    assert scoped(holm_p, np.zeros(0), np.zeros(0, dtype=int)).size == 0
    twice = scoped(partial(bonferroni_p, n_tests=1000), p, codes)
    np.testing.assert_array_equal(twice[codes == 1], bonferroni_p(p[codes == 1], n_tests=1000))
    with pytest.raises(ValueError, match="a group for each of"):
        scoped(holm_p, p, codes[1:])


def test_harmonic_number_of_many_tests():
    for n in (1, 10, _SUMMED, _SUMMED + 1, 300_000):
        assert _harmonic(n) == pytest.approx(naive.harmonic(n), rel=1e-13)
