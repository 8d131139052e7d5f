"""Measures of models, as streaming sums where they can be."""
