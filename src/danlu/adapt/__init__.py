"""Model to model: what is done to a finished network from outside, never inside a layer."""
