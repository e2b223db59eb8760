"""A study small enough for loops: genes that tissues model unequally, and tests of all of them."""

import numpy as np

from brainlocus.core import GeneAssociations
from brainlocus.numerics import neg_log10_p_from_z

TISSUES = (
    "Brain_Cortex",
    "Brain_Cerebellum",
    "Brain_Amygdala",
    "Brain_Hippocampus",
    "Liver",
    "Pituitary",
    "Whole_Blood",
)


def small_study(seed=0, genes=60, phenotypes=70, effect=2.5):
    """All tests, and which tissues model which genes."""
    rng = np.random.default_rng(seed)
    modelled = rng.uniform(size=(genes, len(TISSUES))) < rng.uniform(0.15, 0.95, genes)[:, None]
    modelled[np.arange(genes), rng.integers(0, len(TISSUES), genes)] = True
    truth = effect * rng.normal(size=(genes, phenotypes)) * (rng.uniform(size=(genes, phenotypes)) < 0.2)
    gene, tissue, phenotype = np.nonzero(np.broadcast_to(modelled[:, :, None], (*modelled.shape, phenotypes)))
    z = truth[gene, phenotype] + 0.7 * rng.normal(size=gene.size)
    order = rng.permutation(gene.size)
    tests = GeneAssociations(
        np.array([f"ENSG{k:011d}.3" for k in range(genes)]),
        np.array([f"SYM{k}" for k in range(genes)]),
        np.array(TISSUES),
        np.array([f"p{k}" for k in range(phenotypes)]),
        gene[order].astype(np.int32),
        tissue[order].astype(np.int32),
        phenotype[order].astype(np.int32),
        z[order],
        np.full(z.size, np.nan),
        neg_log10_p_from_z(z[order]),
        np.full(z.size, np.nan),
    )
    return tests, modelled
