"""One file a family of operators: forward, first-order map and Gaussian rule of each, in one place."""
