"""Expression models for a scan: read, joined with their covariances and kept in one folder of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped
from pydantic import Field

from brainlocus.core import ExpressionModel, FormatError, SchemaError
from brainlocus.genetics.twas import ModelSnps, TissueModel, prepare_tissue, unite_snps
from brainlocus.io import find_covariance, model_tissue, read_covariance, read_expression_model
from brainlocus.pipeline.config import CommaPaths, StepConfig
from brainlocus.pipeline.models import read_arrays, write_arrays
from brainlocus.pipeline.progress import Progress

__all__ = [
    "ModelInput",
    "ModelSet",
    "covariance_files",
    "load_models",
    "model_files",
    "read_model_set",
    "with_prefix",
    "write_model_set",
]

_FORMAT, _VERSION = "brainlocus-expression-models", 1


class ModelInput(StepConfig):
    """Options that say which expression models are used, and how their SNPs are named."""

    models: CommaPaths = Field(
        (), description="Expression models of PredictDB or JTI (.db), one a tissue; or folders of them"
    )
    covariances: CommaPaths = Field(
        (), description="Covariances of the models' SNPs, in the order of the models; those named after them by default"
    )
    model_pattern: str = Field(
        "", description="Regular expression with a group for the tissue in the names of models: 'JTI_(.+)\\.db'"
    )
    snp_key: Literal["rsid", "varID"] = Field("rsid", description="Column of the models that names SNPs")
    strip_versions: bool = Field(False, description="Take versions off gene ids: ENSG00000130203.9")
    missing_covariance: Literal["error", "zero"] = Field(
        "error", description="What to do where two SNPs with variances have no covariance"
    )


@dataclass(frozen=True, slots=True, eq=False)
class ModelSet:
    """All models of a scan, in the entries of one union of SNPs."""

    tissues: tuple[TissueModel, ...]
    snps: ModelSnps

    @property
    def offsets(self) -> Shaped[np.ndarray, " tissues_and_one"]:
        """Rows of each tissue in a matrix of all models' genes."""
        return np.asarray(np.r_[0, np.cumsum([t.genes.size for t in self.tissues])].astype(np.int64))


def model_files(models: Sequence[Path]) -> list[Path]:
    """Return the model files, those of folders sorted by name.

    Raises
    ------
    FormatError, SchemaError
        None is given, or a folder has none.
    """
    if not models:
        raise SchemaError(
            "--models: required, but not given: expression models (.db), separated by commas, or a folder."
        )
    found: list[Path] = []
    for path in models:
        inside = sorted(path.glob("*.db")) if path.is_dir() else [path]
        if not inside:
            raise FormatError(f"{path}: expected expression models (.db) in the folder, found none.")
        found += inside
    return found


def covariance_files(config: ModelInput) -> list[Path]:
    """Return the covariance file of every model.

    Raises
    ------
    FormatError, SchemaError
        One is not found, or the numbers differ.
    """
    models = model_files(config.models)
    if config.covariances and len(config.covariances) != len(models):
        raise SchemaError(
            f"--covariances: expected {len(models)} files, one for each of the --models, found "
            f"{len(config.covariances)}."
        )
    if config.covariances:
        return list(config.covariances)
    found = []
    for model in models:
        beside = find_covariance(model)
        if beside is None:
            stem = model.name.removesuffix(".db")
            raise FormatError(
                f"{model}: expected its covariance beside it ({stem}.txt.gz, {stem}_cov.txt.gz, {stem}.cov ...), found "
                "none. Give it with --covariances."
            )
        found.append(beside)
    return found


def with_prefix(names: Shaped[np.ndarray, " weights"], like: Sequence[str]) -> Shaped[np.ndarray, " weights"]:
    """Return varIDs with or without ``chr``, as the names of the other side have it."""
    ours = names.size > 0 and str(names[0]).startswith("chr")
    theirs = [str(name).startswith("chr") for name in like]
    if names.size and theirs and str(names[0]).lstrip("chr")[:1].isdigit():
        if all(theirs) and not ours:
            return np.char.add("chr", names)
        if not any(theirs) and ours and str(like[0])[:1].isdigit():
            return np.array([name.removeprefix("chr") for name in names.tolist()], dtype=np.str_)
    return names


