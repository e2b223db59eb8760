"""Make ``golden.tsv``: S-MultiXcan of three genes in 44 tissues by pytwas 0.1.0 (MIT), a port of MetaXcan's SMulTiXcan.

Run with pytwas in an environment of its own; z is by rule, so that any program can repeat it::

    BRAINLOCUS_DATA=/path/to/data python make_golden.py
"""

import math
import os
import sqlite3
from pathlib import Path

import pandas as pd
from pytwas.smultixcan import smultixcan

folder = Path(os.environ["BRAINLOCUS_DATA"]) / "twas/models/gtex_v6_three_genes"
CASES = {
    "condition 30": {"cutoff_condition_number": 30.0},
    "condition 5": {"cutoff_condition_number": 5.0},
    "eigen 0.01": {"cutoff_eigen_ratio": 0.01},
    "trace 0.01": {"cutoff_trace_ratio": 0.01},
    "threshold 0.05": {"cutoff_threshold": 0.05},
    "ridge 0.1": {"cutoff_condition_number": 30.0, "regularization": 0.1},
}
GENES = ("ENSG00000107937.14", "ENSG00000107959.11", "ENSG00000234745.5")


def z_of(tissue: int, gene: int) -> float:
    """Return the z of a tissue (by number in alphabetical order) and gene."""
    return 2.5 + 1.5 * math.sin(1.3 * tissue + 2.1 * gene)


models, results = {}, {}
for number, path in enumerate(sorted((folder / "db").glob("*.db"))):
    tissue = path.name.removeprefix("TW_").removesuffix("_0.5.db")
    genes = [g for (g,) in sqlite3.connect(path).execute("select distinct gene from weights")]
    if genes:
        models[tissue] = str(path)
        results[tissue] = pd.DataFrame({"gene": genes, "zscore": [z_of(number, GENES.index(g)) for g in genes]})
tables = []
for name, options in CASES.items():
    found = smultixcan(results, models, str(folder / "snps_covariance.txt.gz"), **options)
    found.insert(0, "case", name)
    tables.append(found)
pd.concat(tables).to_csv(Path(__file__).parent / "golden.tsv", sep="\t", index=False, float_format="%.17g")
