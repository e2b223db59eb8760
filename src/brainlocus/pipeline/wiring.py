"""Which step of a study reads what: the arrows of the house, in order.

Each entry says which command runs, where it writes below the study's folder, and how its inputs follow from the
study's inputs and from the steps before it. `Wiring.output` gives None for a step that does not run, and a step whose
inputs are not all there does not run either.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainlocus.io import is_image_array, is_nifti

__all__ = ["STUDY_STEPS", "StudyStep", "Wiring"]

Wired = dict[str, Any]


@dataclass(slots=True)
class Wiring:
    """What is known while a study is being planned."""

    inputs: dict[str, Path]
    name: str
    description: str
    genome_build: str
    settings: dict[str, dict[str, Any]]
    root: Path
    people: tuple[str, ...] = ()
    """Columns of the participants table."""
    active: set[str] = field(default_factory=set)
    """Steps that run."""

    def output(self, key: str, part: str = "") -> Path | None:
        """Return (a part of) the output of an earlier step, None when that step does not run."""
        if key not in self.active:
            return None
        path = self.root / next(s.out for s in STUDY_STEPS if s.key == key)
        return path / part if part else path

    def first(self, *candidates: Path | None) -> Path | None:
        """Return the first path that is there."""
        return next((c for c in candidates if c is not None), None)


@dataclass(frozen=True, slots=True)
class StudyStep:
    """One step of every study."""

    key: str
    """Its table in ``study.toml``."""
    step: str
    """Its command."""
    out: str
    """Where it writes, below the study's folder."""
    needs: str
    """In words, for the message when they are missing."""
    wire: Callable[[Wiring], Wired | None]
    defaults: dict[str, Any] = field(default_factory=dict)
    """Settings whose default in a study differs from the command's."""
    wired: frozenset[str] = frozenset()
    """Settings that the study itself gives, so that the file has no key for them."""


def _given(**paths: Any) -> Wired | None:
    """Return the inputs when all are there."""
    return None if any(value is None for value in paths.values()) else paths


def _present(w: Wiring, *names: str) -> list[str]:
    """Return which of the names are columns of the participants table."""
    return [name for name in names if name in w.people]


def _adjustment(w: Wiring) -> str:
    """Return the formula of age and sex, as far as the participants table has them."""
    return " + ".join(_present(w, "age", "sex"))


def _atlas(w: Wiring) -> Wired | None:
    if "images" not in w.inputs:
        return None
    return {name: w.inputs.get(name) for name in ("images", "image_ids", "mask")}


def _idp(w: Wiring) -> Wired | None:
    images = w.inputs.get("images")
    wired = _given(images=images, atlas=w.output("atlas"))
    if wired is None or images is None:
        return None
    # Other images say themselves where their voxels lie.
    mask = w.inputs.get("mask") if is_image_array(images) and not is_nifti(images) else None
    return {**wired, "image_ids": w.inputs.get("image_ids"), "mask": mask}


def _qsm(w: Wiring) -> Wired | None:
    wired = _given(bids=w.inputs.get("scans"))
    if wired is None:
        return None
    names = {"masks": "scan_masks", "segmentations": "scan_segmentations", "transforms": "scan_transforms"}
    names |= {"standard": "standard", "atlas": "scan_atlas"}
    return {**wired, **{option: w.inputs.get(name) for option, name in names.items()}}


def _traits(w: Wiring) -> Wired | None:
    """Join what was given with the scans' phenotypes, and with those of other images where there are both."""
    of_scans = w.output("qsm", "idps.tsv")
    of_images = w.output("idp") if of_scans is not None else None
    tables = _some(of_images, w.inputs.get("traits"), of_scans)
    return {"tables": tables} if tables else None


def _phenotypes(w: Wiring) -> Path | None:
    """Return the study's traits before harmonising: of scans (joined with all others), else of images, else given."""
    joined = w.output("traits") if w.output("qsm") is not None else None
    return w.first(joined, w.output("idp"), w.output("traits"))


def _harmonise(w: Wiring) -> Wired | None:
    settings = w.settings["harmonise"]
    if settings["batch"] not in w.people:
        return None
    wired = _given(table=_phenotypes(w), participants=w.inputs.get("participants"))
    if wired is None:
        return None
    preserve = settings["preserve"] or _adjustment(w)
    return {**wired, "preserve": preserve, "report": w.root / "reports" / "harmonise"}


