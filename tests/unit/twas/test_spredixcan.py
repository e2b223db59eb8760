"""The two sparse matrices and their products against the formula read literally."""

import numpy as np
import pytest

from brainlocus.core import AlignmentError, GeneCovariance
from brainlocus.genetics.twas import PhenotypeBlock, prepare_tissue, scan_genes, unite_snps, weigh_genes
from brainlocus.io import read_covariance, read_expression_model
from tests.twas_files import Panel


@pytest.fixture
def panel():
    return Panel(np.random.default_rng(3))


def load(panel, folder):
    models = [read_expression_model(path) for path in panel.write_models(folder)]
    snps = unite_snps(models, [m.snps for m in models])
    tissues = [
        prepare_tissue(m, read_covariance(folder / f"{m.tissue}.txt.gz"), entry=snps.entry[k], sign=snps.sign[k])
        for k, m in enumerate(models)
    ]
    return snps, tissues


def entries(panel, snps, gwas):
    """z and beta per effect allele of every entry, NaN where absent."""
    z, beta = np.full(snps.n_entries, np.nan), np.full(snps.n_entries, np.nan)
    for k, name in enumerate(snps.entry_names.tolist()):
        snp = int(name.removeprefix("rs")) - 1000
        if snp in gwas:
            sign = 1.0 if snps.alleles[snps.effect_allele[k]] == panel.allele_pair(snp)[1] else -1.0
            z[k], beta[k] = sign * gwas[snp][0], sign * gwas[snp][1]
    return z, beta


def scan(tissue, z, beta, dtype=np.float64):
    present = np.isfinite(z)
    block = PhenotypeBlock(
        np.where(present, z, 0)[:, None].astype(dtype), np.where(present, beta, 0)[:, None].astype(dtype)
    )
    weights = weigh_genes(tissue, present)
    found, effect = np.empty((tissue.genes.size, 1)), np.empty((tissue.genes.size, 1))
    scan_genes(weights, block, found, effect)
    return weights, found[:, 0], effect[:, 0]


@pytest.mark.parametrize("absent", [(), (0, 3, 4, 9), tuple(range(0, 60, 2))])
def test_against_the_formula(panel, tmp_path, absent):
    snps, tissues = load(panel, tmp_path)
    gwas = panel.gwas(absent)
    z, beta = entries(panel, snps, gwas)
    for tissue in tissues:
        weights, found, effect = scan(tissue, z, beta)
        expected = panel.expected(tissue.tissue, gwas)
        for g, gene in enumerate(tissue.genes.tolist()):
            if gene not in expected:
                assert np.isnan([found[g], effect[g], weights.var_g[g]]).all()
                assert weights.n_snps_used[g] == 0
                continue
            want = expected[gene]
            np.testing.assert_allclose([found[g], effect[g], weights.var_g[g]], want[:3], rtol=1e-12)
            assert weights.n_snps_used[g] == want[3]


def test_float32_input_sums_in_double(panel, tmp_path):
    snps, tissues = load(panel, tmp_path)
    z, beta = entries(panel, snps, panel.gwas())
    _, exact, _ = scan(tissues[0], z, beta)
    _, found, _ = scan(tissues[0], z, beta, np.float32)
    _, rounded, _ = scan(tissues[0], z.astype(np.float32).astype(float), beta)
    np.testing.assert_allclose(found, rounded, rtol=1e-14)
    np.testing.assert_allclose(found, exact, atol=2e-6)


def test_genes_apart_equal_genes_together(panel, tmp_path):
    snps, tissues = load(panel, tmp_path)
    z, beta = entries(panel, snps, panel.gwas((1, 2)))
    weights, found, _ = scan(tissues[0], z, beta)
    some = np.array([4, 0, 7])
    part = weigh_genes(tissues[0], np.isfinite(z), some)
    again = np.empty((3, 1))
    scan_genes(part, PhenotypeBlock(np.nan_to_num(z)[:, None], None), again)
    np.testing.assert_array_equal(again[:, 0], found[some])
    np.testing.assert_array_equal(part.var_g, weights.var_g[some])


