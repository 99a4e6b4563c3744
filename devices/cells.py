"""All programming errors that a spec can name, by kind."""

from devices.levels import LevelError
from devices.programming import GaussianError, ProportionalError, StateIndependentError
from devices.state_dependent import InverseProportionalError, PolynomialError, SaturatingError, TabulatedError

PROGRAMMING_LAWS: dict[str, type[GaussianError]] = {
    law.kind: law
    for law in (
        StateIndependentError, ProportionalError, InverseProportionalError, PolynomialError, TabulatedError, SaturatingError, LevelError,
    )
}  # fmt: skip
