"""How raw values become sequences and back: one file per modality."""
