"""Names of the two Serve applications."""

from typing import Final

API: Final = "api"
PROJECTIONS: Final = "projections"
