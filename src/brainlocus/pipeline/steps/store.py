"""``store build``: what the other commands wrote, brought together into one store for the portal.

Data flow::

    gwas run --full     variants, traits, full/  --> variants, one scan a trait at a time
    atlas fit           C*/labels.nii.gz         --> maps, regions
    heritability, loci, associate phenome, replication, signature train --> small tables
    twas associate, annotation of phenotypes --> associations of genes, by gene and by phenotype
"""

import json
import re
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Bool, Shaped
from pydantic import BeforeValidator, Field

from brainlocus.core import SCOPES, FormatError, Parcellation, ResultTable, SchemaError, VariantTable, Volume
from brainlocus.core.errors import import_extra
from brainlocus.core.text import text_array
from brainlocus.io import is_gene_folder, open_gene_folder, read_annotation, read_gene_blocks, read_results
from brainlocus.io.nifti import read_parcellation, read_volume
from brainlocus.pipeline.config import CommaPaths, InputPath, InputPaths, StepConfig
from brainlocus.pipeline.full_store import read_full
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult
from brainlocus.store import (
    ModelInfo,
    PhenotypeInfo,
    PrivacyRules,
    StoreSettings,
    StoreWriter,
    gene_peak_bytes,
    peak_bytes,
)

__all__ = ["STORE_BUILD", "StoreBuildConfig"]

_SCALE = re.compile(r"^C(\d+)$")


def _as_paths(value: object) -> object:
    if isinstance(value, str | Path):
        return tuple(Path(part.strip()) for part in str(value).split(",") if part.strip())
    return value


class StoreBuildConfig(StepConfig):
    """Settings of ``store build``."""

    gwas: InputPath | None = Field(None, description="Folder of gwas run --full")
    atlas: Annotated[InputPaths | None, BeforeValidator(_as_paths)] = Field(
        None, description="Folder of atlas fit, or labels (.nii.gz) of each scale, with commas between"
    )
    template: InputPath | None = Field(None, description="Anatomical image under the atlas; MNI152 has a default")
    heritability: InputPath | None = Field(None, description="Table of heritability greml")
    loci: InputPath | None = Field(None, description="Folder of loci clump; without it, peaks 250 kb apart are used")
    replication: InputPath | None = Field(None, description="Table of replicated lead variants")
    phenome: InputPath | None = Field(None, description="Table of associate phenome")
    signature: InputPath | None = Field(None, description="Folder of signature train; only its performance is taken")
    twas: CommaPaths | None = Field(
        None, description="Tables or folders of twas associate (or of S-PrediXcan), with commas between"
    )
    twas_annotation: InputPath | None = Field(
        None, description="Table of phenotypes: modality, atlas, side, region, measurement ..."
    )
    twas_max_p: float = Field(0.05, gt=0, le=1, description="p up to which associations of genes are kept")
    twas_complete: bool = Field(
        False, description="The tables list every test, so that tests can be counted (folders always do)"
    )
    twas_pattern: str = Field(
        "", description="Expression with groups phenotype and tissue for names of files that lack such columns"
    )
    title: str = Field("Imaging genomics study", description="Title of the study")
    description: str = Field("", description="One paragraph about the study")
    release: str = Field("1", description="Name of this release")
    species: str = Field("", description="Species, for the front page")
    licence: str = Field("", description="Licence of the results")
    citation: str = Field("", description="How to cite the results")
    space: str = Field("MNI152", description="Standard space of the atlas")
    modality: str = Field("", description="Modality of the traits, such as structural MRI")
    genome_build: str = Field("unknown", description="Assembly of the positions, such as GRCh38")
    precision: Literal["m12", "full"] = Field("m12", description="m12 rounds estimates to 12 bits; full does not")
    hits: float = Field(1e-5, gt=0, le=1, description="p below which an association is listed as a hit")
    significant: float = Field(5e-8, gt=0, le=1, description="p of the genome-wide line")
    min_cell: int = Field(10, ge=5, description="Counts of people below this are hidden")
    maf_floor: float = Field(0.01, ge=0, lt=0.5, description="Rarer allele frequencies are shown as this")
    min_minor_allele_count: float = Field(20.0, ge=0, description="Variants with fewer copies are left out")
    duplicates: Literal["refuse", "first"] = Field("refuse", description="Variants of the same place and alleles")


