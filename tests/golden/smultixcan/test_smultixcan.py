"""S-MultiXcan of real models in 44 tissues agrees with a port of the published program; its script is beside this."""

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest
from tests.real_data import real_data

from brainlocus.genetics.twas import CutOff, index_genes, join_tissues, multixcan, tissue_covariance
from brainlocus.io import read_covariance, read_expression_model

CASES = {
    "condition 30": CutOff(),
    "condition 5": CutOff(value=5.0),
    "eigen 0.01": CutOff("eigen-ratio", 0.01),
    "trace 0.01": CutOff("trace-ratio", 0.01),
    "threshold 0.05": CutOff("variance-threshold", 0.05),
    "ridge 0.1": CutOff(ridge=0.1),
}
GENES = ("ENSG00000107937.14", "ENSG00000107959.11", "ENSG00000234745.5")


@pytest.fixture(scope="module")
def genes():
    """Models of each gene, its covariance between tissues, the names of the tissues, and z by rule."""
    folder = real_data("twas/models/gtex_v6_three_genes")
    paths = sorted((folder / "db").glob("*.db"))
    models = [read_expression_model(path, allow_empty=True) for path in paths]
    names = [re.sub(r"TW_(.+)_0\.5\.db", r"\1", path.name) for path in paths]
    covariance = read_covariance(folder / "snps_covariance.txt.gz")
    found = {}
    for number, gene in enumerate(GENES):
        joined = join_tissues(gene, models, index_genes(models)[gene], covariance)
        z = np.array([2.5 + 1.5 * math.sin(1.3 * t + 2.1 * number) for t in joined.tissues.tolist()])
        found[gene] = (joined, tissue_covariance(joined), names, z)
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_published_program(genes, case):
    with (Path(__file__).parent / "golden.tsv").open() as lines:
        rows = [row for row in csv.DictReader(lines, delimiter="\t") if row["case"] == case]
    assert len(rows) == 3
    for row in rows:
        joined, covariance, names, z = genes[row["gene"]]
        found = multixcan(joined, covariance, z[:, None], CASES[case])
        assert joined.gene_name == row["gene_name"]
        if case == "threshold 0.05" and row["gene_name"] in ("PITRM1", "GTPBP4"):
            # The cut-off of this rule is itself an eigenvalue. There it is compared with its own value from another
            # decomposition, and rounding decides: dropped in two genes of three. Here it is kept, as the rule says.
            assert found.n_indep[0] == int(row["n_indep"]) + 1
            continue
        assert 10.0 ** -found.neg_log10_p[0] == pytest.approx(float(row["pvalue"]), rel=1e-10)
        assert 10.0 ** -found.best_neg_log10_p[0] == pytest.approx(float(row["p_i_best"]), rel=1e-12)
        assert 10.0 ** -found.worst_neg_log10_p[0] == pytest.approx(float(row["p_i_worst"]), rel=1e-12)
        assert names[found.best[0]] == row["t_i_best"]
        assert names[found.worst[0]] == row["t_i_worst"]
        for name in ("n", "n_indep", "status"):
            assert getattr(found, name)[0] == int(row[name]), name
        for name in ("eigen_max", "eigen_min", "eigen_min_kept", "z_min", "z_max", "z_mean", "z_sd", "tmi"):
            # Small eigenvalues have the rounding of the largest.
            assert getattr(found, name)[0] == pytest.approx(float(row[name]), rel=1e-10, abs=1e-13), name
