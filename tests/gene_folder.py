"""A folder as ``twas associate --full`` writes it, with planted associations."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ANNOTATION = """phenotype\tmodality\tatlas\tside\tregion\tmeasurement\tsecondary
C12_1\tT1\tDesikan\tleft\tvolume_cuneus\tvolume\toccipital
C12_2\tT1\tDesikan\tright\tvolume_cuneus\tvolume\toccipital
C12_3\tT1\tDesikan\tleft\tinsula\tthickness\tinsula
C12_4\tT1\tDKT\tright\tinsula\tthickness\tinsula
aparc_G+S-insula\tT1\tDKT\tright\tnull\tarea\tNA
FA of tract (left)\tdMRI\tTBSS\tleft\tfornix\tFA\twhite matter
"""
PHENOTYPES = ("C12_1", "C12_2", "C12_3", "C12_4", "aparc_G+S-insula", "FA of tract (left)", "unknown_one")


@dataclass(frozen=True)
class Folder:
    """What was put into the folder; z of models x phenotypes."""

    path: Path
    tissue: np.ndarray
    gene: np.ndarray
    gene_name: np.ndarray
    r2: np.ndarray
    phenotypes: np.ndarray
    z: np.ndarray
    effect: np.ndarray


def write_gene_folder(path: Path, *, n_genes=90, tissues=("Liver", "Brain_Cortex", "Whole_Blood"), seed=3) -> Folder:
    """Gene 7 raises C12_3 and C12_4 in every tissue, gene 8 lowers FA, some models and cells are absent."""
    rng = np.random.default_rng(seed)
    modelled = [np.sort(rng.choice(n_genes, size=int(n_genes * 0.9), replace=False)) for _ in tissues]
    for rows in modelled:
        rows[0], rows[1] = 7, 8
    modelled = [np.unique(rows) for rows in modelled]
    tissue = np.repeat(np.array(tissues), [rows.size for rows in modelled])
    number = np.concatenate(modelled)
    gene = np.array([f"ENSG{11 * k:011d}.{1 + k % 3}" for k in number])
    name = np.array([f"GENE{k}" if k % 10 else "" for k in number])
    z = rng.standard_normal((number.size, len(PHENOTYPES)))
    z[np.ix_(number == 7, [2, 3])] += 8.0
    z[number == 8, 5] -= 6.5
    z[rng.random(z.shape) < 0.02] = np.nan
    effect = z / 20
    r2 = rng.uniform(0.01, 0.5, number.size)
    path.mkdir(parents=True)
    columns = {"tissue": tissue.tolist(), "gene": gene.tolist(), "gene_name": name.tolist(), "pred_perf_r2": r2}
    pq.write_table(pa.table(columns), path / "models.parquet")
    pq.write_table(pa.table({"phenotype": list(PHENOTYPES)}), path / "phenotypes.parquet")
    np.save(path / "z.npy", z.astype(np.float32))
    np.save(path / "effect.npy", effect.astype(np.float32))
    single = z.astype(np.float32).astype(np.float64)
    return Folder(path, tissue, gene, name, r2, np.array(PHENOTYPES), single, effect)
