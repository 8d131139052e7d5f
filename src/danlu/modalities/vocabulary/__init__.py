"""How a vocabulary is learned from text: one file per kind, each with `train(texts, size)` and `pieces(tokenizer)`."""