@dataclass(slots=True)
class _Atlases:
    """Parcellations by scale and the place of every region in them."""

    by_scale: dict[int, Parcellation] = field(default_factory=dict)
    place: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Region name to scale and label."""


def _labels_files(paths: tuple[Path, ...]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = [p for p in path.glob("C*/labels.nii.gz") if _SCALE.match(p.parent.name)]
        if not inside:
            raise FormatError(f"{path}: expected C*/labels.nii.gz below the folder, found none. Give the labels files.")
        found += sorted(inside, key=lambda p: int(p.parent.name[1:]))
    return found


def _read_atlases(paths: tuple[Path, ...] | None) -> _Atlases:
    atlases = _Atlases()
    for path in _labels_files(paths or ()):
        parcellation = read_parcellation(path)
        match = _SCALE.match(path.parent.name)
        labels = {*np.unique(parcellation.labels).tolist(), *parcellation.names} - {0}
        scale = int(match.group(1)) if match else len(labels)
        if scale in atlases.by_scale:
            raise SchemaError(f"{path}: there is already an atlas of {scale} regions; a store has one of each scale.")
        names = {label: parcellation.names.get(label, f"C{scale}_{label}") for label in sorted(labels)}
        atlases.by_scale[scale] = Parcellation(parcellation.labels, parcellation.affine, names)
        atlases.place |= {name: (scale, label) for label, name in names.items()}
    return atlases


def _template(config: StoreBuildConfig) -> Volume | None:
    if config.template is not None:
        return read_volume(config.template, quantity="anatomy")
    if config.space.upper().startswith("MNI152"):
        datasets = import_extra("nilearn.datasets", extra="imaging")
        image = datasets.load_mni152_template(resolution=2)
        data = np.asarray(image.get_fdata(), dtype=np.float64)
        return Volume(data, np.asarray(image.affine, dtype=np.float64), "anatomy")
    return None


def _kept(table: ResultTable) -> Bool[np.ndarray, " rows"]:
    """Return the rows that were not left out."""
    return table["reason"] == "" if "reason" in table.names else np.ones(len(table), dtype=bool)


def _write_variants(store: StoreWriter, config: StoreBuildConfig, n: int | None) -> int:
    """Write the variants that have a place; return how many have none."""
    assert config.gwas is not None  # noqa: S101 - checked by the caller
    table = read_results(config.gwas / "variants.parquet")
    table = table.take(_kept(table))
    placed = table["position"] > 0
    table = table.take(placed)
    variants = VariantTable(
        table["chromosome"].astype(np.str_),
        table["position"].astype(np.int64),
        text_array(table["effect_allele"].tolist()),
        text_array(table["other_allele"].tolist()),
        text_array(table["variant_id"].tolist()),
        config.genome_build,
    )
    frequency = table["effect_allele_frequency"].astype(np.float64)
    info = table["info"].astype(np.float64) if "info" in table.names else None
    store.write_variants(variants, frequency, n=n, info=info, duplicates=config.duplicates)
    return int((~placed).sum())


def _phenotype(trait: str, config: StoreBuildConfig, atlases: _Atlases, **known: Any) -> PhenotypeInfo:
    scale, label = atlases.place.get(trait, (None, None))
    in_atlas = scale is not None
    text = f"Region {label} of {scale}" if in_atlas else trait
    return PhenotypeInfo(
        trait,
        label=text,
        modality=config.modality,
        atlas="structural covariance" if in_atlas else "",
        scale=scale,
        parcel_index=label,
        category=f"{scale} regions" if in_atlas else "",
        **known,
    )


def _other_traits(tables: dict[str, ResultTable]) -> dict[str, int | None]:
    """Return the traits of the small tables with the number of people, in order of appearance."""
    found: dict[str, int | None] = {}
    for table in tables.values():
        n = table["n"].astype(np.float64) if "n" in table.names else np.full(len(table), np.nan)
        for trait, people in zip(table["trait"].tolist(), n.tolist(), strict=True):
            found.setdefault(str(trait), None if np.isnan(people) else int(people))
    return found


def _add_scans(store: StoreWriter, config: StoreBuildConfig, atlases: _Atlases, context: Context) -> set[str]:
    """Add every trait of a GWAS folder, one at a time; return their names."""
    assert config.gwas is not None  # noqa: S101 - checked by the caller
    traits = read_results(config.gwas / "traits.parquet")
    scanned = _kept(traits)
    n = traits["n"].astype(np.float64)
    n_unplaced = _write_variants(store, config, int(np.nanmax(n[scanned])) if scanned.any() else None)
    if n_unplaced:
        context.progress.say(f"{n_unplaced} variants have no position and are left out of the store")
    rows = range(len(traits))
    for row in context.progress.track(rows, "Storing genome scans", len(traits)):
        name = str(traits["trait"][row])
        known: dict[str, Any] = {"n": None if np.isnan(n[row]) else int(n[row])}
        if scanned[row] and "lambda_gc" in traits.names:
            known["lambda_gc"] = float(traits["lambda_gc"][row])
        associations = read_full(config.gwas / "full", name) if scanned[row] else None
        store.add_phenotype(_phenotype(name, config, atlases, **known), associations)
    return {str(t) for t in traits["trait"].tolist()}


def _with_replication(loci: ResultTable, replication: Path | None) -> ResultTable:
    """Add to every locus whether its top variant replicated; loci without a test count as not replicated."""
    if replication is None:
        return loci
    table = read_results(replication)
    pairs = zip(table["trait"].tolist(), table["variant_id"].tolist(), table["replicated"].tolist(), strict=True)
    passed = {(t, v) for t, v, ok in pairs if ok}
    keys = zip(loci["trait"].tolist(), loci["top_variant_id"].tolist(), strict=True)
    column: Shaped[np.ndarray, " rows"] = np.asarray([key in passed for key in keys], dtype=bool)
    return ResultTable({**loci.columns, "replicated": column})


def _model(folder: Path) -> ModelInfo:
    path = folder / "performance.json"
    if not path.is_file():
        raise FormatError(f"{folder}: expected performance.json of signature train, found none. Give its folder.")
    figures = json.loads(path.read_text())
    try:
        accuracy = figures["balanced_accuracy"]
        value, error = float(accuracy["mean"]), float(accuracy["standard_error"])
    except (KeyError, TypeError, ValueError) as missing:
        raise FormatError(f"{path}: expected balanced_accuracy with mean and standard_error. Train again.") from missing
    half = 1.96 * error if np.isfinite(error) else None
    return ModelInfo(
        "signature",
        "Diagnosis",
        "brain measures",
        "balanced accuracy",
        value,
        None if half is None else value - half,
        None if half is None else min(value + half, 1.0),
        n=int(figures["n_train"] + figures["n_test"]) if {"n_train", "n_test"} <= figures.keys() else None,
        repeats=figures.get("repeats"),
    )


def _settings(config: StoreBuildConfig) -> StoreSettings:
    rules = PrivacyRules(config.min_cell, config.maf_floor, config.min_minor_allele_count)
    return StoreSettings(
        title=config.title,
        description=config.description,
        release=config.release,
        species=config.species,
        licence=config.licence,
        citation=config.citation,
        space=config.space if config.atlas else "",
        precision=config.precision,
        hits_min=float(-np.log10(config.hits)),
        significant=float(-np.log10(config.significant)),
        rules=rules,
    )


_DROPPED = {
    "associations_missing": "tests without an estimate are left out (rare or constant variants)",
    "associations_impossible": "associations with impossible numbers are left out",
    "associations_not_in_store": "associations of variants that the store has not are left out",
    "associations_withheld": "associations of variants that are withheld are left out",
    "associations_flipped": "associations counted the other allele and changed sign",
    "variants_duplicate": "variants occur again (same place and alleles) and are left out",
    "variants_other_chromosome": "variants on other chromosomes are left out",
    "variants_rare": "variants have too few copies of the rarer allele to be shown",
    "phenotypes_renamed": "phenotypes have characters in their names that become _ in their ids",
    "phenotypes_not_annotated": "phenotypes are not in the annotation",
}
"""Counts of the store that its summary mentions, in words."""


def store_build(config: StoreBuildConfig, out: Path, context: Context) -> StepResult:
    """Build a store from the outputs of the other commands."""
    if not any((config.gwas, config.atlas, config.heritability, config.phenome, config.twas)):
        raise SchemaError(
            "A store needs results: give at least one of --gwas, --atlas, --heritability, --phenome, --twas."
        )
    if config.twas_annotation is not None and config.twas is None:
        raise SchemaError("--twas-annotation describes the phenotypes of --twas; give both.")
    if config.loci is not None and config.gwas is None:
        raise SchemaError("Loci are shown on their genome scans: give --gwas together with --loci.")
    atlases = _read_atlases(config.atlas)
    tables = {
        name: read_results(path)
        for name, path in (("heritability", config.heritability), ("associations", config.phenome))
        if path is not None
    }
    with StoreWriter(out, _settings(config)) as store:
        done = _add_scans(store, config, atlases, context) if config.gwas is not None else set()
        for trait, n in _other_traits(tables).items():
            if trait not in done:
                store.add_phenotype(_phenotype(trait, config, atlases, n=n))
        for name, table in tables.items():
            store.add_table("heritability" if name == "heritability" else "associations", table)
        if config.twas is not None:
            _add_genes(store, config, atlases, context)
        if config.loci is not None:
            store.add_table("loci", _with_replication(read_results(config.loci / "loci.parquet"), config.replication))
        if config.signature is not None:
            store.add_model(_model(config.signature))
        _add_maps(store, config, atlases)
        store.seal()
    counts = json.loads((out / "store.json").read_text())["counts"]
    n_tests = counts.get("associations", 0)
    text = f"{counts['phenotypes']:,} phenotypes, {counts['variants']:,} variants, {n_tests:,} associations"
    if config.gwas is None and config.twas is not None:
        text = f"{counts['phenotypes']:,} phenotypes"
    notes = [f"{counts[name]:,} {what}" for name, what in _DROPPED.items() if counts.get(name)]
    if config.twas is not None:
        notes = [*_of_genes(json.loads((out / "store.json").read_text()), config), *notes]
    return StepResult(counts, summary=(text, *notes))


def _add_genes(store: StoreWriter, config: StoreBuildConfig, atlases: _Atlases, context: Context) -> None:
    """Add the associations of genes, a block at a time."""
    assert config.twas is not None  # noqa: S101 - checked by the caller
    annotation = read_annotation(config.twas_annotation) if config.twas_annotation is not None else None
    paths = context.progress.track(config.twas, "Storing associations of genes", len(config.twas))
    store.add_gene_associations(
        chain.from_iterable(
            read_gene_blocks(
                (path,), max_p=config.twas_max_p, complete=config.twas_complete, pattern=config.twas_pattern
            )
            for path in paths
        ),
        max_p=config.twas_max_p,
        annotation=annotation,
        info=lambda name: _phenotype(name, config, atlases),
        memory_bytes=context.memory_bytes,
    )


def _of_genes(meta: dict[str, Any], config: StoreBuildConfig) -> list[str]:
    """Say what the store has of genes, and which corrections it could not make."""
    counts = meta["counts"]
    text = (
        f"{counts['genes']:,} genes in {counts['tissues']} tissues, {counts['gene_associations']:,} associations at "
        f"p <= {config.twas_max_p:g}"
    )
    missing = [scope for scope in SCOPES if scope not in meta["twas"]["scopes"]]
    if not missing:
        return [f"{text} of {counts['gene_tests']:,} tests"] if "gene_tests" in counts else [text]
    return [
        text,
        f"no q for the scopes {', '.join(missing)}: the tables list only some tests and have no column n_tests. Give "
        "--twas-complete where they list all, or the folder of twas associate --full",
    ]


def _add_maps(store: StoreWriter, config: StoreBuildConfig, atlases: _Atlases) -> None:
    if not atlases.by_scale:
        return
    template = _template(config)
    if template is not None:
        store.add_template(template)
    for scale, parcellation in sorted(atlases.by_scale.items()):
        store.add_parcellation(parcellation, atlas="C", scale=scale, region_ids=parcellation.names)


def _estimate(config: StoreBuildConfig, _: int) -> Estimate:
    """Return memory and time from the number of variants and traits; 1.5 million associations a second."""
    variants = traits = 0
    if config.gwas is not None and (config.gwas / "variants.parquet").is_file():
        variants = pq.read_metadata(config.gwas / "variants.parquet").num_rows
        traits = pq.read_metadata(config.gwas / "traits.parquet").num_rows
    models, phenotypes, genes = _gene_sizes(config.twas or ())
    tests = int(models * phenotypes * config.twas_max_p * 1.5)
    needed = max(
        peak_bytes(n_variants=variants, n_phenotypes=traits),
        gene_peak_bytes(n_associations=tests, n_models=models, n_genes=genes, n_phenotypes=phenotypes),
    )
    return Estimate(needed, 2.0 + variants * traits / 1.5e6 + models * phenotypes / 5e7 + tests / 5e5)


def _gene_sizes(paths: tuple[Path, ...]) -> tuple[int, int, int]:
    """Return how many models, phenotypes and genes the folders of gene associations have; tables are not counted."""
    folders = [open_gene_folder(path) for path in paths if is_gene_folder(path)]
    genes = {gene for folder in folders for gene in folder.genes.tolist()}
    phenotypes = max((folder.phenotypes.size for folder in folders), default=0)
    return sum(folder.genes.size for folder in folders), phenotypes, len(genes)


STORE_BUILD = Step(
    "store build",
    "Bring results together into a store for the portal.",
    StoreBuildConfig,
    store_build,
    out="folder",
    estimate=_estimate,
)
