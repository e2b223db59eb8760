"""Whole-genome regression among relatives: calibrated where linear regression is not, and no less powerful."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from brainlocus.core import ArrayGenotypes, SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas import (
    LogisticMethod,
    LogisticSettings,
    RidgeSettings,
    ScanSettings,
    lambda_gc,
    predict_genome,
    prepare_linear,
    prepare_logistic,
    scan_linear,
)
from brainlocus.genetics.gwas.calls import calls_of_dosage
from brainlocus.genetics.gwas.tallies import empty_tallies
from tests.statistical.families import drop_genes, heritable_traits

N, CHROMOSOMES, PER, TRAITS, H2 = 3000, 20, 150, 20, 0.8
MEDIAN_CHI2 = 0.4549


def t_statistics(traits, dosage, covariates):
    return scan_linear(prepare_linear(traits, covariates), dosage, min_mac=20.0).t


def predictions(dosage, chromosome, traits, settings):
    """Return people x traits per chromosome: what the others predict."""
    alleles, names = text_array(["A"] * chromosome.size), text_array([f"v{k}" for k in range(chromosome.size)])
    table = VariantTable(chromosome, np.arange(1, chromosome.size + 1), alleles, alleles, names, "simulated")
    source = ArrayGenotypes(SampleIndex.of(range(traits.shape[0])), table, dosage)
    with threadpool_limits(1):  # small products: more threads would only wait for one another
        fits = list(predict_genome(source, traits, np.empty((traits.shape[0], 0)), settings=settings).values())
    return {c: np.stack([fit.loco[fit.chromosomes.index(c)] for fit in fits], axis=1) for c in fits[0].chromosomes}


def simulated(seed, size, cross_validation):
    """Return t of linear regression and of ridge on variants without and with an effect."""
    rng = np.random.default_rng(seed)
    dosage, chromosome = drop_genes(rng, N, CHROMOSOMES, PER, share=0.2, size=size)
    causal = np.array([int(c) % 2 == 0 for c in chromosome])
    traits = heritable_traits(rng, dosage, causal & (rng.random(causal.size) < 0.2), TRAITS, H2)
    settings = RidgeSettings(block_size=75, cross_validation=cross_validation)
    loco = predictions(dosage, chromosome, traits, settings)
    nothing = np.empty((N, 0))
    plain = np.concatenate([t_statistics(traits, dosage[chromosome == c], nothing) for c in loco])
    ridge = np.concatenate([t_statistics(traits - loco[c], dosage[chromosome == c], nothing) for c in loco])
    return [(t[~causal], t[causal]) for t in (plain, ridge)]


@pytest.mark.slow
@pytest.mark.parametrize(("size", "cross_validation"), [(2, "folds"), (4, "folds"), (4, "loo")])
def test_calibration_and_power_with_a_fifth_full_sibs(size, cross_validation):
    """gwas.md 8: lambda in [0.97, 1.03] on chromosomes without an effect, and no power lost on the others.

    Three cohorts, 90,000 null tests: a standard error of 0.008 of lambda. Full sibs of a trait of heritability 0.8
    alone make that of linear regression 1 + 0.2 (size - 1) 0.5 x 0.4: 1.04 for pairs, 1.12 for families of four.
    """
    cohorts = [simulated(seed, size, cross_validation) for seed in (1, 2, 3)]
    figures = []
    for method in (0, 1):
        null, causal = (np.concatenate([cohort[method][part] for cohort in cohorts]) for part in (0, 1))
        chi2 = float(np.median(null**2) / MEDIAN_CHI2)
        figures.append((chi2, float((np.abs(causal) > 5.45).mean()), float((causal**2).mean())))  # p < 5e-8
    (plain, plain_power, plain_chi2), (ridge, power, chi2) = figures
    assert 0.97 <= ridge <= 1.03, figures
    assert plain == pytest.approx(1.04 if size == 2 else 1.12, abs=0.025), figures
    assert power > plain_power, figures
    assert chi2 > plain_chi2, figures


@pytest.mark.slow
def test_cases_and_controls_with_a_fifth_full_sibs():
    """The same with traits cut at their upper 30 %, in families of four: lambda of the score test.

    On the liability 1 + 0.2 x 3 x 0.5 x 0.4 = 1.12 for logistic regression alone; a cut trait is less alike in sibs.
    With the predictions as the ridge shrinks them it was 0.965, with their calibration slope 0.985 +- 0.006.
    """
    lambdas: dict[str, list[float]] = {"plain": [], "ridge": []}
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        dosage, chromosome = drop_genes(rng, N, CHROMOSOMES, PER, share=0.2, size=4)
        causal = np.array([int(c) % 2 == 0 for c in chromosome])
        liability = heritable_traits(rng, dosage, causal & (rng.random(causal.size) < 0.2), TRAITS, H2)
        cases = (liability > np.quantile(liability, 0.7, axis=0)).astype(float)
        loco = predictions(dosage, chromosome, cases, RidgeSettings(block_size=75, binary=True))
        tallies = {name: empty_tallies(TRAITS) for name in lambdas}
        for c in (c for c in loco if int(c) % 2):
            block = calls_of_dosage(dosage[chromosome == c])
            for name, offset in (("plain", None), ("ridge", loco[c].astype(np.float64))):
                design = prepare_logistic(
                    cases, np.empty((N, 0)), offset=offset, settings=LogisticSettings("none", screen=1e-6)
                )
                LogisticMethod(design).scan_block(block, ScanSettings(hits=1e-6), tallies[name])
        for name, counted in tallies.items():
            lambdas[name] += lambda_gc(counted).tolist()
    plain, ridge = (float(np.mean(lambdas[name])) for name in ("plain", "ridge"))
    assert plain > 1.04, (plain, ridge)
    assert 0.97 <= ridge <= 1.03, (plain, ridge)
