"""What quality control, Hardy-Weinberg, relationships, clumping and heritability must not depend on."""

from math import comb, factorial, log10

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlocus.core import ArrayGenotypes, Grm, ResultTable, SampleIndex, VariantTable, quantitative_table
from brainlocus.core.text import text_array
from brainlocus.genetics.genotypes import QcSettings, genetic_relationships, hwe_neg_log10_p, quality_control
from brainlocus.genetics.heritability import greml
from brainlocus.genetics.loci import ClumpSettings, clump
from tests.reference.greml import naive_restricted_log_likelihood

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=15, deadline=None)


def source_of(dosage, position=None, names=None):
    m, n = dosage.shape
    variants = VariantTable(
        np.array(["1"] * m),
        np.arange(1, m + 1) if position is None else position,
        text_array(["A"] * m),
        text_array(["G"] * m),
        text_array(names or [f"v{k}" for k in range(m)]),
        "GRCh37",
    )
    return ArrayGenotypes(SampleIndex.of([f"p{k}" for k in range(n)]), variants, dosage)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400), st.booleans())
def test_hardy_weinberg_does_not_depend_on_which_allele_is_counted(hom, het, other, mid_p):
    one, two = (
        hwe_neg_log10_p(np.array([a]), np.array([het]), np.array([b]), mid_p=mid_p)[0]
        for a, b in ((hom, other), (other, hom))
    )
    assert one == two
    assert one >= 0


