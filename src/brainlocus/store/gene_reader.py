"""Gene associations of a store: from a gene to phenotypes, from a phenotype to genes, and what they sum up to.

A gene's or a phenotype's rows are read by SQL with bound parameters from the one file that has them, found by number;
they are some thousands, and are filtered, sorted and counted as arrays.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from brainlocus.core import SCOPES, SchemaError
from brainlocus.core.errors import nearest
from brainlocus.store import layout
from brainlocus.store.gene_sums import GeneRows, GroupSums

__all__ = ["SUMMARIES", "Correction", "GeneFilter", "GeneResults", "GeneRows", "Summary", "UnknownValueError"]

Row = dict[str, Any]
Correction = Literal["bh", "bonferroni"]
Summary = Literal["phenotype", "gene", "region", "tissue", "modality"]
SUMMARIES: tuple[Summary, ...] = ("phenotype", "gene", "region", "tissue", "modality")

_OF_PHENOTYPE = ("modality", "atlas", "side", "region", "measurement")
_TOLERANCE = 1e-6
"""Added to -log10 q and -log10 p before they are compared with a bound: they are stored in float32."""
_PREFIX = 2
"""Letters that a name must share with another to be thought meant."""


class UnknownValueError(SchemaError):
    """A filter names a value that the store does not have."""

    def __init__(self, name: str, value: str, allowed: Sequence[str]) -> None:
        shown = ", ".join(allowed[:20]) + (", ..." if len(allowed) > 20 else "")
        super().__init__(
            f"There is no {name} {value!r} in this store.{nearest(value, list(allowed))} It has: {shown or 'none'}."
        )
        self.name, self.allowed = name, list(allowed)


@dataclass(frozen=True, slots=True)
class GeneFilter:
    """Which associations to take; empty: all. Text is compared without case."""

    modality: tuple[str, ...] = ()
    atlas: tuple[str, ...] = ()
    side: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    measurement: tuple[str, ...] = ()
    tissue: tuple[str, ...] = ()
    scope: str = "nominal"
    """One of `SCOPES`, over which `alpha` holds; ``nominal`` compares p itself."""
    correction: Correction = "bh"
    alpha: float = 0.05


@dataclass(slots=True)
class _Selection:
    """A filter in numbers."""

    q_column: str
    pid: Bool[np.ndarray, " phenotypes"] | None
    tid: Bool[np.ndarray, " tissues"] | None
    least_strength: float = 0.0
    least_q: float | None = None
    n_tests: Float[np.ndarray, "phenotypes tissues"] | None = None
    """For Bonferroni: the tests of the scope of every phenotype and tissue."""
    log_alpha: float = 0.0

    def passes(self, rows: GeneRows) -> Bool[np.ndarray, " rows"]:
        kept = rows.strength >= self.least_strength
        if self.pid is not None:
            kept &= self.pid[rows.pid]
        if self.tid is not None:
            kept &= self.tid[rows.tid]
        if self.least_q is not None:
            kept &= rows.log_q >= self.least_q
        if self.n_tests is not None:
            n_tests = self.n_tests[rows.pid, rows.tid]
            kept &= np.isfinite(n_tests)
            kept &= rows.strength >= np.log10(np.where(np.isfinite(n_tests), n_tests, 1.0)) + self.log_alpha
        return kept


class GeneResults:
    """The gene associations of an open store.

    Parameters
    ----------
    root
        The store's folder.
    meta
        What ``store.json`` says of them (``twas``).
    phenotypes
        The catalogue.
    query
        Runs one SQL statement with bound parameters.
    """

    def __init__(
        self,
        root: Path,
        meta: Mapping[str, Any],
        phenotypes: Sequence[Row],
        query: Callable[[str, Sequence[Any]], pa.Table],
    ) -> None:
        self._root, self.meta, self._phenotypes, self._query = root, dict(meta), phenotypes, query
        self.genes: list[Row] = [_public_gene(row) for row in pq.read_table(root / "genes.parquet").to_pylist()]
        self.tissues: list[Row] = list(pq.read_table(root / "tissues.parquet").to_pylist())
        self._tid = {row["tissue"].lower(): row["tid"] for row in self.tissues}
        self._n_phenotypes = max((row["pid"] for row in phenotypes), default=-1) + 1
        self._phenotype = {row["pid"]: row for row in phenotypes}
        self._sizes_of: dict[str, Float[np.ndarray, "phenotypes tissues"]] = {}
        self._grouped: dict[str, tuple[list[Row], Callable[[GeneRows], Int[np.ndarray, " rows"]]]] = {}
        self._names: dict[str, list[int]] = {}
        for row in self.genes:
            keys = {row["gene"].lower(), row["gene"].split(".")[0].lower(), row["gene_name"].lower()} - {""}
            for key in keys:
                self._names.setdefault(key, []).append(row["gid"])

    # --- names -------------------------------------------------------------------------------------------------

    def find_genes(self, text: str) -> list[Row]:
        """Return genes by Ensembl id, with or without version, or by symbol without case; the richest first.

        A symbol may belong to several genes, and an id without version to several versions.
        """
        key = text.strip().lower()
        gids = self._names.get(key, [])
        if not gids and key.startswith("ens"):
            gids = self._names.get(key.split(".")[0], [])
        return sorted((self.genes[gid] for gid in gids), key=lambda row: -row["n_associations"])

    def find_gene(self, text: str) -> Row | None:
        """Return the gene of a symbol or Ensembl id; of several, that with the most associations."""
        found = self.find_genes(text)
        return found[0] if found else None

    def near_genes(self, text: str) -> list[str]:
        """Return up to three symbols or ids that look like a text."""
        key = text.strip().lower()
        alike = [name for name in self._names if name[:_PREFIX] == key[:_PREFIX]]
        found = get_close_matches(key, alike, n=3, cutoff=0.6)
        return [self._spelled(name) for name in found]

    def _spelled(self, name: str) -> str:
        row = self.genes[self._names[name][0]]
        return str(row["gene_name"] if row["gene_name"].lower() == name else row["gene"])

    def search_genes(self, text: str, *, limit: int) -> list[Row]:
        """Return genes whose symbol or id begins with a text, exact ones first, then by name."""
        key = text.strip().lower()
        if not key:
            return []
        exact = [row["gid"] for row in self.find_genes(key)]
        rest = [row for row in self.genes if row["gid"] not in exact and _begins(row, key)]
        rest.sort(key=lambda row: (row["gene_name"] or row["gene"]).lower())
        return [*(self.genes[gid] for gid in exact), *rest][:limit]

    @cached_property
    def filters(self) -> dict[str, list[str]]:
        """Values that a filter may take, by name, of phenotypes that have gene associations."""
        mine = [row for row in self._phenotypes if row["n_gene_associations"]]
        found = {name: sorted({row[name] for row in mine if row[name]}) for name in _OF_PHENOTYPE}
        return {**found, "tissue": sorted(row["tissue"] for row in self.tissues)}

    @property
    def scopes(self) -> list[str]:
        """Scopes whose q is known, from wide to narrow."""
        return list(self.meta.get("scopes", []))

    # --- scopes ------------------------------------------------------------------------------------------------

    @cached_property
    def scope_rows(self) -> list[Row]:
        """Every group of tests that is corrected together, with the number of its tests."""
        return list(pq.read_table(self._root / "twas/scopes.parquet").to_pylist())

    def n_tests(self, scope: str) -> Float[np.ndarray, "phenotypes tissues"]:
        """Return how many tests are corrected with those of each phenotype and tissue; NaN where unknown."""
        sizes = np.full((self._n_phenotypes, len(self.tissues)), np.nan)
        rows = [row for row in self.scope_rows if row["scope"] == scope and row["n_tests"] is not None]
        if scope == "phenotype":
            for row in rows:
                sizes[row["pid"]] = row["n_tests"]
        elif scope == "phenotype-tissue":
            for row in rows:
                sizes[row["pid"], row["tid"]] = row["n_tests"]
        else:
            of = {row["name"]: row["n_tests"] for row in rows}
            for phenotype in self._phenotypes:
                group = "" if scope == "study" else phenotype[scope] or ""
                sizes[phenotype["pid"]] = of.get(group, np.nan)
        return sizes

    def select(self, chosen: GeneFilter) -> _Selection:
        """Turn a filter into numbers.

        Raises
        ------
        UnknownValueError
            A value or scope that the store does not have.
        SchemaError
            `alpha` is above the p up to which associations were kept.
        """
        if chosen.scope not in (*SCOPES, "nominal"):
            raise UnknownValueError("scope", chosen.scope, ["nominal", *self.scopes])
        max_p = float(self.meta.get("max_p", 1.0))
        if chosen.alpha > max_p:
            raise SchemaError(
                f"alpha {chosen.alpha:g} is above {max_p:g}: associations of greater p are not in this store. Choose a "
                "smaller one, or build the store with a greater --twas-max-p."
            )
        selection = _Selection(
            layout.q_column(chosen.scope if chosen.scope in SCOPES else SCOPES[0]),
            self._phenotype_mask(chosen),
            self._tissue_mask(chosen.tissue),
        )
        bound = float(-np.log10(max(chosen.alpha, 1e-300)))
        if chosen.scope == "nominal":
            selection.least_strength = bound - _TOLERANCE
        elif chosen.correction == "bonferroni":
            selection.n_tests = self._checked_sizes(chosen.scope)
            selection.log_alpha = bound - _TOLERANCE
        elif chosen.scope not in self.scopes:
            raise self._unknown_scope(chosen.scope)
        else:
            selection.least_q = bound - _TOLERANCE
        return selection

    def _unknown_scope(self, scope: str) -> UnknownValueError:
        error = UnknownValueError("scope", scope, ["nominal", *self.scopes])
        error.args = (
            f"Nothing in this store is corrected over the scope {scope!r}: the results did not say how many tests were "
            f"made. It has: {', '.join(['nominal', *self.scopes])}.",
        )
        return error

    def _checked_sizes(self, scope: str) -> Float[np.ndarray, "phenotypes tissues"]:
        sizes = self._sizes(scope)
        if not np.isfinite(sizes).any():
            raise self._unknown_scope(scope)
        return sizes

    def _phenotype_mask(self, chosen: GeneFilter) -> Bool[np.ndarray, " phenotypes"] | None:
        wanted = {name: getattr(chosen, name) for name in _OF_PHENOTYPE if getattr(chosen, name)}
        if not wanted:
            return None
        mask = np.zeros(self._n_phenotypes, dtype=bool)
        allowed = {}
        for name, values in wanted.items():
            known = {v.lower() for v in self.filters[name]}
            for value in values:
                if value.lower() not in known:
                    raise UnknownValueError(name, value, self.filters[name])
            allowed[name] = {v.lower() for v in values}
        for row in self._phenotypes:
            mask[row["pid"]] = all((row[name] or "").lower() in values for name, values in allowed.items())
        return mask

    def _tissue_mask(self, tissues: Sequence[str]) -> Bool[np.ndarray, " tissues"] | None:
        if not tissues:
            return None
        mask = np.zeros(len(self.tissues), dtype=bool)
        for tissue in tissues:
            if tissue.lower() not in self._tid:
                raise UnknownValueError("tissue", tissue, self.filters["tissue"])
            mask[self._tid[tissue.lower()]] = True
        return mask

    # --- rows --------------------------------------------------------------------------------------------------

    def _read(self, relative: str, key: Literal["gid", "pid"], low: int, high: int, selection: _Selection) -> GeneRows:
        """Return the rows of a file whose key is from `low` to `high` and that reach the least strength."""
        path = self._root / relative
        if not path.is_file():
            return GeneRows.empty()
        # Column names come from this module, never from outside.
        sql = (
            f"SELECT gid, pid, tid, z, effect, nlog10p, {selection.q_column} FROM read_parquet(?) "
            f"WHERE {key} BETWEEN ? AND ? AND nlog10p >= ?"
        )
        table = self._query(sql, [str(path), int(low), int(high), float(selection.least_strength)])
        return _rows(table, selection.q_column)

    def of_gene(self, gid: int, chosen: GeneFilter) -> GeneRows:
        """Return a gene's associations that pass a filter, strongest first."""
        selection = self.select(chosen)
        rows = self._read(layout.tests_of_genes(int(gid) // layout.GENES_PER_FILE), "gid", gid, gid, selection)
        return _strongest_first(rows.take(selection.passes(rows)))

    def of_phenotype(self, pid: int, chosen: GeneFilter) -> GeneRows:
        """Return a phenotype's gene associations that pass a filter, strongest first."""
        selection = self.select(chosen)
        block = int(pid) // layout.PHENOTYPES_PER_FILE
        rows = self._read(layout.tests_of_phenotypes(block), "pid", pid, pid, selection)
        return _strongest_first(rows.take(selection.passes(rows)))

    def stream(
        self, chosen: GeneFilter, *, gids: Iterable[int] | None = None, pids: Iterable[int] | None = None
    ) -> Iterator[tuple[int, GeneRows]]:
        """Yield the associations of some genes, some phenotypes, both or all that pass a filter, a file at a time.

        With each part comes how many rows there were before the filter's alpha, scope and attributes.
        """
        selection = self.select(chosen)
        genes = None if gids is None else np.unique(np.asarray(list(gids), dtype=np.int64))
        phenotypes = None if pids is None else np.unique(np.asarray(list(pids), dtype=np.int64))
        by_gene = genes is not None or phenotypes is None
        key: Literal["gid", "pid"] = "gid" if by_gene else "pid"
        per_file = layout.GENES_PER_FILE if by_gene else layout.PHENOTYPES_PER_FILE
        wanted = (genes if genes is not None else np.arange(len(self.genes))) if by_gene else phenotypes
        assert wanted is not None  # noqa: S101 - one of the two is there
        least, selection.least_strength = selection.least_strength, 0.0
        for block in np.unique(wanted // per_file).tolist():
            mine = wanted[wanted // per_file == block]
            path = layout.tests_of_genes(block) if by_gene else layout.tests_of_phenotypes(block)
            rows = self._read(path, key, int(mine[0]), int(mine[-1]), selection)
            keep = np.isin(rows.gid if by_gene else rows.pid, mine)
            if by_gene and phenotypes is not None:
                keep &= np.isin(rows.pid, phenotypes)
            rows = rows.take(keep)
            passed = selection.passes(rows) & (rows.strength >= least)
            yield len(rows), rows.take(passed)

    # --- rows in public names ----------------------------------------------------------------------------------

    @cached_property
    def _r2(self) -> dict[tuple[int, int], float]:
        table = pq.read_table(self._root / "twas/models.parquet")
        keys = zip(table["gid"].to_pylist(), table["tid"].to_pylist(), strict=True)
        return {k: v for k, v in zip(keys, table["pred_perf_r2"].to_pylist(), strict=True) if v is not None}

    def columns(self, rows: GeneRows, scope: str) -> dict[str, Any]:
        """Return rows under public names, one column each; None where a number is unknown."""
        genes = [self.genes[gid] for gid in rows.gid.tolist()]
        phenotypes = [self._phenotype[pid] for pid in rows.pid.tolist()]
        tissues = [self.tissues[tid]["tissue"] for tid in rows.tid.tolist()]
        q, bonferroni = self._corrected(rows, scope)
        found: dict[str, Any] = {
            "gene": [row["gene"] for row in genes],
            "gene_name": [row["gene_name"] for row in genes],
            "phenotype_id": [row["phenotype_id"] for row in phenotypes],
            "label": [row["label"] for row in phenotypes],
        }
        found |= {name: [row[name] or "" for row in phenotypes] for name in (*_OF_PHENOTYPE, "category")}
        numbers = {"zscore": rows.z, "effect_size": rows.effect, "neg_log10_p": rows.strength}
        numbers |= {"q_bh": q, "p_bonferroni": bonferroni}
        pairs = zip(rows.gid.tolist(), rows.tid.tolist(), strict=True)
        return {
            **found,
            "tissue": tissues,
            **{name: _plain(column) for name, column in numbers.items()},
            "pred_perf_r2": [self._r2.get(pair) for pair in pairs],
        }

    def rows(self, rows: GeneRows, scope: str) -> list[Row]:
        """Return rows under public names."""
        columns = self.columns(rows, scope)
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _corrected(self, rows: GeneRows, scope: str) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
        if scope not in SCOPES:
            unknown = np.full(len(rows), np.nan)
            return unknown, unknown
        n_tests = self._sizes(scope)[rows.pid, rows.tid]
        with np.errstate(invalid="ignore"):
            bonferroni = np.minimum(10.0 ** (np.log10(n_tests) - rows.strength), 1.0)
        return 10.0**-rows.log_q, bonferroni

    def _sizes(self, scope: str) -> Float[np.ndarray, "phenotypes tissues"]:
        if scope not in self._sizes_of:
            self._sizes_of[scope] = self.n_tests(scope)
        return self._sizes_of[scope]

    # --- sums --------------------------------------------------------------------------------------------------

    def summarise(self, parts: Iterable[GeneRows], by: Summary) -> list[Row]:
        """Return one row for every phenotype, gene, region, tissue or modality of some associations, strongest first.

        ``n_associations`` of ``n_genes``, ``n_phenotypes`` and ``n_tissues``; how many z are above and below 0; the
        mean z and the mean of |z|; and the strongest association.
        """
        if by not in self._grouped:
            self._grouped[by] = self._groups(by)
        names, group_of = self._grouped[by]
        sums = GroupSums.of(len(names))
        for rows in parts:
            sums.add(rows, group_of(rows))
        counts = {name: sums.distinct(key) for name, key in _DISTINCT.items()}
        found = []
        for k in np.argsort(-sums.best_strength, kind="stable").tolist():
            if not sums.n[k]:
                break
            best = {"gid": sums.best_gid[k], "pid": sums.best_pid[k], "tid": sums.best_tid[k]}
            gene, phenotype = self.genes[best["gid"]], self._phenotype[int(best["pid"])]
            found.append(
                {
                    **names[k],
                    "n_associations": int(sums.n[k]),
                    **{name: int(count[k]) for name, count in counts.items() if name != f"n_{by}s"},
                    "n_positive": int(sums.positive[k]),
                    "n_negative": int(sums.n[k] - sums.positive[k]),
                    "mean_z": float(sums.total[k] / sums.n[k]),
                    "mean_abs_z": float(sums.total_absolute[k] / sums.n[k]),
                    "top_z": float(sums.best[k]),
                    "top_neg_log10_p": float(sums.best_strength[k]),
                    "top_gene": gene["gene_name"] or gene["gene"],
                    "top_phenotype_id": phenotype["phenotype_id"],
                    "top_tissue": self.tissues[int(best["tid"])]["tissue"],
                }
            )
        return found

    def _groups(self, by: Summary) -> tuple[list[Row], Callable[[GeneRows], Int[np.ndarray, " rows"]]]:
        """Return what names every group, and a function from rows to the numbers of their groups."""
        if by == "gene":
            named = [{"gene": row["gene"], "gene_name": row["gene_name"]} for row in self.genes]
            return named, lambda rows: rows.gid
        if by == "tissue":
            return [{"tissue": row["tissue"]} for row in self.tissues], lambda rows: rows.tid
        keys = {"phenotype": ("phenotype_id", "label", *_OF_PHENOTYPE, "category"), "modality": ("modality",)}
        columns = keys.get(by, ("atlas", "region", "side"))
        blank: Row = dict.fromkeys(columns, "")
        number: dict[tuple[str, ...], int] = {}
        of_pid = np.zeros(self._n_phenotypes, dtype=np.int64)
        for row in self._phenotypes:
            key = tuple(row[name] or "" for name in columns)
            of_pid[row["pid"]] = number.setdefault(key, len(number))
        return [{**blank, **dict(zip(columns, key, strict=True))} for key in number], lambda rows: of_pid[rows.pid]

    def of_parcels(self, rows: GeneRows, map_id: str) -> dict[int, int]:
        """Return the row of the strongest association of every region of an atlas."""
        best: dict[int, int] = {}
        for at, pid in enumerate(rows.pid.tolist()):
            phenotype = self._phenotype[pid]
            parcel = phenotype["parcel_index"]
            if phenotype["map_id"] != map_id or parcel is None:
                continue
            if parcel not in best or rows.strength[at] > rows.strength[best[parcel]]:
                best[parcel] = at
        return best

    def models_of(self, gid: int) -> list[Row]:
        """Return the tissues that have a model of a gene, with its performance."""
        table = pq.read_table(self._root / "twas/models.parquet", filters=[("gid", "=", int(gid))])
        return [
            {"tissue": self.tissues[row["tid"]]["tissue"], "pred_perf_r2": row["pred_perf_r2"]}
            for row in table.to_pylist()
        ]


_DISTINCT = {"n_genes": "gid", "n_phenotypes": "pid", "n_tissues": "tid"}


def _begins(row: Mapping[str, Any], key: str) -> bool:
    return bool(row["gene_name"].lower().startswith(key) or row["gene"].lower().startswith(key))


def _public_gene(row: Row) -> Row:
    return {"max_neg_log10_p" if name == "max_nlog10p" else name: value for name, value in row.items()}


def _rows(table: pa.Table, q_column: str) -> GeneRows:
    numbers = [table[name].to_numpy().astype(np.int64) for name in ("gid", "pid", "tid")]
    others = [
        table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("z", "effect", "nlog10p", q_column)
    ]
    return GeneRows(*numbers, *others)


def _strongest_first(rows: GeneRows) -> GeneRows:
    return rows.take(np.lexsort((rows.tid, rows.pid, rows.gid, -rows.strength)))


def _plain(column: Float[np.ndarray, " rows"]) -> list[float | None]:
    return [None if value != value else value for value in column.tolist()]
