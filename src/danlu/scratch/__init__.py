"""A neural network from nothing but NumPy.

Read tensor, module, linear, activations, losses, optim, classify; then norms, embedding, positions, attention, gpt.
"""
