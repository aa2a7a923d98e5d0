"""Solvers: each turns rows into a mergeable statistic, and a statistic into a state that serves every alpha."""
