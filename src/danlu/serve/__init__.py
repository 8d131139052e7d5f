"""Serving: one engine thread owns the model; the API and the terminal talk to it by queue."""
