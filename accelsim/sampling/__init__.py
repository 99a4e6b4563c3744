"""Monte-Carlo, done well: trials, control variate, stopping on precision, agreement."""
