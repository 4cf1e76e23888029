"""What may be bought: GPU types with counts and prices, links, and limits.

An inventory file looks like this (``xpyd plan … --inventory my_cluster.yaml``)::

    name: my_cluster
    gpus:
      h100_sxm: {count: 64, node_size: 8, tp: [4, 8],
                 price: {on_demand: 2.80, reserved: 1.90}, pays: reserved}
      a100_sxm_80gb: {count: 32}
    links: [ib_ndr]
    constraints: {max_gpus: 64, max_usd_per_hour: 150}

Whatever is left out has a default: the node size of the GPU's profile, every legal TP up to it, the
price of the scenario (or of the bundled, dated example), the link of the scenario.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from hwprofiles import GpuProfile, load_gpu, load_link, load_prices
from simulator.errors import InputError, ProfileError, ScenarioError, suggest
from simulator.scenario import Scenario
from simulator.scenario.messages import explain
from simulator.scenario.values import Count, Name, PositiveReal, Real, Section
from simulator.scenario.yaml_file import read_mapping

MAX_GPUS = 64
"""GPUs of a layout at most, unless an inventory or an option says otherwise."""

DEFAULT_LINK = "ib_ndr"
"""Link of disaggregated layouts where neither scenario nor inventory names one."""

Tariff = Literal["on_demand", "reserved", "spot"]
GpuCount = Annotated[int, Field(ge=1, le=100_000)]
Tp = Annotated[int, Field(ge=1, le=1024)]


class Price(Section):
    """Prices of one GPU type by tariff [USD per GPU-hour]."""

    on_demand: Annotated[Real | None, Field(description="pay as you go")] = None
    reserved: Annotated[Real | None, Field(description="with a commitment")] = None
    spot: Annotated[Real | None, Field(description="interruptible")] = None


class GpuStock(Section):
    """GPUs of one type."""

    count: Annotated[
        GpuCount | None, Field(description="how many there are; default: no limit")
    ] = None
    node_size: Annotated[
        GpuCount | None, Field(description="GPUs of one node, the largest TP; default: profile's")
    ] = None
    tp: Annotated[
        tuple[Tp, ...] | None,
        Field(min_length=1, strict=False, description="TP degrees to consider; default: all"),
    ] = None
    price: Annotated[Price, Field(description="prices; default: the scenario's")] = Price()
    pays: Annotated[Tariff | None, Field(description="which price applies")] = None


class Constraints(Section):
    """Limits of one layout."""

    max_gpus: Annotated[Count | None, Field(description="GPUs of all types together")] = None
    max_usd_per_hour: Annotated[PositiveReal | None, Field(description="price [USD/h]")] = None


class Inventory(Section):
    """GPU types, links and limits that a plan may use."""

    name: Annotated[Name, Field(description="what reports call it")] = "inventory"
    gpus: Annotated[dict[str, GpuStock], Field(min_length=1, description="GPU types by name")]
    links: Annotated[
        tuple[Name, ...] | None,
        Field(min_length=1, strict=False, description="links to consider; default: scenario's"),
    ] = None
    constraints: Annotated[Constraints, Field(description="limits of a layout")] = Constraints()

    @classmethod
    def load(cls, name_or_path: str | Path) -> Inventory:
        """Read a bundled inventory by name (``example``), or a YAML file.

        Raises:
            ScenarioError: one sentence with file, field, what was found and what is allowed.
        """
        path = _find(name_or_path)
        return cls.from_dict(read_mapping(path), source=str(path))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, source: str = "inventory") -> Inventory:
        """An inventory from the mapping a file would hold.

        Args:
            raw: its content.
            source: what error sentences call it.

        Raises:
            ScenarioError: as in ``load``.
        """
        try:
            found = cls.model_validate(dict(raw))
        except ValidationError as error:
            raise ScenarioError(f"{source}: {_sentence(error, raw)}") from None
        found._check(source)
        return found

    @classmethod
    def of_scenario(cls, scenario: Scenario) -> Inventory:
        """The GPU types of a scenario at its prices, without a limit on their number."""
        deployment = scenario.deployment()
        gpus = {}
        for pool in deployment.pools:
            name = scenario.config.pools[pool.name].gpu
            spec = pool.gpu.name if _is_bundled(name) else name
            gpus[spec] = {"price": {"on_demand": pool.usd_per_gpu_hour}}
        return cls.from_dict({"name": scenario.name, "gpus": gpus}, source=scenario.source)

    def _check(self, source: str) -> None:
        """Names and numbers that no type can check.

        Raises:
            ScenarioError: the first mistake.
        """
        canonical: dict[str, str] = {}
        for name, stock in self.gpus.items():
            try:
                gpu = load_gpu(name)
            except ProfileError as error:
                raise ScenarioError(f"{source}: gpus.{name}: {error}") from None
            if gpu.name in canonical:
                raise ScenarioError(
                    f"{source}: gpus.{name}: found {gpu.name} twice, also as "
                    f"'{canonical[gpu.name]}'; allowed: each GPU type once."
                )
            canonical[gpu.name] = name
            _check_stock(f"{source}: gpus.{name}", stock, gpu)
        for link in self.links or ():
            try:
                load_link(link)
            except InputError as error:
                raise ScenarioError(f"{source}: links: {error}") from None

    def node_size(self, gpu: str) -> int:
        """GPUs of one node of a type: the largest tensor-parallel degree."""
        return self.gpus[gpu].node_size or int(load_gpu(gpu).gpus_per_node.value)

    def usd_per_gpu_hour(self, gpu: str, scenario: Scenario) -> float:
        """What a GPU-hour of a type costs [USD/h]: the tariff that applies, else the scenario's price.

        Raises:
            ScenarioError: there is no price for it anywhere.
        """
        stock = self.gpus[gpu]
        own: float | None = getattr(stock.price, stock.pays or "on_demand")
        if own is not None:
            return own
        name = load_gpu(gpu).name
        prices = scenario.config.prices
        if isinstance(prices, dict):
            for given, usd in prices.items():
                if load_gpu(given).name == name:
                    return usd
        book = load_prices(prices if isinstance(prices, str) else None)
        try:
            return book.usd_per_gpu_hour(name)
        except ProfileError as error:
            raise ScenarioError(
                f"inventory '{self.name}': gpus.{gpu}.price: is missing, and {error}"
            ) from None

    def links_for(self, scenario: Scenario) -> tuple[str, ...]:
        """Links of disaggregated layouts."""
        if self.links is not None:
            return tuple(dict.fromkeys(self.links))
        return (scenario.config.link.name if scenario.config.link else DEFAULT_LINK,)


def _check_stock(where: str, stock: GpuStock, gpu: GpuProfile) -> None:
    node = stock.node_size or int(gpu.gpus_per_node.value)
    for tp in stock.tp or ():
        if tp > node:
            raise ScenarioError(
                f"{where}.tp: found {tp}; allowed: at most the GPUs of one node, {node}."
            )
    tariffs = {name for name, usd in stock.price.model_dump().items() if usd is not None}
    if stock.pays is not None and stock.pays not in tariffs:
        raise ScenarioError(
            f"{where}.pays: found {stock.pays}, which has no price; "
            + (suggest(stock.pays, tariffs) if tariffs else "allowed: a tariff given in price.")
        )
    if stock.pays is None and tariffs and "on_demand" not in tariffs:
        raise ScenarioError(
            f"{where}.pays: is missing; allowed: {', '.join(sorted(tariffs))}, as there is no "
            "on_demand price."
        )


def _is_bundled(name: str) -> bool:
    return Path(name).suffix not in {".yaml", ".yml"} and len(Path(name).parts) < 2


def _sentence(error: ValidationError, raw: Mapping[str, Any]) -> str:
    """The first mistake, an unknown key before anything else."""
    unknown = [d for d in error.errors() if d["type"] == "extra_forbidden"]
    if unknown:
        path = [str(part) for part in unknown[0]["loc"]]
        return f"{'.'.join(path)}: unknown key; {suggest(path[-1], _allowed(path[:-1]))}"
    found, text = explain(error, raw)
    dotted = ".".join(found)
    return f"{dotted}: {text}" if dotted else text


def _allowed(path: list[str]) -> list[str]:
    """Keys that may stand at a path of the file."""
    sections: dict[tuple[str, ...], type[Section]] = {
        (): Inventory,
        ("constraints",): Constraints,
        ("gpus", "*"): GpuStock,
        ("gpus", "*", "price"): Price,
    }
    starred = tuple("*" if i == 1 and path[0] == "gpus" else key for i, key in enumerate(path))
    section = sections.get(starred)
    return [] if section is None else list(section.model_fields)


def inventory_names() -> list[str]:
    """Names of the bundled inventories, sorted."""
    return sorted(path.stem for path in _bundled().glob("*.yaml"))


def _bundled() -> Path:
    # packages are installed as files, so the resource is a real path
    return Path(str(files("scenarios").joinpath("inventories")))


def _find(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    names = inventory_names()
    if text in names:
        return _bundled() / f"{text}.yaml"
    path = Path(name_or_path)
    if len(path.parts) < 2 and not path.suffix and not path.exists():
        raise ScenarioError(f"{text!r} is no file and no bundled inventory; {suggest(text, names)}")
    return path
