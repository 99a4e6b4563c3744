"""The accelerator in time: one graph of tokens, walked by a bound, a recurrence and a discrete-event simulation."""
