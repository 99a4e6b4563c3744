"""What one physical thing does: cells, encodings, converters; no network, no accelerator."""

ACCELSIM_SIBLING = "0.1.0"
