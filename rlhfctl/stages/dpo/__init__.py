"""Direct preference optimisation on comparisons."""