def _prepare(w: Wiring) -> Wired | None:
    table = w.first(w.output("harmonise"), _phenotypes(w))
    if table is None:
        return None
    formula = w.settings["prepare"]["confounds"]
    roles = w.inputs.get("confound_roles")
    # Confounds with roles are a set of their own.
    if not formula and roles is None and "age" in w.people:
        formula = f"{_adjustment(w)} + I(age**2)"
    return {
        "table": table,
        "participants": w.inputs.get("participants"),
        "confounds": formula,
        "confound_roles": roles,
        "report": w.root / "reports" / "prepare",
    }


def _measures(w: Wiring) -> Path | None:
    """Return the traits that association uses."""
    return w.first(w.output("prepare"), w.output("harmonise"), _phenotypes(w))


def _phenome(w: Wiring) -> Wired | None:
    wired = _given(traits=_measures(w), phenotypes=w.inputs.get("phenotypes"))
    if wired is None:
        return None
    report = w.root / "reports" / "phenome"
    people, categories = w.inputs.get("participants"), w.inputs.get("categories")
    covariates = w.settings["phenome"]["covariates"] or _adjustment(w)
    return {**wired, "participants": people, "categories": categories, "covariates": covariates, "report": report}


def _signature(w: Wiring) -> Wired | None:
    settings = w.settings["signature"]
    if settings["diagnosis"] not in w.people:
        return None
    wired = _given(features=_phenotypes(w), participants=w.inputs.get("participants"))
    if wired is None:
        return None
    batch = settings["batch"] or (w.settings["harmonise"]["batch"] if w.output("harmonise") else None)
    return {**wired, "covariates": settings["covariates"] or _adjustment(w), "batch": batch}


def _genotypes(w: Wiring) -> Wired | None:
    return _given(genotypes=w.inputs.get("genotypes"))


def _with_build(w: Wiring) -> Wired | None:
    wired = _genotypes(w)
    return None if wired is None else {**wired, "genome_build": w.genome_build}


def _checked(w: Wiring) -> Wired:
    """Return the lists of people and variants that passed quality control."""
    people, variants = w.output("qc", "keep.samples"), w.output("qc", "keep.variants")
    return {"keep": _some(people), "variants": _some(variants)}


def _some(*paths: Path | None) -> tuple[Path, ...]:
    return tuple(path for path in paths if path is not None)


def _cohort_genotypes(w: Wiring) -> Wired | None:
    wired = _with_build(w)
    return None if wired is None else {**wired, **_checked(w)}


def _kinship(w: Wiring) -> Wired | None:
    wired = _cohort_genotypes(w)
    return None if wired is None else {**wired, "prefer": _measures(w)}


def _components(w: Wiring) -> Wired | None:
    """Fit the components on unrelated people and pruned variants, where these steps ran."""
    wired = _cohort_genotypes(w)
    if wired is None:
        return None
    pruned = _some(w.output("prune"))
    return {**wired, "variants": pruned or wired["variants"], "fit": _some(w.output("kinship", "unrelated.txt"))}


def _unrelated(w: Wiring) -> Wired:
    """Return the people that passed quality control and are unrelated, with the variants that passed."""
    checked = _checked(w)
    return {**checked, "keep": (*checked["keep"], *_some(w.output("kinship", "unrelated.txt")))}


def _matrix(w: Wiring) -> Wired | None:
    wired = _with_build(w)
    return None if wired is None else {**wired, **_unrelated(w)}


def _split(w: Wiring) -> Wired | None:
    settings = w.settings["split"]
    known = settings["by"] in w.people or settings["fraction"] is not None
    if not known or "genotypes" not in w.inputs:
        return None
    return _given(table=w.inputs.get("participants"))


def _covariates(w: Wiring) -> Wired:
    """Return the tables and the formula that association and heritability adjust for: age, sex, ancestry."""
    components = w.output("pca", "scores.parquet")
    terms = _present(w, "age", "sex")
    if components is not None:
        terms += [f"PC{k + 1}" for k in range(w.settings["pca"]["components"])]
    people = w.inputs.get("participants") if _present(w, "age", "sex") else None
    return {"covariates": _some(people, components), "formula": " + ".join(terms)}


def _gwas(w: Wiring) -> Wired | None:
    wired = _given(genotypes=w.inputs.get("genotypes"), traits=_measures(w))
    if wired is None:
        return None
    checked = _checked(w) if w.settings["gwas"]["method"] == "ridge" else _unrelated(w)
    discovery = w.output("split", f"{DISCOVERY}.txt")
    return {
        **wired,
        **_covariates(w),
        **checked,
        "keep": (*checked["keep"], *_some(discovery)),
        "full": True,
        "genome_build": w.genome_build,
    }


