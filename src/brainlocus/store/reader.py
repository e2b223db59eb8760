"""Reading a store: small tables in memory, large ones by row group through DuckDB.

Values reach SQL only as bound parameters, and file names come only from numbers checked against the
catalogue. Answers are lists of rows with the column names of `core.columns`.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from brainlocus.core import FormatError, canonical_chromosome
from brainlocus.core.errors import import_extra
from brainlocus.store import layout
from brainlocus.store.gene_reader import GeneResults

__all__ = ["Associations", "LocalStore", "QueryTimeoutError", "Variant", "VariantPage"]

STATEMENT_SECONDS = 5.0
"""A query that runs longer is interrupted."""

Row = dict[str, Any]


class QueryTimeoutError(Exception):
    """A statement ran into its time limit."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant of the store."""

    vid: int
    chromosome: str
    position: int
    other_allele: str
    effect_allele: str
    variant_id: str
    effect_allele_frequency: float | None

    @property
    def key(self) -> str:
        """Public key ``chromosome-position-other-effect``."""
        return f"{self.chromosome}-{self.position}-{self.other_allele}-{self.effect_allele}"


@dataclass(frozen=True, slots=True)
class Associations:
    """Columns of equal length, in plain Python or NumPy."""

    columns: Mapping[str, Any]
    n_rows: int


@dataclass(frozen=True, slots=True)
class VariantPage:
    """Rows of one page and whether more follow."""

    rows: list[Row]
    total: int


