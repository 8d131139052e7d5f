"""Raw files become clean, distinct rows, and rows become batches."""
