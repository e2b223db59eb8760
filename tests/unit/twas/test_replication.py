import re

import numpy as np
import pytest
from scipy import stats

from brainlocus.core import AlignmentError, GeneMatrix, PhenotypeAnnotation, SchemaError
from brainlocus.genetics.twas import (
    HemispherePairs,
    annotated_hemispheres,
    external_replication,
    internal_replication,
    match_hemispheres,
    pair_tissue,
)
from brainlocus.genetics.twas import replication as module
from brainlocus.io.gene_associations import read_annotation
from tests.real_data import real_data
from tests.reference import naive_replication as naive
from tests.unit.twas.replication_panel import MODALITIES, cohorts

ANNOTATION = PhenotypeAnnotation(np.array([f"p{k}" for k in range(12)]), {"modality": np.array(MODALITIES)})


def rows(table, **keys):
    mask = np.ones(len(table), dtype=bool)
    for name, value in keys.items():
        mask &= table[name] == value
    return table.take(np.flatnonzero(mask))


@pytest.mark.parametrize("estimate", ["z", "effect"])
def test_agreement_is_that_of_loops(estimate, monkeypatch):
    monkeypatch.setattr(module, "_CELLS", 60)  # several blocks
    first, second = cohorts(flipped=0.15)
    pairs = [pair_tissue(a, b, estimate=estimate) for a, b in zip(first, second, strict=True)]
    found = internal_replication(pairs, annotation=ANNOTATION, min_tests=3)
    one, other = naive.tests_of(first, estimate), naive.tests_of(second, estimate)
    shared = one.keys() & other.keys()
    assert sum(p.n_shared for p in pairs) == len(shared)
    hits = [naive.significant(tests, 0.05) & shared for tests in (one, other)]
    strong = [naive.benjamini_hochberg_keys(tests, 0.05) & shared for tests in (one, other)]
    both = hits[0] & hits[1]
    selections = {
        "both": both,
        "fdr_both": strong[0] & strong[1] & both,
        "discovery": hits[0],
        "replication": hits[1],
        "fdr_discovery": strong[0],
        "fdr_replication": strong[1],
    }
    modality = dict(zip(ANNOTATION.phenotypes.tolist(), MODALITIES, strict=True))
    for name, keys in selections.items():
        row = rows(found, level="all", selection=name)
        n, same, rho = naive.agreement(one, other, keys)
        assert (len(row), row["n_tests"][0], row["n_same_sign"][0]) == (1, n, same)
        expected = -np.log10(stats.binom.sf(same - 1, n, 0.5))
        np.testing.assert_allclose(row["sign_neg_log10_p"][0], expected, rtol=1e-9)
        if "both" in name:
            np.testing.assert_allclose(row["spearman_rho"][0], rho, rtol=1e-12)
    for tissue in ("t0", "t1", "t2"):
        n, same, rho = naive.agreement(one, other, [k for k in both if k[0] == tissue])
        row = rows(found, level="tissue", selection="both", tissue=tissue)
        assert (row["n_tests"][0], row["n_same_sign"][0]) == (n, same)
        np.testing.assert_allclose(row["spearman_rho"][0], rho, rtol=1e-12)
    shares = []
    for phenotype in np.unique([k[2] for k in both]).tolist():
        n, same, rho = naive.agreement(one, other, [k for k in both if k[2] == phenotype])
        row = rows(found, level="phenotype", selection="both", phenotype=phenotype)
        assert (row["n_tests"][0], row["n_same_sign"][0]) == (n, same)
        if modality[phenotype] == "dMRI" and n >= 3:
            shares.append(same / n)
    row = rows(found, level="modality", selection="both", modality="dMRI")
    interval = stats.t.interval(0.95, len(shares) - 1, np.mean(shares), stats.sem(shares))
    np.testing.assert_allclose(row["mean_same_sign"][0], np.mean(shares), rtol=1e-12)
    bounds = row["mean_same_sign_lower"][0], row["mean_same_sign_upper"][0]
    np.testing.assert_allclose(bounds, interval, rtol=1e-10)
    assert row["n_phenotypes"][0] == len(shares)
    keys = [k for k in both if modality[k[2]] == "T1" and k[0] == "t2"]
    row = rows(found, level="modality_tissue", selection="both", modality="T1", tissue="t2")
    assert row["n_tests"][0] == len(keys)
    keys = [k for k in hits[1] if modality[k[2]] == "rfMRI"]
    row = rows(found, level="modality", selection="replication", modality="rfMRI")
    assert (row["n_tests"][0], row["n_same_sign"][0]) == naive.agreement(one, other, keys)[:2]


def test_order_of_genes_and_phenotypes_does_not_matter():
    first, second = cohorts()
    pairs = [pair_tissue(a, b) for a, b in zip(first, second, strict=True)]
    turned = []
    for a, b in zip(first, second, strict=True):
        back = [
            GeneMatrix(m.tissue, m.genes[::-1], m.gene_names[::-1], m.phenotypes[::-1], m.z[::-1, ::-1]) for m in (a, b)
        ]
        turned.append(pair_tissue(*back))
    one, other = internal_replication(pairs), internal_replication(turned)
    for name in one.names:
        np.testing.assert_array_equal(one[name], other[name])


