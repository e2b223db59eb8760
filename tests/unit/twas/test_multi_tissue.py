"""S-MultiXcan: the specification read literally on simulated and real models, identities, awkward genes."""

import numpy as np
import pytest

from brainlocus.core import AlignmentError, ExpressionModel, GeneCovariance
from brainlocus.genetics.twas import (
    CutOff,
    MultiTissueStatus,
    index_genes,
    invert_correlation,
    join_tissues,
    multixcan,
    tissue_covariance,
)
from brainlocus.io import read_covariance, read_expression_model
from brainlocus.numerics import neg_log10_p_from_z
from tests.real_data import real_data
from tests.reference.multixcan import naive_multixcan

RULES = [
    CutOff(),
    CutOff(value=5.0),
    CutOff("eigen-ratio", 0.05),
    CutOff("trace-ratio", 0.02),
    CutOff("variance-threshold", 0.1),
    CutOff("variance-threshold", 0.6),
    CutOff("condition-number", 30.0, ridge=0.1),
    CutOff("eigen-ratio", 0.0, ridge=0.2),
]


def _model(tissue, genes, alleles=("A", "G")):
    """A model of {gene: {snp: weight}}."""
    names = list(genes)
    snps = [s for g in names for s in genes[g]]
    n, size = len(names), len(snps)
    return ExpressionModel(
        tissue, np.array(names), np.array([f"S{g}" for g in names]),
        np.r_[0, np.cumsum([len(genes[g]) for g in names])].astype(np.int64), np.array(snps),
        np.full(size, alleles[0]), np.full(size, alleles[1]), np.array([w for g in names for w in genes[g].values()]),
        np.array([len(genes[g]) for g in names]), np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan),
        np.full(n, np.nan),
    )  # fmt: skip


def _covariance(pairs):
    """Covariances of {gene: {(snp, snp): value}}."""
    names = sorted({s for p in pairs.values() for pair in p for s in pair})
    at = {s: k for k, s in enumerate(names)}
    listed = [(pair, v) for p in pairs.values() for pair, v in p.items()]
    return GeneCovariance(
        np.array(list(pairs)), np.r_[0, np.cumsum([len(p) for p in pairs.values()])].astype(np.int64), np.array(names),
        np.array([at[a] for (a, _), _ in listed]), np.array([at[b] for (_, b), _ in listed]),
        np.array([v for _, v in listed]),
    )  # fmt: skip


def _simulated(n_tissues=6, n_snps=9, n_phenotypes=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, n_snps)) + 0.8 * rng.normal(size=(50, 1))
    gamma = np.cov(x.T)
    snps = [f"rs{k}" for k in range(n_snps)]
    pairs = {(snps[i], snps[j]): gamma[i, j] for i in range(n_snps) for j in range(i, n_snps)}
    weights = {}
    for t in range(n_tissues):
        chosen = rng.choice(n_snps, rng.integers(1, n_snps), replace=False)
        weights[f"T{t}"] = {snps[k]: float(rng.normal()) for k in chosen}
    models = [_model(t, {"g": w}) for t, w in weights.items()]
    z = rng.normal(size=(n_tissues, n_phenotypes)) * 2
    z[rng.random(z.shape) < 0.3] = np.nan
    return models, _covariance({"g": pairs}), z, weights, pairs


def _compare(found, tissues, phenotype, expected):
    assert 10.0 ** -found.neg_log10_p[phenotype] == pytest.approx(expected["pvalue"], rel=1e-10)
    assert tissues[found.best[phenotype]] == expected["t_i_best"]
    assert tissues[found.worst[phenotype]] == expected["t_i_worst"]
    assert 10.0 ** -found.best_neg_log10_p[phenotype] == pytest.approx(expected["p_i_best"], rel=1e-10)
    assert 10.0 ** -found.worst_neg_log10_p[phenotype] == pytest.approx(expected["p_i_worst"], rel=1e-10)
    assert found.n[phenotype] == expected["n"]
    assert found.n_indep[phenotype] == expected["n_indep"]
    for name in ("eigen_max", "eigen_min", "eigen_min_kept", "z_min", "z_max", "z_mean", "z_sd", "tmi"):
        # The smallest eigenvalue of a nearly singular correlation is rounding.
        value = getattr(found, name)[phenotype]
        assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.rule}-{r.value}-{r.ridge}")
def test_tests_agree_with_the_specification_read_literally(rule):
    models, covariance, z, weights, pairs = _simulated()
    gene = join_tissues("g", models, index_genes(models)["g"], covariance)
    found = multixcan(gene, tissue_covariance(gene), z, rule)
    tissues = list(weights)
    for k in range(z.shape[1]):
        given = {t: None if np.isnan(z[i, k]) else z[i, k] for i, t in enumerate(tissues)}
        if all(v is None for v in given.values()):
            assert found.status[k] == MultiTissueStatus.NO_Z
            continue
        assert found.status[k] == MultiTissueStatus.OK
        options = {"rule": rule.rule, "value": rule.value, "ridge": rule.ridge}
        _compare(found, tissues, k, naive_multixcan(weights, pairs, given, **options))


