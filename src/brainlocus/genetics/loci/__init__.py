"""Loci: from associated variants to independent signals."""

from brainlocus.genetics.loci.clump import ClumpResult, ClumpSettings, clump, clump_peak_bytes, pairwise_r2

__all__ = ["ClumpResult", "ClumpSettings", "clump", "clump_peak_bytes", "pairwise_r2"]
