"""What the LD of the panel lets expect: the conditional normal read literally, calibration, and wrong signs."""

import numpy as np
import pytest

from brainlocus.genetics.twas import measure_ld_mismatch, prepare_tissue, unite_snps
from brainlocus.io import read_covariance, read_expression_model
from tests.twas_files import Panel


@pytest.fixture
def tissue(tmp_path):
    panel = Panel(np.random.default_rng(5), n_genes=60, tissues=("Cortex",), ld=3.0)
    model = read_expression_model(panel.write_models(tmp_path)[0])
    snps = unite_snps([model], [model.snps])
    covariance = read_covariance(tmp_path / "Cortex.txt.gz")
    return prepare_tissue(model, covariance, entry=snps.entry[0], sign=snps.sign[0])


def correlation_of(tissue, gene):
    first, last = tissue.offsets[gene], tissue.offsets[gene + 1]
    gamma = np.zeros((last - first, last - first))
    for k in range(tissue.pair_offsets[gene], tissue.pair_offsets[gene + 1]):
        a, b = tissue.first[k] - first, tissue.second[k] - first
        value = tissue.covariance[k] / (1.0 if a == b else 2.0)
        gamma[a, b] = gamma[b, a] = value
    return gamma / np.sqrt(np.outer(np.diag(gamma), np.diag(gamma)))


def draw(tissue, rng, n):
    """z of n GWAS with the LD of the panel."""
    z = np.zeros((int(tissue.entry.max()) + 1, n))
    for gene in range(tissue.genes.size):
        rows = tissue.entry[tissue.offsets[gene] : tissue.offsets[gene + 1]]
        z[rows] = rng.multivariate_normal(np.zeros(rows.size), correlation_of(tissue, gene), n).T
    return z


def expected_misfits(tissue, z):
    """The conditional mean and variance of each SNP given the others of its gene, one at a time."""
    tested = misfit = 0
    for gene in range(tissue.genes.size):
        rows = tissue.entry[tissue.offsets[gene] : tissue.offsets[gene + 1]]
        if rows.size < 2:
            continue
        r = (correlation_of(tissue, gene) + 0.1 * np.eye(rows.size)) / 1.1
        for i in range(rows.size):
            others = [k for k in range(rows.size) if k != i]
            weights = np.linalg.solve(r[np.ix_(others, others)], r[others, i])
            variance = r[i, i] - weights @ r[others, i]
            if variance > 0.4:
                continue
            for p in range(z.shape[1]):
                tested += 1
                misfit += abs(z[rows[i], p] - weights @ z[rows[others], p]) / np.sqrt(variance) > 5.4513
    return tested, misfit


def test_against_the_conditional_normal(tissue):
    z = 4.0 * np.random.default_rng(0).normal(size=(int(tissue.entry.max()) + 1, 3))
    found = measure_ld_mismatch(tissue, np.ones(z.shape[0], dtype=bool), z)
    assert (found.n_tested, found.n_misfit) == expected_misfits(tissue, z)
    assert found.n_misfit > 10


def test_nothing_misfits_where_ld_is_the_panels(tissue):
    rng = np.random.default_rng(1)
    z = draw(tissue, rng, 200)
    everywhere = np.ones(z.shape[0], dtype=bool)
    assert measure_ld_mismatch(tissue, everywhere, z).n_misfit == 0
    # Signals carried by LD are no misfit; signs that are wrong for half of the SNPs are.
    lifted = z.copy()
    for gene in range(tissue.genes.size):
        rows = tissue.entry[tissue.offsets[gene] : tissue.offsets[gene + 1]]
        lifted[rows] += 8.0 * correlation_of(tissue, gene)[:, :1]
    right = measure_ld_mismatch(tissue, everywhere, lifted)
    wrong = measure_ld_mismatch(tissue, everywhere, lifted * rng.choice([-1.0, 1.0], z.shape[0])[:, None])
    assert right.share < 0.01
    assert wrong.share > 10 * right.share + 0.02


def test_genes_of_one_snp_say_nothing(tissue):
    present = np.zeros(int(tissue.entry.max()) + 1, dtype=bool)
    present[tissue.entry[tissue.offsets[:-1]]] = True
    found = measure_ld_mismatch(tissue, present, np.ones((present.size, 2)))
    assert found.n_tested == 0
    assert np.isnan(found.share)
