"""From a case to the calls that compute it, one module a family of operators."""

from calibration.kernels.prepare import prepare

__all__ = ["prepare"]