class LocalStore:
    """A sealed store on this machine, open for reading by many threads.

    Raises
    ------
    FormatError
        The folder is no store, or of a newer major format.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).resolve()
        self.meta = self._open()
        duckdb = import_extra("duckdb", extra="portal")
        self._connection = duckdb.connect(":memory:")
        quoted = str(self.root).replace("'", "''")
        for setting in (
            "SET memory_limit='1GB'",
            "SET parquet_metadata_cache=true",
            "SET threads=1",
            f"SET allowed_directories=['{quoted}']",
            "SET enable_external_access=false",
            "SET lock_configuration=true",
        ):
            self._connection.execute(setting)
        self._duckdb = duckdb
        self._local = threading.local()
        self._load()

    def _open(self) -> dict[str, Any]:
        path = self.root / "store.json"
        if not path.is_file():
            raise FormatError(
                f"Expected a store, a folder with store.json, found none in {self.root}. "
                "Build one with: brainlocus store build --out FOLDER ..."
            )
        try:
            meta = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise FormatError(
                f"{path} is not JSON (line {error.lineno}: {error.msg}). Build the store again."
            ) from error
        version = str(meta.get("format_version", "")) if isinstance(meta, dict) else ""
        if version.split(".")[0] != layout.FORMAT_VERSION.split(".")[0]:
            raise FormatError(
                f"{path} has store format {version or 'unknown'}, this brainlocus reads "
                f"{layout.FORMAT_VERSION.split('.')[0]}.x. Install a version that reads it."
            )
        return dict(meta)

    @property
    def digest(self) -> str:
        """SHA-256 of ``store.json``, which has that of every other file: it names the store's content."""
        return sha256((self.root / "store.json").read_bytes()).hexdigest()

    def _load(self) -> None:
        """Hold the catalogue in memory: phenotypes, regions, maps, small tables, variant positions."""
        self.phenotypes: list[Row] = [_phenotype(r) for r in self._small("phenotypes.parquet") if not r.pop("masked")]
        self._by_pid = {row["pid"]: row for row in self.phenotypes}
        self._by_id = {row["phenotype_id"]: row for row in self.phenotypes}
        self.regions = self._small("regions.parquet")
        self._region = {row["region_id"]: row for row in self.regions}
        self.maps = self._small("maps/maps.parquet")
        self._map = {row["map_id"]: row for row in self.maps}
        self.models = self._small("models.parquet")
        self.chromosomes: list[Row] = list(self.meta.get("chromosomes", []))
        self._chromosome = {row["chromosome"]: row for row in self.chromosomes}
        self.has_variants = (self.root / "variants.parquet").is_file()
        if self.has_variants:
            table = pq.read_table(self.root / "variants.parquet", columns=["pos", "rsid"])
            self._position: Int[np.ndarray, " variants"] = table["pos"].to_numpy().astype(np.int32)
            rsid = table["rsid"].fill_null(-1).to_numpy()
            order = np.argsort(rsid, kind="stable").astype(np.int32)
            keep = rsid[order] >= 0
            self._rs_vid, self._rs_number = order[keep], rsid[order][keep]
        self.twas = (
            GeneResults(self.root, self.meta["twas"], self.phenotypes, self.query) if self.meta.get("twas") else None
        )
        """Gene associations, None where the store has none."""

    def _small(self, relative: str) -> list[Row]:
        path = self.root / relative
        return list(pq.read_table(path).to_pylist()) if path.is_file() else []

    def close(self) -> None:
        """Close the database connection."""
        self._connection.close()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Run one statement in this thread's cursor with a time limit.

        Raises
        ------
        QueryTimeoutError
            It ran longer than `STATEMENT_SECONDS`.
        """
        cursor = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._connection.cursor()
        timer = threading.Timer(STATEMENT_SECONDS, cursor.interrupt)
        timer.start()
        try:
            return cursor.sql(sql, params=list(parameters)).to_arrow_table()
        except self._duckdb.InterruptException as error:
            raise QueryTimeoutError(f"The query took longer than {STATEMENT_SECONDS:g} s.") from error
        finally:
            timer.cancel()

    def _file(self, relative: str) -> str:
        return str(self.root / relative)

    # --- catalogue ---------------------------------------------------------------------------------------------

    def phenotype(self, phenotype_id: str) -> Row | None:
        """Return the catalogue row of a phenotype."""
        return self._by_id.get(phenotype_id)

    def phenotype_by_number(self, pid: int) -> Row | None:
        """Return the catalogue row of a phenotype by its number in this store."""
        return self._by_pid.get(pid)

    def region(self, region_id: str) -> Row | None:
        """Return the catalogue row of an atlas region."""
        return self._region.get(region_id)

    def map(self, map_id: str) -> Row | None:
        """Return the catalogue row of a map."""
        return self._map.get(map_id)

    @cached_property
    def _annotation(self) -> dict[int, dict[str, str]]:
        found: dict[int, dict[str, str]] = {}
        for row in self._small("annotation.parquet"):
            found.setdefault(row["pid"], {})[row["name"]] = row["value"]
        return found

    def annotation(self, pid: int) -> dict[str, str]:
        """Return what the annotation says of a phenotype beside the columns of the catalogue."""
        return self._annotation.get(pid, {})

    def near_phenotypes(self, phenotype_id: str) -> list[str]:
        """Return up to three phenotype ids that look like this one."""
        return get_close_matches(phenotype_id, list(self._by_id), n=3, cutoff=0.5)

    def near_regions(self, region_id: str) -> list[str]:
        """Return up to three region ids that look like this one."""
        return get_close_matches(region_id, list(self._region), n=3, cutoff=0.5)

    @cached_property
    def features(self) -> dict[str, bool]:
        """What the store has, so that pages show only that."""
        return {
            "gwas": self.has_variants and any(row["has_gwas"] for row in self.phenotypes),
            "heritability": any(row["h2"] is not None for row in self.phenotypes),
            "associations": (self.root / "assoc.parquet").is_file(),
            "models": bool(self.models),
            "atlas": any(row["kind"] == "atlas" for row in self.maps),
            "template": any(row["kind"] == "template" for row in self.maps),
        }

    def map_path(self, row: Row) -> Path | None:
        """Return the file of a map, or None when it is missing or leads out of the store."""
        path = (self.root / str(row["path"])).resolve()
        return path if path.is_relative_to(self.root) and path.is_file() else None

    # --- variants ----------------------------------------------------------------------------------------------

    def vid_range(self, chromosome: str, start: int, stop: int) -> tuple[int, int]:
        """Return the first vid and the one after the last of a region, both ends included."""
        row = self._chromosome.get(canonical_chromosome(chromosome))
        if row is None:
            return 0, 0
        first = int(row["first_vid"])
        positions = self._position[first : first + int(row["n_variants"])]
        # Clip to int32: positions beyond it would wrap.
        low, high = (min(max(v, 0), 2**31 - 1) for v in (start, stop))
        return (
            first + int(np.searchsorted(positions, low, side="left")),
            first + int(np.searchsorted(positions, high, side="right")),
        )

    def variants(self, vids: Sequence[int]) -> dict[int, Variant]:
        """Return variants by vid."""
        if not vids:
            return {}
        sql = (
            "SELECT vid, chrom, pos, ref, alt, rsid, name, af FROM read_parquet(?) "
            "WHERE vid BETWEEN ? AND ? AND list_contains(?, vid)"
        )
        wanted = sorted({int(v) for v in vids})
        table = self.query(sql, [self._file("variants.parquet"), wanted[0], wanted[-1], wanted])
        return {row["vid"]: _variant(row) for row in table.to_pylist()}

    def find_variant(self, key: str) -> Variant | None:
        """Return the variant of an rs number, a key ``chromosome-position-ref-alt`` or another stored name.

        The alleles may be given in either order.
        """
        if not self.has_variants:
            return None
        if key[:2].lower() == "rs" and key[2:].isdecimal() and len(key) < 19:
            at = int(np.searchsorted(self._rs_number, int(key[2:])))
            if at < self._rs_number.size and self._rs_number[at] == int(key[2:]):
                vid = int(self._rs_vid[at])
                return self.variants([vid])[vid]
            return None
        parts = key.replace(":", "-").replace("_", "-").split("-")
        if len(parts) == 4 and parts[1].isdecimal() and len(parts[1]) < 11:
            chromosome, position, a, b = parts[0], int(parts[1]), parts[2].upper(), parts[3].upper()
            first, stop = self.vid_range(chromosome, position, position)
            here = list(self.variants(list(range(first, stop))).values())
            for pair in ((a, b), (b, a)):
                for variant in here:
                    if (variant.other_allele, variant.effect_allele) == pair:
                        return variant
        table = self.query(
            "SELECT vid, chrom, pos, ref, alt, rsid, name, af FROM read_parquet(?) WHERE name = ? LIMIT 1",
            [self._file("variants.parquet"), key],
        )
        rows = table.to_pylist()
        return _variant(rows[0]) if rows else None

    # --- associations ------------------------------------------------------------------------------------------

    def region_associations(self, pid: int, chromosome: str, start: int, stop: int) -> Associations:
        """Return one phenotype's associations in a region as columns, ordered by position."""
        first, after = self.vid_range(chromosome, start, stop)
        sql = """
            SELECT g.vid, v.pos AS position, v.ref AS other_allele, v.alt AS effect_allele, v.rsid, v.name,
                   v.af AS effect_allele_frequency, g.beta, g.se AS standard_error, g.nlog10p AS neg_log10_p
            FROM read_parquet(?) g JOIN read_parquet(?) v ON g.vid = v.vid
            WHERE g.vid BETWEEN ? AND ? AND v.vid BETWEEN ? AND ? ORDER BY g.vid"""
        files = [self._file(layout.by_phenotype(int(pid))), self._file("variants.parquet")]
        table = self.query(sql, [*files, first, after - 1, first, after - 1])
        columns = {name: table[name].to_pylist() for name in table.column_names}
        rsid, name = columns.pop("rsid"), columns.pop("name")
        columns["variant_id"] = [f"rs{r}" if r is not None else n for r, n in zip(rsid, name, strict=True)]
        return Associations(columns, table.num_rows)

    def phewas(self, vid: int) -> list[Row]:
        """Return the associations of one variant with every phenotype."""
        block = int(vid) // layout.VARIANTS_PER_FILE
        table = self.query(
            "SELECT pid, beta, se AS standard_error, nlog10p AS neg_log10_p FROM read_parquet(?) "
            "WHERE vid = ? ORDER BY pid",
            [self._file(layout.by_variant(block)), int(vid)],
        )
        return [row for row in table.to_pylist() if row["pid"] in self._by_pid]

    def hits(self, pid: int, *, min_neg_log10_p: float, offset: int, limit: int) -> VariantPage:
        """Return one phenotype's hits, strongest first."""
        where = "WHERE h.pid = ? AND h.nlog10p >= ?"
        base = [self._file("gwas/hits.parquet"), int(pid), float(min_neg_log10_p)]
        if min_neg_log10_p <= self.meta["thresholds"]["hits_min"]:
            total = self._by_pid[pid]["n_hits"]
        else:
            total = self.query(f"SELECT count(*) AS n FROM read_parquet(?) h {where}", base)["n"][0].as_py()
        sql = f"SELECT * FROM read_parquet(?) h {where} ORDER BY h.nlog10p DESC, h.vid LIMIT ? OFFSET ?"
        rows = self.query(sql, [*base, int(limit), int(offset)]).to_pylist()
        return VariantPage([self._public(row) for row in rows], int(total))

    def loci(
        self,
        *,
        pid: int | None = None,
        region: tuple[str, int, int] | None = None,
        limit: int = 1_000,
    ) -> VariantPage:
        """Return loci, strongest first: of one phenotype, overlapping a region, or all."""
        path = self.root / "gwas/loci.parquet"
        if not path.is_file():
            return VariantPage([], 0)
        rows = self._loci
        if pid is not None:
            rows = [row for row in rows if row["pid"] == pid]
        if region is not None:
            chromosome, start, stop = region
            code = layout.chromosome_code(canonical_chromosome(chromosome))
            rows = [r for r in rows if r["chrom"] == code and r["start"] <= stop and r["stop"] >= start]
        return VariantPage([self._public(row) for row in rows[:limit]], len(rows))

    @cached_property
    def _loci(self) -> list[Row]:
        rows = []
        for row in self._small("gwas/loci.parquet"):
            if row["pid"] in self._by_pid:
                rows.append(row)
        return sorted(rows, key=lambda r: -(r["nlog10p"] or 0.0))

    def _public(self, row: Row) -> Row:
        """Return a row of hits or loci under public names, with the public keys of variant and phenotype."""
        variant = _variant(row)
        hidden = {"chrom", "pos", "ref", "alt", "rsid", "name", "af"}
        return {
            **_house({name: value for name, value in row.items() if name not in hidden}),
            "chromosome": variant.chromosome,
            "position": variant.position,
            "key": variant.key,
            "variant_id": variant.variant_id,
            "effect_allele": variant.effect_allele,
            "other_allele": variant.other_allele,
            "effect_allele_frequency": variant.effect_allele_frequency,
            "phenotype_id": self._by_pid[row["pid"]]["phenotype_id"],
        }

    def associations(self, pid: int, *, limit: int) -> VariantPage:
        """Return one phenotype's associations with cognition, diagnoses and other traits, strongest first."""
        if not self.features["associations"]:
            return VariantPage([], 0)
        table = self.query(
            "SELECT trait_id AS phenotype, category, test, effect, effect_type, se AS standard_error, "
            "p_nlog10 AS neg_log10_p, n, n_cases, n_controls, suppressed, fdr AS q_bh, bonferroni_pass "
            "FROM read_parquet(?) WHERE pid = ? ORDER BY p_nlog10 DESC, trait_id",
            [self._file("assoc.parquet"), int(pid)],
        )
        return VariantPage(table.slice(0, limit).to_pylist(), table.num_rows)

    def heritability(self, pid: int) -> Row | None:
        """Return one phenotype's heritability."""
        return next((r for r in self._heritability if r["pid"] == pid), None)

    @cached_property
    def _heritability(self) -> list[Row]:
        return [_house(row) for row in self._small("heritability.parquet")]

    # --- maps --------------------------------------------------------------------------------------------------

    def map_image(self, row: Row) -> tuple[Int[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
        """Return a map's values with axes along RAS+, and its affine.

        Raises
        ------
        FormatError
            The file is missing or leads out of the store.
        """
        path = self.map_path(row)
        if path is None:
            raise FormatError(f"The map {row['map_id']!r} has no file in the store; run store verify.")
        nibabel = import_extra("nibabel", extra="imaging")
        image = nibabel.as_closest_canonical(nibabel.load(path))
        return np.asarray(image.dataobj).astype(np.int64), np.asarray(image.affine, dtype=np.float64)


_HOUSE_NAMES = {
    "se": "standard_error",
    "h2_se": "h2_standard_error",
    "nlog10p": "neg_log10_p",
    "max_nlog10p": "max_neg_log10_p",
}


def _house(row: Row) -> Row:
    """Return a row under the column names of `core.columns`."""
    return {_HOUSE_NAMES.get(name, name): value for name, value in row.items()}


_SINCE_1_1 = ("side", "region", "measurement", "n_gene_associations", "n_genes", "n_genes_significant")


def _phenotype(row: Row) -> Row:
    """Return a row of the catalogue; a store of format 1.0 has no annotation."""
    row.pop("hemisphere", None)
    return {**dict.fromkeys(_SINCE_1_1), **_house(row)}


def _variant(row: Row) -> Variant:
    name = f"rs{row['rsid']}" if row["rsid"] is not None else (row["name"] or "")
    return Variant(
        row["vid"], layout.chromosome_name(row["chrom"]), row["pos"], row["ref"], row["alt"], name, row["af"]
    )
