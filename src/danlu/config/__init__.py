"""What a recipe can say: one class per section, one line of documentation per key.

This is the only statement of the keys: strict reading (recipe.py), the starter recipe (`danlu init`),
and the reference pages are derived from it. Values that are measured later stay "auto" here, as written.
"""

from danlu.config.data import Data, Dedup, Split
from danlu.config.model import DIALS, PICTURED, WORDLESS, ModelSection, Tokenizer
from danlu.config.recipe import Compress, Distill, Evaluate, Recipe, Serve, System
from danlu.config.training import LENGTHS, READ_BY, Begins, Finetune, Pretrain, Train
from danlu.config.values import Auto, Positive, PositiveInt, Section

__all__ = [
    "DIALS", "LENGTHS", "PICTURED", "READ_BY", "WORDLESS", "Auto", "Begins", "Compress", "Data", "Dedup", "Distill",
    "Evaluate", "Finetune", "ModelSection", "Positive", "PositiveInt", "Pretrain", "Recipe", "Section", "Serve",
    "Split", "System", "Tokenizer", "Train",
]  # fmt: skip
