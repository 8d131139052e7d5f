"""Why a model answers as it does: what each word adds to the number behind an answer, and whether that is so."""

from danlu.explain.explanation import Explanation, explain

__all__ = ["Explanation", "explain"]
