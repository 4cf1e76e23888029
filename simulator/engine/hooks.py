"""What an instance may ask of the cluster around it."""

from __future__ import annotations

from typing import Protocol

from simulator.request import Request, State


class Hooks(Protocol):
    """Callbacks from instances to the cluster."""

    observed: bool
    """Whether ``moved`` must be called; instances skip the call when nobody listens."""

    def moved(self, t_s: float, request: Request, state: State, instance: int) -> None:
        """A request entered a state."""
        ...

    def finished(self, request: Request, t_s: float) -> None:
        """A request's last token appeared."""
        ...

    def freed(self, t_s: float) -> None:
        """KV blocks became free on a decode instance."""
        ...
