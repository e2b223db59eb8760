"""``sumstats plot`` and ``gwas export``."""

import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from brainlocus.core import SchemaError
from brainlocus.core.errors import import_extra
from brainlocus.pipeline.config import CommaList, InputPath, Positional, StepConfig
from brainlocus.pipeline.full_store import full_traits
from brainlocus.pipeline.genomes import require_memory, table_bytes
from brainlocus.pipeline.scan_folder import SsfExport, choose_names, export_ssf, find_full
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["GWAS_EXPORT", "SUMSTATS_PLOT", "GwasExportConfig", "SumstatsPlotConfig", "export_summary", "run_export"]


class SumstatsPlotConfig(StepConfig):
    """Settings of ``sumstats plot``."""

    results: Annotated[InputPath, Positional()] = Field(
        description="A scan's folder, its full/ or hits.parquet, or a table (GWAS-SSF, or our columns)"
    )
    second: Annotated[InputPath | None, Positional()] = Field(
        None, description="The same for the lower half of a miami, or further curves of a qq"
    )
    kind: Literal["manhattan", "qq", "miami"] = Field("manhattan", description="What to draw")
    trait: CommaList = Field((), description="Traits: names or patterns (C32_*); all by default. Miami: upper,lower")
    scale: Literal["auto", "linear", "log"] = Field(
        "auto", description="-log10 p: auto is logarithmic above 20 where p is below 1e-40, log everywhere"
    )
    threshold: float = Field(5e-8, gt=0, lt=1, description="p of the line; divided by the number of traits for another")
    title: str | None = Field(None, description="Title instead of the trait's name")


class GwasExportConfig(StepConfig):
    """Settings of ``gwas export``."""

    scan: Annotated[InputPath, Positional()] = Field(description="Folder of gwas run --full, or full/ in it")
    traits: CommaList = Field((), description="Traits: names or patterns (C32_*); all by default")
    format: Literal["ssf"] = Field("ssf", description="GWAS-SSF v1.0: one .tsv.gz and its metadata per trait")
    genome_build: str = Field("unknown", description="Assembly of the positions, where the scan did not say it")


def sumstats_plot(config: SumstatsPlotConfig, out: Path, context: Context) -> StepResult:
    """Draw one figure."""
    import_extra("matplotlib", extra="plot")
    if out.suffix.lower() != ".png":
        raise SchemaError(f"--out {out.name}: figures are PNG files, found the extension {out.suffix!r}.")
    from brainlocus.pipeline.scan_figures import associations_bytes

    needed = sum(associations_bytes(path) for path in (config.results, config.second) if path is not None)
    require_memory(needed, context.memory_bytes, f"A figure of {config.results}")
    counts = {"manhattan": _manhattan, "qq": _qq, "miami": _miami}[config.kind](config, out)
    return StepResult(dict(counts), summary=(f"{config.kind} of {counts['traits']:,} traits",))


def _manhattan(config: SumstatsPlotConfig, out: Path) -> dict[str, int]:
    from brainlocus.pipeline.figures.gwas import draw_manhattan
    from brainlocus.pipeline.scan_figures import open_associations, panel_of

    if config.second is not None:
        raise SchemaError(f"--kind manhattan draws one scan, found also {config.second}. Use --kind miami for two.")
    source = open_associations(config.results)
    traits = choose_names(config.trait, source.traits, config.results)
    panel = panel_of(source, traits, title=config.title, threshold=config.threshold)
    draw_manhattan(panel, out, layout=source.layout, scale=config.scale)
    return {"traits": len(traits), "tests": int(panel.position.size)}


def _qq(config: SumstatsPlotConfig, out: Path) -> dict[str, int]:
    from dataclasses import replace

    from brainlocus.pipeline.figures.gwas import draw_qq
    from brainlocus.pipeline.scan_figures import open_associations, qq_of

    curves = []
    for path in (config.results, config.second):
        if path is not None:
            source = open_associations(path)
            found = qq_of(source, choose_names(config.trait, source.traits, path))
            alone = config.second is None or found[0].name == path.name
            curves += found if alone else [replace(c, name=f"{path.name} {c.name}") for c in found]
    draw_qq(curves, out, title=config.title or "", scale=config.scale)
    return {"traits": len(curves), "tests": sum(curve.n_tests for curve in curves)}


