import numpy as np
import pytest
from scipy import stats

from brainlocus.core import SchemaError
from brainlocus.genetics.twas import expected_counts, mark_significant, specificity, tissue_groups, tissue_specificity
from brainlocus.numerics import benjamini_hochberg_q, bonferroni_p
from tests.reference import naive_gene_sets as naive
from tests.unit.twas.study import TISSUES, small_study

GROUPS = np.array(["brain"] * 4 + ["other"] * 3)


def counted(tests, modelled):
    n = np.zeros((tests.tissues.size, tests.phenotypes.size), dtype=np.int64)
    np.add.at(n, (tests.tissue, tests.phenotype), 1)
    return n


@pytest.fixture(scope="module")
def found():
    tests, modelled = small_study()
    n_tested = counted(tests, modelled)
    passed = mark_significant(tests, n_tested, np.zeros(n_tested.shape, dtype=np.int64))
    significant = tests.take(passed)
    return significant, modelled, n_tested, tissue_specificity(significant, modelled, n_tested, GROUPS)


def test_significance_is_that_of_the_whole_table():
    tests, modelled = small_study()
    n_tested = counted(tests, modelled)
    shape = n_tested.shape
    all_of_it = np.zeros(shape, dtype=np.int64)
    strong = tests.take(tests.neg_log10_p >= -np.log10(0.05))
    for method, correct in (("bh", benjamini_hochberg_q), ("bonferroni", bonferroni_p)):
        expected = correct(tests.neg_log10_p) <= 0.05
        np.testing.assert_array_equal(mark_significant(tests, n_tested, all_of_it, method=method), expected)
        # The same from the tests with p up to alpha.
        found = mark_significant(strong, n_tested, all_of_it, method=method)
        np.testing.assert_array_equal(found, expected[tests.neg_log10_p >= -np.log10(0.05)])
    cell = np.arange(n_tested.size).reshape(shape)
    found = mark_significant(tests, n_tested, cell)
    for t, p in ((0, 3), (6, 69)):
        mine = (tests.tissue == t) & (tests.phenotype == p)
        np.testing.assert_array_equal(found[mine], benjamini_hochberg_q(tests.neg_log10_p[mine]) <= 0.05)
    np.testing.assert_array_equal(
        mark_significant(tests, n_tested, cell, method="p"), tests.neg_log10_p >= -np.log10(0.05)
    )
    fewer = mark_significant(strong, n_tested, all_of_it, n_tests=10**7)
    assert 0 < fewer.sum() < mark_significant(strong, n_tested, all_of_it).sum()
    with pytest.raises(ValueError, match="where the scope is the study"):
        mark_significant(strong, n_tested, cell, n_tests=10**7)


def test_tissues_of_genes_and_pairs_are_those_of_loops(found):
    significant, modelled, _, result = found
    for table, key, label in (
        (result.genes, lambda g, p: g, lambda row: row[0]),
        (result.pairs, lambda g, p: (g, p), lambda row: row),
    ):
        expected, z = naive.tissues_of(significant, key), naive.z_of(significant, key)
        n_models = dict(zip(significant.genes.tolist(), modelled.sum(axis=1).tolist(), strict=True))
        names = list(
            zip(
                table["gene"].tolist(),
                (table["phenotype"] if "phenotype" in table.names else table["gene"]).tolist(),
                strict=True,
            )
        )
        assert {label(n) for n in names} == set(expected)
        for row, name in enumerate(names):
            tissues, values = expected[label(name)], z[label(name)]
            assert table["n_tissues"][row] == len(tissues)
            assert table["n_models"][row] == n_models[name[0]]
            assert table["share_of_models"][row] == len(tissues) / n_models[name[0]]
            assert table["median_abs_z"][row] == pytest.approx(np.median([abs(v) for _, v in values]), rel=1e-14)
            groups = {GROUPS[TISSUES.index(t)] for t in tissues}
            assert table["specificity"][row] == ("shared" if len(groups) == 2 else f"unique_{groups.pop()}")
            for column, group in (("median_z_first", "brain"), ("median_z_second", "other")):
                own = [v for t, v in values if GROUPS[TISSUES.index(t)] == group]
                np.testing.assert_allclose(table[column][row], np.median(own) if own else np.nan, rtol=1e-14)
            if "phenotype" in table.names:
                sd = np.std([abs(v) for _, v in values], ddof=1) if len(values) > 1 else np.nan
                np.testing.assert_allclose(table["sd_abs_z"][row], sd, rtol=1e-10)
    phenotypes = {}
    for gene, _, phenotype, _, _ in naive.triples(significant):
        phenotypes.setdefault(gene, set()).add(phenotype)
    for gene, n, mean in zip(*(result.genes[c].tolist() for c in ("gene", "n_phenotypes", "sd_abs_z")), strict=True):
        assert n == len(phenotypes[gene])
        own = result.pairs["sd_abs_z"][result.pairs["gene"] == gene]
        np.testing.assert_allclose(mean, np.nanmean(own) if np.isfinite(own).any() else np.nan, rtol=1e-12)


