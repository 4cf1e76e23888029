"""A network between instances, as data."""

from __future__ import annotations

from dataclasses import dataclass

from hwprofiles.param import Param


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkProfile:
    """A link type; numeric fields are described in ``schema.LINK``.

    Attributes:
        name: canonical name.
        description: one line for reports.
        coalesced: whether a transfer engine sends one message per rank pair by default, instead
            of one per layer, K or V and block.
    """

    name: str
    description: str
    nic_bytes_per_s: Param
    efficiency: Param
    base_latency_s: Param
    message_s: Param
    coalesced: bool

    @property
    def usable_bytes_per_s(self) -> float:
        """What a long message gets: raw bandwidth times efficiency [bytes/s]."""
        return self.nic_bytes_per_s.value * self.efficiency.value
