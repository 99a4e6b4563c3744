"""Embedded trained networks with their data and model cards."""
