"""Two cohorts with planted effects: four tissues, forty genes, twelve phenotypes, gaps, and names in other orders."""

import numpy as np

from brainlocus.core import GeneMatrix

MODALITIES = ("T1", "T1", "T1", "T1", "dMRI", "dMRI", "dMRI", "dMRI", "rfMRI", "rfMRI", "rfMRI", "rfMRI")


def cohorts(seed=0, effect=2.0, tissues=3, genes=40, phenotypes=12, flipped=0.0):
    rng = np.random.default_rng(seed)
    truth = effect * rng.normal(size=(genes, phenotypes)) * (rng.uniform(size=(genes, phenotypes)) < 0.4)
    other = 0.6 * np.where(rng.uniform(size=truth.shape) < flipped, -truth, truth)
    names = np.array([f"p{k}" for k in range(phenotypes)])
    both = ([], [])
    for t in range(tissues):
        for k in range(2):
            some = rng.permutation(genes)[: genes - 4 * k]
            order = rng.permutation(phenotypes)[: phenotypes - k]
            z = (other if k else truth)[some] + rng.normal(size=(some.size, phenotypes))
            z[rng.uniform(size=z.shape) < 0.05] = np.nan
            labels = np.array([f"g{j}" for j in some])
            effects = z * rng.uniform(0.01, 0.1, (some.size, 1))
            r2 = rng.uniform(0, 0.3, some.size)
            matrix = GeneMatrix(f"t{t}", labels, labels, names[order], z[:, order], effects[:, order], r2)
            both[k].append(matrix)
    return both
