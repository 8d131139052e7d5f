"""What danlu teaches: lessons, and the engine of NumPy beside its own."""
