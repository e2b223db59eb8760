"""The GWAS Catalog's own validator on a file of ours: ``gwas-ssf`` of gwas-sumstats-tools (measured with 1.0.25).

It is no dependency (its requirements conflict with ours): install it in an environment of its own, with numpy below 2,
click below 8.2 and six, and put its ``gwas-ssf`` on PATH.
"""

import shutil
import subprocess

import numpy as np
import pytest

from brainlocus.core import ResultTable, VariantTable
from brainlocus.core.text import text_array
from brainlocus.io import SsfMetadata, prepare_ssf, write_ssf

needs_validator = pytest.mark.skipif(shutil.which("gwas-ssf") is None, reason="needs gwas-ssf of gwas-sumstats-tools")


@needs_validator
def test_the_validator_accepts_our_files(tmp_path):
    rng = np.random.default_rng(0)
    chromosome = np.repeat([str(k) for k in range(1, 23)] + ["X", "Y", "MT", "XY"], 50)
    n = chromosome.size
    alleles = rng.choice(["A", "C", "G", "T", "ACGT"], (n, 2))
    names = [f"rs{k}" if k % 2 else f"{c}:{k}" for k, c in enumerate(chromosome)]
    variants = VariantTable(
        chromosome, rng.integers(1, 10**8, n), text_array(alleles[:, 0]), text_array(alleles[:, 1]), text_array(names),
        "GRCh38",
    )  # fmt: skip
    beta = rng.normal(size=n)
    beta[::7] = np.nan
    results = ResultTable(
        {
            "effect_allele_frequency": rng.uniform(size=n), "n": np.full(n, 500), "beta": beta,
            "standard_error": rng.uniform(0.1, 1, n), "neg_log10_p": rng.exponential(300, n),
        }
    )  # fmt: skip
    path = tmp_path / "y.tsv.gz"
    about = SsfMetadata("y", "GRCh38", 500, "2026-01-31", "brainlocus", 100, ("age", "sex"))
    write_ssf(prepare_ssf(variants, np.where(np.arange(n) % 3, 0.9, np.nan)), results, path, about)
    done = subprocess.run(["gwas-ssf", "validate", "-m", "100", "-i", str(path)], capture_output=True, text=True)
    assert "Validation status: True" in done.stdout, done.stdout + done.stderr
    shown = subprocess.run(["gwas-ssf", "read", str(path), "-M"], capture_output=True, text=True)
    assert "case_count: 100" in shown.stdout, shown.stdout + shown.stderr
