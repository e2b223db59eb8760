"""Genomes, and what is known about them: QC, association, heritability, loci."""

from importlib import import_module
from types import ModuleType

__all__: list[str] = []

_STAGES = frozenset({"genotypes", "gwas", "heritability", "interactions", "loci"})


def __getattr__(name: str) -> ModuleType:
    if name in _STAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
