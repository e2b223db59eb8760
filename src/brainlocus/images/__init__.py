"""From scans to numbers: structural-covariance atlas, image-derived phenotypes."""

from importlib import import_module
from types import ModuleType

__all__: list[str] = []

_STAGES = frozenset({"atlas", "idp"})


def __getattr__(name: str) -> ModuleType:
    if name in _STAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
