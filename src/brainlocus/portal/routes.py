"""The JSON interface: every page's data, read-only, with bounds."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import FileResponse, Response

from brainlocus.portal import problems
from brainlocus.portal.gene_routes import GeneStat, add_genes, chosen_filter, paint_gene, twas_meta
from brainlocus.portal.searching import search
from brainlocus.portal.slices import diverging, draw_slice, encode_png, identity_colours, sequential
from brainlocus.store import GeneFilter, LocalStore, Variant
from brainlocus.store.layout import manhattan, qq

__all__ = ["build_router"]

MAX_REGION_BP = 5_000_000
MAX_REGION_ROWS = 50_000
_SORTS = ("pid", "label", "n", "h2", "n_hits", "n_loci", "lambda_gc", "max_neg_log10_p", "n_genes_significant")
_KEY_SHAPE = re.compile(r"^[\x21-\x7e]{1,200}$")

Answer = dict[str, Any]
Key = Annotated[str, Path(max_length=400)]
Chromosome = Annotated[str, Query(alias="chrom", min_length=1, max_length=8, pattern=r"^(chr)?[0-9A-Za-z]+$")]
BasePair = Annotated[int, Query(ge=0, le=2**31 - 1)]
Limit = Annotated[int, Query(ge=1, le=1_000)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]
Stat = Literal["z", "beta", "neg_log10_p"]


class _Find:
    """Entities of the store by public key, or a problem document."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store

    def phenotype(self, key: str) -> Answer:
        row = self.store.phenotype(key)
        if row is None:
            raise problems.not_found("phenotype", key, self.store.near_phenotypes(key[:80]))
        return row

    def scanned(self, key: str) -> Answer:
        row = self.phenotype(key)
        if not row["has_gwas"]:
            detail = f"Phenotype {key!r} has no genome scan in this store."
            raise problems.ProblemError(404, "no-genome-scan", "No genome scan", detail)
        return row

    def variant(self, key: str) -> Variant:
        if not _KEY_SHAPE.match(key):
            raise problems.bad_key(
                "variant", key, "an rs number or chromosome-position-ref-alt, such as 7-117559590-G-A"
            )
        variant = self.store.find_variant(key)
        if variant is None:
            raise problems.not_found("variant", key, [])
        return variant

    def region(self, key: str) -> Answer:
        row = self.store.region(key)
        if row is None:
            raise problems.not_found("region", key, self.store.near_regions(key[:80]))
        return row

    def map(self, key: str) -> Answer:
        row = self.store.map(key)
        if row is None:
            raise problems.not_found("map", key, [m["map_id"] for m in self.store.maps][:3])
        return row

    def atlas(self, key: str | None) -> Answer:
        if key is not None:
            row = self.map(key)
            if row["kind"] != "atlas":
                raise problems.not_found(
                    "atlas", key, [m["map_id"] for m in self.store.maps if m["kind"] == "atlas"][:3]
                )
            return row
        first = next((m for m in self.store.maps if m["kind"] == "atlas"), None)
        if first is None:
            raise problems.ProblemError(404, "no-atlas", "No atlas", "This store has no atlas to paint.")
        return first


def variant_values(store: LocalStore, atlas: Answer, variant: Variant, stat: Stat) -> list[Answer]:
    """Return one value for each region of an atlas: the variant's association with that region."""
    by_pid = {row["pid"]: row for row in store.phenotypes}
    values = []
    for row in store.phewas(variant.vid):
        phenotype = by_pid[row["pid"]]
        if phenotype["map_id"] != atlas["map_id"]:
            continue
        value = row["beta"] / row["standard_error"] if stat == "z" else row[stat]
        values.append(
            {"parcel_index": phenotype["parcel_index"], "value": value, "phenotype_id": phenotype["phenotype_id"]}
        )
    return values


def build_router(store: LocalStore) -> APIRouter:
    """Return all routes over one store."""
    router = APIRouter(prefix="/api/v1")
    find = _Find(store)
    for add in (_add_meta, _add_phenotypes, _add_scans, _add_variants, _add_regions, _add_maps):
        add(router, store, find)
    add_genes(router, store, find.atlas)
    return router


Add = Callable[[APIRouter, LocalStore, _Find], None]


