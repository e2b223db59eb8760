"""Type I error of the case-control tests where cases and alleles are few: the reason for Firth and the saddlepoint."""

import numpy as np
import pytest
from scipy import stats

from brainlocus.genetics.gwas import LogisticMethod, LogisticSettings, ScanSettings, prepare_logistic
from brainlocus.genetics.gwas.calls import calls_of_dosage
from brainlocus.genetics.gwas.tallies import empty_tallies

N, CASES, TRAITS, M = 4080, 80, 8, 20_000
"""One case to fifty controls; 20 to 50 copies of the rarer allele; 160,000 null tests."""
ALPHAS = (1e-2, 1e-3, 1e-4)


@pytest.fixture(scope="module")
def null_study():
    rng = np.random.default_rng(1)
    covariates = rng.normal(size=(N, 2))
    cases = np.zeros((N, TRAITS))
    for k in range(TRAITS):  # covariates matter, variants do not
        weight = np.exp(0.5 * covariates[:, 0])
        cases[rng.choice(N, CASES, replace=False, p=weight / weight.sum()), k] = 1.0
    dosage = np.zeros((M, N), dtype=np.float32)
    for j, copies in enumerate(rng.integers(20, 51, M)):
        np.add.at(dosage[j], rng.choice(N, copies), 1.0)
    return calls_of_dosage(np.minimum(dosage, 2.0)), cases, covariates


def rates(null_study, correction, *, screen=0.05):
    """Return the share of tests with p at most each of `ALPHAS`."""
    block, cases, covariates = null_study
    design = prepare_logistic(cases, covariates, settings=LogisticSettings(correction=correction, screen=screen))
    result = LogisticMethod(design).scan_block(
        block, ScanSettings(hits=max(ALPHAS), min_mac=15.0), empty_tallies(TRAITS)
    )
    p = 10.0 ** -result.hit_values["neg_log10_p"]
    return np.array([(p <= alpha).sum() for alpha in ALPHAS]) / (M * TRAITS)


@pytest.mark.slow
def test_the_score_test_is_inflated(null_study):
    found = rates(null_study, "spa", screen=1e-300)
    assert found[1] > 4 * ALPHAS[1]
    assert found[2] > 15 * ALPHAS[2]


@pytest.mark.slow
@pytest.mark.parametrize("correction", ["spa", "firth", "firth-fallback", "firth-approx"])
def test_corrections_hold_their_level(null_study, correction):
    """Not above alpha by more than its own 99.9 % range; not below a third of it (few values are possible)."""
    for alpha, rate in zip(ALPHAS, rates(null_study, correction), strict=True):
        tests = M * TRAITS
        assert rate <= stats.binom.isf(1e-3, tests, alpha) / tests, (correction, alpha, rate)
        assert rate >= alpha / 3, (correction, alpha, rate)
