"""Layers: single-device, task-free. One Transformer, its parts, its losses, its generation."""
