"""Write PredictDB models (sqlite) and the covariances of their SNPs (text), as `io.expression_models` reads them.

The tables of a model are those of PredictDB: ``weights`` (gene, rsid, varID, ref_allele, eff_allele, weight), ``extra``
(gene, genename, gene_type, n.snps.in.model, pred.perf.R2, pred.perf.pval, pred.perf.qval), ``construction``
(chromosome, cv_seed) and ``sample_info`` (n_samples, population, tissue), with its indexes. The same values give the
same bytes (of one version of sqlite).
"""

import gzip
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Shaped

from brainlocus.core.expression import ExpressionModel, GeneCovariance
from brainlocus.io.atomic import atomic_path

__all__ = ["CovarianceWriter", "write_covariance", "write_expression_model"]

_TABLES = (
    'CREATE TABLE extra ("gene" TEXT, "genename" TEXT, "gene_type" TEXT, "n.snps.in.model" INTEGER, '
    '"pred.perf.R2" REAL, "pred.perf.pval" REAL, "pred.perf.qval" REAL)',
    'CREATE TABLE weights ("gene" TEXT, "rsid" TEXT, "varID" TEXT, "ref_allele" TEXT, "eff_allele" TEXT, '
    '"weight" REAL)',
    'CREATE TABLE construction ("chromosome" TEXT, "cv_seed" INTEGER)',
    'CREATE TABLE sample_info ("n_samples" INTEGER, "population" TEXT, "tissue" TEXT)',
)
_INDEXES = (
    "CREATE INDEX gene_model_summary ON extra (gene)",
    "CREATE INDEX weights_gene ON weights (gene)",
    "CREATE INDEX weights_rsid ON weights (rsid)",
    "CREATE INDEX weights_rsid_gene ON weights (rsid, gene)",
)


def write_expression_model(
    model: ExpressionModel,
    path: Path,
    *,
    variant_names: Shaped[np.ndarray, " weights"] | None = None,
    gene_types: Sequence[str] = (),
    n_samples: int | None = None,
    population: str = "",
    construction: Sequence[tuple[str, int]] = (),
) -> None:
    """Write a model as a PredictDB file.

    Parameters
    ----------
    model
        With rsids as `snps`.
    variant_names
        ``varID`` of each weight, such as ``chr9_137028813_A_G_b38``; the rsids by default.
    gene_types
        Biotype of each gene; empty by default.
    n_samples, population
        Of whom the model was trained.
    construction
        Chromosomes and the seed of their cross-validation.
    """
    names = model.snps if variant_names is None else variant_names
    genes = model.genes.tolist()
    gene = np.repeat(model.genes, np.diff(model.offsets))
    kinds = list(gene_types) or [""] * len(genes)
    extra = zip(
        genes, model.gene_names.tolist(), kinds, model.n_snps_in_model.tolist(),
        *(map(_null, c.tolist()) for c in (model.pred_perf_r2, model.pred_perf_pval, model.pred_perf_qval)),
        strict=True,
    )  # fmt: skip
    weights = zip(
        *(c.tolist() for c in (gene, model.snps, names, model.other_allele, model.effect_allele, model.weight)),
        strict=True,
    )
    with atomic_path(path) as partial:
        partial.unlink(missing_ok=True)
        connection = sqlite3.connect(partial)
        try:
            with connection:
                for statement in _TABLES:
                    connection.execute(statement)
                connection.executemany("INSERT INTO extra VALUES (?, ?, ?, ?, ?, ?, ?)", extra)
                connection.executemany("INSERT INTO weights VALUES (?, ?, ?, ?, ?, ?)", weights)
                connection.executemany("INSERT INTO construction VALUES (?, ?)", construction)
                connection.execute("INSERT INTO sample_info VALUES (?, ?, ?)", (n_samples, population, model.tissue))
                for statement in _INDEXES:
                    connection.execute(statement)
        finally:
            connection.close()


def _null(value: float) -> float | None:
    return None if np.isnan(value) else value


class CovarianceWriter:
    """Writes covariances as they come, ``GENE RSID1 RSID2 VALUE``, the rows of a gene in one call.

    The file is gzipped when its name says so, and appears whole under its name at the end or not at all. Numbers are
    written in full: they are read back as they were.

    Examples
    --------
    ``with CovarianceWriter(path) as writer: writer.append(part)``
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open = ExitStack()

    def __enter__(self) -> "CovarianceWriter":
        raw = self._open.enter_context(self._open.enter_context(atomic_path(self.path)).open("wb"))
        stream: Any = raw
        if self.path.suffix == ".gz":
            stream = self._open.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
        self._write = stream.write
        self._write(b"GENE RSID1 RSID2 VALUE\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def append(self, part: GeneCovariance) -> None:
        """Write the pairs of some genes."""
        names = part.names.tolist()
        gene = np.repeat(part.genes, np.diff(part.offsets)).tolist()
        rows = zip(gene, part.first.tolist(), part.second.tolist(), part.value.tolist(), strict=True)
        self._write("".join(f"{g} {names[i]} {names[j]} {v!r}\n" for g, i, j, v in rows).encode())


def write_covariance(parts: Iterable[GeneCovariance], path: Path) -> None:
    """Write covariances, some genes at a time (see `CovarianceWriter`)."""
    with CovarianceWriter(path) as writer:
        for part in parts:
            writer.append(part)
