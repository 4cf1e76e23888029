"""Where engine settings come from, in words: one list for each origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from simulator.report.block import Block
from simulator.report.text import count, seconds
from simulator.scenario.settings import Origin, Setting, Settings, Value


def settings_block(settings: Settings, of: str = "") -> Block:
    """The engine settings of a deployment by origin; keys are those of the scenario file.

    Args:
        settings: of the deployment.
        of: whose they are, where a report has several.
    """
    return _block(f"Engine settings{' of ' + of if of else ''}", {"": settings})


def shared_settings_block(sides: Mapping[str, Settings]) -> Block:
    """The same of several deployments: what they share once, then what each has of its own.

    Args:
        sides: settings by the name of the side.
    """
    return _block("Engine settings", sides)


def _block(title: str, sides: Mapping[str, Settings]) -> Block:
    first = next(iter(sides.values()))
    labels: dict[Origin, str] = {
        "engine": f"{first.engine}'s profile",
        "default": "defaults",
        "set": "set otherwise",
    }
    rows = []
    for origin, label in labels.items():
        items = {name: list(_items(s.of(origin), s)) for name, s in sides.items()}
        shared = [
            text for text in next(iter(items.values())) if all(map(_has(text), items.values()))
        ]
        if shared:
            rows.append((label, ", ".join(shared)))
        for name, texts in items.items():
            if own := [text for text in texts if text not in shared]:
                rows.append((f"{label}, {name}", ", ".join(own)))
    note = first.description or "No engine is named (engine: vllm, sglang, trtllm or a file)."
    return Block(title, (), tuple(rows), note)


def _has(text: str) -> Callable[[list[str]], bool]:
    return lambda texts: text in texts


def _items(found: tuple[Setting, ...], everything: Settings) -> Iterator[str]:
    """Each setting, those that all pools share once."""
    pools = {s.key.split(".")[1] for s in everything.values if s.key.startswith("pools.")}
    said: set[str] = set()
    for setting in found:
        *where, name = setting.key.split(".")
        text = f"{name} {_text(name, setting.value)}"
        if setting.origin == "set":
            text += f" (otherwise {_text(name, setting.otherwise)})"
        same = [s for s in found if s.key.split(".")[-1] == name and s.value == setting.value]
        if where[:1] == ["pools"] and len(same) < len(pools):
            text = f"{where[1]} {text}"
        elif where[:1] == ["routing"]:
            text = f"routing {text}"
        if text not in said:
            said.add(text)
            yield text


def _text(name: str, value: Value) -> str:
    """A value as reports print it, with its unit where the key has one."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return f"{_text(name, value[0])} to {_text(name, value[-1])}" if value else "none"
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    if name.endswith("_s"):
        return seconds(value)
    return count(value) if value == int(value) else f"{value:g}"
