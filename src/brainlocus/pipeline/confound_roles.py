"""Files that say what each confound is: TOML with roles and their columns, or a table with a row for each column."""

import tomllib
from pathlib import Path
from typing import Any

from brainlocus.cohort.prepare import ConfoundRole, confound_role
from brainlocus.core import FormatError, SchemaError
from brainlocus.core.errors import nearest
from brainlocus.io import read_arrow

__all__ = ["read_roles"]

_TYPES = "types"


def read_roles(path: Path) -> tuple[ConfoundRole, ...]:
    """Return the columns and their roles.

    TOML: ``age = "age_at_scan"``, ``head_motion = ["motion_rest", "motion_task"]``, and a table ``[types]`` of columns
    that are ``"categorical"`` or ``"continuous"`` against their role's habit. Table (.tsv, .csv): columns ``column``,
    ``role`` and, if wished, ``type``.

    Raises
    ------
    FormatError
        The file is absent or cannot be read.
    SchemaError
        An unknown role or type, or something other than names of columns.
    """
    if not path.is_file():
        raise FormatError(f"Confound roles: expected a file at {path}, found nothing. Check the path.")
    roles = _from_toml(path) if path.suffix.lower() == ".toml" else _from_table(path)
    if not roles:
        raise SchemaError(f"{path}: expected at least one column with a role, found none.")
    return roles


def _from_toml(path: Path) -> tuple[ConfoundRole, ...]:
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f'{path}: expected TOML such as age = "age": {error}.') from error
    types = content.pop(_TYPES, {})
    if not isinstance(types, dict):
        raise SchemaError(f"{path}: expected a table [types] of columns, found {types!r}.")
    found = []
    for role, columns in content.items():
        names = [columns] if isinstance(columns, str) else columns
        if not (isinstance(names, list) and names and all(isinstance(name, str) and name for name in names)):
            raise SchemaError(f"{path}: {role}: expected the name of a column or a list of names, found {columns!r}.")
        found += [_role(name, role, str(types.get(name, "auto")), path) for name in names]
    unknown = sorted(set(types) - {item.column for item in found})
    if unknown:
        hint = nearest(unknown[0], [item.column for item in found])
        raise SchemaError(f"{path}: [types] names {unknown[0]!r}, which has no role.{hint}")
    return tuple(found)


def _from_table(path: Path) -> tuple[ConfoundRole, ...]:
    table = read_arrow(path)
    for name in ("column", "role"):
        if name not in table.column_names:
            raise SchemaError(
                f"{path}: expected columns column, role and, if wished, type, found "
                f"{', '.join(table.column_names[:8])}."
            )
    texts = {
        name: [str(v or "").strip() for v in table.column(name).to_pylist()]
        for name in ("column", "role", "type")
        if name in table.column_names
    }
    types = texts.get("type", [""] * table.num_rows)
    return tuple(
        _role(column, role, type_ or "auto", path)
        for column, role, type_ in zip(texts["column"], texts["role"], types, strict=True)
    )


def _role(column: str, role: str, type_: str, path: Path) -> ConfoundRole:
    try:
        return confound_role(column, role, type_)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error
