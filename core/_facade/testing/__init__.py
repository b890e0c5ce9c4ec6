"""Tools to test a backend with.

`StrictBackend` computes with NumPy and checks every call against the contract of
`tfx.core.backend.Backend`; `tfx.testing.contract` is that contract, as code.
"""

from tfx.testing.contract import ContractError
from tfx.testing.strict import StrictBackend

__all__ = ["ContractError", "StrictBackend"]
