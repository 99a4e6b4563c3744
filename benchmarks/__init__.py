"""Speed beside the peers', measured in the same run: `python -m benchmarks`. Ratios are printed; nothing asserts a time."""
