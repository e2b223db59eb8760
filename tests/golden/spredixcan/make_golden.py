"""Make ``golden.tsv``: S-PrediXcan of the GTEx v8 MASH-R Liver model by pytwas 0.1.0 (MIT), a port of MetaXcan.

The GWAS is by rule (`gwas_rows`), so that no data lie here: every ninth SNP is absent, every third counts the other
allele. Every 25th gene of the result is kept. By default the port, as MetaXcan, drops SNPs whose id has no rs;
``keep_non_rsid`` keeps them, as we do. Run with pytwas in an environment of its own::

    BRAINLOCUS_DATA=/path/to/data PYTHONPATH=path/to/checkout python make_golden.py
"""

import os
import tempfile
import time
from pathlib import Path

import pytwas
from tests.golden.spredixcan.rule import write_gwas

liver = Path(os.environ["BRAINLOCUS_DATA"]) / "twas/models/mashr_liver"
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "gwas.txt"
    write_gwas(liver / "mashr_Liver.db", path)
    start = time.process_time()
    found = pytwas.spredixcan(
        model_db_path=str(liver / "mashr_Liver.db"), covariance=str(liver / "mashr_Liver_cov_rsid.txt.gz"),
        gwas_file=str(path), snp_column="snp", effect_allele_column="effect_allele",
        non_effect_allele_column="other_allele", beta_column="beta", se_column="se", keep_non_rsid=True,
    )  # fmt: skip
    print(f"{len(found)} genes, {time.process_time() - start:.1f} CPU s")  # noqa: T201
columns = ["gene", "zscore", "effect_size", "pvalue", "var_g", "n_snps_used", "n_snps_in_cov", "n_snps_in_model"]
found.sort_values("gene")[columns].iloc[::25].to_csv(
    Path(__file__).with_name("golden.tsv"), sep="\t", index=False, float_format="%.17g"
)
