"""JSON about genes: from a gene to brain phenotypes and back, and a gene painted on an atlas."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Path, Query
from jaxtyping import Int

from brainlocus.core import SchemaError
from brainlocus.portal import problems
from brainlocus.store import GeneFilter, GeneResults, GeneRows, LocalStore, UnknownValueError

__all__ = ["GeneStat", "add_genes", "chosen_filter", "gene_values", "paint_gene", "twas_meta"]

Answer = dict[str, Any]
Key = Annotated[str, Path(max_length=400)]
Limit = Annotated[int, Query(ge=1, le=1_000)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]
Text = Annotated[str, Query(max_length=128)]
GeneStat = Literal["z", "effect", "neg_log10_p"]
MatrixLimit = Annotated[int, Query(ge=1, le=100)]
By = Literal["phenotype", "gene", "region", "tissue", "modality"]
Scope = Literal["study", "modality", "atlas", "phenotype", "phenotype-tissue", "nominal"]

_SORTS = ("gene_name", "n_associations", "n_phenotypes_significant", "n_tissues", "max_neg_log10_p")
ALPHA = 0.05
MAX_SUMMARY_ROWS = 5_000
"""Rows of a summary: the phenotypes of the largest study, 3,935, fit."""


def chosen_filter(
    modality: Text = "",
    atlas: Text = "",
    side: Text = "",
    region: Text = "",
    measurement: Text = "",
    tissue: Text = "",
    scope: Scope | None = None,
    correction: Literal["bh", "bonferroni"] = "bh",
    alpha: Annotated[float | None, Query(gt=0, le=1)] = None,
) -> GeneFilter:
    """Return the filter of a request; an empty value leaves everything through, a missing scope or alpha is open."""

    def one(text: str) -> tuple[str, ...]:
        return (text,) if text else ()

    return GeneFilter(
        modality=one(modality),
        atlas=one(atlas),
        side=one(side),
        region=one(region),
        measurement=one(measurement),
        tissue=one(tissue),
        scope=scope or "",
        correction=correction,
        alpha=alpha or 0.0,
    )


Chosen = Annotated[GeneFilter, Depends(chosen_filter)]


def default_scope(twas: GeneResults) -> str:
    """Return the widest scope whose q is known; ``nominal`` where none is."""
    return twas.scopes[0] if twas.scopes else "nominal"


def _settled(twas: GeneResults, chosen: GeneFilter) -> GeneFilter:
    """Fill in scope and alpha and check the filter, or answer with a problem that says what is allowed."""
    alpha = chosen.alpha or min(ALPHA, float(twas.meta["max_p"]))
    settled = replace(chosen, scope=chosen.scope or default_scope(twas), alpha=alpha)
    try:
        twas.select(settled)
    except UnknownValueError as error:
        raise problems.ProblemError(
            422, "invalid-parameter", "Invalid parameter", str(error), field=error.name, allowed=error.allowed[:100]
        ) from error
    except SchemaError as error:
        raise problems.ProblemError(422, "invalid-parameter", "Invalid parameter", str(error), field="alpha") from error
    return settled


def twas_meta(store: LocalStore) -> Answer | None:
    """Describe the gene associations of a store; None where it has none."""
    twas = store.twas
    if twas is None:
        return None
    known = {"max_p": twas.meta["max_p"], "alpha": twas.meta["alpha"], "scopes": twas.scopes}
    groups = [
        {name: row[name] for name in ("scope", "name", "n_tests", "n_associations", "n_significant")}
        for row in twas.scope_rows
        if row["scope"] in ("study", "modality", "atlas")
    ]
    filters = {name: values for name, values in twas.filters.items() if name != "region"}
    return {
        **known,
        "default_scope": default_scope(twas),
        "filters": filters,
        "tissues": twas.tissues,
        "groups": groups,
    }


class _Genes:
    """Genes and phenotypes of the store by public key, or a problem document."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store

    @property
    def twas(self) -> GeneResults:
        if self.store.twas is None:
            raise problems.ProblemError(
                404, "no-genes", "No genes", "This store has no associations of genes with phenotypes."
            )
        return self.store.twas

    def gene(self, key: str) -> Answer:
        row = self.twas.find_gene(key)
        if row is None:
            raise problems.not_found("gene", key, self.twas.near_genes(key[:80]))
        return row

    def phenotype(self, key: str) -> Answer:
        row = self.store.phenotype(key)
        if row is None:
            raise problems.not_found("phenotype", key, self.store.near_phenotypes(key[:80]))
        return row


def _page(twas: GeneResults, rows: GeneRows, chosen: GeneFilter, cursor: int, limit: int) -> Answer:
    following = cursor + limit if cursor + limit < len(rows) else None
    shown = rows.take(np.arange(min(cursor, len(rows)), min(cursor + limit, len(rows))))
    return {
        "scope": chosen.scope,
        "correction": chosen.correction,
        "alpha": chosen.alpha,
        "total": len(rows),
        "next_cursor": following,
        "rows": twas.rows(shown, chosen.scope),
    }


