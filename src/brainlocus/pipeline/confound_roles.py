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
_TRAITS = "traits"


def read_roles(path: Path) -> tuple[ConfoundRole, ...]:
    """Return the columns and their roles.

    TOML: ``age = "age_at_scan"``, ``head_motion = ["motion_rest", "motion_task"]``, and a table ``[types]`` of columns
    that are ``"categorical"`` or ``"continuous"`` against their role's habit, and a table ``[traits]`` of columns with
    the role ``extra`` that are confounds of some traits only: ``field_gradient = ["T2star_*"]``. Table (.tsv, .csv):
    columns ``column``, ``role`` and, if wished, ``type`` and ``traits`` (with commas between them).

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
    types, traits = _subtable(content, _TYPES, path), _subtable(content, _TRAITS, path)
    found = []
    for role, columns in content.items():
        names = [columns] if isinstance(columns, str) else columns
        if not (isinstance(names, list) and names and all(isinstance(name, str) and name for name in names)):
            raise SchemaError(f"{path}: {role}: expected the name of a column or a list of names, found {columns!r}.")
        found += [_role(name, role, str(types.get(name, "auto")), _names(traits.get(name, [])), path) for name in names]
    for title, table in ((_TYPES, types), (_TRAITS, traits)):
        unknown = sorted(set(table) - {item.column for item in found})
        if unknown:
            hint = nearest(unknown[0], [item.column for item in found])
            raise SchemaError(f"{path}: [{title}] names {unknown[0]!r}, which has no role.{hint}")
    return tuple(found)


def _subtable(content: dict[str, Any], title: str, path: Path) -> dict[str, Any]:
    table: Any = content.pop(title, {})
    if not isinstance(table, dict):
        raise SchemaError(f"{path}: expected a table [{title}] of columns, found {table!r}.")
    return table


def _names(given: object) -> tuple[str, ...]:
    return tuple(str(name) for name in given) if isinstance(given, list) else (str(given),)


def _from_table(path: Path) -> tuple[ConfoundRole, ...]:
    table = read_arrow(path)
    for name in ("column", "role"):
        if name not in table.column_names:
            raise SchemaError(
                f"{path}: expected columns column, role and, if wished, type and traits, found "
                f"{', '.join(table.column_names[:8])}."
            )
    texts = {
        name: [str(v or "").strip() for v in table.column(name).to_pylist()]
        for name in ("column", "role", "type", "traits")
        if name in table.column_names
    }
    types, traits = (texts.get(name, [""] * table.num_rows) for name in ("type", "traits"))
    return tuple(
        _role(column, role, type_ or "auto", tuple(t.strip() for t in only.split(",") if t.strip()), path)
        for column, role, type_, only in zip(texts["column"], texts["role"], types, traits, strict=True)
    )


def _role(column: str, role: str, type_: str, traits: tuple[str, ...], path: Path) -> ConfoundRole:
    try:
        return confound_role(column, role, type_, traits)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error
