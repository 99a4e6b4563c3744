"""Searching the fields of a spec for the best trade-offs."""