def gene_values(
    store: LocalStore, twas: GeneResults, gid: int, atlas: Answer, chosen: GeneFilter, stat: GeneStat
) -> list[Answer]:
    """Return one value for each region of an atlas: the gene's strongest association with that region."""
    rows = twas.of_gene(gid, chosen)
    by_pid = {row["pid"]: row for row in store.phenotypes}
    values = []
    for parcel, at in sorted(twas.of_parcels(rows, atlas["map_id"]).items()):
        value = {"z": rows.z, "effect": rows.effect, "neg_log10_p": rows.strength}[stat][at]
        if value == value:
            values.append(
                {
                    "parcel_index": parcel,
                    "value": float(value),
                    "phenotype_id": by_pid[int(rows.pid[at])]["phenotype_id"],
                    "tissue": twas.tissues[int(rows.tid[at])]["tissue"],
                }
            )
    return values


def paint_gene(store: LocalStore, key: str, atlas: Answer, chosen: GeneFilter, stat: GeneStat) -> list[Answer]:
    """Return one value for each region of an atlas for a gene by its public key."""
    find = _Genes(store)
    row, twas = find.gene(key), find.twas
    return gene_values(store, twas, row["gid"], atlas, _settled(twas, chosen), stat)


def add_genes(router: APIRouter, store: LocalStore, find_atlas: Any) -> None:
    """Add the routes about genes; `find_atlas` returns the row of an atlas by its id."""
    find = _Genes(store)

    @router.get("/genes", tags=["genes"])
    def genes(
        q: Annotated[str, Query(max_length=64)] = "",
        sort: Annotated[str, Query(pattern=f"^-?({'|'.join(_SORTS)})$")] = "-max_neg_log10_p",
        cursor: Offset = 0,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Answer:
        """List genes, filtered by the beginning of their symbol or id, sorted and paged."""
        twas = find.twas
        rows = twas.search_genes(q, limit=len(twas.genes)) if q.strip() else twas.genes
        name, down = sort.lstrip("-"), sort.startswith("-")
        have = [row for row in rows if row[name] not in (None, "")]
        rest = [row for row in rows if row[name] in (None, "")]
        rows = [*sorted(have, key=lambda row: row[name], reverse=down), *rest]
        following = cursor + limit if cursor + limit < len(rows) else None
        shown = [_described(store, twas, row) for row in rows[cursor : cursor + limit]]
        return {"total": len(rows), "next_cursor": following, "rows": shown}

    @router.get("/genes/{gene}", tags=["genes"])
    def gene(gene: Key) -> Answer:
        """Describe one gene, by symbol or Ensembl id: its models, and other genes of the same symbol."""
        row = find.gene(gene)
        twas = find.twas
        also = [other["gene"] for other in twas.find_genes(gene) if other["gid"] != row["gid"]]
        return {**_described(store, twas, row), "models": twas.models_of(row["gid"]), "also": also}

    @router.get("/genes/{gene}/associations", tags=["genes"])
    def associations(gene: Key, chosen: Chosen, cursor: Offset = 0, limit: Limit = 100) -> Answer:
        """List a gene's associations with phenotypes, strongest first."""
        row, twas = find.gene(gene), find.twas
        settled = _settled(twas, chosen)
        return _page(twas, twas.of_gene(row["gid"], settled), settled, cursor, limit)

    @router.get("/genes/{gene}/summary", tags=["genes"])
    def summary(gene: Key, chosen: Chosen, by: By = "tissue") -> Answer:
        """Sum a gene's associations up by phenotype, region, tissue or modality."""
        row, twas = find.gene(gene), find.twas
        settled = _settled(twas, chosen)
        return _summary(twas, twas.of_gene(row["gid"], settled), settled, by)

    @router.get("/genes/{gene}/map", tags=["genes"])
    def gene_map(
        gene: Key, chosen: Chosen, map_id: Annotated[str | None, Query(max_length=64)] = None, stat: GeneStat = "z"
    ) -> Answer:
        """Return the gene's strongest association with every region of an atlas, for painting the brain."""
        row, twas = find.gene(gene), find.twas
        painted, settled = find_atlas(map_id), _settled(twas, chosen)
        values = gene_values(store, twas, row["gid"], painted, settled, stat)
        return {
            "gene": row["gene"],
            "map_id": painted["map_id"],
            "stat": stat,
            "scope": settled.scope,
            "values": values,
        }

    @router.get("/genes/{gene}/matrix", tags=["genes"])
    def gene_matrix(gene: Key, chosen: Chosen, limit: MatrixLimit = 30) -> Answer:
        """Return z of the gene's strongest phenotypes in every tissue; null: no model, or p above what is kept.

        Phenotypes are chosen by the filter; their cells are shown whatever their q.
        """
        row, twas = find.gene(gene), find.twas
        passed, every = _both(twas, twas.of_gene, row["gid"], _settled(twas, chosen))

        def name(pid: int) -> Answer:
            phenotype = store.phenotype_by_number(pid) or {}
            return {n: phenotype.get(n) for n in ("phenotype_id", "label", "modality", "category")}

        return _matrix(twas, passed.pid, every.pid, every, name, lambda _: int(row["gid"]), limit)

    @router.get("/phenotypes/{phenotype_id}/genes/matrix", tags=["genes"])
    def phenotype_matrix(phenotype_id: Key, chosen: Chosen, limit: MatrixLimit = 30) -> Answer:
        """Return z of the phenotype's strongest genes in every tissue; null: no model, or p above what is kept."""
        row, twas = find.phenotype(phenotype_id), find.twas
        passed, every = _both(twas, twas.of_phenotype, row["pid"], _settled(twas, chosen))

        def name(gid: int) -> Answer:
            return {n: twas.genes[gid][n] for n in ("gene", "gene_name")}

        return _matrix(twas, passed.gid, every.gid, every, name, lambda gid: gid, limit)

    @router.get("/phenotypes/{phenotype_id}/genes", tags=["genes"])
    def phenotype_genes(phenotype_id: Key, chosen: Chosen, cursor: Offset = 0, limit: Limit = 100) -> Answer:
        """List a phenotype's associations with genes, strongest first."""
        row, twas = find.phenotype(phenotype_id), find.twas
        settled = _settled(twas, chosen)
        return _page(twas, twas.of_phenotype(row["pid"], settled), settled, cursor, limit)

    @router.get("/phenotypes/{phenotype_id}/genes/summary", tags=["genes"])
    def phenotype_summary(phenotype_id: Key, chosen: Chosen, by: By = "gene") -> Answer:
        """Sum a phenotype's associations up by gene or tissue."""
        row, twas = find.phenotype(phenotype_id), find.twas
        settled = _settled(twas, chosen)
        return _summary(twas, twas.of_phenotype(row["pid"], settled), settled, by)


def _described(store: LocalStore, twas: GeneResults, row: Answer) -> Answer:
    """Return a gene's row with the names of its strongest association in place of their numbers."""
    shown = {name: value for name, value in row.items() if name not in ("gid", "top_pid", "top_tid")}
    top = None if row["top_pid"] is None else store.phenotype_by_number(row["top_pid"])
    return {
        **shown,
        "top_phenotype_id": None if top is None else top["phenotype_id"],
        "top_label": None if top is None else top["label"],
        "top_tissue": None if row["top_tid"] is None else twas.tissues[row["top_tid"]]["tissue"],
    }


def _summary(twas: GeneResults, rows: GeneRows, chosen: GeneFilter, by: By) -> Answer:
    found = twas.summarise([rows], by)
    return {
        "by": by,
        "scope": chosen.scope,
        "total": len(found),
        "n_associations": len(rows),
        "rows": found[:MAX_SUMMARY_ROWS],
    }


def _both(
    twas: GeneResults, read: Callable[[int, GeneFilter], GeneRows], number: int, chosen: GeneFilter
) -> tuple[GeneRows, GeneRows]:
    """Return what passes a filter, and the same without its scope and alpha."""
    return read(number, chosen), read(number, replace(chosen, scope="nominal", alpha=float(twas.meta["max_p"])))


def _matrix(
    twas: GeneResults,
    passed: Int[np.ndarray, " passed"],
    number: Int[np.ndarray, " every"],
    every: GeneRows,
    name: Callable[[int], Answer],
    gene_of: Callable[[int], int],
    limit: int,
) -> Answer:
    """Return z of what passed, strongest first, by tissue.

    Parameters
    ----------
    passed, number
        What a row of the matrix is (phenotype or gene), of the associations that passed and of `every`.
    """
    shown = list(dict.fromkeys(passed.tolist()))
    rows = {key: k for k, key in enumerate(shown[:limit])}
    modelled = [{model["tissue"] for model in twas.models_of(gene_of(key))} for key in rows]
    used = set().union(*modelled) if modelled else set()
    tissues = sorted(used, key=str.lower)
    place = {tissue: k for k, tissue in enumerate(tissues)}
    z: list[list[float | None]] = [[None] * len(tissues) for _ in rows]
    for key, tid, value in zip(number.tolist(), every.tid.tolist(), every.z.tolist(), strict=True):
        tissue = twas.tissues[tid]["tissue"]
        if key in rows and tissue in place:
            z[rows[key]][place[tissue]] = value
    return {
        "total": len(shown),
        "tissues": tissues,
        "rows": [name(key) for key in rows],
        "z": z,
        "modelled": [[tissue in mine for tissue in tissues] for mine in modelled],
    }
