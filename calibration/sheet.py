"""The data-sheet part of a profile: what the device says of itself, a base profile's, or measured.

With a base the peaks and bandwidths are the base's, and efficiencies read as fractions of a data
sheet. Without one they are the highest rates any kernel reached here: predictions are the same, only
what a fraction is a fraction of differs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from calibration.case import Case, Work, work
from calibration.rows import TABLES
from hwprofiles import schema
from hwprofiles.param import Param, Source
from hwprofiles.profile import GpuProfile

_OWN = ("memory_bytes", "l2_bytes", "sms")
_UNITS = {row.name: row.unit for row in schema.GPU}
_GPU_NIC = 12.5e9
_CPU_NIC = 1.25e9


def provenance(data: pd.DataFrame) -> str:
    """Device, driver, torch and date of rows, in words."""
    first = data.iloc[0]
    cuda = f", CUDA {first['cuda']}" if first["cuda"] else ""
    days = sorted({str(date)[:10] for date in data["date"]})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{first['gpu']}, driver {first['driver']}{cuda}, torch {first['torch']}, {when}"


def row_work(row: dict[str, Any]) -> Work:
    """Arithmetic and traffic of a row."""
    operator = str(row["operator"])
    dtype = row["attn_dtype"] if operator.startswith("attn_") else row["dtype"]
    sizes = tuple((name, row[name]) for name in TABLES[operator] if name in row)
    return work(Case(operator, str(row["kernel"]), str(dtype), sizes))


def records(data: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as mappings."""
    return [{str(name): value for name, value in row.items()} for row in data.to_dict("records")]


def with_rates(data: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``flops``, ``moved_bytes``, ``flop_rate`` and ``byte_rate`` [FLOP, bytes, /s]."""
    works = [row_work(row) for row in records(data)]
    seconds = 1e-6 * data["latency_us"].to_numpy()
    flops = [w.flops for w in works]
    moved = [w.bytes for w in works]
    return data.assign(
        flops=flops, moved_bytes=moved, flop_rate=flops / seconds, byte_rate=moved / seconds
    )


def data_sheet(data: pd.DataFrame, base: GpuProfile | None) -> dict[str, Param]:
    """Every field of ``schema.GPU`` that is known, in its order.

    Args:
        data: rows of one device.
        base: a profile of the same kind of GPU; None: peaks and bandwidths are those seen.
    """
    found = _own(data)
    found |= _of_base(base) if base is not None else _measured(with_rates(data), data)
    return {row.name: found[row.name] for row in schema.GPU if row.name in found}


def _own(data: pd.DataFrame) -> dict[str, Param]:
    first, where = data.iloc[0], provenance(data)
    cpu = first["kind"] == "cpu"
    source = Source("measured", f"{where}: as the device reports it")
    threads = Source("measured", f"{where}: threads torch computes with") if cpu else source
    values = {
        "memory_bytes": (first["memory_bytes"], source),
        "l2_bytes": (first["cache_bytes"], source),
        "sms": (first["sms"], threads),
    }
    return {name: Param(float(v), _UNITS[name], s) for name, (v, s) in values.items()}


def _of_base(base: GpuProfile) -> dict[str, Param]:
    found: dict[str, Param] = {}
    for row in schema.GPU:
        param = getattr(base, row.name)
        if row.name not in _OWN and param is not None:
            source = Source(param.source.kind, f"as {base.name}: {param.source.text}")
            found[row.name] = replace(param, source=source)
    return found


def _measured(rates: pd.DataFrame, data: pd.DataFrame) -> dict[str, Param]:
    first, where = data.iloc[0], provenance(data)
    cpu = first["kind"] == "cpu"
    own = rates[~rates["operator"].isin(["comm", "launch"]) & ~_between_devices(rates)]
    cold = own[~own["l2_warm"].fillna(False).astype(bool)]
    seen = Source("measured", f"{where}: the highest rate of any kernel measured")
    values: dict[str, tuple[float, Source]] = {
        "memory_bytes_per_s": (_top((cold if len(cold) else own)["byte_rate"], 1e10), seen)
    }
    values |= _peaks(own, seen)
    values |= _buses(rates, values["memory_bytes_per_s"][0], where, cpu=cpu)
    nic = "10" if cpu else "100"
    rate = _CPU_NIC if cpu else _GPU_NIC
    values["nic_bytes_per_s"] = (rate, Source("assumed", f"one {nic} Gb/s NIC; not measured"))
    devices = Source("measured", f"{where}: devices seen")
    values["gpus_per_node"] = (float(first["devices"]), devices)
    values["tdp_w"] = _power(data, where, cpu=cpu)
    return {name: Param(v, _UNITS[name], source) for name, (v, source) in values.items()}


def _peaks(own: pd.DataFrame, seen: Source) -> dict[str, tuple[float, Source]]:
    """Dense peaks: fp8 lies between bf16 and twice that, or one of them was not reached."""
    eight = own[own["dtype"].eq("fp8").fillna(False).astype(bool)]
    sixteen = own.drop(eight.index)
    bf16 = _top(sixteen["flop_rate"], 1e11)
    if eight.empty:
        return {"bf16_flops": (bf16, seen)}
    fp8 = _top(eight["flop_rate"], bf16)
    bf16 = max(bf16, fp8 / 2.0)
    return {"bf16_flops": (bf16, seen), "fp8_flops": (max(fp8, bf16), seen)}


def _buses(
    rates: pd.DataFrame, memory: float, where: str, *, cpu: bool
) -> dict[str, tuple[float, Source]]:
    copies = rates[rates["operator"].eq("copy")]
    host = 0.5 * copies[copies["op"].isin(["h2d", "d2h"])]["byte_rate"]
    if cpu or host.empty:
        why = "no bus between host and device; copies within memory"
        text = f"{where}: {why}" if cpu else f"{why} stand for it; measure copy for its own"
        return {"pcie_bytes_per_s": (0.5 * memory, Source("measured" if cpu else "assumed", text))}
    pcie = float(host.max())
    source = Source("measured", f"{where}: largest copies between the device and pinned memory")
    found = {"pcie_bytes_per_s": (pcie, source)}
    peer = 0.5 * copies[copies["op"].eq("peer")]["byte_rate"]
    if len(peer) and float(peer.max()) > 1.2 * pcie:
        text = f"{where}: largest copies to another device, faster than the host's bus"
        found["nvlink_bytes_per_s"] = (float(peer.max()), Source("measured", text))
    return found


def _power(data: pd.DataFrame, where: str, *, cpu: bool) -> tuple[float, Source]:
    seen = data["power_w"].dropna()
    if len(seen):
        return float(seen.max()), Source("measured", f"{where}: highest power seen")
    return (100.0 if cpu else 300.0), Source("assumed", "a round number; only energy depends on it")


def _between_devices(rates: pd.DataFrame) -> Any:
    return rates["op"].isin(["h2d", "d2h", "peer"])


def _top(rates: pd.Series[float], default: float) -> float:
    return float(rates.max()) if len(rates) else default
