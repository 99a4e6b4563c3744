"""Analytic predictors of the output error: adjoint, sketched, covariance, corrected."""
