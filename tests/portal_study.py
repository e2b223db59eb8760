"""A small synthetic study in a store: 12 regions, 3 chromosomes of 2,000 variants, planted peaks and genes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainlocus.core import (
    GeneAssociations,
    GeneBlock,
    Parcellation,
    PhenotypeAnnotation,
    ResultTable,
    VariantTable,
    Volume,
)
from brainlocus.core.text import text_array
from brainlocus.numerics import neg_log10_p_from_z
from brainlocus.store import ModelInfo, PhenotypeInfo, StoreSettings, StoreWriter

N_PEOPLE = 900
N_REGIONS = 12
PER_CHROMOSOME = 2_000
TISSUES = ("Brain_Cortex", "Brain_Hippocampus", "Whole_Blood", "Liver", "Pituitary")
N_GENES = 60
MAX_P = 0.05


@dataclass(frozen=True)
class Study:
    """What was put into the store."""

    path: Path
    variants: VariantTable
    frequency: np.ndarray
    scans: list[ResultTable]
    planted: dict[int, int]
    """Phenotype number to the row of its causal variant."""
    labels: np.ndarray
    affine: np.ndarray
    genes: GeneBlock | None
    """Every test of genes; those with p up to `MAX_P` are in the store."""


def gene_phenotypes():
    """Return names of the phenotypes that genes are tested with, and their annotation."""
    names = [f"C12_{k + 1}" for k in range(N_REGIONS)]
    columns = {name: [] for name in ("modality", "atlas", "side", "region", "measurement", "category")}
    for k in range(N_REGIONS):
        row = ("structural MRI", "sc", "left" if k % 4 < 2 else "right", f"part {k // 4}", "volume", "grey matter")
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)
    for k, measure in enumerate(("FA", "MD", "ICVF", "OD")):
        for side in ("left", "right"):
            names.append(f"TBSS_{measure}_tract_{k}+crus_({side})")
            row = ("dMRI", "TBSS", side, f"tract {k}", measure, "white matter")
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return np.array(names), {name: np.array(values) for name, values in columns.items()}


def make_genes(rng):
    """Return all tests: 60 genes, most in every tissue; LOCUS1 raises regions 3 and 4, LOCUS2 lowers dMRI measures."""
    names, columns = gene_phenotypes()
    pairs = [(g, t) for t in range(len(TISSUES)) for g in range(N_GENES) if g < 3 or rng.random() < 0.85]
    gene, tissue = (np.array(column) for column in zip(*pairs, strict=True))
    z = rng.standard_normal((len(pairs), names.size))
    z[np.ix_(gene == 1, [2, 3])] += 7.0
    z[np.ix_(gene == 2, range(N_REGIONS, names.size))] -= 4.0
    z[np.ix_((gene == 2) & (tissue == 0), range(N_REGIONS, names.size))] -= 2.5
    row, column = np.divmod(np.arange(z.size), names.size)
    flat = z.ravel()
    r2 = rng.uniform(0.01, 0.6, len(pairs))
    tests = GeneAssociations(
        np.array([f"ENSG{1_000 + 7 * g:011d}.{g % 4 + 1}" for g in range(N_GENES)]),
        np.array([f"LOCUS{g}" if g % 13 else "" for g in range(N_GENES)]),
        np.array(TISSUES),
        names,
        gene[row],
        tissue[row],
        column,
        flat,
        flat / 25,
        neg_log10_p_from_z(flat),
        r2[row],
    )
    counted = np.array([[int((tissue == t).sum()) for t in range(len(TISSUES))]] * names.size)
    return GeneBlock(tests, counted, gene, tissue, r2, {}, {}), PhenotypeAnnotation(names, columns)


def kept_of(block: GeneBlock) -> GeneBlock:
    """Return the block with its tests of p up to `MAX_P` only; their number stays that of all."""
    kept = block.tests.neg_log10_p >= -np.log10(MAX_P)
    return GeneBlock(
        block.tests.take(kept), block.n_tested, block.model_gene, block.model_tissue, block.model_r2, {}, {}
    )


def make_variants(rng):
    chromosome = np.repeat(np.array(["1", "2", "3"]), PER_CHROMOSOME)
    position = np.concatenate([np.sort(rng.choice(60_000_000, PER_CHROMOSOME, replace=False)) + 1 for _ in range(3)])
    alleles = np.array(["A", "C", "G", "T"])
    first = rng.integers(0, 4, position.size)
    second = (first + rng.integers(1, 4, position.size)) % 4
    ids = text_array([f"rs{1000 + k}" if k % 5 else f"sim_{k}" for k in range(position.size)])
    return VariantTable(
        chromosome,
        position.astype(np.int64),
        text_array(alleles[first].tolist()),
        text_array(alleles[second].tolist()),
        ids,
        "GRCh38",
    )


def make_scan(rng, variants, frequency, *, causal=None, sign=1.0):
    z = rng.standard_normal(len(variants))
    if causal is not None:
        near = np.arange(len(variants)) - causal
        same = variants.chromosome == variants.chromosome[causal]
        z += sign * np.where(same, 9.0 * np.exp(-np.abs(near) / 4.0), 0.0)
    error = 1.0 / np.sqrt(2 * N_PEOPLE * frequency * (1 - frequency))
    return ResultTable(
        {
            "chromosome": variants.chromosome,
            "position": variants.position,
            "variant_id": variants.variant_id,
            "effect_allele": variants.effect_allele,
            "other_allele": variants.other_allele,
            "n": np.full(len(variants), N_PEOPLE),
            "beta": z * error,
            "standard_error": error,
            "neg_log10_p": neg_log10_p_from_z(z),
        }
    )


def make_brain():
    """Return an ellipsoid brain of 4 mm voxels and 12 regions in it: 3 slabs x 2 sides x front/back."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-90.0, -126.0, -72.0)
    shape = (46, 55, 46)
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    centred = (world - np.array([0.0, -18.0, 8.0])) / np.array([68.0, 86.0, 66.0])
    radius = np.sqrt((centred**2).sum(-1))
    inside = radius < 1
    template = np.where(inside, 120 + 80 * np.cos(9 * radius) + 25 * centred[..., 1], 0.0)
    slab = np.clip(((world[..., 2] + 60) // 45).astype(int), 0, 2)
    labels = 1 + slab * 4 + (world[..., 0] > 0) * 2 + (world[..., 1] > -18)
    cortex = inside & (radius > 0.55)
    return template.astype(np.float64), np.where(cortex, labels, 0).astype(np.int64), affine


def write_study(path: Path, *, seed: int = 7, brain: bool = True, genes: bool = False) -> Study:
    rng = np.random.default_rng(seed)
    variants = make_variants(rng)
    frequency = rng.uniform(0.05, 0.95, len(variants))
    template, labels, affine = make_brain()
    planted = {k: int(rng.integers(100, len(variants) - 100)) for k in range(8)}
    planted[3] = planted[2]  # one variant acts on two regions
    settings = StoreSettings(title="Synthetic study", release="test-1", species="Homo sapiens", space="MNI152")
    scans = []
    with StoreWriter(path, settings) as store:
        store.write_variants(variants, frequency, n=N_PEOPLE)
        for k in range(N_REGIONS):
            scan = make_scan(rng, variants, frequency, causal=planted.get(k), sign=-1.0 if k == 5 else 1.0)
            scans.append(scan)
            info = PhenotypeInfo(
                f"C12_{k + 1}",
                label=f"Grey matter, region {k + 1} of 12",
                modality="structural MRI",
                atlas="sc",
                scale=12,
                parcel_index=k + 1,
                category="grey matter",
                n=N_PEOPLE,
            )
            store.add_phenotype(info, scan)
        traits = np.array([f"C12_{k + 1}" for k in range(N_REGIONS)])
        h2 = np.where(np.arange(N_REGIONS) < 8, 0.45, 0.1) + rng.normal(0, 0.03, N_REGIONS)
        store.add_table(
            "heritability",
            ResultTable(
                {
                    "trait": traits,
                    "n": np.full(N_REGIONS, N_PEOPLE),
                    "h2": h2,
                    "h2_standard_error": np.full(N_REGIONS, 0.08),
                    "neg_log10_p": (h2 / 0.08) ** 2 / 4,
                    "boundary": np.zeros(N_REGIONS, dtype=bool),
                }
            ),
        )
        outcomes = np.array(["age", "memory", "reaction_time", "diagnosis", "rare_disease"])
        categories = np.array(["demographic", "cognition", "cognition", "diagnosis", "diagnosis"])
        cases = np.array([0, 0, 0, 210, 6])
        rows = N_REGIONS * outcomes.size
        z = rng.standard_normal(rows) + np.tile([-6.0, 2.5, 0.0, -4.0, 0.0], N_REGIONS)
        store.add_table(
            "associations",
            ResultTable(
                {
                    "trait": np.repeat(traits, outcomes.size),
                    "phenotype": np.tile(outcomes, N_REGIONS),
                    "category": np.tile(categories, N_REGIONS),
                    "n": np.full(rows, N_PEOPLE),
                    "n_cases": np.tile(cases, N_REGIONS),
                    "beta": z / 30,
                    "standard_error": np.full(rows, 1 / 30),
                    "r": z / 30,
                    "cohens_d": np.where(np.tile(cases, N_REGIONS) > 0, z / 14, np.nan),
                    "neg_log10_p": neg_log10_p_from_z(z),
                    "p_bonferroni": np.minimum(10 ** -neg_log10_p_from_z(z) * rows, 1.0),
                    "q_bh": np.minimum(10 ** -neg_log10_p_from_z(z) * 8, 1.0),
                }
            ),
        )
        store.add_model(
            ModelInfo(
                "diagnosis", "diagnosis", "12 regions", "balanced accuracy", 0.71, 0.66, 0.76, N_PEOPLE, 210, 5, 10
            )
        )
        block = None
        if genes:
            block, annotation = make_genes(np.random.default_rng(seed + 1))
            store.add_gene_associations([kept_of(block)], max_p=MAX_P, annotation=annotation)
        if brain:
            store.add_template(Volume(template, affine, "t1"))
            store.add_parcellation(Parcellation(labels, affine), atlas="sc", scale=12, n=N_PEOPLE)
        store.seal()
    return Study(path, variants, frequency, scans, planted, labels, affine, block)
