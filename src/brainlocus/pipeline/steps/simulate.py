"""``simulate cohort``: a BIDS-like cohort with planted truth, streamed to disk.

Written to OUT::

    dataset_description.json, participants.tsv, participants.json
    phenotypes.tsv, categories.tsv              cognition and other phenotypes, and their groups
    sub-*/anat/sub-*_space-MNI152_label-GM_probseg.nii.gz
    mask.nii.gz
    genotypes/cohort.{bed,bim,fam,pgen,pvar,psam}
    truth.json, truth/regions.nii.gz, truth/scores.parquet      what was planted

Chromosomes are simulated one by one (each a resumable shard), so memory holds one tree sequence at a time; genotypes
are then streamed through once to add missing calls and to sum the genetic values. Images are made in batches by the
executor.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from pydantic import Field

from brainlocus._version import __version__
from brainlocus.core import (
    ResourceError,
    SampleIndex,
    VariantTable,
    block_size_for,
    concat_variants,
    quantitative_table,
)
from brainlocus.io import write_table
from brainlocus.io.bed import BedWriter, open_bed
from brainlocus.io.nifti import write_mask, write_parcellation, write_volume
from brainlocus.io.pgen import PgenWriter
from brainlocus.pipeline.config import StepConfig
from brainlocus.pipeline.step import Context, Step, StepResult
from brainlocus.simulate import (
    CausalPlan,
    CohortTruth,
    MapModel,
    achievable_balanced_accuracy,
    draw_people,
    map_model,
    participants_table,
    phenotype_table,
    plan_causal_variants,
    simulate_chromosome,
    simulate_map,
)

__all__ = ["SIMULATE_COHORT", "SimulateCohortConfig", "simulate_cohort_peak_bytes"]

_IMAGES_PER_TASK = 50
_BAD_VARIANT_MISSING = 0.08
_BAD_SAMPLE_MISSING = 0.10


class SimulateCohortConfig(StepConfig):
    """Settings of ``simulate cohort``."""

    participants: int = Field(1800, ge=60, description="Number of people")
    sites: int = Field(4, ge=1, description="Number of sites (scanners)")
    regions: int = Field(12, ge=2, description="Number of planted brain regions")
    variants: int = Field(20_000, ge=100, description="Variants of all chromosomes together")
    chromosomes: int = Field(4, ge=1, le=22, description="Number of chromosomes")
    chromosome_mb: float = Field(25.0, gt=0, description="Length of each chromosome, in million bases")
    maf: float = Field(0.01, gt=0, lt=0.5, description="Smallest minor allele frequency")
    h2: float = Field(0.45, gt=0, lt=1, description="Heritability of every region's score")
    causal: int = Field(2, ge=0, description="Strong causal variants of each region")
    causal_variance: float = Field(
        0.06, gt=0, lt=0.5, description="Share of a region's variance that each strong variant explains"
    )
    background: int = Field(
        200, ge=1, description="Number of weak variants behind each region's remaining heritability"
    )
    prevalence: float = Field(0.3, gt=0, lt=1, description="Share of patients")
    scores: int = Field(4, ge=0, description="Number of cognitive scores that the brain explains in part")
    other_phenotypes: int = Field(16, ge=0, description="Number of phenotypes unrelated to the brain")
    missing: float = Field(0.08, ge=0, lt=0.9, description="Share of missing phenotype values")
    missing_calls: float = Field(0.003, ge=0, lt=0.1, description="Share of missing genotype calls")
    voxel_mm: int = Field(4, ge=1, le=10, description="Voxel size of the maps, in mm")


@dataclass(frozen=True, slots=True)
class _ChromosomeTask:
    name: str
    index: int
    samples: SampleIndex
    n_variants: int
    length_bp: int
    maf: float
    seed: int


@dataclass(frozen=True, slots=True)
class _ImageTask:
    start: int
    ids: Shaped[np.ndarray, " people"]
    scores: Float[np.ndarray, "people regions"]
    model: MapModel
    root: Path
    seed: int


def _simulate_chromosome(task: _ChromosomeTask, marker: Path) -> None:
    """Write chr<name>.bed and, when that is whole, the marker with the frequencies."""
    rng = np.random.default_rng(np.random.SeedSequence(task.seed, spawn_key=(1, task.index)))
    chromosome = simulate_chromosome(
        task.name, task.samples, n_variants=task.n_variants, length_bp=task.length_bp, maf=task.maf, rng=rng
    )
    with BedWriter(marker.with_name(f"chr{task.name}"), task.samples, chromosome.variants) as writer:
        for block in chromosome.blocks(512):
            writer.append(block.dosage)
    np.save(marker, chromosome.frequency)


def _simulate_images(task: _ImageTask) -> int:
    from brainlocus.core import Volume

    for k, participant in enumerate(task.ids):
        rng = np.random.default_rng(np.random.SeedSequence(task.seed, spawn_key=(2, task.start + k)))
        data = simulate_map(task.model, task.scores[k], rng)
        folder = task.root / str(participant) / "anat"
        folder.mkdir(parents=True, exist_ok=True)
        volume = Volume(data, task.model.mask.affine, "grey_matter")
        write_volume(volume, folder / f"{participant}_space-MNI152_label-GM_probseg.nii.gz")
    return len(task.ids)


def _genome(config: SimulateCohortConfig, samples: SampleIndex, context: Context) -> tuple[list[Path], Any]:
    """Return the BED prefix of every chromosome and the frequencies of all variants."""
    length = round(config.chromosome_mb * 1e6)
    share = np.diff(np.linspace(0, config.variants, config.chromosomes + 1).round().astype(int))
    tasks = {
        f"chr{k + 1}.npy": _ChromosomeTask(str(k + 1), k, samples, int(share[k]), length, config.maf, context.seed)
        for k in range(config.chromosomes)
    }
    markers = list(context.map_shards(_simulate_chromosome, tasks, "Simulating chromosomes"))
    return [m.with_suffix("") for m in markers], np.concatenate([np.load(m) for m in markers])


def _stream_genotypes(
    chromosomes: list[Path],
    variants: VariantTable,
    samples: SampleIndex,
    frequency: Float[np.ndarray, " variants"],
    plan: CausalPlan,
    config: SimulateCohortConfig,
    out: Path,
    context: Context,
) -> tuple[Float[np.ndarray, "samples regions"], dict[str, Any]]:
    """Write the cohort's genotypes with missing calls and return the genetic values (of the complete genotypes)."""
    rng = context.rng(3)
    n_samples = len(samples)
    bad_variants = rng.random(len(variants)) < 0.002
    bad_variants[plan.strong.ravel()] = False
    bad_samples = rng.choice(n_samples, max(1, n_samples // 500), replace=False)
    rate = np.full((1, n_samples), config.missing_calls)
    rate[0, bad_samples] = _BAD_SAMPLE_MISSING
    genetic = np.zeros((n_samples, plan.effects.shape[1]))
    spread = np.sqrt(2 * frequency * (1 - frequency))
    block_size = block_size_for(n_samples, context.memory_bytes // 4, copies=4)
    out.mkdir()
    row = 0
    with (
        BedWriter(out / "cohort", samples, variants) as bed,
        PgenWriter(out / "cohort", samples, variants) as pgen,
    ):
        for prefix in context.progress.track(chromosomes, "Writing genotypes", len(chromosomes)):
            source = open_bed(prefix.with_suffix(".bed"), genome_build="simulated")
            for start in range(0, len(source.variants), block_size):
                dosage = source.read(start, min(start + block_size, len(source.variants))).dosage.copy()
                rows = slice(row, row + dosage.shape[0])
                standardised = (dosage - 2 * frequency[rows, None]) / spread[rows, None]
                genetic += (plan.effects[rows].T @ standardised).T
                lost = np.where(bad_variants[rows, None], _BAD_VARIANT_MISSING, rate)
                dosage[rng.random(dosage.shape) < lost] = np.nan
                bed.append(dosage)
                pgen.append(dosage)
                row = rows.stop
    planted = {
        "variants_with_many_missing_calls": variants.variant_id[bad_variants].tolist(),
        "samples_with_many_missing_calls": samples.ids[np.sort(bad_samples)].tolist(),
    }
    return genetic, planted


def _write_tables(config: SimulateCohortConfig, truth: CohortTruth, out: Path, context: Context) -> None:
    write_table(participants_table(truth), out / "participants.tsv")
    sidecar = {
        "age": {"Description": "Age at scan", "Units": "years"},
        "sex": {"Description": "1 male, 0 female"},
        "site": {"Description": "Scanner", "Levels": {f"site{s + 1}": f"scanner {s + 1}" for s in range(config.sites)}},
        "diagnosis": {"Description": "1 patient, 0 control"},
        "split": {"Description": "Half of the study", "Levels": {"discovery": "", "replication": ""}},
    }
    (out / "participants.json").write_text(json.dumps(sidecar, indent=1) + "\n")
    phenotypes = phenotype_table(truth, n_noise=config.other_phenotypes, missing=config.missing, rng=context.rng(4))
    write_table(phenotypes, out / "phenotypes.tsv")
    rows = "".join(f"{name}\t{name.split('_')[0]}\n" for name in phenotypes.names)
    (out / "categories.tsv").write_text(f"phenotype\tcategory\n{rows}")
    description = {
        "Name": "brainlocus simulated cohort",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "brainlocus simulate cohort", "Version": __version__}],
    }
    (out / "dataset_description.json").write_text(json.dumps(description, indent=1) + "\n")


def _write_truth(
    config: SimulateCohortConfig,
    truth: CohortTruth,
    plan: CausalPlan,
    variants: VariantTable,
    frequency: Float[np.ndarray, " variants"],
    planted: dict[str, Any],
    model: MapModel,
    out: Path,
) -> None:
    names = [model.regions.names[k + 1] for k in range(model.n_regions)]
    regions = [
        {
            "region": name,
            "label": k + 1,
            "voxels": int((model.regions.labels == k + 1).sum()),
            "h2": float(truth.h2[k]),
            "age_effect_per_decade": float(truth.age_effect[k]),
            "sex_effect": float(truth.sex_effect[k]),
            "diagnosis_effect": 0.0 - float(truth.diagnosis_effect[k]),
            "causal_variants": [
                {
                    "variant_id": str(variants.variant_id[j]),
                    "chromosome": str(variants.chromosome[j]),
                    "position": int(variants.position[j]),
                    "effect_allele": str(variants.effect_allele[j]),
                    "effect_allele_frequency": float(frequency[j]),
                    "effect_per_sd": float(plan.effects[j, k]),
                }
                for j in plan.strong[k]
            ],
        }
        for k, name in enumerate(names)
    ]
    content = {
        "settings": config.model_dump(mode="json"),
        "regions": regions,
        "site_shift": truth.site_shift.tolist(),
        "site_scale": truth.site_scale.tolist(),
        "cognition_weights": truth.cognition_weights.T.tolist(),
        "achievable_balanced_accuracy": achievable_balanced_accuracy(truth),
        "genotypes": planted,
    }
    (out / "truth.json").write_text(json.dumps(content, indent=1) + "\n")
    (out / "truth").mkdir()
    write_parcellation(model.regions, out / "truth" / "regions.nii.gz")
    write_mask(model.mask, out / "mask.nii.gz")
    columns = {"genetic": truth.genetic, "brain": truth.brain, "scanned": truth.scanned}
    matrix = np.hstack(list(columns.values()))
    labels = [f"{kind}_{name}" for kind in columns for name in names]
    write_table(quantitative_table(truth.samples, labels, matrix), out / "truth" / "scores.parquet")


def simulate_cohort_peak_bytes(config: SimulateCohortConfig, workers: int) -> int:
    """Return the most memory the step needs, most of it for the tree sequences simulated at a time.

    Measured, not derived (resident memory of the process, two workers): 664 MiB for 1,800 people and 25 Mb, 1,702 MiB
    for 5,000 people and 100 Mb, with libraries; rounded up to 400 MiB and 8 MiB a Mb. A coalescent tree grows with the
    logarithm of the people, which scales the bound beyond 5,000.
    """
    at_a_time = min(workers, config.chromosomes)
    growth = max(1.0, np.log(config.participants) / np.log(5_000))
    trees = at_a_time * 8 * 2**20 * config.chromosome_mb * growth
    blocks = 4 * 4 * 64 * config.participants
    return int(400 * 2**20 + trees + blocks + 1_000 * config.variants)


def simulate_cohort(config: SimulateCohortConfig, out: Path, context: Context) -> StepResult:
    """Simulate a cohort into the folder `out`."""
    needed = simulate_cohort_peak_bytes(config, context.executor.workers)
    if needed > context.memory_bytes:
        raise ResourceError(
            f"Simulating {config.chromosome_mb:g} Mb of {config.participants} people on {context.executor.workers} "
            f"workers needs {needed / 2**20:.0f} MiB, {context.memory_bytes / 2**20:.0f} MiB are given. "
            "Raise --memory, or take fewer --threads or shorter chromosomes."
        )
    width = max(4, len(str(config.participants)))
    samples = SampleIndex.of([f"sub-{k + 1:0{width}d}" for k in range(config.participants)])
    model = map_model(config.voxel_mm, config.regions, context.rng(0))
    chromosomes, frequency = _genome(config, samples, context)
    variants = concat_variants(
        [open_bed(p.with_suffix(".bed"), genome_build="simulated").variants for p in chromosomes]
    )
    plan = plan_causal_variants(
        frequency,
        variants.position,
        variants.chromosome.astype(np.int64),
        n_regions=config.regions,
        n_causal=config.causal,
        strong_variance=config.causal_variance,
        h2=config.h2,
        n_background=config.background,
        rng=context.rng(5),
    )
    genetic, planted = _stream_genotypes(
        chromosomes, variants, samples, frequency, plan, config, out / "genotypes", context
    )
    truth = draw_people(
        samples,
        genetic,
        h2=config.h2,
        n_sites=config.sites,
        prevalence=config.prevalence,
        n_scores=config.scores,
        rng=context.rng(6),
    )
    _write_tables(config, truth, out, context)
    _write_truth(config, truth, plan, variants, frequency, planted, model, out)
    batches = [
        _ImageTask(
            start, samples.ids[start : start + _IMAGES_PER_TASK], truth.scanned[start : start + _IMAGES_PER_TASK],
            model, out, context.seed,
        )
        for start in range(0, len(samples), _IMAGES_PER_TASK)
    ]  # fmt: skip
    made = sum(context.progress.track(context.executor.map(_simulate_images, batches), "Making images", len(batches)))
    counts = {"participants": made, "variants": len(variants), "voxels": int(model.mask.data.sum())}
    summary = f"{made} people, {len(variants)} variants, {counts['voxels']} voxels, {config.regions} planted regions"
    return StepResult(counts, summary=(summary,))


SIMULATE_COHORT = Step(
    "simulate cohort",
    "Simulate a cohort with planted truth, images to genomes.",
    SimulateCohortConfig,
    simulate_cohort,
    out="folder",
    out_positional=True,
)