def test_hardy_weinberg_of_extremes():
    """Whole numbers instead of logarithms: of comb(2n, n) arrangements, n! / (a! h! b!) 2^h have h heterozygotes."""
    n = 300
    ways = {h: factorial(n) // (factorial((n - h) // 2) ** 2 * factorial(h)) * 2**h for h in range(0, n + 1, 2)}
    assert sum(ways.values()) == comb(2 * n, n)
    for h in (0, 2, 150, 298, n):
        as_rare = sum(w for w in ways.values() if w <= ways[h])
        exact = log10(comb(2 * n, n)) - log10(as_rare)
        found = hwe_neg_log10_p(np.array([(n - h) // 2]), np.array([h]), np.array([(n - h) // 2]))[0]
        np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9)


@few
@given(seeds)
def test_quality_control_judges_variants_among_the_people_who_stay(seed):
    """Who leaves first is not counted later: the same as quality control of the others from the start."""
    rng = np.random.default_rng(seed)
    dosage = rng.binomial(2, rng.uniform(0.02, 0.5, (120, 1)), (120, 80)).astype(np.float32)
    leaves = np.arange(80) < 6
    dosage[:, leaves] = np.where(rng.random((120, 6)) < 0.3, np.nan, 2.0)  # few calls, and all of one allele
    rules = QcSettings(max_heterozygosity_sd=None, min_maf=0.05)
    both = quality_control(source_of(dosage), rules)
    assert both.samples["reason"].tolist()[:6] == ["sample_missing"] * 6
    assert both.keep_samples.ids.tolist() == [f"p{k}" for k in range(6, 80)]
    alone = quality_control(source_of(dosage[:, ~leaves]), rules)
    for name in ("effect_allele_frequency", "missing_rate", "hwe_neg_log10_p"):
        np.testing.assert_array_equal(both.variants[name], alone.variants[name], err_msg=name)
    assert both.variants["reason"].tolist() == alone.variants["reason"].tolist()


@few
@given(seeds, st.sampled_from(["expected", "observed"]), st.sampled_from(["pairwise", "mean"]))
def test_relationships_do_not_depend_on_which_allele_is_counted_or_the_order_of_variants(seed, scale, missing):
    rng = np.random.default_rng(seed)
    dosage = rng.binomial(2, 0.4, (60, 20)).astype(np.float32)
    dosage[rng.random(dosage.shape) < 0.05] = np.nan
    here = genetic_relationships(source_of(dosage), scale=scale, missing=missing).matrix
    flip = rng.random(60) < 0.5
    changed = np.where(flip[:, None], 2 - dosage, dosage)[rng.permutation(60)]
    there = genetic_relationships(source_of(changed), scale=scale, missing=missing).matrix
    np.testing.assert_allclose(there, here, atol=2e-6)  # products in float32


def clumped(source, p, order, **rules):
    table = ResultTable(
        {
            "trait": text_array(["t"] * p.size),
            "variant_id": source.variants.variant_id[order],
            "neg_log10_p": p[order],
        }
    )
    return clump(table, source, ClumpSettings(**rules))


@few
@given(seeds)
def test_clumps_do_not_depend_on_the_order_of_the_table_and_loci_lie_apart(seed):
    rng = np.random.default_rng(seed)
    base = rng.binomial(1, 0.4, (8, 2, 60))
    dosage = base.repeat(6, axis=0).sum(axis=1).astype(np.float32)
    dosage = np.where(rng.random(dosage.shape) < 0.1, rng.integers(0, 3, dosage.shape), dosage).astype(np.float32)
    source = source_of(dosage, position=np.sort(rng.integers(1, 3_000_000, 48)))
    p = np.round(rng.exponential(4.0, 48))  # whole numbers: many ties
    here = clumped(source, p, np.arange(48), p1=1e-4)
    there = clumped(source, p, rng.permutation(48), p1=1e-4)
    for name in here.variants.names:
        assert here.variants[name].tolist() == there.variants[name].tolist(), name
    assert here.loci["start"].tolist() == there.loci["start"].tolist()
    gaps = here.loci["start"][1:] - here.loci["stop"][:-1]
    assert (gaps >= 250_000).all()
    roles = here.variants["role"]
    assert (here.variants["neg_log10_p"][roles != "candidate"] >= 4).all()


def test_of_equal_p_the_lower_position_claims_the_other():
    dosage = np.tile(np.array([0, 1, 2, 1, 0, 2], dtype=np.float32), (2, 1))
    source = source_of(dosage, position=np.array([900, 100]))
    found = clumped(source, np.array([9.0, 9.0]), np.array([0, 1]))
    assert found.loci["top_variant_id"].tolist() == ["v1"]
    assert set(found.variants["index_variant_id"].tolist()) == {"v1"}


def test_loci_merge_below_the_distance_and_not_at_it():
    """Two unrelated signals 249,999 and 250,000 bases apart: one locus, two loci."""
    one = np.array([0, 1, 2, 1, 0, 2, 1, 1], dtype=np.float32)
    other = np.array([1, 0, 1, 2, 1, 2, 0, 2], dtype=np.float32)
    for distance, n_loci in ((249_999, 1), (250_000, 2)):
        source = source_of(np.stack([one, other]), position=np.array([1000, 1000 + distance]))
        found = clumped(source, np.array([9.0, 10.0]), np.array([0, 1]))
        assert len(found.loci) == n_loci, distance
        assert found.loci["n_lead"].sum() == 2


@few
@given(seeds, st.floats(0.01, 1000), st.floats(-100, 100))
def test_heritability_does_not_depend_on_unit_covariates_or_order(seed, factor, shift):
    rng = np.random.default_rng(seed)
    n = 40
    x = rng.normal(size=(n, 60))
    x[1::2] = 0.7 * x[::2] + 0.7 * x[1::2]
    grm = Grm(SampleIndex.of([f"p{k}" for k in range(n)]), x @ x.T / 60, 60.0)
    covariates = rng.normal(size=(n, 2))
    y = np.linalg.cholesky(grm.matrix + 1e-6 * np.eye(n)) @ rng.normal(size=(n, 2)) + rng.normal(size=(n, 2))
    people, names = grm.samples, ["a", "b"]
    table = quantitative_table(people, ["u", "v"], covariates)
    here = greml(grm, quantitative_table(people, names, y), covariates=table)
    moved = quantitative_table(people, names, factor * (y + shift + covariates @ np.array([[1.0, 2.0], [-3.0, 0.5]])))
    order = people.take(rng.permutation(n))
    there = greml(grm.take(order), moved.take(order), covariates=table.take(order))
    for name in ("h2", "pve"):
        np.testing.assert_allclose(there[name], here[name], atol=1e-6)
    np.testing.assert_allclose(there["lrt"], here["lrt"], atol=1e-6)
    dense = np.column_stack([np.ones(n), covariates])
    for k in range(2):
        # The estimate is at least as likely as every point of a grid, by dense matrices.
        grid = [naive_restricted_log_likelihood(y[:, k], dense, grm.matrix, h)[0] for h in np.linspace(0, 0.99, 12)]
        assert here["log_likelihood"][k] >= max(grid) - 1e-7