def test_profile_counts_and_expectation(found):
    significant, modelled, n_tested, result = found
    genes = result.profile.take(np.flatnonzero(result.profile["level"] == "gene"))
    pairs = result.profile.take(np.flatnonzero(result.profile["level"] == "pair"))
    assert genes["n_tissues"].tolist() == list(range(1, 8))
    assert genes["count"].sum() == len(result.genes)
    assert pairs["count"].sum() == len(result.pairs)
    for k in range(1, 8):
        assert genes["count"][k - 1] == (result.genes["n_tissues"] == k).sum()
        assert genes["possible_count"][k - 1] == (modelled.sum(axis=1) >= k).sum()
        mine = result.pairs["n_tissues"] == k
        if mine.any():
            assert pairs["median_abs_z"][k - 1] == np.median(result.pairs["median_abs_z"][mine])
        if k > 1 and mine.any():
            assert pairs["sd_abs_z"][k - 1] == pytest.approx(result.pairs["sd_abs_z"][mine].mean(), rel=1e-12)
    hit = {(g, t) for g, t, _, _, _ in naive.triples(significant)}
    rate = [sum(t == tissue for _, t in hit) / modelled[:, k].sum() for k, tissue in enumerate(TISSUES)]
    expected = np.zeros(8)
    for row in modelled:
        chance = naive.poisson_binomial([r for r, there in zip(rate, row, strict=True) if there])
        expected[: chance.size] += chance
    np.testing.assert_allclose(genes["expected_count"], expected[1:], rtol=1e-10)
    by_tissue = np.bincount(significant.tissue, minlength=7) / n_tested.sum(axis=1)
    np.testing.assert_allclose(pairs["expected_count"], expected_counts(modelled, by_tissue)[1:] * 70, rtol=1e-12)


def test_comparisons_are_those_of_scipy_and_statsmodels(found):
    _, _, _, result = found
    table, pairs, tissues = result.comparisons, result.pairs, result.tissues

    def row(comparison, level, first=None, second=None):
        keep = (table["comparison"] == comparison) & (table["level"] == level)
        if first is not None:
            keep &= (table["first"] == first) & (table["second"] == second)
        (k,) = np.flatnonzero(keep)
        return {name: table[name][k] for name in table.names}

    values = {c: pairs["median_abs_z"][pairs["specificity"] == c] for c in ("unique_brain", "unique_other", "shared")}
    for first, second in (("unique_brain", "unique_other"), ("unique_brain", "shared"), ("unique_other", "shared")):
        one = row("mann_whitney median_abs_z", "pair", first, second)
        expected = naive.mann_whitney(values[first], values[second])
        assert one["statistic"] == expected.statistic
        assert 10.0 ** -one["neg_log10_p"] == pytest.approx(expected.pvalue, rel=1e-9)
        assert one["value_first"] == np.median(values[first])
    one = row("spearman of median_abs_z", "pair")
    expected = stats.spearmanr(pairs["n_tissues"], pairs["median_abs_z"])
    assert one["statistic"] == pytest.approx(expected.statistic, rel=1e-12)
    assert 10.0 ** -one["neg_log10_p"] == pytest.approx(expected.pvalue, rel=1e-8)
    shared = pairs["specificity"] == "shared"
    agree = np.sign(pairs["median_z_first"][shared]) == np.sign(pairs["median_z_second"][shared])
    assert row("equal sign of shared", "pair")["statistic"] == agree.mean()
    one = row("group x size, slope of associations on models", "tissue")
    t, p = naive.interaction(
        tissues["n_models"], tissues["n_associations"], (tissues["group"] == "other").astype(float)
    )
    assert one["statistic"] == pytest.approx(t, rel=1e-8)
    assert 10.0 ** -one["neg_log10_p"] == pytest.approx(p, rel=1e-8)
    rate = tissues["n_associations"] / tissues["n_models"]
    brain = tissues["group"] == "brain"
    exact = stats.mannwhitneyu(rate[brain], rate[~brain], method="exact")
    assert 10.0 ** -row("mann_whitney associations per model", "tissue")["neg_log10_p"] == pytest.approx(exact.pvalue)


def test_mann_whitney_beyond_doubles():
    first, second = np.arange(5000.0), np.arange(5000.0) + 4000
    u, strength = specificity._mann_whitney(first, second)
    assert u == stats.mannwhitneyu(first, second).statistic
    assert 300 < strength < 2000
    assert specificity._mann_whitney(np.ones(30), np.ones(40))[1] == 0.0


def test_one_significant_test_and_tissues_without_models():
    tests, modelled = small_study()
    one = tests.take(np.array([int(np.argmax(tests.neg_log10_p))]))
    result = tissue_specificity(one, modelled, counted(tests, modelled), GROUPS)
    assert len(result.genes) == len(result.pairs) == 1
    assert result.genes["n_tissues"].tolist() == [1]


def test_groups_by_name():
    names = np.array(
        ["JTI_Brain_Cortex", "JTI_Whole_Blood", "Colon_Sigmoid", "Brain_Spinal_cord_cervical_c-1", "en_Liver"]
    )
    assert tissue_groups(names).tolist() == ["brain", "non_brain", "non_brain", "brain", "non_brain"]
    with pytest.raises(SchemaError, match="'Muscle_Skeletal' is neither called brain"):
        tissue_groups(np.array(["Muscle_Skeletal"]))


def test_bad_input(found):
    significant, modelled, n_tested, _ = found
    with pytest.raises(SchemaError, match="two groups of tissues, found 3"):
        tissue_specificity(significant, modelled, n_tested, np.array(["a", "b", "c", "a", "a", "a", "a"]))
    twice = significant.take(np.r_[0, np.arange(len(significant))])
    with pytest.raises(SchemaError, match="two results for one phenotype and tissue"):
        tissue_specificity(twice, modelled, n_tested, GROUPS)
    with pytest.raises(SchemaError, match="no model of it there"):
        tissue_specificity(significant, np.zeros_like(modelled), n_tested, GROUPS)
