"""Imaging genomics in one package: images, people and genomes, thousands of phenotypes at once.

Importing this module loads nothing heavy; each room is imported on first use
(``brainlocus.genetics.gwas``) or explicitly (``from brainlocus.genetics import gwas``).
"""

from importlib import import_module
from types import ModuleType

from brainlocus._version import __version__

__all__ = ["__version__"]

_ROOMS = frozenset(
    {
        "cli",
        "cohort",
        "core",
        "genetics",
        "images",
        "io",
        "numerics",
        "pipeline",
        "portal",
        "simulate",
        "store",
    }
)


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
