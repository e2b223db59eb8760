"""Conditions over columns, as `--where` takes them: Python's comparisons and arithmetic, and nothing else.

An expression such as ``maf >= 0.01 and info > 0.3 and chromosome != "6"`` is parsed by Python's own parser and
evaluated column by column from a list of allowed nodes, so that it can neither call nor reach anything.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from brainlocus.core.errors import SchemaError, nearest

__all__ = ["evaluate_where", "where_names"]

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_LOGIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
}
_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, np.abs),
    "log10": (1, np.log10),
    "min": (2, np.minimum),
    "max": (2, np.maximum),
    "len": (1, lambda text: np.strings.str_len(text)),
    "isnan": (1, np.isnan),
}


def where_names(expression: str) -> set[str]:
    """Return the columns that an expression reads.

    Raises
    ------
    SchemaError
        It is no expression.

    Examples
    --------
    >>> sorted(where_names("info > 0.3 and 1 < position < 100"))
    ['info', 'position']
    """
    tree = _parse(expression)
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node not in called}


def evaluate_where(expression: str, columns: Mapping[str, Shaped[np.ndarray, " rows"]]) -> Bool[np.ndarray, " rows"]:
    """Return where an expression over columns is true; comparisons with NaN are false.

    Raises
    ------
    SchemaError
        A name that is no column (with the nearest), something that is not allowed, or a result that is not true or
        false.

    Examples
    --------
    >>> columns = {"maf": np.array([0.1, 0.2]), "allele": np.array(["A", "T"])}
    >>> evaluate_where("maf > 0.01 and allele in ['A', 'C']", columns)
    array([ True, False])
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        found = _Evaluator(expression, columns).value(_parse(expression).body)
    if getattr(found, "dtype", None) != np.bool_:
        raise SchemaError(
            f"--where {expression!r}: expected a condition (true or false for every row), found a value. "
            "Compare it with something, such as > 0.3."
        )
    return np.asarray(found)


def _parse(expression: str) -> ast.Expression:
    try:
        return ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        detail = getattr(error, "msg", str(error))
        raise SchemaError(
            f"--where {expression!r}: expected an expression such as 'info > 0.3 and maf >= 0.01', found {detail}."
        ) from None


class _Evaluator:
    """Evaluates allowed nodes over columns."""

    def __init__(self, expression: str, columns: Mapping[str, Shaped[np.ndarray, " rows"]]) -> None:
        self._expression, self._columns = expression, columns

    def value(self, node: ast.expr) -> Any:
        """Return a column, a number, a text or a list."""
        match node:
            case ast.BoolOp():
                parts = [self._condition(v) for v in node.values]
                return (np.logical_and if isinstance(node.op, ast.And) else np.logical_or).reduce(parts)
            case ast.UnaryOp(op=ast.Not() | ast.Invert()):
                return ~self._condition(node.operand)
            case ast.UnaryOp(op=ast.USub()):
                return -self._number(node.operand)
            case ast.Compare():
                return self._compare(node)
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                return _ARITHMETIC[type(node.op)](self._number(node.left), self._number(node.right))
            case ast.BinOp() if type(node.op) in _LOGIC:
                return _LOGIC[type(node.op)](self._condition(node.left), self._condition(node.right))
            case ast.Call(func=ast.Name(), keywords=[]):
                return self._call(node)
            case ast.Name():
                return self._column(node.id)
            case ast.Constant() if isinstance(node.value, int | float | str):
                return node.value
            case ast.List() | ast.Tuple() | ast.Set():
                return [self.value(item) for item in node.elts]
        raise self._refused(node)

    def _column(self, name: str) -> Shaped[np.ndarray, " rows"]:
        if name not in self._columns:
            known = list(self._columns)
            raise SchemaError(
                f"--where {self._expression!r}: there is no column {name!r}.{nearest(name, known)} "
                f"Known: {', '.join(known)}."
            )
        return self._columns[name]

    def _condition(self, node: ast.expr) -> Any:
        found = self.value(node)
        if getattr(found, "dtype", None) != np.bool_:
            raise SchemaError(
                f"--where {self._expression!r}: expected a condition at {ast.unparse(node)!r}, found a value. Put "
                "parentheses around comparisons that are joined by & or |."
            )
        return found

    def _number(self, node: ast.expr) -> Any:
        found = self.value(node)
        if _is_text(found) or isinstance(found, list):
            raise SchemaError(f"--where {self._expression!r}: expected a number at {ast.unparse(node)!r}, found text.")
        return found

    def _compare(self, node: ast.Compare) -> Any:
        left, results = self.value(node.left), []
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node)
            if isinstance(op, ast.In | ast.NotIn):
                found = self._among(left, right, node)
                results.append(~found if isinstance(op, ast.NotIn) else found)
            elif type(op) in _COMPARE:
                results.append(self._pair(op, left, right, node))
            else:
                raise self._refused(node)
            left = right
        return np.logical_and.reduce(results)

    def _among(self, left: Any, right: Any, node: ast.Compare) -> Any:
        if not isinstance(right, list):
            raise SchemaError(f"--where {self._expression!r}: expected a list after 'in', as in [1, 2].")
        if not right:
            return np.zeros(np.shape(left), dtype=bool)
        return np.logical_or.reduce([self._pair(ast.Eq(), left, item, node) for item in right])

    def _pair(self, op: ast.cmpop, left: Any, right: Any, node: ast.Compare) -> Any:
        """Compare; a whole number beside text is its digits, so that chromosome == 6 does what it says."""
        if _is_text(left) != _is_text(right):
            if isinstance(right, int) and not isinstance(right, bool):
                right = str(right)
            elif isinstance(left, int) and not isinstance(left, bool):
                left = str(left)
            else:
                raise SchemaError(
                    f"--where {self._expression!r}: {ast.unparse(node)!r} compares text with numbers. Text stands in "
                    "quotes, numbers do not."
                )
        if _is_text(left) and not isinstance(op, ast.Eq | ast.NotEq):
            raise SchemaError(
                f"--where {self._expression!r}: expected ==, != or in at {ast.unparse(node)!r}; text has no order."
            )
        return np.asarray(_COMPARE[type(op)](left, right))

    def _call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _FUNCTIONS:
            raise SchemaError(
                f"--where {self._expression!r}: there is no function {name!r}.{nearest(name, list(_FUNCTIONS))} "
                f"Known: {', '.join(sorted(_FUNCTIONS))}."
            )
        n_arguments, function = _FUNCTIONS[name]
        if len(node.args) != n_arguments:
            raise SchemaError(
                f"--where {self._expression!r}: expected {n_arguments} arguments of {name}, found {len(node.args)}."
            )
        if name == "len":
            text = self.value(node.args[0])
            if not _is_text(text):
                raise SchemaError(f"--where {self._expression!r}: len is of text, such as an allele.")
            return function(text)
        return function(*(self._number(argument) for argument in node.args))

    def _refused(self, node: ast.AST) -> SchemaError:
        return SchemaError(
            f"--where {self._expression!r}: {ast.unparse(node)!r} is not allowed. Conditions are made of columns, "
            "numbers, quoted text, comparisons, in, and, or, not, + - * / and "
            f"{', '.join(sorted(_FUNCTIONS))}."
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or getattr(getattr(value, "dtype", None), "kind", "f") in "UTO"
