"""The pair scan beside one literal regression per pair, and what must not change it."""

import numpy as np
import pytest
from tests.reference.interactions import naive_pair

from brainlocus.core import AlignmentError, ArrayGenotypes, SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.genetics.interactions import (
    AlignedTraits,
    PairRules,
    PairSet,
    count_pairs,
    pair_fits_columns,
    prepare_epistasis,
    prepare_variants,
    refit_pairs,
    scan_tile,
    survey_variants,
    variant_places,
)
from brainlocus.numerics import neg_log10_p_from_t

N, M = 160, 14
RNG = np.random.default_rng(3)
CALLS = RNG.binomial(2, RNG.uniform(0.2, 0.8, M)[:, None], (M, N)).astype(np.float32)
COVARIATES = np.column_stack([RNG.normal(size=N) + CALLS[0], RNG.integers(0, 2, N)])
TRAITS = np.column_stack([RNG.normal(size=N), CALLS[2] * CALLS[5] + RNG.normal(size=N), 2.0 + COVARIATES[:, 0]])
TRAITS[:, 2] += RNG.normal(size=N)
EVERY = PairRules(report_p=1.0, min_distance=0)


def table(m=M, chromosome=None, position=None):
    names = text_array([f"v{k}" for k in range(m)])
    place = np.arange(m) * 1_000 + 1 if position is None else np.asarray(position)
    chromosomes = np.array(["1"] * m) if chromosome is None else np.array(chromosome)
    return VariantTable(chromosomes, place, text_array(["A"] * m), text_array(["C"] * m), names, "GRCh38")


def data(traits=TRAITS, covariates=COVARIATES):
    names = tuple(f"t{k}" for k in range(traits.shape[1]))
    labels = tuple(f"c{k}" for k in range(covariates.shape[1]))
    return AlignedTraits(SampleIndex.of(range(traits.shape[0])), names, traits, covariates, labels)


def scan(design, calls=CALLS, rules=EVERY, size=M, group=0):
    """Return -log10 p by (trait, row, column), NaN where not tested, over tiles of `size` variants."""
    found = np.full((len(design.groups[group].names), len(calls), len(calls)), np.nan)
    results = []
    for a in range(0, len(calls), size):
        for b in range(a, len(calls), size):
            rows, columns = (np.arange(k, min(k + size, len(calls))) for k in (a, b))
            g = design.groups[group]
            blocks = [prepare_variants(g, calls[k], k) for k in (rows, columns)]
            inside = np.ones(columns.size, dtype=bool)
            results.append(scan_tile(g, *blocks, variant_places(table(len(calls))), rules, in_rows=inside))
            r = results[-1]
            found[r.trait, r.row, r.column] = r.neg_log10_p
    return found, results


