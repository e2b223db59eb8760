"""Building a store: variants once, then one phenotype at a time, then tables and maps, then the seal.

Data flow::

    VariantTable ------write_variants--> variants.parquet, keys in memory
    ResultTable -------add_phenotype---> gwas/by_phenotype, manhattan, qq; hits kept
    ResultTable -------add_table-------> associations, heritability, loci
    GeneBlock ---------add_gene_associations--> twas/by_gene, twas/by_phenotype, genes, tissues
    Parcellation ------add_parcellation> maps/, regions
    everything --------seal------------> the rest, by_variant, checksums, store.json, rename

All is written into a folder beside the store and renamed by `seal`: there is never half a store.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int, Shaped

from brainlocus._version import __version__
from brainlocus.core import (
    GeneBlock,
    Parcellation,
    PhenotypeAnnotation,
    ResultTable,
    SampleIndex,
    SchemaError,
    VariantTable,
    Volume,
)
from brainlocus.core.text import STRING
from brainlocus.store import layout
from brainlocus.store.annotation import annotate, public_id
from brainlocus.store.gene_writer import GeneTestWriter
from brainlocus.store.maps import display_labels, display_template, region_shapes, write_nifti
from brainlocus.store.matching import VariantKeys, check_alleles, chromosome_codes
from brainlocus.store.plots import genomic_inflation, manhattan_of, pack_manhattan, qq_of
from brainlocus.store.precision import BETA_BITS, NEG_LOG10_P_BITS, round_mantissa
from brainlocus.store.privacy import PrivacyRules, check_summary_table, floor_frequency, suppressed_cells

__all__ = ["ModelInfo", "PhenotypeInfo", "StoreSettings", "StoreWriter", "peak_bytes"]

MAX_INVALID_SHARE = 0.01
"""More impossible rows than this (standard error <= 0, negative -log10 p) mean a misread file."""
PEAK_WINDOW_BP = 250_000
"""Half-width of a locus when no clumped loci are given: the window of methods/sumstats.md."""

Precision = Literal["full", "m12"]


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """What a store is called and how it is written."""

    title: str = "Imaging genomics study"
    description: str = ""
    release: str = "1"
    species: str = ""
    licence: str = ""
    citation: str = ""
    space: str = ""
    """Standard space of the maps, such as MNI152NLin2009cAsym."""
    precision: Precision = "m12"
    """``m12`` rounds beta and standard error to 12 mantissa bits and -log10 p to 10; ``full`` keeps float32."""
    hits_min: float = 5.0
    """-log10 p from which an association counts as a hit."""
    significant: float = 7.3
    """-log10 p drawn as the genome-wide line and used for loci made here (5e-8)."""
    rules: PrivacyRules = field(default_factory=PrivacyRules)


@dataclass(frozen=True, slots=True)
class PhenotypeInfo:
    """What is known of a phenotype beside its associations."""

    phenotype_id: str
    """Public key, matching `layout.PHENOTYPE_ID`."""
    label: str = ""
    description: str = ""
    modality: str = ""
    atlas: str = ""
    scale: int | None = None
    parcel_index: int | None = None
    """Label of the parcel in the atlas of `scale`."""
    side: str = ""
    region: str = ""
    measurement: str = ""
    category: str = ""
    units: str = ""
    transform: str = ""
    n: int | None = None
    lambda_gc: float | None = None
    masked: bool = False
    """Kept out of every page and file: only its number is taken."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Performance of a predictive model."""

    model_id: str
    task: str
    features: str
    metric: str
    value: float
    lower: float | None = None
    upper: float | None = None
    n: int | None = None
    n_cases: int | None = None
    folds: int | None = None
    repeats: int | None = None


@dataclass(slots=True)
class _Genome:
    """Variants of the store, in memory while it is built."""

    keys: VariantKeys
    vid: Int[np.ndarray, " sorted"]
    """vid of every sorted input variant, -1 where it is withheld."""
    columns: dict[str, Any]
    """What hits and loci repeat of each variant, in the order of vid (`layout.HITS_SCHEMA`)."""
    coordinate: Int[np.ndarray, " kept"]
    length: int
    build: str
    variant_id: Shaped[np.ndarray, " kept"]
    names: dict[str, int] | None = None

    def vid_of(self, variant_id: str) -> int:
        """Return the vid of a variant name, -1 when it is not in the store."""
        if self.names is None:
            self.names = {name: k for k, name in enumerate(self.variant_id.tolist())}
        return self.names.get(variant_id, -1)

    def place(self, vid: Int[np.ndarray, " rows"]) -> dict[str, Any]:
        """Return the columns of some variants."""
        return {
            name: None if column is None else pa.array(column, from_pandas=True).take(pa.array(vid))
            for name, column in self.columns.items()
        }

    @property
    def n_variants(self) -> int:
        """Variants that are in the store."""
        return int(self.coordinate.size)


