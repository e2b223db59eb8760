"""Heritability: the share of a trait's variance that genotyped variants explain."""

from brainlocus.genetics.heritability.greml import (
    Decomposition,
    RemlFit,
    decompose_grm,
    fit_reml,
    greml,
    greml_peak_bytes,
    restricted_log_likelihood,
)

__all__ = [
    "Decomposition",
    "RemlFit",
    "decompose_grm",
    "fit_reml",
    "greml",
    "greml_peak_bytes",
    "restricted_log_likelihood",
]
