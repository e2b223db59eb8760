"""Loci: from associated variants to independent signals."""

from brainlocus.genetics.loci.clump import ClumpResult, ClumpSettings, clump, clump_peak_bytes
from brainlocus.genetics.loci.r2 import haplotype_r2, pairwise_r2

__all__ = ["ClumpResult", "ClumpSettings", "clump", "clump_peak_bytes", "haplotype_r2", "pairwise_r2"]
