"""Frozen answers: tables, run folders, comparison."""
