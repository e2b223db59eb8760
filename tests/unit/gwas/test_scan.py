"""The streaming scan: same numbers however it is cut, against statsmodels, with hits, histograms and full results."""

import pickle

import numpy as np
import pytest
import statsmodels.api as sm

from brainlocus.core import (
    AlignmentError,
    ArrayGenotypes,
    Column,
    PhenotypeTable,
    ResourceError,
    ResultTable,
    SampleIndex,
    SchemaError,
    VariantTable,
    quantitative_table,
    select_genotypes,
)
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas import (
    ScanSettings,
    full_results,
    join_replication,
    merge_shards,
    prepare_scan,
    scan,
    scan_shard,
    shard_bounds,
)
from brainlocus.numerics import neg_log10_p_from_t


def study(rng, *, n=400, m=200, q=3, missing_calls=0.01, missing_traits=0.0):
    people = SampleIndex.of([f"p{k}" for k in range(n)])
    dosage = rng.binomial(2, rng.uniform(0.1, 0.9, m)[:, None], (m, n)).astype(np.float32)
    traits = rng.normal(size=(n, q))
    for k in range(q):
        traits[:, k] += 0.5 * dosage[10 * k + 5]
    dosage[rng.random(dosage.shape) < missing_calls] = np.nan
    traits[rng.random(traits.shape) < missing_traits] = np.nan
    variants = VariantTable(
        np.array(["1"] * (m // 2) + ["2"] * (m - m // 2)),
        np.arange(1, m + 1),
        text_array(["A"] * m),
        text_array(["G"] * m),
        text_array([f"v{k}" for k in range(m)]),
        "GRCh37",
    )
    covariates = PhenotypeTable(
        people,
        (
            Column("age", rng.uniform(40, 80, n)),
            Column("site", np.array(["a", "b", "c"])[rng.integers(0, 3, n)], "categorical"),
        ),
    )
    table = quantitative_table(people, [f"t{k}" for k in range(q)], traits)
    return ArrayGenotypes(people, variants, dosage), table, covariates


def same_tables(one, other, rtol):
    assert one.names == other.names
    assert len(one) == len(other)
    for name in one.names:
        if one[name].dtype.kind == "f":
            np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=1e-12, err_msg=name)
        else:
            assert one[name].tolist() == other[name].tolist(), name


@pytest.mark.parametrize("missing_traits", [0.0, 0.1])
def test_shards_and_blocks_change_nothing(missing_traits):
    rng = np.random.default_rng(1)
    source, traits, covariates = study(rng, missing_traits=missing_traits)
    settings = ScanSettings(hits=1e-3, full=True)
    whole = scan(source, traits, covariates=covariates, formula="age + C(site)", settings=settings)
    plan = prepare_scan(traits, source.samples, covariates=covariates, formula="age + C(site)", settings=settings)
    plan = pickle.loads(pickle.dumps(plan))
    chosen = select_genotypes(source, samples=plan.samples)
    small = 3_000_000
    shards = [scan_shard(plan, chosen, a, b, memory_bytes=small) for a, b in shard_bounds(200, 70)]
    cut = merge_shards(plan, source.variants, shards)
    same_tables(whole.hits, cut.hits, 1e-9)
    same_tables(whole.traits, cut.traits, 1e-3)
    same_tables(whole.variants, cut.variants, 1e-12)
    assert whole.qq.sum() == cut.qq.sum()
    assert np.abs(whole.qq.cumsum(axis=1) - cut.qq.cumsum(axis=1)).max() <= 1
    np.testing.assert_allclose(whole.full.traits["t"], cut.full.traits["t"], atol=2e-4)


def test_hits_are_ordinary_least_squares_and_every_test_can_be_kept():
    rng = np.random.default_rng(2)
    source, traits, covariates = study(rng, missing_calls=0.02, missing_traits=0.05, m=30)
    settings = ScanSettings(hits=1.0, missing="exact")
    result = scan(source, traits, covariates=covariates, formula="age + C(site)", settings=settings)
    assert len(result.hits) == 90
    site = covariates.column("site").values
    base = np.column_stack([np.ones(400), covariates.column("age").values, site == "b", site == "c"]).astype(float)
    for row in range(0, 90, 7):
        hits = {name: result.hits[name][row] for name in result.hits.names}
        y = traits.column(str(hits["trait"])).values
        g = source.dosage[int(str(hits["variant_id"])[1:])].astype(float)
        keep = ~(np.isnan(y) | np.isnan(g))
        fit = sm.OLS(y[keep], np.column_stack([base, g])[keep]).fit()
        assert hits["beta"] == pytest.approx(fit.params[-1], rel=1e-9)
        assert hits["standard_error"] == pytest.approx(fit.bse[-1], rel=1e-9)
        assert hits["neg_log10_p"] == pytest.approx(
            neg_log10_p_from_t(fit.tvalues[-1:], float(fit.df_resid))[0], rel=1e-9
        )
        assert hits["n"] == keep.sum()
        assert hits["effect_allele_frequency"] == pytest.approx(g[keep].mean() / 2)
    assert result.hits["trait"].tolist() == ["t0"] * 30 + ["t1"] * 30 + ["t2"] * 30
    assert (np.diff(result.hits["neg_log10_p"][:30]) <= 0).all()


def test_a_trait_does_not_depend_on_the_others():
    rng = np.random.default_rng(3)
    source, traits, covariates = study(rng, missing_traits=0.2)
    settings = ScanSettings(hits=0.01)
    together = scan(source, traits, covariates=covariates, settings=settings).hits
    alone = scan(source, traits, covariates=covariates, names=["t1"], settings=settings).hits
    same_tables(together.take(together["trait"] == "t1"), alone, 1e-9)


@pytest.mark.parametrize("missing", ["mean", "auto", "exact"])
def test_full_results_follow_from_stored_statistics(missing):
    rng = np.random.default_rng(4)
    source, traits, covariates = study(rng, missing_traits=0.1, missing_calls=0.04)
    settings = ScanSettings(hits=1.0, full=True, missing=missing)
    result = scan(source, traits, covariates=covariates, settings=settings)
    plan = prepare_scan(traits, source.samples, covariates=covariates, settings=settings)
    full = full_results(plan, source.variants, result.full, "t2")
    assert len(full) == 200
    hits = result.hits.take(result.hits["trait"] == "t2")
    row = {name: k for k, name in enumerate(full["variant_id"].tolist())}
    rows = np.array([row[name] for name in hits["variant_id"].tolist()])
    for name in ("beta", "standard_error", "neg_log10_p", "effect_allele_frequency"):
        np.testing.assert_allclose(full[name][rows], hits[name], rtol=2e-6, atol=1e-7, err_msg=name)  # t is float32
    assert full["n"][rows].tolist() == hits["n"].tolist()
    with pytest.raises(SchemaError, match="no result for trait 't9'"):
        full_results(plan, source.variants, result.full, "t9")


@pytest.mark.parametrize("n", [120, 500])
def test_histogram_and_lambda_are_those_of_the_p_values(n):
    """120 people use exact p-values, 500 the normal deviate of Wallace (1959)."""
    rng = np.random.default_rng(5)
    source, traits, _ = study(rng, n=n, m=3000, q=2)
    result = scan(source, traits, settings=ScanSettings(hits=1.0))
    for k in range(2):
        p = result.hits["neg_log10_p"][result.hits["trait"] == f"t{k}"]
        exact = np.bincount(np.minimum(p / 0.01, 4000).astype(int), minlength=4001)
        assert np.abs(np.cumsum(exact) - np.cumsum(result.qq[k])).max() <= 3  # tests on a bin's edge
        z2 = np.median(_chi2(p))
        assert result.traits["lambda_gc"][k] == pytest.approx(z2 / 0.454936, abs=5e-3)


def _chi2(neg_log10_p):
    from scipy.stats import chi2

    return chi2.isf(10.0**-neg_log10_p, 1)


def test_type_one_error_and_lambda_under_the_null():
    rng = np.random.default_rng(6)
    source, traits, _ = study(rng, n=500, m=2000, q=1)
    null = quantitative_table(traits.samples, [f"n{k}" for k in range(20)], rng.normal(size=(500, 20)))
    result = scan(source, null, settings=ScanSettings(hits=0.01))
    assert result.traits["n_hits"].sum() == pytest.approx(0.01 * 40_000, abs=5 * np.sqrt(0.01 * 40_000))
    assert result.traits["lambda_gc"].mean() == pytest.approx(1.0, abs=0.03)


def test_skipped_traits_and_variants_are_reported():
    rng = np.random.default_rng(7)
    source, traits, _ = study(rng, m=40)
    source.dosage[3] = 0
    source.dosage[4] = np.nan
    columns = (*traits.columns[:2], Column("flat", np.ones(400)), traits.columns[2])
    result = scan(source, PhenotypeTable(traits.samples, columns))
    assert result.traits["trait"].tolist() == ["t0", "t1", "flat", "t2"]
    assert result.traits["reason"].tolist() == ["", "", "constant", ""]
    assert result.traits["n_tests"].tolist() == [38, 38, 0, 38]
    reasons = result.variants["reason"].tolist()
    assert (reasons[3], reasons[4]) == ("constant", "no_calls")


def test_people_are_matched_by_id_and_bad_input_is_refused():
    rng = np.random.default_rng(8)
    source, traits, covariates = study(rng)
    order = rng.permutation(400)[:300]
    shuffled = traits.take(traits.samples.take(order))
    a = scan(source, shuffled, covariates=covariates, settings=ScanSettings(hits=0.01)).hits
    b = scan(
        source,
        traits.take(traits.samples.take(np.sort(order))),
        covariates=covariates,
        settings=ScanSettings(hits=0.01),
    ).hits
    same_tables(a, b, 1e-9)
    stranger = quantitative_table(SampleIndex.of(["x", "y"]), ["t"], np.ones((2, 1)))
    with pytest.raises(AlignmentError, match="No participant id is shared"):
        scan(source, stranger)
    with pytest.raises(SchemaError, match="no column 't5'"):
        scan(source, traits, names=["t5"])
    with pytest.raises(SchemaError, match=r"names 'aeg', which is not a column. Did you mean 'age'"):
        scan(source, traits, covariates=covariates, formula="aeg")
    with pytest.raises(ValueError, match="hits is a p-value"):
        ScanSettings(hits=0.0)
    with pytest.raises(ResourceError, match="Raise --memory"):
        scan(source, traits, memory_bytes=1000)


def test_info_is_mach_r2_of_dosages_on_autosomes():
    rng = np.random.default_rng(20)
    source, table, _ = study(rng, m=40)
    dosage = source.read(0, 40).dosage
    dosage[1::2] = np.clip(0.7 * dosage[1::2] + 0.2, 0, 2)
    v = source.variants
    places = np.array((["1"] * 5 + ["X"] * 5) * 4)
    v = VariantTable(places, v.position, v.effect_allele, v.other_allele, v.variant_id, "unknown")
    info = scan(ArrayGenotypes(source.samples, v, dosage), table).variants["info"]
    dosed = (np.arange(40) % 2 == 1) & (places == "1")
    wide = dosage[dosed].astype(float)
    expected = np.nanmean(wide, axis=1) * (1 - np.nanmean(wide, axis=1) / 2)
    np.testing.assert_allclose(info[dosed], np.nanvar(wide, axis=1) / expected, rtol=1e-6)
    assert np.isnan(info[~dosed]).all()


def test_replication_join():
    def table(trait, variant, effect, other, beta, p):
        k = len(trait)
        return ResultTable(
            {
                "trait": text_array(trait), "variant_id": text_array(variant), "effect_allele": text_array(effect),
                "other_allele": text_array(other), "beta": np.array(beta), "standard_error": np.full(k, 0.1),
                "neg_log10_p": np.array(p),
            }
        )  # fmt: skip

    leads = table(["a", "a", "b", "b", "c"], list("vwvxy"), ["A"] * 5, ["G"] * 5, [1.0, -1.0, 0.5, 0.5, 0.5], [9.0] * 5)
    again = table(
        ["a", "a", "b", "b"],
        list("vwvx"),
        ["A", "G", "A", "A"],
        ["G", "A", "G", "T"],
        [0.8, 0.7, -0.4, 0.5],
        [5.0, 3.0, 4.0, 4.0],
    )
    joined = join_replication(leads, again)
    assert joined["status"].tolist() == ["ok", "ok", "ok", "other_alleles", "not_tested"]
    assert joined["replicated"].tolist() == [True, True, False, False, False]
    np.testing.assert_array_equal(joined["replication_beta"][:3], [0.8, -0.7, -0.4])
    strict = join_replication(leads, again, alpha=0.004)  # 0.004 / 5: -log10 p must exceed 3.097
    assert strict["replicated"].tolist() == [True, False, False, False, False]
    with pytest.raises(SchemaError, match="'a' and variant 'v' occur twice"):
        join_replication(leads, table(["a", "a"], ["v", "v"], "AA", "GG", [1.0, 1.0], [1.0, 1.0]))