@pytest.mark.parametrize("columns", [0, 2])
def test_equals_one_regression_per_pair(columns):
    covariates = COVARIATES[:, :columns]
    design = prepare_epistasis(data(covariates=covariates))
    found, results = scan(design)
    for k in range(3):
        for i in range(M):
            for j in range(i + 1, M):
                _, _, t = naive_pair(CALLS[i], CALLS[j], TRAITS[:, k], covariates)
                expected = neg_log10_p_from_t(np.array([t]), float(N - 4 - columns))
                np.testing.assert_allclose(found[k, i, j], expected[0], rtol=1e-8)
    assert np.isnan(found[:, *np.tril_indices(M)]).all()
    assert results[0].n_tests.tolist() == [M * (M - 1) // 2] * 3
    assert results[0].histogram.sum() == 3 * M * (M - 1) // 2


def test_float32_products_are_within_the_bound():
    """The histogram holds the float32 statistics: t^2 of every bin agrees with float64 to one bin."""
    design = prepare_epistasis(data())
    found, results = scan(design)
    from scipy.stats import t as student

    t2 = student.isf(0.5 * 10.0 ** -found[0][np.isfinite(found[0])], design.groups[0].degrees_of_freedom) ** 2
    exact = np.sort((t2 * 256).astype(int))
    ours = np.repeat(np.arange(results[0].histogram.shape[1]), results[0].histogram[0])
    assert np.abs(exact - ours).max() <= 1


def test_tiles_and_other_traits_change_nothing():
    design = prepare_epistasis(data())
    whole, _ = scan(design)
    parts, _ = scan(design, size=5)
    np.testing.assert_allclose(parts, whole, rtol=1e-9)
    alone, _ = scan(prepare_epistasis(data(TRAITS[:, 1:2])))
    np.testing.assert_allclose(alone[0], whole[1], rtol=1e-9)


def test_missing_traits_are_a_group_of_their_own_and_missing_calls_the_mean():
    holes = TRAITS.copy()
    holes[:30, 1] = np.nan
    design = prepare_epistasis(data(holes))
    assert [g.names for g in design.groups] == [("t0", "t2"), ("t1",)]
    found, _ = scan(design, group=1)
    _, _, t = naive_pair(CALLS[2, 30:], CALLS[5, 30:], holes[30:, 1], COVARIATES[30:])
    assert found[0, 2, 5] == pytest.approx(neg_log10_p_from_t(np.array([t]), float(N - 30 - 6))[0], rel=1e-9)
    calls = CALLS.copy()
    calls[2, 40:50] = np.nan
    filled = calls.astype(np.float64)
    filled[2, 40:50] = np.nanmean(filled[2])
    found, _ = scan(prepare_epistasis(data()), calls=calls)
    _, _, t = naive_pair(filled[2], filled[5], TRAITS[:, 1], COVARIATES)
    assert found[1, 2, 5] == pytest.approx(neg_log10_p_from_t(np.array([t]), float(N - 6))[0], rel=1e-6)


def test_swapping_alleles_changes_no_p_and_scaling_the_trait_scales_beta():
    design = prepare_epistasis(data())
    np.testing.assert_allclose(scan(design, calls=2 - CALLS)[0], scan(design)[0], rtol=1e-6)
    one = refit_pairs(design.groups[0], 1, CALLS[2:3], CALLS[5:6])[0]
    scaled = prepare_epistasis(data(1e3 * TRAITS))
    other = refit_pairs(scaled.groups[0], 1, CALLS[2:3], CALLS[5:6])[0]
    assert other.beta == pytest.approx(1e3 * one.beta, rel=1e-9)
    assert other.t == pytest.approx(one.t, rel=1e-9)


def test_refit_leaves_missing_people_out_with_robust_errors():
    import statsmodels.api as sm

    calls = CALLS.copy()
    calls[2, :7] = np.nan
    fit = refit_pairs(prepare_epistasis(data()).groups[0], 1, calls[2:3], calls[5:6])[0]
    a, b, y, c = calls[2, 7:], calls[5, 7:], TRAITS[7:, 1], COVARIATES[7:]
    beta, error, t = naive_pair(a, b, y, c)
    assert [fit.beta, fit.standard_error, fit.t] == pytest.approx([beta, error, t], rel=1e-9)
    assert fit.n == N - 7
    x = np.column_stack([np.ones(N - 7), c, a, b, a * b])
    robust = sm.OLS(y, x).fit(cov_type="HC3", use_t=True)
    assert fit.robust_standard_error == pytest.approx(robust.bse[-1], rel=1e-9)
    assert fit.robust_neg_log10_p == pytest.approx(-np.log10(robust.pvalues[-1]), rel=1e-8)
    assert fit.variance_explained == pytest.approx(
        sm.OLS(y, x).fit().rsquared - sm.OLS(y, x[:, :-1]).fit().rsquared, rel=1e-8
    )
    cells = np.histogram2d(a, b, bins=[-0.5, 0.5, 1.5, 2.5])[0]
    assert fit.min_cell == cells.min()
    assert fit.status == ("ok" if cells.min() >= 5 else "sparse_cells")


def test_perfect_ld_is_a_status_and_near_perfect_ld_is_exact():
    calls = CALLS.copy()
    calls[1] = calls[0]
    calls[3] = calls[2]
    calls[3, 0] = (calls[2, 0] + 1) % 3
    design = prepare_epistasis(data())
    found, results = scan(design, calls=calls)
    assert np.isnan(found[:, 0, 1]).all()
    assert results[0].n_perfect_ld.tolist() == [1, 1, 1]
    _, _, t = naive_pair(calls[2], calls[3], TRAITS[:, 0], COVARIATES)
    assert found[0, 2, 3] == pytest.approx(neg_log10_p_from_t(np.array([t]), float(N - 6))[0], rel=1e-6)
    assert refit_pairs(design.groups[0], 0, calls[:1], calls[1:2])[0].status == "collinear"


def test_designs_of_pairs_and_their_number():
    chromosome, position = ["1"] * 7 + ["2"] * 7, RNG.integers(1, 4_000_000, M)
    variants = table(chromosome=chromosome, position=position)
    design = prepare_epistasis(data())
    group = design.groups[0]
    for rows in (np.arange(M), np.array([3, 9]), np.array([0])):
        for distance in (0, 1_000_000):
            pairs = PairSet.of(rows, np.arange(M))
            blocks = [prepare_variants(group, CALLS[k], k) for k in (pairs.rows, pairs.columns)]
            rules = PairRules(1.0, distance)
            result = scan_tile(group, *blocks, variant_places(variants), rules, in_rows=pairs.in_rows)
            tested = {frozenset(p) for p in zip(result.row.tolist(), result.column.tolist(), strict=True)}
            wanted = {
                frozenset((i, j))
                for i in rows.tolist()
                for j in range(M)
                if i != j and not (chromosome[i] == chromosome[j] and abs(position[i] - position[j]) < distance)
            }
            assert tested == wanted
            assert result.n_tests.tolist() == [len(wanted)] * 3
            assert count_pairs(pairs, variants, distance) == len(wanted)


def test_survey_is_the_marginal_regression():
    import statsmodels.api as sm

    calls = CALLS.copy()
    calls[4] = np.nan
    calls[6] = 1
    source = ArrayGenotypes(SampleIndex.of(range(N)), table(), calls)
    survey = survey_variants(prepare_epistasis(data()), source, block_size=4)
    assert np.isnan(survey.effect_allele_frequency[4])
    assert survey.effect_allele_frequency[0] == pytest.approx(CALLS[0].mean() / 2)
    assert np.isnan(survey.marginal_neg_log10_p[:, [4, 6]]).all()
    x = np.column_stack([np.ones(N), COVARIATES, CALLS[2]])
    expected = -np.log10(sm.OLS(TRAITS[:, 1], x).fit().pvalues[-1])
    assert survey.marginal_neg_log10_p[1, 2] == pytest.approx(expected, rel=1e-4)  # float32 sums


def test_only_open_variants_are_tested():
    design = prepare_epistasis(data())
    group = design.groups[0]
    block = prepare_variants(group, CALLS, np.arange(M))
    some = np.zeros((3, M), dtype=bool)
    some[0, [1, 4, 6]] = True
    result = scan_tile(
        group,
        block,
        block,
        variant_places(table()),
        EVERY,
        in_rows=np.ones(M, dtype=bool),
        open_rows=some,
        open_columns=some,
    )
    assert result.n_tests.tolist() == [3, 0, 0]


def test_wrong_input():
    with pytest.raises(ValueError, match="report_p is a p-value"):
        PairRules(report_p=0.0)
    with pytest.raises(ValueError, match=r"No trait can be analysed: .*t0 .constant."):
        prepare_epistasis(data(np.ones((N, 1))))
    with pytest.raises(AlignmentError, match="The block has 5 people"):
        prepare_variants(prepare_epistasis(data()).groups[0], CALLS[:, :5], np.arange(M))
    skipped = prepare_epistasis(data(np.column_stack([TRAITS[:, 0], np.where(np.arange(N) < 3, 1.0, np.nan)])))
    assert skipped.skipped == (("t1", "too_few_people"),)


def test_columns_of_no_pair():
    assert pair_fits_columns([])["beta"].shape == (0,)
