"""``study.toml``: the inputs of a study and the settings of its steps, every one with a default.

The file has ``[inputs]`` and one table per step. The tables' keys are the options of the command of that step; which
file feeds which step is decided here (`pipeline.wiring`), so a study cannot be wired wrongly. Paths are relative to the
file, or ``dataset:NAME/FILE``.
"""

import copy
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from brainlocus.core.errors import FormatError, SchemaError
from brainlocus.io.datasets import resolve_path
from brainlocus.pipeline.config import explain, parameter_fields
from brainlocus.pipeline.registry import load_step
from brainlocus.pipeline.wiring import STUDY_STEPS, StudyStep

__all__ = ["Study", "StudyInputs", "load_study", "study_model", "study_schema"]


class StudyInputs(BaseModel):
    """What a study starts from. Give images, scans or traits; everything else is optional and adds steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: str | None = Field(
        None, description="Maps: a BIDS folder, a table with participant_id and path, or one array of all (.npy, .zarr)"
    )
    image_ids: str | None = Field(None, description="Table with participant_id: whose the images of an array are")
    mask: str | None = Field(None, description="Mask of the voxels to use")
    scans: str | None = Field(None, description="BIDS dataset of gradient-echo scans, for susceptibility and T2*")
    scan_masks: str | None = Field(None, description="Derivatives with the scans' brain masks")
    scan_segmentations: str | None = Field(None, description="Derivatives with the scans' segmentations")
    scan_transforms: str | None = Field(None, description="Derivatives with the scans' transforms")
    standard: str | None = Field(None, description="Image of the standard space for the scans' maps")
    scan_atlas: str | None = Field(None, description="Labels in the standard space to measure in the scans too")
    traits: str | None = Field(None, description="Table of traits, instead of images (.tsv, .csv, .parquet, .fam)")
    participants: str | None = Field(None, description="Table with age, sex, site, diagnosis, split ...")
    confound_roles: str | None = Field(
        None, description="File that gives confounds their roles, for the confound set of the prepare step"
    )
    phenotypes: str | None = Field(None, description="Table of phenotypes to relate to the traits")
    categories: str | None = Field(None, description="Table phenotype, category: groups for figures")
    genotypes: str | None = Field(None, description="Genotypes (.bed, .pgen, .bgen, .vcf.gz, .vcf, .bcf)")
    gwas: str | None = Field(
        None,
        description="GWAS for predicted expression: a table phenotype, path, or a folder; else the study's own scan",
    )
    replication_gwas: str | None = Field(None, description="GWAS of the same phenotypes in other people")
    expression_models: str | None = Field(None, description="Folder of expression models (.db) with their covariances")
    joint_covariance: str | None = Field(
        None, description="Covariances of each gene's SNPs of all tissues together, for S-MultiXcan"
    )
    phenotype_annotation: str | None = Field(
        None, description="Table of the phenotypes of the GWAS: modality, atlas, side, region, measurement ..."
    )
    gene_set: str | None = Field(None, description="List of genes to compare with others, such as those of a disease")
    phenotype_set: str | None = Field(None, description="List of phenotypes to look for the gene set's associations in")
    genome_build: str = Field("unknown", description="Assembly of the positions, such as GRCh37")

    def paths(self) -> dict[str, str]:
        """Return the inputs that are paths and given."""
        return {k: v for k, v in self.model_dump().items() if k != "genome_build" and v is not None}


@dataclass(frozen=True, slots=True)
class Study:
    """A validated study."""

    name: str
    description: str
    inputs: dict[str, Path]
    genome_build: str
    settings: dict[str, dict[str, Any]]
    """Per step, the settings given or defaulted, ready for the step's configuration."""
    enabled: dict[str, bool | None]
    """Per step: None leaves it to the inputs."""


def _settings_model(entry: StudyStep) -> type[BaseModel]:
    config = load_step(entry.step).config
    fields: dict[str, Any] = {
        "enabled": (bool | None, Field(None, description="Run this step; by default when its inputs are there"))
    }
    for name in parameter_fields(config):
        if name in entry.wired:
            continue
        field = copy.copy(config.model_fields[name])
        if name in entry.defaults:
            field.default = entry.defaults[name]
        fields[name] = (field.annotation, field)
    return create_model(
        f"{entry.key.title()}Settings",
        __config__=ConfigDict(frozen=True, extra="forbid"),
        __doc__=load_step(entry.step).help,
        **fields,
    )


def study_model() -> type[BaseModel]:
    """Return the pydantic model of ``study.toml``, made from the steps' configurations."""
    fields: dict[str, Any] = {
        "name": (str, Field("study", description="Name, shown in the portal")),
        "description": (str, Field("", description="One paragraph, shown in the portal")),
        "inputs": (StudyInputs, Field(description="What the study starts from")),
    }
    for entry in STUDY_STEPS:
        model = _settings_model(entry)
        fields[entry.key] = (model, Field(default_factory=model, description=load_step(entry.step).help))
    return create_model("Study", __config__=ConfigDict(frozen=True, extra="forbid"), **fields)


def study_schema() -> dict[str, Any]:
    """Return the JSON schema of ``study.toml``, for editors."""
    schema = study_model().model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "brainlocus study"}


def load_study(path: Path) -> Study:
    """Read and check a study.

    Raises
    ------
    FormatError
        The file is missing, or not TOML (the line is named).
    SchemaError
        An unknown key (with the nearest valid one), a wrong value, an unknown dataset.
    """
    if not path.is_file():
        raise FormatError(f"Study: expected a TOML file at {path}, found nothing. Check the path.")
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: expected TOML: {error}.") from error
    model = study_model()
    try:
        parsed: Any = model.model_validate(content)
    except ValidationError as error:
        raise SchemaError(f"{path}:\n{explain(error, model)}") from None
    inputs = {name: resolve_path(text, path.parent) for name, text in parsed.inputs.paths().items()}
    settings, enabled = {}, {}
    for entry in STUDY_STEPS:
        values = getattr(parsed, entry.key)
        enabled[entry.key] = values.enabled
        settings[entry.key] = {n: getattr(values, n) for n in type(values).model_fields if n != "enabled"}
    return Study(parsed.name, parsed.description, inputs, parsed.inputs.genome_build, settings, enabled)