def _heritability(w: Wiring) -> Wired | None:
    grm = w.output("grm")
    wired = _given(grm=grm and grm.with_name(f"{grm.name}.grm.bin"), traits=_measures(w))
    if wired is None:
        return None
    own = w.inputs.get("genotypes") if w.settings["heritability"]["per_trait_variants"] else None
    return {**wired, **_covariates(w), "genotypes": own}


def _clump(w: Wiring) -> Wired | None:
    wired = _given(hits=w.output("gwas", "hits.parquet"), genotypes=w.inputs.get("genotypes"))
    return None if wired is None else {**wired, "keep": _checked(w)["keep"]}


def _replication(w: Wiring) -> Wired | None:
    leads, people = w.output("clump", "leads.parquet"), w.output("split", f"{REPLICATION}.txt")
    wired = _given(genotypes=w.inputs.get("genotypes"), traits=_measures(w))
    if wired is None or leads is None or people is None:
        return None
    checked = _unrelated(w)
    return {
        **wired,
        **_covariates(w),
        "keep": (*checked["keep"], people),
        "variants": (leads,),
        "hits": 1.0,
        "full": False,
        "genome_build": w.genome_build,
    }


def _replicate(w: Wiring) -> Wired | None:
    return _given(leads=w.output("clump", "leads.parquet"), replication=w.output("replication", "hits.parquet"))


def _twas_prepare(w: Wiring) -> Wired | None:
    models = w.inputs.get("expression_models")
    gwas = w.first(w.inputs.get("gwas"), w.output("gwas"))
    return None if models is None or gwas is None else {"gwas": (gwas,), "models": (models,)}


def _twas(w: Wiring) -> Wired | None:
    prepared = w.output("twas_prepare")
    if prepared is None:
        return None
    annotation = w.inputs.get("phenotype_annotation")
    return {
        "gwas": (prepared,),
        "annotation": annotation,
        "full": w.root / "twas" / "full",
        "report": w.root / "reports" / "twas",
    }


def _twas_replication(w: Wiring) -> Wired | None:
    models, gwas = w.inputs.get("expression_models"), w.inputs.get("replication_gwas")
    if models is None or gwas is None or w.output("twas") is None:
        return None
    full = w.root / "twas" / "replication_full"
    return {"gwas": (gwas,), "models": (models,), "full": full, "report": w.root / "reports" / "twas_replication"}


def _full(w: Wiring) -> Path | None:
    """Return the whole matrices of the transcriptome-wide scan."""
    return None if w.output("twas") is None else w.root / "twas" / "full"


def _twas_replicate(w: Wiring) -> Wired | None:
    if w.output("twas_replication") is None:
        return None
    return {
        "discovery": w.root / "twas" / "full",
        "replication": (w.root / "twas" / "replication_full",),
        "annotation": w.inputs.get("phenotype_annotation"),
        "report": w.root / "reports" / "twas_replicate",
    }


def _multi_tissue(w: Wiring) -> Wired | None:
    """Use S-MultiXcan where there is a joint covariance, and ACAT in any case."""
    full, models = _full(w), w.inputs.get("expression_models")
    if full is None:
        return None
    joint = w.inputs.get("joint_covariance")
    if joint is None or models is None:
        return {"results": (full,), "method": "acat"}
    prepared = w.output("twas_prepare")
    return {"results": (full,), "method": "both", "models": (models,), "covariance": joint, "gwas": prepared}


def _twas_cluster(w: Wiring) -> Wired | None:
    full = _full(w)
    return None if full is None else {"results": (full,), "annotation": w.inputs.get("phenotype_annotation")}


def _specificity(w: Wiring) -> Wired | None:
    return _twas_cluster(w)


def _enrich(w: Wiring) -> Wired | None:
    wired = _given(genes=w.inputs.get("gene_set"), phenotypes=w.inputs.get("phenotype_set"))
    full = _full(w)
    return None if wired is None or full is None else {**wired, "results": (full,)}


def _store(w: Wiring) -> Wired | None:
    gwas, twas = w.output("gwas"), _full(w)
    if gwas is None and twas is None:
        return None
    return {
        "gwas": gwas,
        "twas": None if twas is None else (twas,),
        "twas_annotation": None if twas is None else w.inputs.get("phenotype_annotation"),
        "atlas": _some(w.output("atlas")) or None,
        "heritability": w.output("heritability"),
        "loci": w.output("clump"),
        "replication": w.output("replicate"),
        "phenome": w.output("phenome"),
        "signature": w.output("signature"),
        "title": w.name,
        "description": w.description,
        "genome_build": w.genome_build,
    }


