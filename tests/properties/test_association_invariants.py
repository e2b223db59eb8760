"""What a genome scan must not depend on, on data drawn by Hypothesis."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlocus.core import ArrayGenotypes, SampleIndex, VariantTable, quantitative_table, select_genotypes
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas import (
    ScanSettings,
    full_results,
    merge_shards,
    prepare_linear,
    prepare_scan,
    scan,
    scan_linear,
    scan_shard,
    shard_bounds,
)

N, M, Q = 90, 24, 3
ROUNDING = 1e-9
"""Float64 sums of 90 products in another order: 1e-14 of the largest term, with room for a small denominator."""

studies = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "lost_calls": st.sampled_from([0.0, 0.02, 0.2]),
        "lost_traits": st.sampled_from([0.0, 0.1]),
        "missing": st.sampled_from(["auto", "exact", "mean"]),
    }
)
few = settings(max_examples=15, deadline=None)


def draw(about):
    rng = np.random.default_rng(about["seed"])
    dosage = rng.binomial(2, rng.uniform(0.2, 0.8, (M, 1)), (M, N)).astype(np.float32)
    traits = rng.normal(size=(N, Q)) + 0.7 * dosage[:Q].T
    dosage[rng.random(dosage.shape) < about["lost_calls"]] = np.nan
    traits[rng.random(traits.shape) < about["lost_traits"]] = np.nan
    return rng, dosage, traits, rng.normal(size=(N, 2))


def double(dosage, traits, covariates, about):
    design = prepare_linear(traits, covariates, names=[f"t{k}" for k in range(Q)])
    found = scan_linear(design, dosage, missing=about["missing"], min_mac=5.0, precision="double")
    order = np.argsort(design.names)
    return found.beta[:, order], found.standard_error[:, order], found.t[:, order]


@few
@given(studies)
def test_swapping_alleles_negates_beta_and_keeps_its_error(about):
    _, dosage, traits, covariates = draw(about)
    beta, error, t = double(dosage, traits, covariates, about)
    swapped_beta, swapped_error, swapped_t = double(2 - dosage, traits, covariates, about)
    np.testing.assert_allclose(swapped_beta, -beta, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(swapped_error, error, rtol=ROUNDING)
    np.testing.assert_allclose(swapped_t, -t, rtol=ROUNDING, atol=ROUNDING)


@few
@given(studies, st.floats(1e-6, 1e6), st.floats(-100, 100))
def test_scaling_a_trait_scales_beta_and_shifting_it_does_nothing(about, factor, shift):
    _, dosage, traits, covariates = draw(about)
    beta, error, t = double(dosage, traits, covariates, about)
    # In units of the trait, so that the shift costs at most two digits of the residuals.
    scaled_beta, scaled_error, scaled_t = double(dosage, factor * (traits + shift), covariates, about)
    np.testing.assert_allclose(scaled_beta / factor, beta, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(scaled_error / factor, error, rtol=ROUNDING)
    np.testing.assert_allclose(scaled_t, t, rtol=ROUNDING, atol=ROUNDING)


@few
@given(studies)
def test_the_order_of_people_changes_nothing(about):
    rng, dosage, traits, covariates = draw(about)
    order = rng.permutation(N)
    here = double(dosage, traits, covariates, about)
    there = double(dosage[:, order], traits[order], covariates[order], about)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other, one, rtol=ROUNDING, atol=ROUNDING)


@few
@given(studies)
def test_adding_a_covariate_to_a_trait_changes_nothing(about):
    _, dosage, traits, covariates = draw(about)
    beta, error, t = double(dosage, traits, covariates, about)
    moved = traits + covariates @ np.array([[3.0, -2.0, 0.5], [1.0, 1.0, -4.0]])
    moved_beta, moved_error, moved_t = double(dosage, moved, covariates, about)
    np.testing.assert_allclose(moved_beta, beta, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(moved_error, error, rtol=ROUNDING)
    np.testing.assert_allclose(moved_t, t, rtol=ROUNDING, atol=ROUNDING)


def source_of(dosage):
    variants = VariantTable(
        np.array(["1"] * M),
        np.arange(1, M + 1),
        text_array(["A"] * M),
        text_array(["G"] * M),
        text_array([f"v{k}" for k in range(M)]),
        "GRCh38",
    )
    return ArrayGenotypes(SampleIndex.of(range(N)), variants, dosage)


@few
@given(studies, st.integers(1, M), st.booleans())
def test_shards_change_nothing_and_uncalled_variants_do_not_disturb_the_others(about, shard, with_uncalled):
    """Hits are float64 throughout; the histograms may differ where float32 puts a test on a bin's edge."""
    _, dosage, traits, _ = draw(about)
    if with_uncalled:
        dosage[M // 2] = np.nan
    source = source_of(dosage)
    table = quantitative_table(source.samples, [f"t{k}" for k in range(Q)], traits)
    options = ScanSettings(hits=1.0, missing=about["missing"], min_mac=5.0, full=True)
    whole = scan(source, table, settings=options)
    plan = prepare_scan(table, source.samples, settings=options)
    # People without any trait are not in the plan.
    chosen = select_genotypes(source, samples=plan.samples)
    cut = merge_shards(plan, source.variants, [scan_shard(plan, chosen, a, b) for a, b in shard_bounds(M, shard)])
    assert cut.hits["variant_id"].tolist() == whole.hits["variant_id"].tolist()
    for name in ("beta", "standard_error", "neg_log10_p", "effect_allele_frequency"):
        np.testing.assert_allclose(cut.hits[name], whole.hits[name], rtol=ROUNDING, atol=ROUNDING)
    assert cut.traits["n_tests"].tolist() == whole.traits["n_tests"].tolist()
    assert np.abs(cut.qq.cumsum(axis=1) - whole.qq.cumsum(axis=1)).max() <= 1


@few
@given(studies)
def test_stored_statistics_give_the_hits_again(about):
    _, dosage, traits, _ = draw(about)
    source = source_of(dosage)
    table = quantitative_table(source.samples, [f"t{k}" for k in range(Q)], traits)
    options = ScanSettings(hits=1.0, missing=about["missing"], min_mac=5.0, full=True)
    result = scan(source, table, settings=options)
    plan = prepare_scan(table, source.samples, settings=options)
    for name in table.names:
        full = full_results(plan, source.variants, result.full, name)
        hits = result.hits.take(result.hits["trait"] == name)
        row = {v: k for k, v in enumerate(full["variant_id"].tolist())}
        rows = np.array([row[v] for v in hits["variant_id"].tolist()])
        for column in ("beta", "standard_error", "neg_log10_p"):
            # t and beta are stored in float32: 24 bits, 6e-8, twice.
            np.testing.assert_allclose(full[column][rows], hits[column], rtol=3e-7, atol=1e-7, err_msg=column)
        without = np.setdiff1d(np.arange(M), rows)
        assert np.isnan(full["beta"][without]).all()
