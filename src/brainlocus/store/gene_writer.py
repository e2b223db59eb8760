"""Writing gene associations into a store: one stream in, two sort orders out, in bounded memory.

Data flow::

    GeneBlock --add------------> rows on disk, a file for every 16 phenotypes; tests counted
    rows ------finish----------> strengths of each scope sorted --> q of each strength (Benjamini-Hochberg)
               16 phenotypes --> sorted, q filled in, twas/by_phenotype; rows on disk, a file for every 64 genes
               64 genes -------> sorted, twas/by_gene

What is in memory at once: the strengths of one scope (4 bytes an association), or the rows of 16 phenotypes or of
64 genes.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from brainlocus.core import SCOPES, GeneBlock, ResourceError, SchemaError
from brainlocus.store import layout
from brainlocus.store.gene_scopes import ALPHA, CountedTests, Scopes
from brainlocus.store.gene_spool import BUFFER_BYTES, ROW, Rows, Spool
from brainlocus.store.precision import BETA_BITS, round_mantissa

__all__ = ["GeneTestWriter", "gene_peak_bytes"]

Z_BITS = 16
"""Mantissa bits of z and -log10 p: a relative error of at most 7.6e-6."""


def gene_peak_bytes(*, n_associations: int, n_models: int, n_genes: int, n_phenotypes: int) -> int:
    """Return an upper estimate of the memory that writing gene associations takes.

    The larger of the strengths of all associations (sorted once, 4 bytes each) and the fullest file of 16 phenotypes or
    64 genes, at most every model of it (44 bytes a row, held four times); buffers and catalogues on top.
    """
    of_phenotypes = min(n_associations, layout.PHENOTYPES_PER_FILE * n_models)
    per_gene = n_models / max(n_genes, 1) * n_phenotypes
    of_genes = min(n_associations, int(layout.GENES_PER_FILE * per_gene) + 1)
    files = 4 * ROW.itemsize * max(of_phenotypes, of_genes)
    return max(5 * n_associations, files) + 200 * (n_models + n_phenotypes) + 3 * BUFFER_BYTES + (64 << 20)


@dataclass(slots=True)
class _Numbers:
    """Names in order of appearance."""

    of: dict[str, int] = field(default_factory=dict)

    def __call__(self, names: Iterable[str]) -> Int[np.ndarray, " names"]:
        return np.array([self.of.setdefault(name, len(self.of)) for name in names], dtype=np.int64)


class GeneTestWriter:
    """Takes gene associations block by block and writes the ``twas`` folder of a store.

    Parameters
    ----------
    folder
        The store under construction.
    max_p
        p up to which tests were kept; recorded, not applied.
    register
        Returns the number of a phenotype by its name, taking it into the catalogue when it is new; -1 for one that is
        kept out of the store.
    full_precision
        Keep float32; else z and -log10 p are rounded to 16 mantissa bits and effects to 12.
    memory_bytes
        What may be used; 0 for no limit.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_p: float,
        register: Callable[[str], int],
        full_precision: bool = False,
        memory_bytes: int = 0,
    ) -> None:
        self._folder, self._max_p, self._register = folder, max_p, register
        self._bits = (None, None) if full_precision else (Z_BITS, BETA_BITS)
        self._memory_bytes = memory_bytes
        self._rows_of_gene = np.zeros(0, dtype=np.int64)
        self._work = folder / "twas" / ".rows"
        self._rows = Spool(self._work / "phenotypes", ROW)
        self._genes, self._tissues = _Numbers(), _Numbers()
        self._symbols: dict[str, str] = {}
        self._models: dict[tuple[int, int], float] = {}
        self._counts = CountedTests()
        self.n_masked = 0
        self.n_kept = 0
        self.given: set[str] = set()
        """Scopes of which q came with the results."""

    def add(self, block: GeneBlock) -> None:
        """Take one block."""
        tests = block.tests
        gene, tid = self._genes(tests.genes.tolist()), self._tissues(tests.tissues.tolist())
        pid = np.array([self._register(name) for name in tests.phenotypes.tolist()], dtype=np.int64)
        self._symbols.update({g: s for g, s in zip(tests.genes.tolist(), tests.gene_names.tolist(), strict=True) if s})
        keys = zip(gene[block.model_gene].tolist(), tid[block.model_tissue].tolist(), strict=True)
        self._models.update(zip(keys, block.model_r2.tolist(), strict=True))
        shown = np.flatnonzero(pid[tests.phenotype] >= 0) if len(tests) else np.zeros(0, dtype=np.int64)
        self.n_masked += len(tests) - shown.size
        self.n_kept += shown.size
        self._counts.add(block, pid, tid)
        rows = np.empty(shown.size, dtype=ROW)
        rows["gene"], rows["pid"] = gene[tests.gene[shown]], pid[tests.phenotype[shown]]
        rows["tid"], rows["z"] = tid[tests.tissue[shown]], tests.z[shown]
        rows["effect"], rows["strength"], rows["q"] = tests.effect[shown], tests.neg_log10_p[shown], np.nan
        for scope, q in block.q.items():
            self.given.add(scope)
            with np.errstate(divide="ignore"):
                rows["q"][:, SCOPES.index(scope)] = -np.log10(q[shown])
        self._rows.append(rows, rows["pid"] // layout.PHENOTYPES_PER_FILE)
        counted = np.bincount(rows["gene"], minlength=len(self._genes.of))
        counted[: self._rows_of_gene.size] += self._rows_of_gene
        self._rows_of_gene = counted

    def _check_memory(self) -> None:
        """Check that the strengths of all rows, and the rows of the fullest file, can be held."""
        of_genes = np.add.reduceat(
            self._rows_of_gene[self._order], np.arange(0, self._order.size, layout.GENES_PER_FILE)
        )
        fullest = max(self._rows.largest(), int(of_genes.max()))
        needed = max(5 * self.n_kept, 4 * ROW.itemsize * fullest) + 3 * BUFFER_BYTES
        if self._memory_bytes and needed > self._memory_bytes:
            raise ResourceError(
                f"{self.n_kept:,} associations of genes need {needed / 2**20:,.0f} MiB to be sorted, --memory allows "
                f"{self._memory_bytes / 2**20:,.0f} MiB. Give more, or keep fewer with a smaller --twas-max-p."
            )

    def finish(self, phenotypes: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Write all files, add counts to the catalogue rows of phenotypes, and return what the store says of it.

        Raises
        ------
        SchemaError
            No test has a result, or a gene was tested twice for a phenotype and tissue.
        """
        if not self._models:
            raise SchemaError(
                "Expected gene associations with a z, found none. Check the tables given as TWAS results."
            )
        self._rows.flush()
        self._counts.grow((len(phenotypes), len(self._tissues.of)))
        names = np.array(list(self._genes.of), dtype=np.str_)
        order = np.argsort(names, kind="stable")
        rank = np.empty(order.size, dtype=np.int64)
        rank[order] = np.arange(order.size)
        self._gene_ids, self._gid, self._order = names[order], rank, order
        self._check_memory()
        scopes = Scopes(self._counts, phenotypes, list(self._tissues.of), self._work, self._rows)
        self._by_gene = Spool(self._work / "genes", ROW)
        self._of_tissue = np.zeros((2, len(self._tissues.of)), dtype=np.int64)
        for number in sorted(self._rows.numbers):
            self._write_phenotypes(number, scopes, phenotypes)
        self._by_gene.flush()
        known = scopes.known("study") or "study" in self.given
        self._write_genes(known=known)
        self._write_tissues(known=known)
        scopes.write(self._folder / "twas" / "scopes.parquet", self.given)
        for row in phenotypes:
            if row.get("n_gene_associations") is not None and not known:
                row["n_genes_significant"] = None
        shutil.rmtree(self._work)
        return {
            "max_p": self._max_p,
            "alpha": ALPHA,
            "scopes": [s for s in SCOPES if scopes.known(s) or s in self.given],
            "counts": {
                "genes": int(self._gene_ids.size),
                "tissues": len(self._tissues.of),
                "gene_models": len(self._models),
                "gene_tests": scopes.total(),
                "gene_associations": self.n_kept,
                "gene_associations_significant": int(self._of_tissue[1].sum()) if known else None,
                "genes_significant": self._n_genes_significant if known else None,
                "gene_associations_masked": self.n_masked,
            },
        }

    # --- by phenotype ------------------------------------------------------------------------------------------

    def _write_phenotypes(self, number: int, scopes: "Scopes", phenotypes: Sequence[dict[str, Any]]) -> None:
        rows = self._rows.read(number, remove=True)
        rows["gene"] = self._gid[rows["gene"]]
        rows = rows[np.lexsort((rows["tid"], rows["gene"], rows["pid"]))]
        self._check_once(rows, phenotypes)
        scopes.fill(rows)
        significant = rows["q"][:, 0] >= -np.log10(ALPHA)
        np.add.at(self._of_tissue[0], rows["tid"], 1)
        np.add.at(self._of_tissue[1], rows["tid"][significant], 1)
        for pid in np.unique(rows["pid"]).tolist():
            first, last = np.searchsorted(rows["pid"], [pid, pid + 1])
            gene = rows["gene"][first:last]
            phenotypes[pid]["n_gene_associations"] = int(last - first)
            phenotypes[pid]["n_genes"] = int(np.unique(gene).size)
            phenotypes[pid]["n_genes_significant"] = int(np.unique(gene[significant[first:last]]).size)
        self._write(layout.tests_of_phenotypes(number), rows)
        self._by_gene.append(rows, rows["gene"] // layout.GENES_PER_FILE)

    def _check_once(self, rows: Rows, phenotypes: Sequence[dict[str, Any]]) -> None:
        """Check sorted rows for a test that occurs twice."""
        a, b = rows[1:], rows[:-1]
        twice = (a["pid"] == b["pid"]) & (a["gene"] == b["gene"]) & (a["tid"] == b["tid"])
        if twice.any():
            row = rows[int(np.argmax(twice))]
            raise SchemaError(
                f"Gene {self._gene_ids[row['gene']]} has two results for phenotype "
                f"{phenotypes[int(row['pid'])]['phenotype_id']} in tissue {list(self._tissues.of)[row['tid']]}; a "
                "store takes one. Was a table given twice?"
            )

    # --- by gene -----------------------------------------------------------------------------------------------

    def _write_genes(self, *, known: bool) -> None:
        n = self._gene_ids.size
        keys = np.array(list(self._models), dtype=np.int64).reshape(-1, 2)
        gid, tid = self._gid[keys[:, 0]], keys[:, 1]
        found: dict[str, Any] = {"n_tissues": np.bincount(gid, minlength=n)}
        for name in ("n_associations", "n_phenotypes", "n_significant", "n_phenotypes_significant"):
            found[name] = np.zeros(n, dtype=np.int64)
        found["n_tissues_significant"] = np.zeros(n, dtype=np.int64)
        found["max_nlog10p"] = np.full(n, np.nan)
        found["top_pid"], found["top_tid"] = np.full(n, -1), np.full(n, -1)
        for number in sorted(self._by_gene.numbers):
            rows = self._by_gene.read(number, remove=True)
            rows = rows[np.lexsort((rows["tid"], rows["pid"], rows["gene"]))]
            self._write(layout.tests_of_genes(number), rows)
            _summarise_genes(rows, found)
        self._n_genes_significant = int((found["n_significant"] > 0).sum())
        columns = {"gid": np.arange(n), "gene": self._gene_ids, **found}
        columns["gene_name"] = [self._symbols.get(g, "") for g in self._gene_ids.tolist()]
        for name in ("top_pid", "top_tid"):
            columns[name] = pa.array(found[name], mask=found[name] < 0)
        if not known:
            columns |= dict.fromkeys(("n_significant", "n_phenotypes_significant", "n_tissues_significant"))
        self._write_table("genes.parquet", layout.GENES_SCHEMA, columns)
        order = np.lexsort((tid, gid))
        r2 = np.array(list(self._models.values()), dtype=np.float64)
        models = {"gid": gid[order], "tid": tid[order], "pred_perf_r2": r2[order]}
        self._write_table("twas/models.parquet", layout.TISSUE_MODELS_SCHEMA, models)
        self._models_of_tissue = np.bincount(tid, minlength=len(self._tissues.of))

    def _write_tissues(self, *, known: bool) -> None:
        columns = {
            "tid": np.arange(len(self._tissues.of)),
            "tissue": list(self._tissues.of),
            "n_genes": self._models_of_tissue,
            "n_associations": self._of_tissue[0],
            "n_significant": self._of_tissue[1] if known else None,
        }
        self._write_table("tissues.parquet", layout.TISSUES_SCHEMA, columns)

    # --- files -------------------------------------------------------------------------------------------------

    def _write(self, relative: str, rows: Rows) -> None:
        """Write sorted rows, one row group after the other, so that they are held once."""
        path = self._folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        group, schema = max(layout.GENE_GROUP, -(-rows.size // 200)), layout.GENE_TESTS_SCHEMA
        with pq.ParquetWriter(path, schema, **layout.parquet_options(schema)) as writer:
            for start in range(0, rows.size, group):
                part = rows[start : start + group]
                columns = {"gid": part["gene"], "pid": part["pid"], "tid": part["tid"]}
                columns["z"] = round_mantissa(part["z"], bits=self._bits[0])
                columns["nlog10p"] = round_mantissa(part["strength"], bits=self._bits[0])
                columns["effect"] = round_mantissa(part["effect"], bits=self._bits[1])
                columns |= {layout.q_column(scope): part["q"][:, k] for k, scope in enumerate(SCOPES)}
                writer.write_table(_table(schema, columns), row_group_size=group)

    def _write_table(self, relative: str, schema: pa.Schema, columns: Mapping[str, Any]) -> None:
        path = self._folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_table(schema, columns), path, **layout.parquet_options(schema))


def _table(schema: pa.Schema, columns: Mapping[str, Any]) -> pa.Table:
    """Return columns as a table of `schema`; NaN and absent columns become null."""
    n = next(len(c) for c in columns.values() if c is not None)
    arrays = [
        pa.nulls(n, f.type) if columns[f.name] is None else pa.array(columns[f.name], from_pandas=True).cast(f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _summarise_genes(rows: Rows, found: dict[str, Any]) -> None:
    """Fill in the catalogue of the genes of a file, whose rows are sorted by gene, phenotype and tissue."""
    significant = rows["q"][:, 0] >= -np.log10(ALPHA)
    for gid in np.unique(rows["gene"]).tolist():
        first, last = np.searchsorted(rows["gene"], [gid, gid + 1])
        mine, passed = rows[first:last], significant[first:last]
        best = mine[int(np.argmax(mine["strength"]))]
        found["n_associations"][gid] = mine.size
        found["n_phenotypes"][gid] = np.unique(mine["pid"]).size
        found["n_significant"][gid] = passed.sum()
        found["n_phenotypes_significant"][gid] = np.unique(mine["pid"][passed]).size
        found["n_tissues_significant"][gid] = np.unique(mine["tid"][passed]).size
        found["max_nlog10p"][gid] = best["strength"]
        found["top_pid"][gid], found["top_tid"][gid] = best["pid"], best["tid"]
