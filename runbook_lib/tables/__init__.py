"""Are the rows the same on both sides, and is anything missing? Comparisons of databases, done in the databases."""

from .compare import compare, refuse_itself
from .model import Difference, Options, Pair, Progress
from .pairing import pairs
from .result import Comparison, TableResult

__all__ = [
    "Comparison",
    "Difference",
    "Options",
    "Pair",
    "Progress",
    "TableResult",
    "compare",
    "pairs",
    "refuse_itself",
]
