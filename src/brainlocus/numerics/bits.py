"""Set bits of a word, for compiled loops.

Numba caches a compiled function by the file that it is in. A loop that calls `popcount` is compiled with it inside, so
that after a change here the caches of the modules that import it have to be removed (``__pycache__/*.nb?``).
"""

from typing import Any, no_type_check

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["popcount"]


@intrinsic
@no_type_check
def popcount(typing_context: Any, word: Any) -> Any:  # noqa: ARG001 - the signature numba asks for
    """Return the number of set bits of a uint64, in compiled code only; loops over it become vector instructions."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        function = builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(64)])
        return builder.call(function, arguments)

    return types.uint64(types.uint64), generate