def test_blocks_of_phenotypes_change_nothing(panel, tmp_path):
    snps, tissues = load(panel, tmp_path)
    z = np.random.default_rng(0).normal(size=(snps.n_entries, 700))
    weights = weigh_genes(tissues[0], np.ones(snps.n_entries, dtype=bool))
    whole = np.empty((tissues[0].genes.size, 700))
    scan_genes(weights, PhenotypeBlock(z, None), whole)
    for start, stop in ((0, 1), (1, 258), (258, 700)):
        part = np.empty((tissues[0].genes.size, stop - start))
        scan_genes(weights, PhenotypeBlock(np.ascontiguousarray(z[:, start:stop]), None), part)
        np.testing.assert_array_equal(part, whole[:, start:stop])


def test_a_missing_beta_reaches_only_its_genes(panel, tmp_path):
    snps, tissues = load(panel, tmp_path)
    z, beta = entries(panel, snps, panel.gwas())
    lacking = beta.copy()
    lacking[tissues[0].entry[0]] = np.nan
    _, found, effect = scan(tissues[0], z, lacking)
    _, same, complete = scan(tissues[0], z, beta)
    np.testing.assert_array_equal(found, same)
    ranges = zip(tissues[0].offsets[:-1], tissues[0].offsets[1:], strict=True)
    uses = np.array([tissues[0].entry[0] in tissues[0].entry[a:b] for a, b in ranges])
    assert uses.any()
    assert np.isnan(effect[uses]).all()
    np.testing.assert_array_equal(effect[~uses], complete[~uses])


def test_zero_weights_have_no_variance(panel, tmp_path):
    snps, tissues = load(panel, tmp_path)
    tissues[0].weight[:] = 0.0
    z, beta = entries(panel, snps, panel.gwas())
    weights, found, effect = scan(tissues[0], z, beta)
    assert (weights.var_g == 0).all()
    assert (weights.n_snps_used > 0).all()
    assert np.isnan(found).all()
    assert np.isnan(effect).all()


def test_snps_without_variance_and_pairs_without_covariance(panel, tmp_path):
    path = panel.write_models(tmp_path)[0]
    model = read_expression_model(path)
    covariance = read_covariance(tmp_path / "Cortex.txt.gz")
    snps = unite_snps([model], [model.snps])
    gene = int(np.argmax(np.diff(model.offsets)))
    pairs = slice(covariance.offsets[gene], covariance.offsets[gene + 1])
    assert covariance.genes[gene] == model.genes[gene]

    def without(drop):
        kept = ~drop
        counts = [int(kept[a:b].sum()) for a, b in zip(covariance.offsets[:-1], covariance.offsets[1:], strict=True)]
        return GeneCovariance(
            covariance.genes, np.r_[0, np.cumsum(counts)], covariance.names, covariance.first[kept],
            covariance.second[kept], covariance.value[kept],
        )  # fmt: skip

    off = np.zeros(covariance.value.size, dtype=bool)
    off[pairs] = covariance.first[pairs] != covariance.second[pairs]
    off[np.flatnonzero(off)[1:]] = False
    with pytest.raises(AlignmentError, match=rf"1 genes have SNPs .* {model.genes[gene]} \(1\)"):
        prepare_tissue(model, without(off), entry=snps.entry[0], sign=snps.sign[0])
    zero = prepare_tissue(model, without(off), entry=snps.entry[0], sign=snps.sign[0], missing_as_zero=True)
    assert zero.n_pairs_missing == 1
    diagonal = np.zeros(covariance.value.size, dtype=bool)
    diagonal[np.flatnonzero(covariance.first[pairs] == covariance.second[pairs])[0] + covariance.offsets[gene]] = True
    lacking = prepare_tissue(model, without(diagonal), entry=snps.entry[0], sign=snps.sign[0])
    weights = weigh_genes(lacking, np.ones(snps.n_entries, dtype=bool))
    size = int(np.diff(model.offsets)[gene])
    assert weights.n_snps_used[gene] == size - 1
    assert lacking.n_snps_in_cov[gene] == size  # it still has covariances
    other = GeneCovariance(
        np.array(["other"]), np.array([0, 1]), np.array(["x"]), np.zeros(1, dtype=np.int32),
        np.zeros(1, dtype=np.int32), np.ones(1),
    )  # fmt: skip
    with pytest.raises(AlignmentError, match="no SNP of it has a variance"):
        prepare_tissue(model, other, entry=snps.entry[0], sign=snps.sign[0])
