"""Solvers: rows become a mergeable statistic, and a statistic a state that serves every alpha."""
