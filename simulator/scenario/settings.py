"""Where the engine settings of a simulation come from: the engine's profile, a default, or the scenario."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Origin = Literal["engine", "default", "set"]
Value = str | float | int | bool | tuple[Any, ...] | None


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting that an engine's profile may decide.

    Attributes:
        key: of the scenario file, dotted, e.g. ``pools.decode.max_num_seqs``.
        value: what is simulated, in the unit of the file.
        origin: ``engine``: as the profile of the engine named has it; ``default``: as it is where
            nobody says anything; ``set``: neither.
        otherwise: what it would be if the scenario did not say; equals ``value`` unless ``set``.
    """

    key: str
    value: Value
    origin: Origin
    otherwise: Value


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a deployment that an engine's profile may decide.

    Attributes:
        engine: name of the engine; None where the scenario names none.
        description: of its profile, with the versions it is about.
        values: in the order of the scenario file.
    """

    engine: str | None = None
    description: str | None = None
    values: tuple[Setting, ...] = ()

    def of(self, origin: Origin) -> tuple[Setting, ...]:
        """Those of one origin."""
        return tuple(setting for setting in self.values if setting.origin == origin)

    def to_dict(self) -> dict[str, Any]:
        """The ``settings`` object of the JSON contract (docs/json.md)."""
        return {
            "engine": self.engine,
            "description": self.description,
            "values": [
                {
                    "key": s.key,
                    "value": _plain(s.value),
                    "origin": s.origin,
                    "otherwise": _plain(s.otherwise),
                }
                for s in self.values
            ],
        }


def _plain(value: Value) -> Any:
    return list(value) if isinstance(value, tuple) else value
