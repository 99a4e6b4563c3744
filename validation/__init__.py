"""Is it true? Oracles, contract tests for outsiders' laws, and the tables in the documentation; sees everything."""

ACCELSIM_SIBLING = "0.1.0"
