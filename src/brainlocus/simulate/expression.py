"""Predicted expression with planted truth: models of tissues, and GWAS of phenotypes that some genes change.

Model: the expression of gene g in tissue t is ``E_gt = x w_gt`` over the dosages x of SNPs near the gene, whose
covariance Gamma is that of a simulated panel with LD. Phenotype p (variance 1) of N people is::

    y_p = sum_g alpha_gp E_g,t(g) + rest

where t(g) is the tissue in which the causal gene g acts. Marginal associations follow without any person: with D the
diagonal of Gamma and C the correlation of phenotypes, the z of one gene's SNPs are normal with mean and covariance::

    sqrt(N) D^-1/2 Gamma w alpha_p        and        (D^-1/2 Gamma D^-1/2) x C

so that S-PrediXcan's z of a causal gene in its tissue has mean ``alpha_gp sqrt(N var(E_g))``, which is what is planted.
Genes act on areas of cortex, left and right alike: a phenotype is one measure of one region and side.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from brainlocus.core import ExpressionModel, GeneCovariance, PhenotypeAnnotation

__all__ = ["ExpressionStudy", "ExpressionStudyPlan", "annotate_phenotypes", "draw_scans", "plan_expression_study"]

_BASES = ("A", "C", "G", "T")
_REGIONS = (
    "insula", "precentral", "postcentral", "superiorfrontal", "superiortemporal", "lingual", "fusiform", "cuneus",
    "precuneus", "entorhinal", "parahippocampal", "lateraloccipital", "inferiorparietal", "supramarginal",
    "rostralmiddlefrontal", "caudalmiddlefrontal", "medialorbitofrontal", "lateralorbitofrontal", "parsopercularis",
    "parstriangularis", "parsorbitalis", "paracentral", "pericalcarine", "inferiortemporal", "middletemporal",
    "superiorparietal", "posteriorcingulate", "isthmuscingulate", "caudalanteriorcingulate",
    "rostralanteriorcingulate", "transversetemporal", "bankssts", "temporalpole", "frontalpole",
)  # fmt: skip
"""Desikan & Killiany's regions as FreeSurfer names them."""
_MEASURES = ("area", "thickness")
_TRACTS = ("FA", "MD")
TISSUES = (
    "Brain_Cortex", "Brain_Cerebellum", "Brain_Hippocampus", "Liver", "Whole_Blood", "Pituitary", "Brain_Amygdala",
    "Adrenal_Gland",
)  # fmt: skip
_SIDE_CORRELATION = 0.6
"""Between the two sides of a measure of a region; measures of one modality share 0.2."""
_MODALITY_CORRELATION = 0.2
_PANEL = 600
_LD_STEP = 0.95
"""Correlation of neighbouring SNPs' latent normals."""


@dataclass(frozen=True, slots=True)
class ExpressionStudyPlan:
    """How much is simulated."""

    n_genes: int = 300
    n_tissues: int = 4
    n_regions: int = 8
    n_causal: int = 12
    """Genes that change phenotypes."""
    most_snps: int = 12
    """Of a gene; models use some of them."""
    modelled: float = 0.7
    """Share of genes that each tissue models."""
    strength: float = 8.0
    """Mean |z| of a causal gene's strongest phenotypes, in the first cohort."""


@dataclass(frozen=True, slots=True, eq=False)
class ExpressionStudy:
    """Genes, models and what is planted; SNPs are ordered by gene."""

    genes: Shaped[np.ndarray, " genes"]
    gene_names: Shaped[np.ndarray, " genes"]
    chromosome: Int[np.ndarray, " genes"]
    start: Int[np.ndarray, " genes"]
    stop: Int[np.ndarray, " genes"]
    offsets: Int[np.ndarray, " genes_and_one"]
    """SNPs of gene g are rows ``offsets[g]:offsets[g + 1]``."""
    snps: Shaped[np.ndarray, " snps"]
    """rsids."""
    variant_names: Shaped[np.ndarray, " snps"]
    """varIDs, of GRCh38."""
    position: Int[np.ndarray, " snps"]
    effect_allele: Shaped[np.ndarray, " snps"]
    other_allele: Shaped[np.ndarray, " snps"]
    covariance: tuple[Float[np.ndarray, "_snps _snps"], ...]
    """Of the dosages of each gene's SNPs in the panel."""
    models: tuple[ExpressionModel, ...]
    covariances: tuple[GeneCovariance, ...]
    joint_covariance: GeneCovariance
    """Of all SNPs of each gene, for tests over tissues."""
    causal: Int[np.ndarray, " causal"]
    """Genes."""
    causal_tissue: Int[np.ndarray, " causal"]
    causal_weights: tuple[Float[np.ndarray, " _snps"], ...]
    """Weights of the causal gene's SNPs in its tissue; 0 where the model has none."""
    mean_z: Float[np.ndarray, "causal phenotypes"]
    """Planted mean of S-PrediXcan's z in the first cohort."""
    phenotypes: PhenotypeAnnotation


