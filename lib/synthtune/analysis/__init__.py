"""Metrics, results, figures, table, claims and report."""