def load_models(
    config: ModelInput, progress: Progress, *, by_position: bool = False, gwas_names: Sequence[str] = ()
) -> ModelSet:
    """Read the models and their covariances.

    Parameters
    ----------
    by_position
        SNPs are searched in the GWAS by place, from their varID.
    gwas_names
        Some names of SNPs as the GWAS has them, for the ``chr`` of varIDs.

    Raises
    ------
    BrainlocusError
        A file is not as it should be, two models have one tissue, a model and its covariance do not fit.
    """
    paths = model_files(config.models)
    files = covariance_files(config)
    tissues = [model_tissue(path, config.model_pattern) for path in paths]
    twice = sorted({t for t in tissues if tissues.count(t) > 1})
    if twice:
        raise SchemaError(f"--models: tissue {twice[0]} occurs twice; each may have one model. See --model-pattern.")
    models: list[ExpressionModel] = []
    pairs = list(zip(paths, tissues, strict=True))
    for path, tissue in progress.track(pairs, "Reading models", len(pairs)):
        models.append(
            read_expression_model(path, tissue=tissue, snp_key=config.snp_key, strip_versions=config.strip_versions)
        )
    keys = [_search_keys(m.snps, by_position=by_position, gwas_names=gwas_names) for m in models]
    snps = unite_snps(models, keys)
    prepared = []
    for k, model in enumerate(progress.track(models, "Reading covariances", len(models))):
        covariance = read_covariance(files[k], strip_versions=config.strip_versions)
        prepared.append(
            prepare_tissue(
                model,
                covariance,
                entry=snps.entry[k],
                sign=snps.sign[k],
                snps=with_prefix(model.snps, covariance.names[:3].tolist()),
                missing_as_zero=config.missing_covariance == "zero",
            )
        )
    return ModelSet(tuple(prepared), snps)


def _search_keys(
    snps: Shaped[np.ndarray, " weights"], *, by_position: bool, gwas_names: Sequence[str]
) -> Shaped[np.ndarray, " weights"]:
    if not by_position:
        return with_prefix(snps, gwas_names)
    parts = [name.removeprefix("chr").split("_") for name in snps.tolist()]
    bad = next((str(n) for n, p in zip(snps.tolist(), parts, strict=True) if len(p) < 4 or not p[1].isdigit()), None)
    if bad is not None:
        raise SchemaError(
            f"--match position: expected ids of SNPs such as chr9_137028813_A_G_b38 in the models, found {bad}. "
            "Take the other column with --snp-key varID."
        )
    return np.array([f"{p[0]}:{p[1]}" for p in parts], dtype=np.str_)


_TISSUE_ARRAYS = tuple(f.name for f in fields(TissueModel) if f.name not in ("tissue", "n_pairs_missing"))
_SNP_ARRAYS = ("names", "offsets", "alleles", "effect_allele", "other_allele")


def write_model_set(models: ModelSet, folder: Path) -> None:
    """Write models and SNPs as arrays, which are read much faster than the text they are from."""
    folder.mkdir(parents=True, exist_ok=True)
    meta: dict[str, Any] = {"format": _FORMAT, "version": _VERSION}
    snps = {name: getattr(models.snps, name) for name in _SNP_ARRAYS}
    write_arrays({**meta, "tissues": [t.tissue for t in models.tissues]}, snps, folder / "snps.npz")
    for k, tissue in enumerate(models.tissues):
        arrays = {name: getattr(tissue, name) for name in _TISSUE_ARRAYS}
        arrays["sign"] = models.snps.sign[k]
        write_arrays(
            {**meta, "tissue": tissue.tissue, "n_pairs_missing": tissue.n_pairs_missing},
            arrays,
            folder / f"tissue-{k:03d}.npz",
        )


def read_model_set(folder: Path) -> ModelSet:
    """Read what `write_model_set` wrote.

    Raises
    ------
    FormatError
        The folder is damaged, or of another version.
    """
    meta, snps = read_arrays(folder / "snps.npz")
    if meta.get("format") != _FORMAT or meta.get("version") != _VERSION:
        raise FormatError(
            f"{folder}: expected expression models as twas prepare writes them (version {_VERSION}), found version "
            f"{meta.get('version')}. Prepare them again."
        )
    tissues, signs = [], []
    for k in range(len(meta["tissues"])):
        own, arrays = read_arrays(folder / f"tissue-{k:03d}.npz")
        signs.append(arrays.pop("sign"))
        tissues.append(TissueModel(tissue=own["tissue"], n_pairs_missing=own["n_pairs_missing"], **arrays))
    entry = tuple(t.entry for t in tissues)
    return ModelSet(tuple(tissues), ModelSnps(**snps, entry=entry, sign=tuple(signs)))
