"""``simulate epigenome``: methylation of people, their traits and cells, with planted associations.

Written to OUT::

    methylation.parquet    CpGs x people, betas
    traits.tsv             traits of the people, which go with cells and plates
    participants.tsv       age, sex, smoking, plate
    cells.tsv              the true cell proportions
    reference.tsv          betas of pure cells at marker CpGs
    annotation.tsv         feature, chromosome, position, gene
    blood_brain.tsv        feature, r
    truth.tsv              trait, feature, beta (M units per unit of the trait), region (0: a CpG alone)
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from brainlocus.core import Column, PhenotypeTable, SampleIndex, quantitative_table
from brainlocus.io import arrow_column, write_table
from brainlocus.pipeline.config import StepConfig
from brainlocus.pipeline.step import Context, Step, StepResult
from brainlocus.simulate import CELLS, EpigenomePlan, SimulatedEpigenome, simulate_epigenome

__all__ = ["SIMULATE_EPIGENOME", "SimulateEpigenomeConfig"]


class SimulateEpigenomeConfig(StepConfig):
    """Settings of ``simulate epigenome``."""

    participants: int = Field(400, ge=20, description="Number of people")
    features: int = Field(5_000, ge=100, description="Number of CpGs")
    traits: int = Field(3, ge=1, description="Number of traits")
    causal: int = Field(10, ge=0, description="CpGs associated with each trait, each alone")
    regions: int = Field(2, ge=0, description="Islands of five CpGs associated with each trait")
    effect: float = Field(0.45, ge=0, description="Effect of a trait's standard deviation, in the CpG's error")


def _lines(path: Path, header: str, rows: list[str]) -> None:
    path.write_text("\n".join([header, *rows]) + "\n")


def _write_methylation(study: SimulatedEpigenome, people: SampleIndex, path: Path) -> None:
    columns = {"feature": arrow_column(study.features)}
    columns |= {name: arrow_column(study.beta[:, k]) for k, name in enumerate(people.ids.tolist())}
    pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=10_000)


def write_epigenome(config: SimulateEpigenomeConfig, out: Path, context: Context) -> StepResult:
    """Write the methylation, the tables that go with it, and the truth."""
    plan = EpigenomePlan(
        n_people=config.participants,
        n_features=config.features,
        n_traits=config.traits,
        n_causal=config.causal,
        n_regions=config.regions,
        effect=config.effect,
    )
    study = simulate_epigenome(plan, context.rng(0))
    people = SampleIndex.of([f"sub-{k + 1:04d}" for k in range(config.participants)])
    names = [f"trait_{k + 1}" for k in range(config.traits)]
    _write_methylation(study, people, out / "methylation.parquet")
    # People of the tables in another order than those of the matrix: they are brought together by id.
    order = context.rng(1).permutation(len(people))
    turned = people.take(order)
    write_table(quantitative_table(turned, names, np.round(study.traits[order], 5)), out / "traits.tsv")
    write_table(
        PhenotypeTable(
            turned,
            (
                Column("age", np.round(study.age[order], 1), unit="years"),
                Column("sex", np.array(["F", "M"])[study.sex[order].astype(np.int64)], "categorical"),
                Column("smoking", np.round(study.smoking[order], 3)),
                Column("plate", np.array([f"plate_{k + 1}" for k in study.plate[order].tolist()]), "categorical"),
            ),
        ),
        out / "participants.tsv",
    )
    write_table(quantitative_table(turned, list(CELLS), np.round(study.cells[order], 5)), out / "cells.tsv")
    _lines(
        out / "reference.tsv",
        "\t".join(("feature", *CELLS)),
        [
            "\t".join((str(study.features[k]), *map(str, row.tolist())))
            for k, row in zip(study.markers, study.reference, strict=True)
        ],
    )
    places = zip(study.features, study.chromosome, study.position, study.gene, strict=True)
    _lines(out / "annotation.tsv", "feature\tchromosome\tposition\tgene", ["\t".join(map(str, row)) for row in places])
    both = zip(study.features, study.blood_brain, strict=True)
    _lines(out / "blood_brain.tsv", "feature\tr", [f"{f}\t{r}" for f, r in both])
    truth = [
        f"{name}\t{study.features[f]}\t{b:.6g}\t{r}"
        for name, features, effects, regions in zip(names, study.causal, study.effect, study.in_region, strict=True)
        for f, b, r in zip(features.tolist(), effects.tolist(), regions.tolist(), strict=True)
    ]
    _lines(out / "truth.tsv", "trait\tfeature\tbeta\tregion", truth)
    counts = {
        "participants": config.participants, "features": config.features, "traits": config.traits,
        "markers": int(study.markers.size), "planted": len(truth),
    }  # fmt: skip
    line = (
        f"{config.participants} people, {config.features} CpGs, {config.traits} traits; {len(truth)} planted effects "
        "(truth.tsv)"
    )
    return StepResult(counts, summary=(line,))


SIMULATE_EPIGENOME = Step(
    "simulate epigenome",
    "Simulate methylation, cells and traits with planted associations.",
    SimulateEpigenomeConfig,
    write_epigenome,
    out="folder",
    out_positional=True,
)