def _add_meta(router: APIRouter, store: LocalStore, _: _Find) -> None:
    @router.get("/meta", tags=["study"])
    def meta() -> Answer:
        """Describe the store: counts, thresholds, chromosomes, what it has."""
        shown = {k: v for k, v in store.meta.items() if k not in ("files", "inputs")}
        more = {"features": store.features, "models": store.models, "maps": store.maps, "twas": twas_meta(store)}
        return {**shown, **more}

    @router.get("/health", tags=["server"])
    def health() -> Answer:
        """Say that the server runs."""
        return {"status": "ok"}

    @router.get("/ready", tags=["server"])
    def ready() -> Answer:
        """Say that the store can be read."""
        if not (store.root / "store.json").is_file():
            raise problems.ProblemError(503, "not-ready", "Store not ready", "The store cannot be read.")
        return {"status": "ready", "release": store.meta.get("release")}

    @router.get("/search", tags=["study"])
    def search_all(
        q: Annotated[str, Query(min_length=2, max_length=64)], limit: Annotated[int, Query(ge=1, le=50)] = 12
    ) -> Answer:
        """Suggest variants, regions of the genome, genes, phenotypes and brain regions."""
        return {"q": q, "results": search(store, q, limit=limit)}


def _add_phenotypes(router: APIRouter, store: LocalStore, find: _Find) -> None:
    @router.get("/phenotypes", tags=["phenotypes"])
    def phenotypes(
        q: Annotated[str, Query(max_length=64)] = "",
        category: Annotated[str, Query(max_length=64)] = "",
        modality: Annotated[str, Query(max_length=64)] = "",
        atlas: Annotated[str, Query(max_length=64)] = "",
        scale: Annotated[int | None, Query(ge=1, le=100_000)] = None,
        sort: Annotated[str, Query(pattern=f"^-?({'|'.join(_SORTS)})$")] = "pid",
        cursor: Offset = 0,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Answer:
        """List phenotypes, filtered, sorted and paged."""
        words = q.lower().split()
        rows = [
            row
            for row in store.phenotypes
            if all(w in f"{row['phenotype_id']} {row['label']} {row['category']}".lower() for w in words)
            and (not category or row["category"] == category)
            and (not modality or row["modality"] == modality)
            and (not atlas or row["atlas"] == atlas)
            and (scale is None or row["scale"] == scale)
        ]
        name, down = sort.lstrip("-"), sort.startswith("-")
        have = sorted((r for r in rows if r[name] is not None), key=lambda r: r[name], reverse=down)
        rows = have + [r for r in rows if r[name] is None]
        following = cursor + limit if cursor + limit < len(rows) else None
        return {"total": len(rows), "next_cursor": following, "rows": rows[cursor : cursor + limit]}

    @router.get("/phenotypes/{phenotype_id}", tags=["phenotypes"])
    def phenotype(phenotype_id: Key) -> Answer:
        """Describe one phenotype."""
        row = find.phenotype(phenotype_id)
        region = next(
            (
                r
                for r in store.regions
                if row["parcel_index"] is not None
                and r["scale"] == row["scale"]
                and r["parcel_index"] == row["parcel_index"]
            ),
            None,
        )
        more = {"region": region, "region_name": row["region"], "heritability": store.heritability(row["pid"])}
        return {**row, **more, "annotation": store.annotation(row["pid"])}

    @router.get("/phenotypes/{phenotype_id}/associations", tags=["phenotypes"])
    def associations(phenotype_id: Key, limit: Limit = 1_000) -> Answer:
        """List associations with cognition, diagnoses and other traits, strongest first."""
        page = store.associations(find.phenotype(phenotype_id)["pid"], limit=limit)
        return {"total": page.total, "rows": page.rows}


def _add_scans(router: APIRouter, store: LocalStore, find: _Find) -> None:
    @router.get("/phenotypes/{phenotype_id}/manhattan", tags=["genome"], response_class=Response)
    def manhattan_file(phenotype_id: Key) -> Response:
        """Return the pre-computed Manhattan plot (binary; see the documentation of the store)."""
        data = (store.root / manhattan(find.scanned(phenotype_id)["pid"])).read_bytes()
        return Response(data, media_type="application/octet-stream")

    @router.get("/phenotypes/{phenotype_id}/qq", tags=["genome"], response_class=Response)
    def qq_points(phenotype_id: Key) -> Response:
        """Return the QQ plot's points with their 95 % band."""
        data = (store.root / qq(find.scanned(phenotype_id)["pid"])).read_bytes()
        return Response(data, media_type="application/json")

    @router.get("/phenotypes/{phenotype_id}/region", tags=["genome"])
    def region(phenotype_id: Key, chromosome: Chromosome, start: BasePair, end: BasePair) -> Answer:
        """Return the associations of a stretch of a chromosome as columns."""
        row = find.scanned(phenotype_id)
        _check_span(start, end)
        first, after = store.vid_range(chromosome, start, end)
        if after - first > MAX_REGION_ROWS:
            raise problems.too_large(
                f"The region holds {after - first} variants, at most {MAX_REGION_ROWS}; narrow it."
            )
        found = store.region_associations(row["pid"], chromosome, start, end)
        return {"chromosome": chromosome, "start": start, "end": end, "n": found.n_rows, "columns": found.columns}

    @router.get("/phenotypes/{phenotype_id}/hits", tags=["genome"])
    def hits(
        phenotype_id: Key,
        min_neg_log10_p: Annotated[float, Query(ge=0, le=1e6, alias="min_nlog10p")] = 0.0,
        cursor: Offset = 0,
        limit: Limit = 100,
    ) -> Answer:
        """List hits, strongest first."""
        pid = find.scanned(phenotype_id)["pid"]
        page = store.hits(pid, min_neg_log10_p=min_neg_log10_p, offset=cursor, limit=limit)
        following = cursor + limit if cursor + limit < page.total else None
        return {"total": page.total, "next_cursor": following, "rows": page.rows}

    @router.get("/phenotypes/{phenotype_id}/loci", tags=["genome"])
    def loci(phenotype_id: Key, limit: Limit = 1_000) -> Answer:
        """List loci, strongest first."""
        page = store.loci(pid=find.scanned(phenotype_id)["pid"], limit=limit)
        return {"total": page.total, "rows": page.rows}

    @router.get("/loci", tags=["genome"])
    def all_loci(
        chromosome: Annotated[str | None, Query(alias="chrom", max_length=8)] = None,
        start: BasePair = 0,
        end: BasePair = 2**31 - 1,
        limit: Limit = 100,
    ) -> Answer:
        """List loci of all phenotypes, strongest first, optionally those that overlap a region."""
        where = None if chromosome is None else (chromosome, start, end)
        page = store.loci(region=where, limit=limit)
        return {"total": page.total, "rows": page.rows}


def _check_span(start: int, end: int) -> None:
    if end < start:
        raise problems.ProblemError(
            422, "invalid-parameter", "Invalid parameter", f"end ({end}) is before start ({start}).", field="end"
        )
    if end - start > MAX_REGION_BP:
        raise problems.too_large(f"The region spans {end - start:,} bp, at most {MAX_REGION_BP:,}; narrow it.")


def _add_variants(router: APIRouter, store: LocalStore, find: _Find) -> None:
    @router.get("/variants/{key}", tags=["variants"])
    def variant(key: Key) -> Answer:
        """Describe one variant."""
        return _describe(find.variant(key))

    @router.get("/variants/{key}/phewas", tags=["variants"])
    def phewas(
        key: Key,
        modality: Annotated[str, Query(max_length=64)] = "",
        atlas: Annotated[str, Query(max_length=64)] = "",
        min_neg_log10_p: Annotated[float, Query(ge=0, le=1e6, alias="min_nlog10p")] = 0.0,
    ) -> Answer:
        """List one variant's associations with every phenotype."""
        found = find.variant(key)
        by_pid = {row["pid"]: row for row in store.phenotypes}
        rows = []
        for row in store.phewas(found.vid):
            phenotype = by_pid[row["pid"]]
            if (modality and phenotype["modality"] != modality) or (atlas and phenotype["atlas"] != atlas):
                continue
            if row["neg_log10_p"] >= min_neg_log10_p:
                names = ("phenotype_id", "label", "category", "modality", "scale", "parcel_index")
                rows.append({**row, **{name: phenotype[name] for name in names}})
        return {"variant": _describe(found), "total": len(rows), "rows": rows}

    @router.get("/variants/{key}/map", tags=["variants"])
    def variant_map(key: Key, atlas: Annotated[str | None, Query(max_length=64)] = None, stat: Stat = "z") -> Answer:
        """Return the variant's effect on every region of an atlas, for painting the brain."""
        found, painted = find.variant(key), find.atlas(atlas)
        values = variant_values(store, painted, found, stat)
        return {"variant": _describe(found), "map_id": painted["map_id"], "stat": stat, "values": values}


def _describe(variant: Variant) -> Answer:
    return {
        "key": variant.key,
        "variant_id": variant.variant_id,
        "chromosome": variant.chromosome,
        "position": variant.position,
        "effect_allele": variant.effect_allele,
        "other_allele": variant.other_allele,
        "effect_allele_frequency": variant.effect_allele_frequency,
    }


def _add_regions(router: APIRouter, store: LocalStore, find: _Find) -> None:
    @router.get("/regions", tags=["brain"])
    def regions(
        q: Annotated[str, Query(max_length=64)] = "",
        scale: Annotated[int | None, Query(ge=1, le=100_000)] = None,
        cursor: Offset = 0,
        limit: Limit = 1_000,
    ) -> Answer:
        """List the regions of the atlases."""
        words = q.lower().split()
        rows = [
            r
            for r in store.regions
            if (scale is None or r["scale"] == scale)
            and all(w in f"{r['region_id']} {r['name']}".lower() for w in words)
        ]
        following = cursor + limit if cursor + limit < len(rows) else None
        return {"total": len(rows), "next_cursor": following, "rows": rows[cursor : cursor + limit]}

    @router.get("/regions/{region_id}", tags=["brain"])
    def region(region_id: Key) -> Answer:
        """Describe one region of an atlas with its phenotypes."""
        row = find.region(region_id)
        mine = [p for p in store.phenotypes if (p["scale"], p["parcel_index"]) == (row["scale"], row["parcel_index"])]
        return {**row, "phenotypes": mine}


def _add_maps(router: APIRouter, store: LocalStore, find: _Find) -> None:
    @router.get("/maps/{map_id}", tags=["brain"])
    def map_meta(map_id: Key) -> Answer:
        """Describe one map."""
        return find.map(map_id)

    @router.get("/maps/{map_id}/file", tags=["brain"], response_class=FileResponse)
    def map_file(map_id: Key) -> FileResponse:
        """Return a map as gzipped NIfTI; ranges are served."""
        path = store.map_path(find.map(map_id))
        if path is None:
            raise problems.ProblemError(
                404, "missing-file", "Missing file", f"The map {map_id!r} has no file in the store."
            )
        # Already compressed: the identity keeps the gzip middleware away, so that ranges stay true.
        return FileResponse(path, media_type="application/gzip", headers={"Content-Encoding": "identity"})

    @router.get("/maps/{map_id}/slice.png", tags=["brain"], response_class=Response)
    def map_slice(
        map_id: Key,
        axis: Literal["x", "y", "z"] = "z",
        mm: Annotated[float, Query(ge=-1_000, le=1_000)] = 0.0,
        overlay: Annotated[str | None, Query(max_length=64)] = None,
        paint: Literal["identity", "h2", "n_hits", "select", "variant", "gene"] = "identity",
        parcel: Annotated[int | None, Query(ge=0, le=100_000)] = None,
        variant: Annotated[str | None, Query(max_length=200)] = None,
        gene: Annotated[str | None, Query(max_length=200)] = None,
        stat: Stat = "z",
        threshold: Annotated[float, Query(ge=0, le=1e6)] = 0.0,
        chosen: GeneFilter = Depends(chosen_filter),  # noqa: B008 - FastAPI's way to share parameters
    ) -> Response:
        """Draw one slice with an atlas over it, for browsers without WebGL 2."""
        base = find.map(map_id)
        over = find.atlas(overlay) if overlay is not None else (base if base["kind"] == "atlas" else None)
        colours: dict[int, tuple[float, float, float]] = {}
        if over is not None:
            found = find.variant(variant) if paint == "variant" and variant is not None else None
            if paint == "gene" and gene is not None:
                name: GeneStat = "effect" if stat == "beta" else stat
                values = {v["parcel_index"]: v["value"] for v in paint_gene(store, gene, over, chosen, name)}
            else:
                values = _paint_values(store, over, paint=paint, parcel=parcel, variant=found, stat=stat)
            colours = _colours(values, paint=paint, signed=stat != "neg_log10_p", threshold=threshold)
        picture = draw_slice(
            store.map_image(base) if base["kind"] != "atlas" else None,
            store.map_image(over) if over is not None else None,
            axis=axis,
            mm=mm,
            colours=colours,
        )
        return Response(encode_png(picture), media_type="image/png")


def _paint_values(
    store: LocalStore, atlas: Answer, *, paint: str, parcel: int | None, variant: Variant | None, stat: Stat
) -> dict[int, float]:
    """Return a value for every parcel that is to be painted."""
    if paint == "variant" and variant is not None:
        return {v["parcel_index"]: v["value"] for v in variant_values(store, atlas, variant, stat)}
    if paint in ("h2", "n_hits"):
        mine = [p for p in store.phenotypes if p["map_id"] == atlas["map_id"] and p[paint] is not None]
        return {p["parcel_index"]: float(p[paint]) for p in mine}
    labels = [r["parcel_index"] for r in store.regions if r["map_id"] == atlas["map_id"]]
    return {label: float(label) for label in labels if paint != "select" or label == parcel}


def _colours(
    values: dict[int, float], *, paint: str, signed: bool, threshold: float
) -> dict[int, tuple[float, float, float]]:
    kept = {label: value for label, value in values.items() if abs(value) >= threshold}
    if not kept:
        return {}
    labels, numbers = np.asarray(list(kept), dtype=np.int64), np.asarray(list(kept.values()), dtype=np.float64)
    limit = float(np.abs(numbers).max())
    if paint == "identity":
        rgb = identity_colours(labels)
    elif paint == "select":
        rgb = np.tile([240.0, 140.0, 30.0], (labels.size, 1))
    elif paint in ("variant", "gene") and signed:
        rgb = diverging(numbers, limit=limit)
    else:
        rgb = sequential(numbers, limit=limit)
    return {int(k): (float(r), float(g), float(b)) for k, (r, g, b) in zip(labels, rgb, strict=True)}
