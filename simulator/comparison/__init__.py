"""``compare``: disaggregate or not, answered by two runs on the same requests."""

from simulator.comparison.paired import (
    TWINS,
    Candidate,
    Comparison,
    Progress,
    Side,
    Twin,
    compare,
)

__all__ = ["TWINS", "Candidate", "Comparison", "Progress", "Side", "Twin", "compare"]
