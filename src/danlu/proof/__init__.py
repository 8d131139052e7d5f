"""Proofs on a tiny twin of a recipe: the same form, task, optimizer, schedule, tokenizer and adapters, made small."""
