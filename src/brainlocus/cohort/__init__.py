"""People x measures: preparation, harmonisation, association, signatures."""

from importlib import import_module
from types import ModuleType

__all__: list[str] = []

_STAGES = frozenset({"associate", "harmonise", "prepare", "signatures"})


def __getattr__(name: str) -> ModuleType:
    if name in _STAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