def peak_bytes(*, n_variants: int, n_phenotypes: int) -> int:
    """Return an upper estimate of the memory that building a store takes.

    The larger of one phenotype with all variants in memory (keys, text, sort orders: about 260 bytes a variant)
    and one block of 16,384 variants of all phenotypes (16 bytes an association, held three times).
    """
    variants = 260 * n_variants
    block = 3 * 16 * min(layout.VARIANTS_PER_FILE, n_variants) * n_phenotypes
    return variants + block + (64 << 20)


def _clean(value: Any) -> Any:
    """Return a value that JSON can hold: NaN becomes null, NumPy scalars become Python's."""
    if isinstance(value, Mapping):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    if isinstance(value, np.ndarray):
        return _clean(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


class StoreWriter:
    """Writes one store. Use as a context manager and end with `seal`.

    Parameters
    ----------
    root
        Folder of the finished store; must not exist, or be empty.
    participants
        The study's people, when known, so that tables naming any of them are refused.

    Raises
    ------
    FileExistsError
        `root` holds something: a store is never changed once sealed.
    """

    def __init__(
        self, root: Path, settings: StoreSettings | None = None, *, participants: SampleIndex | None = None
    ) -> None:
        self.root = Path(root)
        self.settings = settings or StoreSettings()
        self._participants = participants
        self._folder = self.root.with_name(f".{self.root.name}.partial")
        self._genome: _Genome | None = None
        self._phenotypes: list[dict[str, Any]] = []
        self._pids: dict[str, int] = {}
        self._hits: list[pa.Table] = []
        self._tables: dict[str, list[pa.Table]] = {}
        self._counts: Counter[str] = Counter()
        self._chromosomes: list[dict[str, Any]] = []
        self._twas: dict[str, Any] = {}

    def __enter__(self) -> "StoreWriter":
        if self.root.exists() and not (self.root.is_dir() and not any(self.root.iterdir())):
            raise FileExistsError(
                f"{self.root} exists. A store is never changed once sealed; name a new folder or remove this one."
            )
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- variants ----------------------------------------------------------------------------------------------

    def write_variants(
        self,
        variants: VariantTable,
        frequency: Float[np.ndarray, " variants"] | None = None,
        *,
        n: int | None = None,
        info: Float[np.ndarray, " variants"] | None = None,
        duplicates: Literal["refuse", "first"] = "refuse",
    ) -> None:
        """Write ``variants.parquet``; the effect allele becomes `alt`.

        Parameters
        ----------
        frequency
            Of the effect allele; None leaves frequencies out of the store. NaN = unknown.
        n
            People behind the frequencies: with it, variants with fewer than the minimum minor allele count are
            left out.
        info
            Imputation quality.
        duplicates
            What to do with a second variant of the same place and alleles.

        Raises
        ------
        SchemaError
            Called twice, duplicates with ``refuse``, or more than 1 % of alleles that are not bases.
        """
        if self._genome is not None:
            raise SchemaError("The variants of a store are written once, before its phenotypes.")
        code = chromosome_codes(variants.chromosome)
        ref, alt = variants.other_allele.astype(STRING), variants.effect_allele.astype(STRING)
        check_alleles(ref, alt)
        order = _variant_order(code, variants.position, ref, alt)
        repeated = _repeats(code, variants.position, ref, alt, order)
        if repeated.any() and duplicates == "refuse":
            k = int(order[int(np.argmax(repeated))])
            raise SchemaError(
                f"{int(repeated.sum())} variants occur twice (same chromosome, position and alleles), first "
                f"{variants.variant_id[k]!r} at {variants.chromosome[k]}:{variants.position[k]}. "
                "Remove them, or keep the first of each with duplicates='first'."
            )
        keep = ~repeated & (code[order] > 0)
        self._counts["variants_duplicate"] += int(repeated.sum())
        self._counts["variants_other_chromosome"] += int((code == 0).sum())
        if frequency is not None and n is not None:
            rare = 2.0 * n * np.minimum(frequency, 1.0 - frequency)[order] < self.settings.rules.min_minor_allele_count
            self._counts["variants_rare"] += int((rare & keep).sum())
            keep &= ~rare
        vid = np.where(keep, np.cumsum(keep) - 1, -1)
        kept = order[keep]
        place = (code[order] << 32) | variants.position[order].astype(np.int64)
        chrom, pos = code[kept], variants.position[kept].astype(np.int64)
        offset, length = self._lay_out_chromosomes(chrom, pos)
        floor = self.settings.rules.maf_floor
        columns = {
            "chrom": chrom,
            "pos": pos,
            "ref": pa.array(ref[kept].tolist(), pa.string()),
            "alt": pa.array(alt[kept].tolist(), pa.string()),
            **_names(variants.variant_id[kept]),
            "af": None if frequency is None else floor_frequency(frequency[kept], maf_floor=floor),
        }
        self._genome = _Genome(
            VariantKeys(place, ref[order], alt[order]),
            vid,
            columns,
            offset[chrom] + pos,
            length,
            variants.genome_build,
            variants.variant_id[kept],
        )
        whole = {"vid": np.arange(kept.size), **columns, "info": None if info is None else info[kept]}
        self._write("variants.parquet", layout.VARIANTS_SCHEMA, whole, row_group=layout.ROW_GROUP)

    def _lay_out_chromosomes(
        self, chrom: Int[np.ndarray, " kept"], pos: Int[np.ndarray, " kept"]
    ) -> tuple[Int[np.ndarray, " codes"], int]:
        """Lay chromosomes end to end; their length is that of the last variant."""
        offset, total = np.zeros(26, dtype=np.int64), 0
        for code in np.unique(chrom).tolist():
            first, last = np.searchsorted(chrom, [code, code + 1])
            length = int(pos[last - 1])
            offset[code] = total
            self._chromosomes.append(
                {
                    "chromosome": layout.chromosome_name(code),
                    "code": code,
                    "offset": total,
                    "length": length,
                    "first_vid": int(first),
                    "n_variants": int(last - first),
                }
            )
            total += length
        return offset, total

    # --- phenotypes --------------------------------------------------------------------------------------------

    def add_phenotype(self, info: PhenotypeInfo, associations: ResultTable | None = None) -> int:
        """Add one phenotype and return its number.

        Parameters
        ----------
        associations
            Columns chromosome, position, effect_allele, other_allele, beta, standard_error, neg_log10_p, one row a
            variant in any order. Rows that count the store's `ref` change sign; rows without an estimate (NaN),
            impossible rows and rows of variants that are not in the store are dropped, each counted once under the
            first of these. None for a phenotype without a genome scan.

        Raises
        ------
        SchemaError
            The id is malformed or taken, `n` is below the smallest cell, no variants were written, no row is a
            variant of the store, or more than 1 % of rows are impossible.
        """
        self._check_phenotype(info)
        pid = len(self._phenotypes)
        row: dict[str, Any] = {
            "pid": pid,
            **asdict(info),
            "label": info.label or info.phenotype_id,
            "has_gwas": associations is not None and not info.masked,
        }
        if associations is not None and not info.masked:
            row |= self._add_associations(pid, info, associations)
        self._pids[info.phenotype_id] = pid
        self._phenotypes.append(row)
        return pid

    def _check_phenotype(self, info: PhenotypeInfo) -> None:
        if not layout.PHENOTYPE_ID.match(info.phenotype_id):
            raise SchemaError(
                f"Phenotype id {info.phenotype_id!r} does not match {layout.PHENOTYPE_ID.pattern}: letters, digits "
                "and _ . ~ + ( ) : , = @ - only, at most 128, beginning with a letter or digit. Rename the trait."
            )
        if info.phenotype_id in self._pids:
            raise SchemaError(f"Phenotype {info.phenotype_id!r} is added twice; ids are unique within a store.")
        if info.n is not None and info.n < self.settings.rules.min_cell:
            raise SchemaError(
                f"Phenotype {info.phenotype_id!r} was measured in {info.n} people, below the smallest cell "
                f"{self.settings.rules.min_cell} that may be published."
            )

    def _add_associations(self, pid: int, info: PhenotypeInfo, table: ResultTable) -> dict[str, Any]:
        if self._genome is None:
            raise SchemaError("Write the variants of the store (write_variants) before its phenotypes.")
        check_summary_table(table.columns, what=f"the associations of {info.phenotype_id}", look_at_values=False)
        genome, bits = self._genome, self.settings.precision == "m12"
        match = genome.keys.find(table["chromosome"], table["position"], table["effect_allele"], table["other_allele"])
        vid = np.where(match.row >= 0, genome.vid[match.row], -1)
        beta = np.where(match.flipped, -1.0, 1.0) * table["beta"].astype(np.float64)
        error, nlog = table["standard_error"].astype(np.float64), table["neg_log10_p"].astype(np.float64)
        missing = np.isnan(beta) | np.isnan(error) | np.isnan(nlog)
        impossible = ~missing & ~(
            np.isfinite(beta) & np.isfinite(error) & (error > 0) & np.isfinite(nlog) & (nlog >= 0)
        )
        self._check_rows(info.phenotype_id, found=match.row >= 0, impossible=impossible)
        usable = ~missing & ~impossible
        good = (vid >= 0) & usable
        counts = {
            "associations": good.sum(),
            "associations_missing": missing.sum(),
            "associations_impossible": impossible.sum(),
            "associations_not_in_store": ((match.row < 0) & usable).sum(),
            "associations_withheld": ((match.row >= 0) & (vid < 0) & usable).sum(),
            "associations_flipped": (good & match.flipped).sum(),
        }
        self._counts.update({name: int(count) for name, count in counts.items()})
        rows = np.flatnonzero(good)
        rows = rows[np.argsort(vid[rows], kind="stable")]
        vid, beta, error, nlog = vid[rows], beta[rows], error[rows], nlog[rows]
        if (np.diff(vid) == 0).any():
            raise SchemaError(f"Phenotype {info.phenotype_id!r} has two rows for one variant; keep one of them.")
        given = info.lambda_gc
        lambda_gc = genomic_inflation(beta, error) if given is None or np.isnan(given) else given
        columns = {
            "vid": vid,
            "beta": round_mantissa(beta, bits=BETA_BITS if bits else None),
            "se": round_mantissa(error, bits=BETA_BITS if bits else None),
            "nlog10p": round_mantissa(nlog, bits=NEG_LOG10_P_BITS if bits else None),
        }
        self._write(layout.by_phenotype(pid), layout.GWAS_SCHEMA, columns, row_group=layout.ROW_GROUP)
        self._write_plots(pid, vid, nlog, lambda_gc)
        hits = self._keep_hits(pid, columns)
        return {
            "n_hits": hits,
            "n_variants": int(vid.size),
            "max_nlog10p": float(columns["nlog10p"].max()) if nlog.size else None,
            "lambda_gc": lambda_gc,
        }

    def _check_rows(
        self, name: str, *, found: Bool[np.ndarray, " rows"], impossible: Bool[np.ndarray, " rows"]
    ) -> None:
        if found.size and not found.any():
            raise SchemaError(
                f"None of the {found.size} associations of {name!r} is a variant of the store (compared by chromosome, "
                "position and both alleles). Check the genome build and the allele columns."
            )
        if impossible.sum() > MAX_INVALID_SHARE * found.size:
            raise SchemaError(
                f"{int(impossible.sum())} of {found.size} associations of {name!r} are impossible (standard error "
                "<= 0, -log10 p below 0, or infinite), more than 1 %; was a column misread?"
            )

    def _write_plots(
        self, pid: int, vid: Int[np.ndarray, " rows"], nlog: Float[np.ndarray, " rows"], lambda_gc: float
    ) -> None:
        assert self._genome is not None  # noqa: S101 - checked by the caller
        plot = manhattan_of(self._genome.coordinate[vid], nlog, vid, genome_length=self._genome.length)
        self._path(layout.manhattan(pid)).write_bytes(pack_manhattan(plot))
        points = qq_of(nlog)
        answer = {name: getattr(points, name).round(4) for name in ("expected", "observed", "lower", "upper")}
        text = json.dumps(_clean({**answer, "n_tests": points.n_tests, "lambda_gc": lambda_gc}))
        self._path(layout.qq(pid)).write_text(text)

    def _keep_hits(self, pid: int, columns: Mapping[str, Shaped[np.ndarray, " rows"]]) -> int:
        assert self._genome is not None  # noqa: S101 - checked by the caller
        rows = np.flatnonzero(columns["nlog10p"] >= self.settings.hits_min)
        rows = rows[np.argsort(-columns["nlog10p"][rows], kind="stable")]
        hit: dict[str, Any] = {name: column[rows] for name, column in columns.items()}
        hit |= {"pid": np.full(rows.size, pid), **self._genome.place(columns["vid"][rows])}
        self._hits.append(_table(layout.HITS_SCHEMA, hit))
        return int(rows.size)

    # --- tables ------------------------------------------------------------------------------------------------

    def add_table(self, name: Literal["associations", "heritability", "loci"], table: ResultTable) -> None:
        """Add results about phenotypes that were added before; `trait` names the phenotype.

        Rows of unknown or masked phenotypes are dropped and counted; small cells are hidden.

        Raises
        ------
        SchemaError
            Another table name, a missing column, or columns that look like participants.
        """
        check_summary_table(table.columns, what=f"the table {name}", participants=self._participants)
        shown = {i: p for i, p in self._pids.items() if not self._phenotypes[p]["masked"]}
        pid = np.asarray([shown.get(str(trait), -1) for trait in table["trait"].tolist()], dtype=np.int64)
        self._counts[f"{name}_of_unknown_phenotypes"] += int((pid < 0).sum())
        table, pid = table.take(pid >= 0), pid[pid >= 0]
        if name == "associations":
            self._tables.setdefault(name, []).append(self._associations(table, pid))
        elif name == "heritability":
            self._tables.setdefault(name, []).append(self._heritability(table, pid))
        elif name == "loci":
            self._tables.setdefault(name, []).append(self._loci(table, pid))
        else:
            raise SchemaError(f"A store has no table {name!r}; it takes associations, heritability and loci.")

    def _associations(self, table: ResultTable, pid: Int[np.ndarray, " rows"]) -> pa.Table:
        n = table["n"].astype(np.int64)
        cases = table["n_cases"].astype(np.int64) if "n_cases" in table.names else np.zeros(len(table), dtype=np.int64)
        hide = suppressed_cells(n, cases, min_cell=self.settings.rules.min_cell)
        few = n < self.settings.rules.min_cell
        self._counts["associations_small_cells"] += int(hide.sum())
        self._counts["associations_too_few_people"] += int(few.sum())
        binary = cases > 0
        has_d = "cohens_d" in table.names
        d = table["cohens_d"].astype(np.float64) if has_d else np.full(len(table), np.nan)
        use_d = binary & np.isfinite(d)
        bonferroni, strength = _optional(table, "p_bonferroni"), table["neg_log10_p"].astype(np.float64)
        columns = {
            "pid": pid,
            "trait_id": table["phenotype"].astype(np.str_),
            "category": table["category"].astype(np.str_) if "category" in table.names else [""] * len(table),
            "test": ["linear regression"] * len(table),
            "effect": np.where(use_d, d, _optional(table, "r") if "r" in table.names else table["beta"]),
            "effect_type": np.where(use_d, "cohens_d", "r" if "r" in table.names else "beta"),
            "se": _optional(table, "standard_error") if "r" not in table.names else np.full(len(table), np.nan),
            "p_nlog10": strength,
            "n": n,
            "n_cases": [None if h or not b else int(c) for h, b, c in zip(hide, binary, cases, strict=True)],
            "n_controls": [
                None if h or not b else int(t - c) for h, b, t, c in zip(hide, binary, n, cases, strict=True)
            ],
            "suppressed": hide,
            "fdr": _optional(table, "q_bh"),
            "bonferroni_pass": [None if np.isnan(p) else bool(p < 0.05) for p in bonferroni],
        }
        return _table(layout.ASSOC_SCHEMA, columns).filter(pa.array(~few & np.isfinite(strength)))

    def _heritability(self, table: ResultTable, pid: Int[np.ndarray, " rows"]) -> pa.Table:
        for row, number in enumerate(pid.tolist()):
            self._phenotypes[number]["h2"] = float(table["h2"][row])
            self._phenotypes[number]["h2_se"] = float(table["h2_standard_error"][row])
        columns = {
            "pid": pid,
            "n": table["n"],
            "h2": table["h2"],
            "h2_se": table["h2_standard_error"],
            "lrt": _optional(table, "lrt"),
            "nlog10p": _optional(table, "neg_log10_p"),
            "boundary": table["boundary"].astype(bool) if "boundary" in table.names else None,
        }
        return _table(layout.HERITABILITY_SCHEMA, columns)

    def _loci(self, table: ResultTable, pid: Int[np.ndarray, " rows"]) -> pa.Table:
        if self._genome is None:
            raise SchemaError("Write the variants of the store (write_variants) before its loci.")
        vid = np.asarray([self._genome.vid_of(str(v)) for v in table["top_variant_id"].tolist()], dtype=np.int64)
        known = vid >= 0
        self._counts["loci_not_in_store"] += int((~known).sum())
        table, pid, vid = table.take(known), pid[known], vid[known]
        estimates = [self._estimate(p, v) for p, v in zip(pid.tolist(), vid.tolist(), strict=True)]
        columns = {
            "pid": pid,
            "locus": table["locus"],
            "start": table["start"],
            "stop": table["stop"],
            "vid": vid,
            **self._genome.place(vid),
            "beta": [e[0] for e in estimates],
            "se": [e[1] for e in estimates],
            "nlog10p": [e[2] for e in estimates],
            "n_lead": table["n_lead"] if "n_lead" in table.names else None,
            "n_independent": table["n_independent"] if "n_independent" in table.names else None,
            "replicated": table["replicated"].astype(bool) if "replicated" in table.names else None,
            "method": ["clumping"] * len(table),
        }
        return _table(layout.LOCI_SCHEMA, columns)

    def _estimate(self, pid: int, vid: int) -> tuple[float | None, float | None, float | None]:
        """Return beta, standard error and -log10 p of one association, None where it is not in the store."""
        path = self._path(layout.by_phenotype(pid))
        found = pq.read_table(path, filters=[("vid", "=", vid)]).to_pylist() if path.exists() else []
        return (found[0]["beta"], found[0]["se"], found[0]["nlog10p"]) if found else (None, None, None)

    def add_model(self, model: ModelInfo) -> None:
        """Add the performance of a predictive model; small case counts are hidden."""
        row = asdict(model)
        if model.n is not None and model.n_cases is not None:
            counts = np.asarray([model.n]), np.asarray([model.n_cases])
            if suppressed_cells(*counts, min_cell=self.settings.rules.min_cell)[0]:
                row["n_cases"] = None
        self._tables.setdefault("models", []).append(pa.Table.from_pylist([row], layout.MODELS_SCHEMA))

    # --- gene associations -------------------------------------------------------------------------------------

    def add_gene_associations(
        self,
        blocks: Iterable[GeneBlock],
        *,
        max_p: float = 1.0,
        annotation: PhenotypeAnnotation | None = None,
        info: Callable[[str], PhenotypeInfo] = PhenotypeInfo,
        memory_bytes: int = 0,
    ) -> None:
        """Add the associations of genes with phenotypes, once, after all phenotypes with a genome scan.

        Parameters
        ----------
        blocks
            Read one at a time. Their phenotypes may be new to the store. A character that has no place in an address
            becomes ``_`` in the public id; the name as given stays as the label.
        max_p
            p up to which the blocks list tests. q up to it are exact, greater ones are upper bounds.
        annotation
            Modality, atlas, side, region, measurement ... of phenotypes, by their names as given: fills what the
            catalogue does not have yet, also of phenotypes with a genome scan.
        info
            Returns what is known of a new phenotype by its name.
        memory_bytes
            What may be used; 0 for no limit.

        Raises
        ------
        ResourceError
            Sorting needs more memory than that.
        SchemaError
            Called twice, no test has a result, a gene was tested twice for a phenotype and tissue, two names of
            phenotypes become one id, or columns of the annotation look like participants.
        """
        if self._twas:
            raise SchemaError("Gene associations are added to a store once, all of them.")
        names = {row["phenotype_id"]: row["phenotype_id"] for row in self._phenotypes}

        def register(name: str) -> int:
            key = public_id(name)
            pid = self._pids.get(key)
            if pid is None:
                known = info(name)
                row = {**asdict(known), "phenotype_id": key, "label": known.label or name, "has_gwas": False}
                pid = self._pids[key] = len(self._phenotypes)
                self._phenotypes.append({"pid": pid, **row})
                names[key] = name
                self._counts["phenotypes_renamed"] += key != name
            elif names[key] != name:
                raise SchemaError(
                    f"Phenotypes {names[key]!r} and {name!r} would both have the id {key!r}; rename one of them."
                )
            return -1 if self._phenotypes[pid]["masked"] else pid

        writer = GeneTestWriter(
            self._folder,
            max_p=max_p,
            register=register,
            full_precision=self.settings.precision == "full",
            memory_bytes=memory_bytes,
        )
        for block in blocks:
            writer.add(block)
        if annotation is not None:
            check_summary_table(annotation.columns, what="the annotation", participants=self._participants)
            self._annotate(annotation, names)
        self._twas = writer.finish(self._phenotypes)
        self._counts.update({k: v for k, v in self._twas.pop("counts").items() if v is not None})

    def _annotate(self, annotation: PhenotypeAnnotation, names: Mapping[str, str]) -> None:
        known = {name: k for k, name in enumerate(annotation.phenotypes.tolist())}
        used, more = set(), []
        for row in self._phenotypes:
            place = known.get(names[row["phenotype_id"]])
            if place is None:
                self._counts["phenotypes_not_annotated"] += 1
                continue
            used.add(place)
            found = {name: str(column[place]) for name, column in annotation.columns.items()}
            rest = annotate(row, names[row["phenotype_id"]], found)
            more += [{"pid": row["pid"], "name": name, "value": value} for name, value in rest.items() if value]
        self._counts["annotation_unused"] += len(known) - len(used)
        self._tables["annotation"] = [pa.Table.from_pylist(more, layout.ANNOTATION_SCHEMA)]

    # --- maps --------------------------------------------------------------------------------------------------

    def add_template(self, volume: Volume, *, map_id: str = "template", label: str = "Anatomical template") -> None:
        """Add the anatomical image under the atlases, at display resolution."""
        shown = display_template(volume)
        self._add_map(map_id, "template", label, shown.data.astype(np.int64), shown.affine, units="grey level")

    def add_parcellation(
        self,
        parcellation: Parcellation,
        *,
        atlas: str,
        scale: int,
        n: int | None = None,
        region_ids: Mapping[int, str] | None = None,
    ) -> str:
        """Add an atlas at display resolution with its regions, and return the map's id.

        Parameters
        ----------
        n
            People behind the atlas; refused below the smallest cell.
        region_ids
            Label to public id; ``C<scale>_<label>`` where absent.

        Raises
        ------
        SchemaError
            `n` is below the smallest cell.
        """
        if n is not None and n < self.settings.rules.min_cell:
            raise SchemaError(
                f"The atlas was made from {n} people, below the smallest cell {self.settings.rules.min_cell}."
            )
        map_id = f"atlas-{scale}" if not atlas else f"{atlas}-{scale}"
        shown = display_labels(parcellation)
        self._add_map(
            map_id,
            "atlas",
            f"{atlas or 'atlas'}, {scale} regions",
            shown.labels,
            shown.affine,
            atlas=atlas,
            scale=scale,
            n=n,
        )
        rows = []
        for shape in region_shapes(parcellation):
            x, y, z = shape.centroid_mm
            region_id = (region_ids or {}).get(shape.label, f"C{scale}_{shape.label}")
            rows.append(
                {
                    "region_id": region_id,
                    "atlas": atlas,
                    "scale": scale,
                    "parcel_index": shape.label,
                    "name": parcellation.names.get(shape.label, region_id),
                    "hemisphere": shape.hemisphere,
                    "n_voxels": shape.n_voxels,
                    "volume_mm3": shape.volume_mm3,
                    "x_mm": None if np.isnan(x) else x,
                    "y_mm": None if np.isnan(y) else y,
                    "z_mm": None if np.isnan(z) else z,
                    "map_id": map_id,
                }
            )
        self._tables.setdefault("regions", []).append(pa.Table.from_pylist(rows, layout.REGIONS_SCHEMA))
        return map_id

    def _add_map(
        self,
        map_id: str,
        kind: str,
        label: str,
        data: Int[np.ndarray, "x y z"],
        affine: Float[np.ndarray, "4 4"],
        *,
        units: str = "label",
        atlas: str = "",
        scale: int | None = None,
        n: int | None = None,
    ) -> None:
        if not layout.MAP_ID.match(map_id):
            raise SchemaError(f"Map id {map_id!r} does not match {layout.MAP_ID.pattern}.")
        relative = f"maps/{map_id}.nii.gz"
        path = self._path(relative)
        if path.exists():
            raise SchemaError(f"The store already has a map {map_id!r}.")
        write_nifti(path, data, affine)
        row = {
            "map_id": map_id,
            "kind": kind,
            "label": label,
            "atlas": atlas,
            "scale": scale,
            "space": self.settings.space,
            "units": units,
            "n": n,
            "path": relative,
            "bytes": path.stat().st_size,
            "sha256": sha256(path.read_bytes()).hexdigest(),
        }
        self._tables.setdefault("maps", []).append(pa.Table.from_pylist([row], layout.MAPS_SCHEMA))

    # --- seal --------------------------------------------------------------------------------------------------

    def seal(self, *, inputs: Sequence[Mapping[str, Any]] = ()) -> Path:
        """Write what remains, check sums and rename; the store is then read-only by agreement.

        Parameters
        ----------
        inputs
            Provenance of what was read: path, size_bytes, sha256.
        """
        self._write_hits_and_loci()
        if self._genome is not None:
            for block in range(-(-self._genome.n_variants // layout.VARIANTS_PER_FILE)):
                self._write_variant_block(block)
        for name, schema, path in (
            ("associations", layout.ASSOC_SCHEMA, "assoc.parquet"),
            ("heritability", layout.HERITABILITY_SCHEMA, "heritability.parquet"),
            ("models", layout.MODELS_SCHEMA, "models.parquet"),
            ("regions", layout.REGIONS_SCHEMA, "regions.parquet"),
            ("maps", layout.MAPS_SCHEMA, "maps/maps.parquet"),
            ("annotation", layout.ANNOTATION_SCHEMA, "annotation.parquet"),
        ):
            if name in self._tables:
                self._write_table(path, pa.concat_tables(self._tables[name]), schema)
        self._link_maps()
        phenotypes = pa.Table.from_pylist([_clean(row) for row in self._phenotypes], layout.PHENOTYPES_SCHEMA)
        self._write_table("phenotypes.parquet", phenotypes, layout.PHENOTYPES_SCHEMA)
        self._path("store.json").write_text(json.dumps(_clean(self._description(inputs)), indent=1) + "\n")
        self._folder.rename(self.root)
        return self.root

    def _link_maps(self) -> None:
        """Point phenotypes to the atlas of their scale."""
        maps = pa.concat_tables(self._tables["maps"]).to_pylist() if "maps" in self._tables else []
        atlas_of = {m["scale"]: m["map_id"] for m in maps if m["kind"] == "atlas"}
        for row in self._phenotypes:
            row["map_id"] = atlas_of.get(row["scale"]) if row["parcel_index"] is not None else None

    def _write_hits_and_loci(self) -> None:
        if self._genome is None:
            return
        empty = layout.HITS_SCHEMA.empty_table()
        hits = pa.concat_tables([empty, *self._hits])
        self._write_table("gwas/hits.parquet", hits, layout.HITS_SCHEMA)
        given = self._tables.get("loci")
        loci = pa.concat_tables(given) if given else _distance_loci(hits, significant=self.settings.significant)
        self._write_table("gwas/loci.parquet", loci, layout.LOCI_SCHEMA)
        per_phenotype = Counter(loci["pid"].to_pylist())
        for row in self._phenotypes:
            row["n_loci"] = per_phenotype.get(row["pid"], 0) if row["has_gwas"] else None

    def _write_variant_block(self, block: int) -> None:
        """Turn one block of variants round: all phenotypes of a variant lie together."""
        low, high = block * layout.VARIANTS_PER_FILE, (block + 1) * layout.VARIANTS_PER_FILE
        parts = [layout.BY_VARIANT_SCHEMA.empty_table()]
        for row in self._phenotypes:
            if not row["has_gwas"]:
                continue
            part = pq.read_table(
                self._path(layout.by_phenotype(row["pid"])), filters=[("vid", ">=", low), ("vid", "<", high)]
            )
            pid = pa.array(np.full(part.num_rows, row["pid"], dtype=np.int32))
            parts.append(part.add_column(1, pa.field("pid", pa.int32()), pid).cast(layout.BY_VARIANT_SCHEMA))
        table = pa.concat_tables(parts)
        order = np.lexsort((table["pid"].to_numpy(), table["vid"].to_numpy()))
        n_scans = max(sum(bool(row["has_gwas"]) for row in self._phenotypes), 1)
        self._write_table(
            layout.by_variant(block),
            table.take(pa.array(order)),
            layout.BY_VARIANT_SCHEMA,
            row_group=layout.VARIANTS_PER_GROUP * n_scans,
        )

    def _description(self, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        s = self.settings
        files = sorted(p for p in self._folder.rglob("*") if p.is_file())
        return {
            "format": "brainlocus-store",
            "format_version": layout.FORMAT_VERSION,
            "release": s.release,
            "title": s.title,
            "description": s.description,
            "species": s.species,
            "licence": s.licence,
            "citation": s.citation,
            "space": s.space,
            "genome_build": self._genome.build if self._genome else "",
            "chromosomes": self._chromosomes,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "created_by": f"brainlocus {__version__}",
            "precision": s.precision,
            "thresholds": {"hits_min": s.hits_min, "significant": s.significant},
            "privacy": asdict(s.rules),
            "twas": self._twas or None,
            "counts": {
                "phenotypes": sum(not row["masked"] for row in self._phenotypes),
                "phenotypes_masked": sum(bool(row["masked"]) for row in self._phenotypes),
                "variants": self._genome.n_variants if self._genome else 0,
                "hits": sum(t.num_rows for t in self._hits),
                "loci": sum(row.get("n_loci") or 0 for row in self._phenotypes),
                **{k: v for k, v in sorted(self._counts.items())},
            },
            "inputs": [dict(i) for i in inputs],
            "files": {
                p.relative_to(self._folder).as_posix(): {
                    "bytes": p.stat().st_size,
                    "sha256": _digest(p),
                }
                for p in files
            },
        }

    # --- files -------------------------------------------------------------------------------------------------

    def _path(self, relative: str) -> Path:
        path = self._folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write(self, relative: str, schema: pa.Schema, columns: Mapping[str, Any], *, row_group: int) -> None:
        self._write_table(relative, _table(schema, columns), schema, row_group=row_group)

    def _write_table(
        self, relative: str, table: pa.Table, schema: pa.Schema, *, row_group: int = layout.ROW_GROUP
    ) -> None:
        pq.write_table(
            table.cast(schema), self._path(relative), row_group_size=row_group, **layout.parquet_options(schema)
        )


def _digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _optional(table: ResultTable, name: str) -> Float[np.ndarray, " rows"]:
    return table[name].astype(np.float64) if name in table.names else np.full(len(table), np.nan)


def _table(schema: pa.Schema, columns: Mapping[str, Any]) -> pa.Table:
    """Return columns as a table of `schema`; NaN and absent columns become null."""
    rows = next(len(c) for c in columns.values() if c is not None)
    arrays = []
    for column_field in schema:
        column = columns.get(column_field.name)
        if column is None:
            arrays.append(pa.nulls(rows, column_field.type))
        else:
            arrays.append(pa.array(column, from_pandas=True).cast(column_field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _names(variant_id: Shaped[np.ndarray, " variants"]) -> dict[str, pa.Array]:
    """Return the number of rs names and, for every other name, the name itself."""
    names = variant_id.tolist()
    is_rs = [n[:2] == "rs" and n[2:].isdecimal() and len(n) < 19 for n in names]
    return {
        "rsid": pa.array([int(n[2:]) if rs else None for n, rs in zip(names, is_rs, strict=True)], pa.int64()),
        "name": pa.array([None if rs else n for n, rs in zip(names, is_rs, strict=True)], pa.string()),
    }


def _variant_order(
    code: Int[np.ndarray, " variants"],
    position: Int[np.ndarray, " variants"],
    ref: Shaped[np.ndarray, " variants"],
    alt: Shaped[np.ndarray, " variants"],
) -> Int[np.ndarray, " variants"]:
    """Return the order by chromosome, position, ref, alt; alleles are compared only where places are equal."""
    place = (code << 32) | position.astype(np.int64)
    order = np.argsort(place, kind="stable")
    ordered = place[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if ordered.size else np.zeros(0, dtype=np.int64)
    stops = np.r_[starts[1:], ordered.size]
    for start, stop in zip(starts[stops - starts > 1], stops[stops - starts > 1], strict=True):
        group = order[start:stop].tolist()
        order[start:stop] = sorted(group, key=lambda k: (ref[k], alt[k]))
    return order


def _repeats(
    code: Int[np.ndarray, " variants"],
    position: Int[np.ndarray, " variants"],
    ref: Shaped[np.ndarray, " variants"],
    alt: Shaped[np.ndarray, " variants"],
    order: Int[np.ndarray, " variants"],
) -> Bool[np.ndarray, " variants"]:
    """Return where a row of the order repeats the one before."""
    same = np.zeros(order.size, dtype=bool)
    if order.size:
        a, b = order[1:], order[:-1]
        same[1:] = (code[a] == code[b]) & (position[a] == position[b]) & (ref[a] == ref[b]) & (alt[a] == alt[b])
    return same


def _distance_loci(hits: pa.Table, *, significant: float) -> pa.Table:
    """Return one locus per peak: the strongest hit claims all within 250 kb, then the next.

    Used only when no clumped loci are given, and marked so in the column `method`.
    """
    rows: list[dict[str, Any]] = []
    number: Counter[int] = Counter()
    taken: dict[tuple[int, int], list[int]] = {}
    strong = hits.filter(pa.array(hits["nlog10p"].to_numpy() >= significant))
    for hit in strong.sort_by([("pid", "ascending"), ("nlog10p", "descending")]).to_pylist():
        peaks = taken.setdefault((hit["pid"], hit["chrom"]), [])
        if any(abs(hit["pos"] - peak) <= PEAK_WINDOW_BP for peak in peaks):
            continue
        peaks.append(hit["pos"])
        number[hit["pid"]] += 1
        window = {"start": max(hit["pos"] - PEAK_WINDOW_BP, 1), "stop": hit["pos"] + PEAK_WINDOW_BP}
        rows.append(hit | window | {"locus": number[hit["pid"]], "method": "distance"})
    return pa.Table.from_pylist(rows, layout.LOCI_SCHEMA)
