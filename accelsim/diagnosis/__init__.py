"""Why an accuracy collapsed: inputs, converters, quantization, layers, and what remedies would buy."""