def test_without_effects_half_agree_whatever_the_selection():
    first, second = cohorts(seed=3, effect=0.0, genes=3000)
    found = internal_replication([pair_tissue(a, b) for a, b in zip(first, second, strict=True)])
    for name in ("both", "discovery", "replication"):
        row = rows(found, level="all", selection=name)
        n = row["n_tests"][0]
        assert abs(row["same_sign"][0] - 0.5) < 4 * 0.5 / np.sqrt(n)


def test_weak_effects_agree_more_where_both_cohorts_select():
    first, second = cohorts(seed=4, effect=1.0, genes=2000)
    found = internal_replication([pair_tissue(a, b) for a, b in zip(first, second, strict=True)])
    share = {name: rows(found, level="all", selection=name)["same_sign"][0] for name in ("both", "discovery")}
    assert share["both"] > share["discovery"] + 0.05


def test_one_test():
    one = GeneMatrix("t", np.array(["g"]), np.array([""]), np.array(["p"]), np.array([[5.0]]))
    found = internal_replication([pair_tissue(one, one)])
    row = rows(found, level="all", selection="both")
    assert (row["n_tests"][0], row["same_sign"][0]) == (1, 1.0)
    assert np.isnan(row["spearman_rho"][0])
    none = GeneMatrix("t", np.array(["g"]), np.array([""]), np.array(["p"]), np.array([[0.1]]))
    row = rows(internal_replication([pair_tissue(none, none)]), level="all", selection="both")
    assert row["n_tests"][0] == 0
    assert np.isnan(row["same_sign"][0])


def test_a_part_of_the_tests_is_corrected_as_the_whole():
    first, second = cohorts()
    pairs = [pair_tissue(a, b) for a, b in zip(first, second, strict=True)]
    whole = rows(internal_replication(pairs), level="all", selection="fdr_both")["n_tests"][0]
    strict = rows(internal_replication(pairs, n_tests=(10**6, 10**6)), level="all", selection="fdr_both")["n_tests"][0]
    assert strict < whole


def test_bad_input():
    first, second = cohorts()
    other = GeneMatrix("t0", np.array(["x.1"]), np.array([""]), second[0].phenotypes, np.zeros((1, 11)))
    with pytest.raises(AlignmentError, match="share none of the genes of tissue t0"):
        pair_tissue(first[0], other)
    with pytest.raises(SchemaError, match="no effect sizes"):
        pair_tissue(
            first[0],
            GeneMatrix("t0", second[0].genes, second[0].genes, second[0].phenotypes, second[0].z),
            estimate="effect",
        )
    with pytest.raises(ValueError, match="up to alpha"):
        internal_replication([pair_tissue(first[0], second[0])], fdr=0.1)


PAIRS = HemispherePairs(np.array(["p0", "p2", "p4"]), np.array(["p1", "p3", "p5"]), np.array(["a", "b", "c"]))


