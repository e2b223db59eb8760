"""Every step by its command name, imported only when it is used."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from brainlocus.core.errors import SchemaError, nearest
from brainlocus.pipeline.step import Step

__all__ = ["STEPS", "StepEntry", "load_step"]


@dataclass(frozen=True, slots=True)
class StepEntry:
    """Where a step is, and what it does in one line (so that help needs no import)."""

    module: str
    attribute: str
    help: str


def _entry(module: str, attribute: str, text: str) -> StepEntry:
    return StepEntry(f"brainlocus.pipeline.steps.{module}", attribute, text)


STEPS: dict[str, StepEntry] = {
    "cohort join": _entry("people", "JOIN", "Join tables by participant id."),
    "cohort split": _entry("people", "SPLIT", "List the participants of each level of a column, or of a random draw."),
    "simulate cohort": _entry(
        "simulate", "SIMULATE_COHORT", "Simulate a cohort with planted truth, images to genomes."
    ),
    "simulate epigenome": _entry(
        "simulate_epigenome", "SIMULATE_EPIGENOME", "Simulate methylation, cells and traits with planted associations."
    ),
    "simulate head": _entry(
        "simulate_head", "SIMULATE_HEAD", "Simulate gradient-echo scans of heads with planted susceptibility."
    ),
    "simulate twas": _entry(
        "simulate_twas", "SIMULATE_TWAS", "Simulate expression models and GWAS with planted effects of genes."
    ),
    "atlas fit": _entry("atlas", "ATLAS_FIT", "Fit structural-covariance atlases to grey-matter maps."),
    "atlas annotate": _entry(
        "atlas_annotate", "ATLAS_ANNOTATE", "Name parcels by the regions of a conventional atlas, with their side."
    ),
    "atlas hierarchy": _entry(
        "atlas_hierarchy", "ATLAS_HIERARCHY", "Link the parcels of each scale to those of the next coarser one."
    ),
    "atlas reproducibility": _entry(
        "atlas_reproducibility", "ATLAS_REPRODUCIBILITY", "Fit an atlas to both halves of a cohort and compare the two."
    ),
    "qsm run": _entry(
        "qsm", "QSM_RUN", "Susceptibility and T2* maps, and measures of regions, from gradient-echo phase."
    ),
    "qsm convert-ukb": _entry(
        "convert_ukb", "QSM_CONVERT_UKB", "Convert UK Biobank zips of susceptibility-weighted MRI to BIDS."
    ),
    "idp extract": _entry("idp", "IDP_EXTRACT", "Measure every parcel of an atlas in every image."),
    "idp template": _entry("template", "IDP_TEMPLATE", "Average maps of people, and their change with age."),
    "cohort prepare": _entry("prepare", "COHORT_PREPARE", "Clean, normalise and deconfound measures of people."),
    "cohort harmonise": _entry(
        "cohort", "COHORT_HARMONISE", "Take the effects of sites out of measures (ComBat, ComBat-GAM)."
    ),
    "cohort effective-tests": _entry(
        "effective_tests", "COHORT_EFFECTIVE_TESTS", "Count the independent tests that correlated traits amount to."
    ),
    "associate phenome": _entry(
        "associate", "ASSOCIATE_PHENOME", "Test every trait against every phenotype, with missing data."
    ),
    "associate compare": _entry(
        "compare", "ASSOCIATE_COMPARE", "Compare two modalities by their associations, or by their values."
    ),
    "associate epigenome": _entry(
        "epigenome", "ASSOCIATE_EPIGENOME", "Test CpGs, or features of another omics layer, against traits."
    ),
    "associate reliability": _entry(
        "reliability", "ASSOCIATE_RELIABILITY", "Reliability of measures over repeated sessions."
    ),
    "associate voxelwise": _entry(
        "voxelwise", "ASSOCIATE_VOXELWISE", "Regress maps of people on targets, voxel by voxel."
    ),
    "multivariate cca": _entry(
        "multivariate", "MULTIVARIATE_CCA", "Canonical correlation of two tables, with a ridge or sparse."
    ),
    "multivariate pls": _entry("multivariate", "MULTIVARIATE_PLS", "Partial least squares of two tables."),
    "multivariate rrr": _entry(
        "multivariate", "MULTIVARIATE_RRR", "Sparse reduced-rank regression with stability selection."
    ),
    "multivariate ica": _entry(
        "multivariate", "MULTIVARIATE_ICA", "Independent components of two tables, and which are linked."
    ),
    "genotypes qc": _entry("genotypes", "GENOTYPES_QC", "Quality control of variants and people."),
    "genotypes prune": _entry("prune", "GENOTYPES_PRUNE", "Variants in little linkage disequilibrium."),
    "genotypes kinship": _entry(
        "kinship", "GENOTYPES_KINSHIP", "Related pairs, and the largest set of unrelated people."
    ),
    "genotypes convert": _entry("convert", "GENOTYPES_CONVERT", "Write genotypes in another format, or some of them."),
    "genotypes pca": _entry("genotypes", "GENOTYPES_PCA", "Ancestry components of the genotypes."),
    "genotypes grm": _entry("genotypes", "GENOTYPES_GRM", "Genetic relationship matrix."),
    "gwas run": _entry("gwas", "GWAS_RUN", "Test every variant for every trait."),
    "gwas replicate": _entry("gwas", "GWAS_REPLICATE", "Compare lead variants with their tests in other people."),
    "gwas export": _entry("sumstats", "GWAS_EXPORT", "Write every test of traits as GWAS-SSF."),
    "sumstats plot": _entry("sumstats", "SUMSTATS_PLOT", "Draw Manhattan, Miami and Q-Q plots."),
    "gwas gxe": _entry("gxe", "GWAS_GXE", "Test the interaction of every variant with exposures."),
    "gwas epistasis": _entry("epistasis", "GWAS_EPISTASIS", "Test the interaction of pairs of variants."),
    "gwas cnv": _entry("cnv", "GWAS_CNV", "Associate copy-number loci and gene burden with traits."),
    "heritability greml": _entry("heritability", "HERITABILITY_GREML", "Heritability of traits by REML."),
    "loci clump": _entry("loci", "LOCI_CLUMP", "Clump associations into independent signals and loci."),
    "signature train": _entry(
        "signature", "SIGNATURE_TRAIN", "Train a disease signature and judge it on held-out people."
    ),
    "store build": _entry("store", "STORE_BUILD", "Bring results together into a store for the portal."),
    "store query": _entry("store_query", "STORE_QUERY", "Look genes or phenotypes up in a store."),
    "store export": _entry(
        "store_export", "STORE_EXPORT", "Write the gene associations of a store as pages and JSON that need no server."
    ),
    "twas prepare": _entry("twas", "TWAS_PREPARE", "Keep what expression models need of many GWAS."),
    "twas associate": _entry("twas", "TWAS_ASSOCIATE", "Associate predicted expression with GWAS (S-PrediXcan)."),
    "twas train": _entry("twas_train", "TWAS_TRAIN", "Train models that predict expression from genotypes."),
    "signature apply": _entry("signature", "SIGNATURE_APPLY", "Score new people with a trained signature."),
    "genes ontology": _entry(
        "genes_ontology", "GENES_ONTOLOGY", "Ontology terms that clusters of genes share, more than the genes tested."
    ),
    "twas replicate": _entry(
        "twas_replicate",
        "TWAS_REPLICATE",
        "Compare gene associations with those of another cohort or an external set.",
    ),
    "twas specificity": _entry(
        "twas_specificity", "TWAS_SPECIFICITY", "In how many tissues, and in which, genes are associated."
    ),
    "twas enrich": _entry(
        "twas_enrich", "TWAS_ENRICH", "Associations of a set of genes with a set of phenotypes, against sets drawn."
    ),
    "twas cluster": _entry("twas_cluster", "TWAS_CLUSTER", "Cluster and embed phenotypes by their genes."),
    "twas map": _entry("twas_map", "TWAS_MAP", "Draw effects of regions on the cortex."),
    "twas multi-tissue": _entry(
        "twas_multi_tissue", "TWAS_MULTI_TISSUE", "One test of a gene from several tissues (S-MultiXcan, ACAT)."
    ),
    "twas causal": _entry(
        "twas_causal", "TWAS_CAUSAL", "Causal effects of expression: MR-JTI and Mendelian randomisation."
    ),
}
"""Command name to step. A test checks that every entry exists and has this name and help."""


def load_step(name: str) -> Step[Any]:
    """Return a step by its command name.

    Raises
    ------
    SchemaError
        There is no such step; the message has the nearest name.
    """
    if name not in STEPS:
        raise SchemaError(f"There is no step {name!r}.{nearest(name, list(STEPS))}")
    entry = STEPS[name]
    step: Step[Any] = getattr(import_module(entry.module), entry.attribute)
    return step
