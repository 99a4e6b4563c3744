"""The best design under a budget: closed forms, certificate, Pareto curve."""
