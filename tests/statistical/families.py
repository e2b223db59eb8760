"""Families by gene dropping: founders' chromosomes passed on with crossovers, so that kinship is in the genotypes."""

import numpy as np


def drop_genes(rng, n_people, n_chromosomes, n_variants, *, share, size):
    """Return dosages (variants x people) and the chromosome of each variant.

    A share of the people are full sibs in families of `size`; the others are unrelated, and so are the parents, who are
    not among the people. Chromosomes are one Morgan long; variants are evenly spread and in linkage equilibrium among
    founders.
    """
    n_families = round(n_people * share / size)
    n_single = n_people - n_families * size
    blocks = []
    for _ in range(n_chromosomes):
        p = rng.uniform(0.05, 0.95, (n_variants, 1))
        parents = rng.random((2, 2, n_variants, n_families)) < p
        sibs = [sum(_gamete(rng, parent) for parent in parents) for _ in range(size)]
        blocks.append(np.hstack([rng.binomial(2, p, (n_variants, n_single)), *sibs]))
    chromosome = np.repeat([str(k + 1) for k in range(n_chromosomes)], n_variants)
    return np.concatenate(blocks).astype(np.float32), chromosome


def _gamete(rng, haplotypes):
    """Return one recombinant of each parent's two haplotypes (2 x variants x families)."""
    _, n_variants, n_families = haplotypes.shape
    strand = np.tile(rng.integers(0, 2, n_families), (n_variants, 1))
    for family, crossovers in enumerate(rng.poisson(1.0, n_families)):
        for place in rng.integers(0, n_variants, crossovers):
            strand[place:, family] ^= 1
    return np.where(strand == 0, haplotypes[0], haplotypes[1]).astype(int)


def heritable_traits(rng, dosage, causal, n_traits, h2):
    """Return people x traits whose genetic part is a sum over the causal variants, each of equal expected variance."""
    z = dosage[causal] - dosage[causal].mean(axis=1, keepdims=True)
    z /= z.std(axis=1, keepdims=True)
    genetic = z.T @ rng.normal(size=(z.shape[0], n_traits))
    genetic /= genetic.std(axis=0)
    return np.sqrt(h2) * genetic + np.sqrt(1 - h2) * rng.normal(size=genetic.shape)