def test_snps_that_the_gwas_lacks_leave_weights_and_covariance():
    models, covariance, z, weights, pairs = _simulated(seed=3)
    gene = join_tissues("g", models, index_genes(models)["g"], covariance)
    there = {"rs0", "rs2", "rs3", "rs5", "rs8"}
    found = multixcan(gene, tissue_covariance(gene, np.isin(gene.snps, list(there))), z)
    tissues = list(weights)
    for k in range(5):
        given = {t: None if np.isnan(z[i, k]) else z[i, k] for i, t in enumerate(tissues)}
        _compare(found, tissues, k, naive_multixcan(weights, pairs, given, there))


def test_real_models_of_44_tissues():
    folder = real_data("twas/models/gtex_v6_three_genes")
    models = [read_expression_model(path, allow_empty=True) for path in sorted((folder / "db").glob("*.db"))]
    assert len(models) == 44
    covariance = read_covariance(folder / "snps_covariance.txt.gz")
    rng = np.random.default_rng(0)
    indices = index_genes(models)
    assert len(indices) == 3
    compared = 0
    for gene_id, places in indices.items():
        gene = join_tissues(gene_id, models, places, covariance)
        v = tissue_covariance(gene)
        shared = rng.normal(0, 3, size=(1, 3))
        z = shared + rng.normal(size=(gene.tissues.size, 3))
        found = multixcan(gene, v, z)
        assert (found.status == MultiTissueStatus.OK).all()
        assert (found.n_indep <= found.n).all()
        assert found.n_indep.min() >= 1
        at = int(np.flatnonzero(covariance.genes == gene_id)[0])
        rows = slice(covariance.offsets[at], covariance.offsets[at + 1])
        names = covariance.names
        listed = zip(covariance.first[rows], covariance.second[rows], covariance.value[rows], strict=True)
        pairs = {(names[a], names[b]): value for a, b, value in listed}
        weights = {}
        for t in gene.tissues.tolist():
            own = slice(*models[t].offsets[places[t] : places[t] + 2].tolist())
            weights[models[t].tissue] = dict(zip(models[t].snps[own].tolist(), models[t].weight[own], strict=True))
        given = dict(zip(weights, z[:, 0], strict=True))
        tissues = {t: models[t].tissue for t in range(44)}
        _compare(found, tissues, 0, naive_multixcan(weights, pairs, given))
        compared += 1
    assert compared == 3


def test_one_tissue_is_its_own_test():
    models, covariance, _, _, _ = _simulated(n_tissues=1)
    gene = join_tissues("g", models, index_genes(models)["g"], covariance)
    z = np.array([[0.3, -4.0, 30.0, 60.0, np.nan]])
    found = multixcan(gene, tissue_covariance(gene), z)
    np.testing.assert_allclose(found.neg_log10_p[:4], neg_log10_p_from_z(z[0, :4]), rtol=1e-12)
    assert np.isnan(found.z_sd).all()
    assert found.status.tolist() == [0, 0, 0, MultiTissueStatus.UNDERFLOW, MultiTissueStatus.NO_Z]


def test_tissues_alike_count_once():
    models = [_model(f"T{k}", {"g": {"a": 0.2 * (k + 1)}}) for k in range(4)]
    covariance = _covariance({"g": {("a", "a"): 0.4}})
    gene = join_tissues("g", models, index_genes(models)["g"], covariance)
    found = multixcan(gene, tissue_covariance(gene), np.full((4, 1), 3.0))
    assert found.n_indep[0] == 1
    assert found.tmi[0] == pytest.approx(1.0)
    assert found.neg_log10_p[0] == pytest.approx(float(neg_log10_p_from_z(3.0)), rel=1e-12)


def test_order_of_tissues_and_signs_of_weights_do_not_matter():
    models, covariance, z, _, _ = _simulated(seed=5)
    gene = join_tissues("g", models, index_genes(models)["g"], covariance)
    plain = multixcan(gene, tissue_covariance(gene), z)
    back = models[::-1]
    other = join_tissues("g", back, index_genes(back)["g"], covariance)
    found = multixcan(other, tissue_covariance(other), z[::-1])
    np.testing.assert_allclose(found.neg_log10_p, plain.neg_log10_p, rtol=1e-9)
    # A tissue whose expression is turned round has the opposite z.
    fields = {name: getattr(models[0], name) for name in models[0].__slots__}
    turned = [ExpressionModel(**fields | {"weight": -models[0].weight}), *models[1:]]
    other = join_tissues("g", turned, index_genes(turned)["g"], covariance)
    sign = np.r_[-1.0, np.ones(5)][:, None]
    np.testing.assert_allclose(
        multixcan(other, tissue_covariance(other), sign * z).neg_log10_p, plain.neg_log10_p, rtol=1e-9
    )