DISCOVERY = "discovery"
REPLICATION = "replication"

_GENOTYPES = "[inputs] genotypes"
_FROM_QC = frozenset({"keep", "variants", "genome_build"})
_OF_READING = frozenset(
    {
        "preset", "columns", "phenotype_pattern", "precedence", "replace_zero_p", "match", "strand", "palindromic",
        "duplicates", "genome_build", "decimal_comma", "model_pattern", "snp_key", "strip_versions",
        "missing_covariance",
    }
)  # fmt: skip
"""How GWAS and models are read: of the prepared study, said once there."""
_SCAN = frozenset({"keep", "variants", "full", "covariates", "formula", "genome_build"})

STUDY_STEPS: tuple[StudyStep, ...] = (
    StudyStep("atlas", "atlas fit", "atlas", "[inputs] images", _atlas),
    StudyStep("idp", "idp extract", "idps.parquet", "the atlas step", _idp),
    StudyStep("qsm", "qsm run", "susceptibility", "[inputs] scans", _qsm),
    StudyStep("traits", "cohort join", "input_traits.parquet", "[inputs] traits or scans", _traits),
    StudyStep(
        "harmonise",
        "cohort harmonise",
        "harmonised.parquet",
        "images, scans or traits, and participants with the batch column",
        _harmonise,
    ),
    StudyStep("prepare", "cohort prepare", "traits.parquet", "images, scans or traits", _prepare),
    StudyStep("phenome", "associate phenome", "phenome.parquet", "traits and [inputs] phenotypes", _phenome),
    StudyStep("qc", "genotypes qc", "qc", _GENOTYPES, _with_build, wired=frozenset({"keep", "genome_build"})),
    StudyStep("prune", "genotypes prune", "pruned.txt", _GENOTYPES, _cohort_genotypes, wired=_FROM_QC),
    StudyStep("kinship", "genotypes kinship", "kinship", _GENOTYPES, _kinship, wired=_FROM_QC | {"prefer"}),
    StudyStep("pca", "genotypes pca", "pca", _GENOTYPES, _components, wired=_FROM_QC | {"fit"}),
    StudyStep("grm", "genotypes grm", "grm", _GENOTYPES, _matrix, wired=_FROM_QC),
    StudyStep("split", "cohort split", "split", "genotypes, and participants with the column", _split),
    StudyStep("gwas", "gwas run", "gwas", "genotypes and traits", _gwas, wired=_SCAN),
    StudyStep(
        "heritability",
        "heritability greml",
        "heritability.parquet",
        "the grm step and traits",
        _heritability,
        wired=frozenset({"keep", "covariates", "formula"}),
    ),
    StudyStep("clump", "loci clump", "loci", "the gwas step", _clump, wired=frozenset({"keep"})),
    StudyStep(
        "replication", "gwas run", "replication", "the clump and split steps", _replication, wired=_SCAN | {"hits"}
    ),
    StudyStep("replicate", "gwas replicate", "replicated.parquet", "the replication step", _replicate),
    StudyStep(
        "signature",
        "signature train",
        "signature",
        "images, scans or traits, and participants with the diagnosis column",
        _signature,
        defaults={"diagnosis": "diagnosis"},
    ),
    StudyStep(
        "twas_prepare",
        "twas prepare",
        "twas/prepared",
        "[inputs] expression_models, and gwas or the gwas step",
        _twas_prepare,
    ),
    StudyStep("twas", "twas associate", "twas/associations.parquet", "the twas_prepare step", _twas, wired=_OF_READING),
    StudyStep(
        "twas_replication",
        "twas associate",
        "twas/replication.parquet",
        "the twas step and [inputs] replication_gwas",
        _twas_replication,
    ),
    StudyStep(
        "twas_replicate", "twas replicate", "twas/replicated.parquet", "the twas_replication step", _twas_replicate
    ),
    StudyStep(
        "multi_tissue",
        "twas multi-tissue",
        "twas/multi_tissue.parquet",
        "the twas step",
        _multi_tissue,
        wired=frozenset({"method"}),
    ),
    StudyStep("twas_cluster", "twas cluster", "twas/cluster", "the twas step", _twas_cluster),
    StudyStep("specificity", "twas specificity", "twas/specificity", "the twas step", _specificity),
    StudyStep("enrich", "twas enrich", "twas/enrich", "the twas step, [inputs] gene_set and phenotype_set", _enrich),
    StudyStep(
        "store",
        "store build",
        "store",
        "the gwas or twas step",
        _store,
        wired=frozenset({"title", "description", "genome_build"}),
    ),
)
