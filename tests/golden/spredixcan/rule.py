"""A GWAS of a model's SNPs by rule, which any program can be given."""

import math
import sqlite3
from pathlib import Path


def gwas_rows(model: Path) -> list[tuple[str, str, str, float, float]]:
    """Return snp, effect allele, other allele, beta and standard error of a model's SNPs, in the order of their ids."""
    connection = sqlite3.connect(model)
    try:
        snps = connection.execute("select distinct rsid, eff_allele, ref_allele from weights order by rsid").fetchall()
    finally:
        connection.close()
    rows = []
    for k, (snp, effect, other) in enumerate(snps):
        if k % 9 == 4:
            continue
        error = 0.01 + 0.002 * (k % 5)
        beta = round(3.0 * math.sin(0.37 * k) * error, 6)
        rows.append((snp, other, effect, -beta, error) if k % 3 == 0 else (snp, effect, other, beta, error))
    return rows


def write_gwas(model: Path, path: Path) -> None:
    """Write it as text."""
    lines = ["snp\teffect_allele\tother_allele\tbeta\tse"]
    lines += ["\t".join(map(str, row)) for row in gwas_rows(model)]
    path.write_text("\n".join(lines) + "\n")