def external_set(second):
    names = {f"p{k}": k for k in range(12)}
    sets = []
    for m in second:
        kept = [k for k, name in enumerate(m.phenotypes.tolist()) if names[name] in (0, 2, 4)]
        labels = np.array(["abc"[names[m.phenotypes[k]] // 2] for k in kept])
        sets.append(GeneMatrix(m.tissue, m.genes, m.gene_names, labels, m.z[:, kept]))
    return sets


@pytest.mark.parametrize(("significance", "min_r2"), [("p", 0.1), ("bh", 0.0), ("p", 0.0)])
def test_hemispheres_are_those_of_loops(significance, min_r2):
    first, second = cohorts(seed=1, effect=3.0, genes=300)
    # The right hemisphere has the left one's effects.
    for m in first:
        for left, right in (("p0", "p1"), ("p2", "p3"), ("p4", "p5")):
            at = [m.phenotypes.tolist().index(name) for name in (left, right)]
            m.z[:, at[1]] = m.z[:, at[0]] + np.random.default_rng(7).normal(size=m.genes.size)
    outside = external_set(second)
    merges = [match_hemispheres(a, b, PAIRS, min_r2=min_r2) for a, b in zip(first, outside, strict=True)]
    table, tests = external_replication(merges, significance=significance)
    one, other = naive.tests_of(first, "z"), naive.tests_of(outside, "z")
    good = {
        (m.tissue, g) for m in first for g, r2 in zip(m.genes.tolist(), m.pred_perf_r2, strict=True) if r2 >= min_r2
    }
    triples = [("p0", "p1", "a"), ("p2", "p3", "b"), ("p4", "p5", "c")]
    present = {phenotype for m in outside for phenotype in m.phenotypes.tolist()}
    expected = naive.external(one, other, [t for t in triples if t[2] in present], 0.05, good)
    if significance == "bh":
        strong = naive.benjamini_hochberg_keys(one, 0.05)
        sides = {c: (a, b) for a, b, c in triples}
        expected = {k: v for k, v in expected.items() if all((*k[:2], side) in strong for side in sides[k[2]])}
    shown = {(m.tissue, c) for m in outside for c in m.phenotypes.tolist()}
    expected = {k: v for k, v in expected.items() if (k[0], k[2]) in shown}
    got = zip(*(tests[n].tolist() for n in ("tissue", "gene", "phenotype")), strict=True)
    assert set(got) == set(expected)
    tested = [v for v in expected.values() if np.isfinite(v[2])]
    hits = [v for v in tested if 2 * stats.norm.sf(abs(v[2])) <= 0.05]
    same = [v for v in tested if v[0] * v[2] > 0]
    assert table["n_discovered"][0] == len(expected)
    assert table["n_tests"][0] == len(tested)
    assert table["n_significant"][0] == len(hits)
    assert table["n_replicated"][0] == len([v for v in hits if v in same])
    assert table["n_same_sign"][0] == len(same)
    p = 2 * stats.norm.sf(np.abs([v[2] for v in tested]))
    np.testing.assert_allclose(table["pi1"][0], 1 - min(1, (p > 0.5).mean() / 0.5), rtol=1e-12)
    expected_p = -np.log10(stats.binom.sf(len(hits) - 1, len(tested), 0.05))
    np.testing.assert_allclose(table["significant_neg_log10_p"][0], expected_p, rtol=1e-9)
    assert rows(table, level="tissue")["n_discovered"].sum() == len(expected)
    assert rows(table, level="phenotype")["n_discovered"].sum() == len(expected)


def test_hemispheres_by_annotation():
    names = ["lh_a", "rh_a", "lh_b", "rh_b", "lh_c", "mean_a", "mean_b", "lh_d1", "lh_d2", "rh_d", "mean_d"]
    annotation = PhenotypeAnnotation(
        np.array(names),
        {
            "side": np.array(["left", "right", "lh", "RH", "left", "", "both", "left", "left", "right", "both"]),
            "region": np.array(["a", "a", "b", "b", "c", "a", "b", "d", "d", "d", "d"]),
            "atlas": np.array(["x"] * 5 + ["y"] * 2 + ["x"] * 4),
        },
    )
    discovery, external = np.array([*names[:5], *names[7:10]]), np.array(["mean_b", "mean_a", "mean_d", "other"])
    found = annotated_hemispheres(annotation, discovery, external, on=["region"])
    triples = list(zip(found.left.tolist(), found.right.tolist(), found.external.tolist(), strict=True))
    # Two left phenotypes of region d: neither is taken.
    assert triples == [("lh_b", "rh_b", "mean_b"), ("lh_a", "rh_a", "mean_a")]
    with pytest.raises(SchemaError, match="match on fewer columns"):
        annotated_hemispheres(annotation, np.array(["lh_a", "rh_a"]), np.array(["mean_a"]))
    with pytest.raises(SchemaError, match="no column 'lobe'"):
        annotated_hemispheres(annotation, discovery, external, on=["lobe"])
    with pytest.raises(SchemaError, match="named 2 times"):
        HemispherePairs(np.array(["a", "a"]), np.array(["b", "c"]), np.array(["x", "y"]))


def test_pairs_that_are_not_there():
    first, second = cohorts()
    nowhere = HemispherePairs(np.array(["l"]), np.array(["r"]), np.array(["x"]))
    with pytest.raises(AlignmentError, match="none of the 1 pairs of hemispheres"):
        match_hemispheres(first[0], second[0], nowhere)


def test_pairs_of_the_real_annotation_are_homologues():
    """712 of the regions of UK Biobank's 3,934 phenotypes have one phenotype on either side."""
    annotation = read_annotation(real_data("twas/nidp/BIG40-IDPs_v4_discovery2_anno.tsv.gz"))
    side = re.compile(r"(?i)(?<![a-z])(lh|rh|left|right|l|r)(?![a-z])")
    left = np.flatnonzero(annotation.columns["side"] == "left")
    keys = list(
        zip(*(column[left].tolist() for name, column in annotation.columns.items() if name != "side"), strict=True)
    )
    first = left[[keys.index(key) for key in dict.fromkeys(keys)]]
    outside = np.array([f"external {name}" for name in annotation.phenotypes[first].tolist()])
    both = {name: np.r_[column, column[first]] for name, column in annotation.columns.items()}
    both["side"][annotation.phenotypes.size :] = "both"
    wider = PhenotypeAnnotation(np.r_[annotation.phenotypes, outside], both)
    pairs = annotated_hemispheres(wider, annotation.phenotypes, outside)
    assert pairs.left.size == 712
    for one, other in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True):
        assert side.sub("", one) == side.sub("", other)