def _miami(config: SumstatsPlotConfig, out: Path) -> dict[str, int]:
    from brainlocus.pipeline.figures.gwas import draw_miami
    from brainlocus.pipeline.scan_figures import open_associations, panel_of

    upper = open_associations(config.results)
    if config.second is None:
        traits = choose_names(config.trait, upper.traits, config.results)
        if len(traits) != 2:
            raise SchemaError(
                f"--kind miami draws two: expected a second scan or --trait UPPER,LOWER, found one scan and "
                f"{len(traits)} traits of it."
            )
        if len(config.trait) == 2 and set(config.trait) == set(traits):
            traits = list(config.trait)
        halves = [(upper, traits[:1], traits[0]), (upper, traits[1:], traits[1])]
    else:
        lower = open_associations(config.second)
        wanted = [config.trait[:1], config.trait[1:]] if len(config.trait) == 2 else [config.trait, config.trait]
        halves = []
        for source, names, path in ((upper, wanted[0], config.results), (lower, wanted[1], config.second)):
            chosen = choose_names(names, source.traits, path)
            what = chosen[0] if len(chosen) == 1 else f"smallest p of {len(chosen):,} traits"
            halves.append((source, chosen, f"{path.name}: {what}" if what else path.name))
    panels = [panel_of(source, names, title=title, threshold=config.threshold) for source, names, title in halves]
    draw_miami(panels[0], panels[1], out, scale=config.scale)
    return {"traits": sum(len(names) for _, names, _ in halves), "tests": sum(p.position.size for p in panels)}


def gwas_export(config: GwasExportConfig, out: Path, context: Context) -> StepResult:
    """Write one file per trait."""
    full = find_full(config.scan)
    traits = choose_names(config.traits, full_traits(full), full)
    done = run_export(full, out, traits, config.genome_build, context)
    lines = export_summary(done)
    counts = {
        "traits": len(done.files),
        "rows": sum(done.files.values()),
        "variants_left_out": done.n_left_out,
        "variants_with_other_alleles": done.n_other_alleles,
    }
    return StepResult(counts, summary=lines)


def run_export(
    full: Path, out: Path, traits: list[str], genome_build: str, context: Context, covariates: tuple[str, ...] = ()
) -> SsfExport:
    """Write GWAS-SSF files with progress, one trait in memory at a time."""
    import pyarrow.parquet as pq

    n_variants = int(pq.read_metadata(full / "variants.parquet").num_rows)
    require_memory(table_bytes(n_variants), context.memory_bytes, f"An export of {n_variants} variants")
    date = time.strftime("%Y-%m-%d", time.gmtime())
    files = export_ssf(full, out, traits=traits, genome_build=genome_build, date=date, covariates=covariates)
    done = SsfExport({}, 0, 0)
    for finished in context.progress.track(files, "Writing GWAS-SSF", len(traits)):
        done = finished
    return done


def export_summary(done: SsfExport) -> tuple[str, ...]:
    """Return what became of an export, for the person at the terminal."""
    lines = [f"{len(done.files):,} files of GWAS-SSF, {sum(done.files.values()):,} rows"]
    if done.n_left_out:
        lines.append(f"{done.n_left_out:,} variants left out: the standard has no number for their chromosome")
    if done.n_other_alleles:
        lines.append(f"{done.n_other_alleles:,} variants have alleles other than A, C, G, T, which validators refuse")
    return tuple(lines)


SUMSTATS_PLOT = Step(
    "sumstats plot", "Draw Manhattan, Miami and Q-Q plots.", SumstatsPlotConfig, sumstats_plot, out="file"
)
GWAS_EXPORT = Step(
    "gwas export", "Write every test of traits as GWAS-SSF.", GwasExportConfig, gwas_export, out="folder"
)