def annotate_phenotypes(n_regions: int) -> PhenotypeAnnotation:
    """Return phenotypes as UK Biobank's are named: area and thickness of cortex, FA and MD of tracts, both sides.

    Examples
    --------
    >>> annotate_phenotypes(1).phenotypes[:2].tolist()
    ['aparc-Desikan_lh_area_insula', 'aparc-Desikan_rh_area_insula']
    """
    rows = []
    for region in _REGIONS[:n_regions]:
        for measure in _MEASURES:
            for side, prefix in (("left", "lh"), ("right", "rh")):
                rows.append((f"aparc-Desikan_{prefix}_{measure}_{region}", "T1", "Desikan", side, region, measure))
    for k in range(max(1, n_regions // 2)):
        for measure in _TRACTS:
            for side in ("left", "right"):
                name = f"IDP_dMRI_TBSS_{measure}_tract{k + 1}_{side[0].upper()}"
                rows.append((name, "dMRI", "TBSS", side, f"tract{k + 1}", measure))
    columns = list(zip(*rows, strict=True))
    names = ("modality", "atlas", "side", "region", "measurement")
    texts = [np.array(column, dtype=np.str_) for column in columns]
    return PhenotypeAnnotation(texts[0], dict(zip(names, texts[1:], strict=True)))


def plan_expression_study(plan: ExpressionStudyPlan, rng: np.random.Generator) -> ExpressionStudy:
    """Draw genes, panel, models and planted effects.

    Raises
    ------
    ValueError
        More tissues, regions or causal genes than there can be.
    """
    if plan.n_tissues > len(TISSUES) or plan.n_regions > len(_REGIONS) or plan.n_causal > plan.n_genes:
        raise ValueError(
            f"At most {len(TISSUES)} tissues, {len(_REGIONS)} regions and as many causal genes as genes; found "
            f"{plan.n_tissues}, {plan.n_regions} and {plan.n_causal} of {plan.n_genes}."
        )
    sizes = rng.integers(2, plan.most_snps + 1, plan.n_genes)
    offsets = np.r_[0, np.cumsum(sizes)].astype(np.int64)
    chromosome = np.sort(rng.integers(1, 23, plan.n_genes))
    start = np.zeros(plan.n_genes, dtype=np.int64)
    for number in range(1, 23):
        mine = np.flatnonzero(chromosome == number)
        start[mine] = 1_000_000 + 2_500_000 * np.arange(mine.size)
    position = np.concatenate(
        [start[g] + np.sort(rng.choice(400_000, sizes[g], replace=False)) - 100_000 for g in range(plan.n_genes)]
    )
    pairs = np.array([rng.choice(4, 2, replace=False) for _ in range(int(offsets[-1]))])
    effect, other = (np.array([_BASES[k] for k in pairs[:, side]]) for side in (0, 1))
    gene_of_snp = np.repeat(np.arange(plan.n_genes), sizes)
    names = np.array([f"rs{1_000_000 + 7 * k}" for k in range(position.size)])
    variant_names = np.array(
        [f"chr{chromosome[g]}_{p}_{o}_{e}_b38" for g, p, o, e in zip(gene_of_snp, position, other, effect, strict=True)]
    )
    genes = np.array([f"ENSG{90_000_000_000 + 13 * g:011d}" for g in range(plan.n_genes)])
    symbols = np.array([f"SIM{g + 1}" for g in range(plan.n_genes)])
    covariance = tuple(_panel_covariance(int(size), rng) for size in sizes)
    shared = [rng.normal(size=size) for size in sizes]
    causal = np.sort(rng.choice(plan.n_genes, plan.n_causal, replace=False))
    tissue_of = np.arange(plan.n_causal) % plan.n_tissues
    models, covariances = [], []
    chosen_weights: dict[int, Float[np.ndarray, " snps"]] = {}
    for t in range(plan.n_tissues):
        weights = []
        for g in range(plan.n_genes):
            acts = g in causal and tissue_of[np.searchsorted(causal, g)] == t
            used = rng.random(sizes[g]) < 0.6
            if not used.any():
                used[0] = True
            weight = np.where(used, shared[g] + 0.5 * rng.normal(size=sizes[g]), 0.0)
            # No tissue is without a model.
            kept = rng.random() < plan.modelled or acts or g == t % plan.n_genes
            weights.append(weight if kept else np.zeros(sizes[g]))
            if acts:
                chosen_weights[g] = weight
        model, gamma = _tissue_model(
            TISSUES[t], genes, symbols, offsets, names, effect, other, weights, covariance, rng
        )
        models.append(model)
        covariances.append(gamma)
    annotation = annotate_phenotypes(plan.n_regions)
    return ExpressionStudy(
        genes=genes,
        gene_names=symbols,
        chromosome=chromosome,
        start=start,
        stop=start + 50_000,
        offsets=offsets,
        snps=names,
        variant_names=variant_names,
        position=position,
        effect_allele=effect,
        other_allele=other,
        covariance=covariance,
        models=tuple(models),
        covariances=tuple(covariances),
        joint_covariance=_gene_covariance(
            np.arange(plan.n_genes), [np.arange(size) for size in sizes], genes, offsets, names, covariance
        ),
        causal=causal,
        causal_tissue=tissue_of,
        causal_weights=tuple(chosen_weights[int(g)] for g in causal),
        mean_z=_planted(plan, annotation, rng),
        phenotypes=annotation,
    )


def _panel_covariance(size: int, rng: np.random.Generator) -> Float[np.ndarray, "snps snps"]:
    """Return the covariance of dosages of a panel: two haplotypes a person, thresholds of an autoregression."""
    frequency = rng.uniform(0.05, 0.5, size)
    latent = rng.normal(size=(2 * _PANEL, size))
    for k in range(1, size):
        latent[:, k] = _LD_STEP * latent[:, k - 1] + np.sqrt(1 - _LD_STEP**2) * latent[:, k]
    cut = np.quantile(latent, 1.0 - frequency, axis=0).diagonal()
    haplotypes = latent > cut
    dosage = haplotypes[:_PANEL].astype(np.float64) + haplotypes[_PANEL:]
    return np.atleast_2d(np.cov(dosage, rowvar=False))


def _tissue_model(
    tissue: str,
    genes: Shaped[np.ndarray, " genes"],
    symbols: Shaped[np.ndarray, " genes"],
    offsets: Int[np.ndarray, " genes_and_one"],
    names: Shaped[np.ndarray, " snps"],
    effect: Shaped[np.ndarray, " snps"],
    other: Shaped[np.ndarray, " snps"],
    weights: list[Float[np.ndarray, " _snps"]],
    covariance: tuple[Float[np.ndarray, "_snps _snps"], ...],
    rng: np.random.Generator,
) -> tuple[ExpressionModel, GeneCovariance]:
    flat = np.concatenate(weights)
    used = np.flatnonzero(flat)
    sizes = np.array([np.count_nonzero(w) for w in weights])
    modelled = np.flatnonzero(sizes)
    r2 = rng.uniform(0.02, 0.4, modelled.size)
    model = ExpressionModel(
        tissue=tissue,
        genes=genes[modelled],
        gene_names=symbols[modelled],
        offsets=np.r_[0, np.cumsum(sizes[modelled])].astype(np.int64),
        snps=names[used],
        effect_allele=effect[used],
        other_allele=other[used],
        weight=flat[used],
        n_snps_in_model=sizes[modelled],
        pred_perf_r2=r2,
        pred_perf_pval=10.0 ** (-60 * r2),
        pred_perf_qval=10.0 ** (-55 * r2),
        phi=np.full(modelled.size, np.nan),
    )
    used_snps = [np.flatnonzero(weights[g]) for g in modelled.tolist()]
    return model, _gene_covariance(modelled, used_snps, genes, offsets, names, covariance)


def _gene_covariance(
    chosen: Int[np.ndarray, " chosen"],
    snps: list[Int[np.ndarray, " _used"]],
    genes: Shaped[np.ndarray, " genes"],
    offsets: Int[np.ndarray, " genes_and_one"],
    names: Shaped[np.ndarray, " snps"],
    covariance: tuple[Float[np.ndarray, "_snps _snps"], ...],
) -> GeneCovariance:
    """Return the covariances of some SNPs of some genes."""
    first, second, value, counts = [], [], [], []
    for g, mine in zip(chosen.tolist(), snps, strict=True):
        a, b = np.triu_indices(mine.size)
        first.append(offsets[g] + mine[a])
        second.append(offsets[g] + mine[b])
        value.append(covariance[g][mine[a], mine[b]])
        counts.append(a.size)
    return GeneCovariance(
        genes=genes[chosen],
        offsets=np.r_[0, np.cumsum(counts)].astype(np.int64),
        names=names,
        first=np.concatenate(first).astype(np.int32),
        second=np.concatenate(second).astype(np.int32),
        value=np.concatenate(value),
    )


def _planted(
    plan: ExpressionStudyPlan, annotation: PhenotypeAnnotation, rng: np.random.Generator
) -> Float[np.ndarray, "causal phenotypes"]:
    """Return mean z: each causal gene acts on the areas of a third of the regions, both sides, with one sign each."""
    region, measure = annotation.columns["region"], annotation.columns["measurement"]
    regions = np.array(_REGIONS[: plan.n_regions])
    found = np.zeros((plan.n_causal, annotation.phenotypes.size))
    for k in range(plan.n_causal):
        chosen = rng.choice(regions, max(1, plan.n_regions // 3), replace=False)
        for name in chosen.tolist():
            mine: Bool[np.ndarray, " phenotypes"] = (region == name) & (measure == "area")
            found[k, mine] = plan.strength * rng.choice([-1.0, 1.0]) * rng.uniform(0.7, 1.3)
    return found


def _phenotype_factor(annotation: PhenotypeAnnotation) -> Float[np.ndarray, "phenotypes phenotypes"]:
    """Return the Cholesky factor of the correlation of phenotypes."""
    columns = annotation.columns
    modality = columns["modality"][:, None] == columns["modality"][None, :]
    pair = (columns["region"][:, None] == columns["region"][None, :]) & (
        columns["measurement"][:, None] == columns["measurement"][None, :]
    )
    correlation = np.where(pair, _SIDE_CORRELATION, np.where(modality, _MODALITY_CORRELATION, 0.0))
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(np.linalg.cholesky(correlation))


def draw_scans(
    study: ExpressionStudy, rng: np.random.Generator, *, n: int, share: float = 1.0
) -> tuple[Float[np.ndarray, "snps phenotypes"], Float[np.ndarray, "snps phenotypes"]]:
    """Return z and beta of every SNP in GWAS of every phenotype.

    Parameters
    ----------
    n
        People of the cohort.
    share
        Of the people of the cohort for which the effects were planned: mean z grows with its root.
    """
    factor = _phenotype_factor(study.phenotypes)
    n_phenotypes = study.phenotypes.phenotypes.size
    z = np.zeros((study.snps.size, n_phenotypes))
    variance = np.zeros(study.snps.size)
    place = {int(g): k for k, g in enumerate(study.causal)}
    for g in range(study.genes.size):
        gamma = study.covariance[g]
        deviation = np.sqrt(np.diag(gamma))
        rows = slice(int(study.offsets[g]), int(study.offsets[g + 1]))
        variance[rows] = deviation**2
        # A little more on the diagonal: SNPs of a small panel may be the same.
        root = np.linalg.cholesky(gamma / np.outer(deviation, deviation) + 1e-9 * np.eye(deviation.size))
        z[rows] = root @ rng.normal(size=(deviation.size, n_phenotypes)) @ factor.T
        if g in place:
            weight = study.causal_weights[place[g]]
            spread = np.sqrt(weight @ gamma @ weight)
            z[rows] += np.sqrt(share) * np.outer(gamma @ weight / (deviation * spread), study.mean_z[place[g]])
    return z, z / np.sqrt(n * variance)[:, None]
