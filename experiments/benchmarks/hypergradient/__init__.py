"""What hypergradients cost and how good they are, beside the public ways of taking them.

Run with ``python -m experiments.benchmarks.hypergradient``.
"""
