"""Copy-number calls to carriers, burden, and association beside statsmodels."""

import numpy as np
import pytest
import statsmodels.api as sm

from brainlocus.core import AlignmentError, RegionTable, SchemaError, SegmentTable
from brainlocus.core.text import text_array
from brainlocus.genetics.interactions import (
    ArrayLimits,
    CallLimits,
    array_reasons,
    associate_terms,
    check_builds,
    filter_segments,
    gene_burden,
    locus_copies,
    merge_segments,
)


def calls(*rows, build="GRCh37"):
    """Rows of (participant, chromosome, start, stop, copies, n_snps)."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    whole = [np.array(c, dtype=np.int64) for c in columns[2:]]
    ids, chromosomes = (np.array(c, dtype=np.str_) for c in columns[:2])
    return SegmentTable(ids, chromosomes, *whole, np.full(len(rows), np.nan), build)


def regions(*rows, build="GRCh37", loeuf=None):
    """Rows of (name, chromosome, start, stop, direction)."""
    name, chromosome, start, stop, direction = zip(*rows, strict=True)
    return RegionTable(
        text_array(name), np.array(chromosome), np.array(start), np.array(stop), np.array(direction),
        np.full(len(rows), np.nan) if loeuf is None else np.array(loeuf), build,
    )  # fmt: skip


def test_merging_across_small_gaps_only():
    merged = merge_segments(
        calls(
            ("b", "1", 1000, 1999, 1, 5),
            ("a", "1", 1, 100, 1, 7),
            ("a", "1", 111, 200, 1, 3),  # gap of 10 in 200: joined
            ("a", "1", 300, 400, 1, 3),  # gap of 99 in 400: not
            ("a", "1", 401, 500, 3, 4),  # other copies
            ("a", "2", 201, 300, 1, 4),
            ("a", "3", 1, 100, 1, 2),
            ("a", "3", 50, 60, 1, 2),  # inside the one before
        )
    )
    found = list(zip(merged.participant_id, merged.chromosome, merged.start, merged.stop, merged.n_snps, strict=True))
    assert found == [
        ("a", "1", 1, 200, 10), ("a", "1", 300, 400, 3), ("a", "1", 401, 500, 4), ("a", "2", 201, 300, 4),
        ("a", "3", 1, 100, 4), ("b", "1", 1000, 1999, 5),
    ]  # fmt: skip
    assert len(merge_segments(calls())) == 0


def test_calls_that_are_dropped_are_counted():
    table = calls(
        ("a", "1", 1, 50_000, 1, 20), ("a", "1", 1, 50_000, 1, 9), ("a", "1", 1, 500, 1, 20),
        ("a", "2", 1, 50_000, 1, 20), ("a", "2", 30_000, 79_999, 3, 0), ("a", "1", 1, 50_000, 2, 20),
    )  # fmt: skip
    kept, dropped = filter_segments(table, CallLimits(), regions(("centromere", "2", 1, 40_000, "both")))
    assert dropped == {"few_snps": 1, "short": 1, "excluded_region": 1, "two_copies": 1}
    assert kept.start.tolist() == [1, 30_000]  # 10,001 of 50,000 within the region: kept


def test_array_quality():
    quality = {
        "lrr_sd": np.array([0.1, 0.29, 0.1, np.nan]), "baf_median": np.array([0.5, 0.5, 0.44, np.nan]),
        "baf_drift": np.full(4, 0.001), "gc_wave": np.array([-0.06, 0.0, 0.0, 0.0]),
    }  # fmt: skip
    reasons = array_reasons(quality, np.array([0, 51, 0, 51]), ArrayLimits())
    assert reasons.tolist() == ["gc_wave", "lrr_sd", "baf_median", "too_many_calls"]


def test_carriers_by_overlap_and_direction():
    people = np.array(["a", "b", "c", "d", "e"])
    table = calls(
        ("a", "16", 1_000, 1_399, 1, 50),  # 400 of 1,000 bases: just a carrier
        ("b", "16", 1_000, 1_398, 1, 50),
        ("c", "16", 900, 3_000, 4, 50),
        ("d", "16", 1_000, 1_500, 1, 50), ("d", "16", 1_400, 2_000, 3, 50),  # the larger overlap counts
        ("e", "15", 1_000, 2_000, 1, 50), ("z", "16", 1_000, 2_000, 1, 50),
    )  # fmt: skip
    loci = regions(("16p", "16", 1_000, 1_999, "both"), ("16p-", "16", 1_000, 1_999, "deletion"))
    assert locus_copies(table, loci, 0, people).tolist() == [-1, 0, 2, 1, 0]
    assert locus_copies(table, loci, 1, people).tolist() == [-1, 0, 0, -1, 0]
    assert locus_copies(table, loci, 0, people, min_overlap=0.399).tolist() == [-1, -1, 2, 1, 0]
    with pytest.raises(AlignmentError, match="calls are on GRCh37, the regions on GRCh38"):
        locus_copies(table, regions(("x", "16", 1, 2, "both"), build="GRCh38"), 0, people)
    with pytest.raises(AlignmentError, match="Lift one"):
        check_builds("a", "b")


def test_gene_burden_counts_a_gene_once():
    genes = regions(("A", "1", 10, 20, "both"), ("B", "1", 30, 40, "both"), loeuf=[0.5, np.nan])
    table = calls(("a", "1", 1, 12, 1, 9), ("a", "1", 15, 35, 0, 9), ("b", "1", 20, 30, 3, 9), ("c", "2", 1, 99, 1, 9))
    burden = gene_burden(table, genes, np.array(["a", "b", "c"]))
    assert burden.tolist() == [[2, 0, 2, 0], [0, 2, 0, 2], [0, 0, 0, 0]]


N = 300
RNG = np.random.default_rng(2)
COVARIATES = RNG.normal(size=(N, 3))
DELETION = (np.arange(N) % 20 == 0).astype(float)
DUPLICATION = (np.arange(N) % 20 == 3).astype(float)
TRAITS = np.column_stack([RNG.normal(size=N), RNG.normal(size=N) - 0.8 * DELETION + COVARIATES[:, 0]])


def test_equals_statsmodels_with_ordinary_and_robust_errors():
    terms = np.column_stack([DELETION, DUPLICATION])
    found = associate_terms(TRAITS, COVARIATES, terms)
    assert found is not None
    x = sm.add_constant(np.column_stack([COVARIATES, terms]))
    last = np.eye(x.shape[1])[-2:]
    for k in range(2):
        plain, robust = sm.OLS(TRAITS[:, k], x).fit(), sm.OLS(TRAITS[:, k], x).fit(cov_type="HC3", use_t=True)
        assert found.degrees_of_freedom == plain.df_resid
        np.testing.assert_allclose(found.beta[:2, k], plain.params[-2:], rtol=1e-10)
        np.testing.assert_allclose(found.standard_error[:2, k], plain.bse[-2:], rtol=1e-10)
        np.testing.assert_allclose(found.robust_standard_error[:2, k], robust.bse[-2:], rtol=1e-10)
        both = [plain.pvalues[-2], plain.pvalues[-1], plain.f_test(last).pvalue]
        np.testing.assert_allclose(found.neg_log10_p[:, k], -np.log10(both), rtol=1e-9)
        both = [robust.pvalues[-2], robust.pvalues[-1], robust.f_test(last).pvalue]
        np.testing.assert_allclose(found.robust_neg_log10_p[:, k], -np.log10(both), rtol=1e-9)
    assert np.isnan(found.beta[2]).all()
    assert np.isnan(found.permutation_p).all()


def test_freedman_lane_is_the_literal_permutation():
    """The model is fitted again for every permuted trait; the same permutations give the same p."""
    terms = np.column_stack([DELETION, DUPLICATION])
    rows = np.array([True, False, True])
    found = associate_terms(TRAITS, COVARIATES, terms, permute=rows, n_permutations=60, rng=np.random.default_rng(8))
    assert found is not None
    rng = np.random.default_rng(8)
    for row, tested in ((0, [0]), (2, [0, 1])):
        others = [k for k in range(2) if k not in tested]
        nuisance = sm.add_constant(np.column_stack([COVARIATES, terms[:, others]]))
        x = np.column_stack([nuisance, terms[:, tested]])
        contrast = np.eye(x.shape[1])[-len(tested) :]
        orders = [rng.permutation(N) for _ in range(60)]
        for k in range(2):
            null = sm.OLS(TRAITS[:, k], nuisance).fit()
            observed = sm.OLS(TRAITS[:, k], x).fit().f_test(contrast).fvalue
            again = [sm.OLS(null.fittedvalues + null.resid[o], x).fit().f_test(contrast).fvalue for o in orders]
            expected = (1 + sum(f >= observed * (1 - 1e-9) for f in again)) / 61
            assert found.permutation_p[row, k] == pytest.approx(expected)
    assert np.isnan(found.permutation_p[1]).all()


def test_terms_that_cannot_be_told_apart():
    assert associate_terms(TRAITS, COVARIATES, COVARIATES[:, :1]) is None
    assert associate_terms(TRAITS, COVARIATES, np.column_stack([DELETION, DELETION])) is None
    assert associate_terms(TRAITS, COVARIATES, np.zeros((N, 1))) is None


def test_bad_segments():
    with pytest.raises(SchemaError, match="starts at 9 and ends at 3"):
        calls(("a", "1", 9, 3, 1, 1))