def test_a_model_that_counts_the_other_allele_is_turned():
    covariance = _covariance({"g": {("a", "a"): 0.4, ("a", "b"): 0.1, ("b", "b"): 0.3}})
    same = [_model("T0", {"g": {"a": 1.0, "b": 0.5}}), _model("T1", {"g": {"a": 0.7, "b": -0.2}})]
    swapped = [same[0], _model("T1", {"g": {"a": -0.7, "b": 0.2}}, alleles=("G", "A"))]
    one, two = (tissue_covariance(join_tissues("g", m, index_genes(m)["g"], covariance)) for m in (same, swapped))
    np.testing.assert_allclose(one, two)
    strange = [same[0], _model("T1", {"g": {"a": 0.7}}, alleles=("A", "T"))]
    with pytest.raises(AlignmentError, match="a has the alleles A/G in one model and A/T in another"):
        join_tissues("g", strange, index_genes(strange)["g"], covariance)


def test_genes_without_covariance_variance_or_z():
    models = [_model("T0", {"g": {"a": 1.0}, "h": {"q": 1.0}}), _model("T1", {"g": {"b": 0.0}})]
    covariance = _covariance({"g": {("a", "a"): 0.4, ("a", "b"): 0.1, ("b", "b"): 0.3}})
    places = index_genes(models)
    gene = join_tissues("g", models, places["g"], covariance)
    assert gene.gene_name == "Sg"
    found = multixcan(gene, tissue_covariance(gene), np.array([[2.0, np.nan], [1.0, 1.0]]))
    assert found.without_variance.tolist() == [1]
    assert found.status.tolist() == [MultiTissueStatus.OK, MultiTissueStatus.NO_COVARIANCE]
    assert found.n.tolist() == [2, 1]
    assert (found.z_mean[0], found.best[0]) == (1.5, 0)
    absent = join_tissues("h", models, places["h"], covariance)
    assert multixcan(absent, tissue_covariance(absent), np.array([[2.0]])).status[0] == MultiTissueStatus.NO_COVARIANCE


def test_a_missing_pair_is_an_error_or_zero():
    models = [_model("T0", {"g": {"a": 1.0, "b": 1.0, "c": 1.0}})]
    covariance = _covariance({"g": {("a", "a"): 0.4, ("b", "b"): 0.3}})
    with pytest.raises(AlignmentError, match="Gene g: 1 pairs"):
        join_tissues("g", models, index_genes(models)["g"], covariance)
    gene = join_tissues("g", models, index_genes(models)["g"], covariance, missing_as_zero=True)
    assert gene.snps.tolist() == ["a", "b"]  # c has no variance
    assert gene.n_pairs_missing == 1
    assert tissue_covariance(gene)[0, 0] == pytest.approx(0.7)


def test_p_far_beyond_doubles():
    models, covariance, _, _, _ = _simulated()
    gene = join_tissues("g", models, index_genes(models)["g"], covariance)
    found = multixcan(gene, tissue_covariance(gene), np.full((6, 1), 70.0))
    assert found.status[0] == MultiTissueStatus.UNDERFLOW
    assert 500 < found.neg_log10_p[0] < np.inf


def test_indefinite_correlations_are_inverted_as_by_singular_values():
    r = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    u, s, v = np.linalg.svd(r)
    found = invert_correlation(r, CutOff())
    assert found.n_kept == 3
    np.testing.assert_allclose(found.inverse, (v.T / s) @ u.T, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("eigen-ratio", 0.0), "keeps everything"),
        (("trace-ratio", 1.0), "trace-ratio below 1"),
        (("condition-number", 0.5), "condition number of 1 or more"),
        (("variance-threshold", -0.1), "variance-threshold and a ridge of 0 or more"),
    ],
)
def test_cut_offs_out_of_range(given, said):
    with pytest.raises(ValueError, match=said):
        CutOff(*given)


def test_p_of_correlated_z_without_effect_is_uniform():
    models, covariance, _, _, _ = _simulated(n_tissues=5, seed=7)
    gene = join_tissues("g", models, index_genes(models)["g"], covariance)
    v = tissue_covariance(gene)
    spread = np.sqrt(np.diag(v))
    z = np.linalg.cholesky(v / np.outer(spread, spread)) @ np.random.default_rng(0).normal(size=(5, 40_000))
    found = multixcan(gene, v, z)
    assert found.n_indep[0] < 5  # some components are left out
    p = 10.0**-found.neg_log10_p
    # Standard errors are 0.0011 and 0.00016.
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.004)
    assert np.mean(p < 0.001) == pytest.approx(0.001, abs=0.0006)
