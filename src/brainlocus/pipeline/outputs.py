"""What a run may write: checked before it starts, so that nothing of the user's is lost or written for nothing."""

import errno
from pathlib import Path
from typing import Any

from brainlocus.core import BrainlocusError, SchemaError
from brainlocus.core.errors import nearest
from brainlocus.io import check_table_name
from brainlocus.pipeline.config import StepConfig, input_fields, kept_fields, output_fields

__all__ = ["check_outputs", "further_outputs", "is_input_error", "make_parents"]

GENOTYPE_OUTPUTS = {
    ".bed": (".bim", ".fam", ".variants.parquet"),
    ".pgen": (".pvar", ".psam", ".variants.parquet"),
    ".bgen": (".sample", ".bgen.bgi", ".variants.parquet"),
}
"""Genotype files that can be written, and what is written beside them."""

_PACKAGE = Path(__file__).parent.parent
_OUTSIDE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
}
"""Errors of the file system that say something of the place, not of us: no permission, no space, not a folder."""


def is_input_error(error: BaseException) -> bool:
    """Return whether an error is about the input (exit code 2) rather than a bug.

    A `ValueError` counts as one only where brainlocus itself raised it: one that a library raised under us is a bug.
    """
    if isinstance(error, BrainlocusError):
        return True
    if isinstance(error, OSError):
        return error.errno in _OUTSIDE
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    ours = innermost is not None and Path(innermost.tb_frame.f_code.co_filename).is_relative_to(_PACKAGE)
    return isinstance(error, ValueError) and ours


def further_outputs(config: StepConfig) -> dict[str, Path]:
    """Return what a step writes besides ``--out``, by option."""
    found = {name: getattr(config, name) for name in output_fields(type(config))}
    return {f"--{name.replace('_', '-')}": path for name, path in found.items() if path is not None}


def _inputs(config: StepConfig) -> list[Path]:
    found: list[Path] = []
    for name in input_fields(type(config)):
        value = getattr(config, name)
        if value is not None:
            found += list(value) if isinstance(value, tuple) else [value]
    return found


def _same(first: Path, second: Path) -> bool:
    if first.exists() and second.exists():
        return first.samefile(second)
    return first.resolve() == second.resolve()


def check_outputs(kind: str, config: StepConfig, out: Path, *, earlier: dict[str, Any], interrupted: bool) -> None:
    """Refuse outputs that would replace an input, one another, or a folder that brainlocus did not write.

    Parameters
    ----------
    kind
        `Step.out`.
    earlier
        Manifest of the run that wrote `out` before; empty when there was none.
    interrupted
        An interrupted run of this output is there, which may have written a further output.

    Raises
    ------
    SchemaError
        Which output, and what it would replace.
    FormatError
        The extension of a table is not one that can be written.
    """
    if kind == "table":
        check_table_name(out)
    if kind == "genotypes" and out.suffix not in GENOTYPE_OUTPUTS:
        raise SchemaError(
            f"--out {out}: expected a name ending in {', '.join(GENOTYPE_OUTPUTS)}, found "
            f"{out.suffix or 'no extension'}.{nearest(out.suffix, list(GENOTYPE_OUTPUTS))}"
        )
    if kind not in {"folder", "derivatives"} and out.is_dir():
        raise SchemaError(f"--out {out}: expected the name of a file, found a folder. Give a name in it.")
    beside = {f"--out (its {end})": out.with_suffix(end) for end in GENOTYPE_OUTPUTS.get(out.suffix, ())}
    named = {"--out": out, **(beside if kind == "genotypes" else {}), **further_outputs(config)}
    for option, path in named.items():
        for source in _inputs(config):
            if _same(path, source) or (path.is_dir() and source.resolve().is_relative_to(path.resolve())):
                raise SchemaError(
                    f"{option} {path}: this would replace the input {source}. Give another name for the output."
                )
        others = [other for other, where in named.items() if other != option and _same(path, where)]
        if others:
            raise SchemaError(f"{option} and {others[0]} name the same place, {path}. Give each its own.")
        ours = interrupted or str(path) in earlier.get("outputs", ())
        if option != "--out" and not ours and path.is_dir() and any(path.iterdir()):
            raise SchemaError(
                f"{option} {path}: expected a new or empty folder, or one written by the same command before, found "
                "something else. Give another name."
            )

    for name in kept_fields(type(config)):
        kept = getattr(config, name)
        if kept is not None and _overlap(kept.resolve(), out.resolve()):
            raise SchemaError(
                f"--{name.replace('_', '-')} {kept}: this and --out {out} lie in one another, and --out is replaced as "
                "a whole. Give a place outside."
            )


def _overlap(first: Path, second: Path) -> bool:
    return first.is_relative_to(second) or second.is_relative_to(first)


def make_parents(path: Path) -> list[Path]:
    """Make the folders above `path` and return the new ones, innermost first, to be removed if the run fails."""
    new = []
    for parent in path.parents:
        if parent.exists():
            break
        new.append(parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SchemaError(f"--out {path}: the folder {path.parent} cannot be made: {error.strerror}.") from error
    return new
