from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES: int
VERSION: int

class Plan:
    def __new__(cls, **tables: NDArray[Any]) -> Plan: ...
    def run(
        self,
        signals: tuple[NDArray[np.float32], ...],
        out: NDArray[np.float32] | None,
        lower: NDArray[np.float32] | None = None,
    ) -> int: ...
