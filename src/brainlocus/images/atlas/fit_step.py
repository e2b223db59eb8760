"""What a running fit says of itself: the step that it begins, and the last loss it knows.

Fits call a function with a `FitStep` before every pass, iteration or epoch. They know nothing of who listens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["FitStep", "Report", "unheard"]


@dataclass(frozen=True, slots=True)
class FitStep:
    """What a fit is about to do.

    Examples
    --------
    >>> str(FitStep("pass", 7, 200, loss=0.25, total=100.0))
    'pass 7 of at most 200, relative loss 0.0500'
    >>> str(FitStep("choosing where to start"))
    'choosing where to start'
    """

    what: str
    """In words: ``pass``, ``iteration``, ``epoch``, or something that is done once."""
    number: int = 0
    """From 1; 0 for what is done once."""
    most: int = 0
    """Limit of `number`; 0 where there is none."""
    loss: float = math.nan
    """``||X - W W'X||_F^2``, the last that is known; NaN where none is."""
    total: float = 1.0
    """``||X||_F^2`` of the voxels that `loss` belongs to."""

    @property
    def relative_loss(self) -> float:
        """``||X - W W'X||_F / ||X||_F``; NaN where it is not known."""
        return math.sqrt(max(self.loss, 0.0) / self.total) if self.total > 0 else math.nan

    def __str__(self) -> str:
        text = f"{self.what} {self.number:,}" if self.number else self.what
        if self.number and self.most:
            text += f" of at most {self.most:,}"
        return text if math.isnan(self.loss) else f"{text}, relative loss {self.relative_loss:.4f}"


Report = Callable[[FitStep], None]


def unheard(step: FitStep) -> None:
    """Tell nobody."""
