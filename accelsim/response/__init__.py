"""What errors in stored weights do to the outputs, to first order: what predictors, samplers and optimizer stand on."""
