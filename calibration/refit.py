"""The bundled GPU profiles, refitted from the bundled measurements.

``python -m calibration.refit`` fits every kernel family of every measured GPU and rewrites the
``sources`` and ``kernels`` of ``hwprofiles/gpus/*.yaml``; data sheets stay as they are. A kernel
family without measurements of an operator takes the vLLM rows' parameters, and its source says so.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import hwprofiles
from calibration.profile_yaml import flow, nested
from hwprofiles import load_gpu, schema
from simulator.perf.fits.bundled import PROFILES, Job, jobs
from simulator.perf.fits.result import FitResult

FAMILIES = ("vllm", "sglang", "trtllm")
"""Kernel families of a profile, the first its default."""

ENGINES = {"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM", "nccl": "NCCL"}
STAND_IN = ("gemm", "decode_attention", "prefill_attention")
"""Operators every family needs; the default family's stand in where a family was not measured."""

ORIGIN = "rows of the aiconfigurator-core 0.12.0 operator tables (Apache-2.0)"
SETTLED = 1e-15
"""A parameter below this ended at zero [its unit]."""

REGIONS = {
    "gemm": "n and k from 1k to 60k, m up to 8192, weights over 1.5 L2",
    "decode_attention": "grouped-query, head_dim 128, KV under 2 MB or over 1.5 L2",
    "prefill_attention": "grouped-query, head_dim 128, prompts of 128 and more, no cached prefix",
    "all_reduce": "8 KB and more over NVLink, all sizes over a bus",
    "all_to_all": "all sizes",
    "moe": "even load, weights of the experts visited over 1.5 L2",
    "mla_decode": "DeepSeek-V3, context of 128 and more, latent under 2 MB or over 1.5 L2",
    "mla_prefill": "DeepSeek-V3, prompts of 128 and more, no cached prefix",
}

Block = dict[str, Any]


@dataclass(frozen=True)
class Fits:
    """All fits of a GPU: by family, operator and type."""

    found: Mapping[tuple[str, str, str], tuple[Job, FitResult]]

    @classmethod
    def of(cls, name: str, only: Iterable[str] | None = None) -> Fits:
        """Fit what the bundled rows allow.

        Args:
            name: the GPU in the measured tables.
            only: operators to fit; all of them when None.
        """
        gpu = load_gpu(PROFILES[name])
        return cls(
            {
                (job.family, job.operator, job.key): (job, job.run(gpu))
                for job in jobs(name, gpu)
                if only is None or job.operator in only
            }
        )

    def types(self, family: str, operator: str) -> list[str]:
        """Types an operator of a family was fitted in."""
        return [key for f, o, key in self.found if (f, o) == (family, operator)]


def refit(name: str, file: Path) -> str:
    """Text of a profile with its kernels fitted anew.

    Args:
        name: the GPU in the measured tables.
        file: the profile as it is.
    """
    text = file.read_text(encoding="utf-8")
    old = yaml.safe_load(text)
    fits = Fits.of(name)
    sources: dict[str, dict[str, str]] = {
        key: value for key, value in old["sources"].items() if value["kind"] != "fitted"
    }
    if "head_dim" in old["sources"]:
        sources["head_dim"] = old["sources"]["head_dim"]
    default = next(iter(old["kernels"].values()))
    kernels = {
        family: _family(family, fits, default, sources)
        for family in FAMILIES
        if any(f == family for f, _, _ in fits.found)
    }
    head = text[: text.index("sources:")]
    middle = text[text.index("\ngpu:") + 1 : text.index("\nkernels:") + 1]
    return head + _sources_text(sources) + middle + _kernels_text(kernels)


def _family(
    family: str, fits: Fits, default: Mapping[str, Any], sources: dict[str, dict[str, str]]
) -> Block:
    block: Block = {}
    for operator in (*STAND_IN, "moe", "mla_decode", "mla_prefill"):
        lender = family
        if operator in STAND_IN and "bf16" not in fits.types(family, operator):
            lender = FAMILIES[0]
        for key in fits.types(lender, operator):
            section = _section(fits, (lender, operator, key), family, sources)
            if operator == "prefill_attention":
                exponent = default[operator]["bf16"]["head_dim_exponent"]
                section["head_dim_exponent"] = exponent
            block.setdefault(operator, {})[key] = section
    reduce = {key: (family, "all_reduce", key) for key in fits.types(family, "all_reduce")}
    parts = {key: _section(fits, at, family, sources) for key, at in reduce.items()}
    block["all_reduce"] = parts if "nvlink" in parts else {"bus": parts}
    if fits.types("nccl", "all_to_all"):
        block["all_to_all"] = _section(fits, ("nccl", "all_to_all", ""), family, sources)
    block["elementwise"] = default["elementwise"]
    return block


def _section(
    fits: Fits, at: tuple[str, str, str], family: str, sources: dict[str, dict[str, str]]
) -> Block:
    """Parameters of one fit, as the file holds them; notes their source."""
    job, result = fits.found[at]
    stands = job.family != family and job.family != "nccl"
    source = "_".join(part for part in (family, job.operator, job.key) if part)
    sources[source] = {
        "kind": "assumed" if stands else "fitted",
        "text": _text(job, result, stands),
    }
    known = {f.name: f for f in schema.SECTIONS[_schema(job)]}
    block: Block = {}
    for p in result.parameters:
        value = 0.0 if abs(p.value) < SETTLED else p.value
        block[p.name] = {"value": f"{value:.5g}", "unit": p.unit, "source": source}
        if p.stderr is not None:
            block[p.name]["stderr"] = f"{min(p.stderr, known[p.name].high):.2g}"
    for key, value in result.fixed:
        if key != "head_dim_exponent":
            block[key] = {"value": f"{value:.5g}", "unit": known[key].unit, "source": source}
    error = result.held_out.mape if result.held_out.rows else result.fitted.mape
    block["error"] = {"value": f"{error:.3g}", "unit": "1", "source": source}
    if job.tuned is not None:
        block["tuned"] = [list(shape) for shape in job.tuned]
    if job.tiles is not None:
        block["tiles"] = list(job.tiles)
    block["ranges"] = {key: [int(low), int(high)] for key, low, high in result.ranges}
    if result.correlations:
        block["correlations"] = nested(result.correlations)
    return block


def _schema(job: Job) -> str:
    if job.operator != "all_reduce":
        return job.operator
    nvlink, bus = "all_reduce (nvlink)", "all_reduce (bus, per number of GPUs)"
    return nvlink if job.key == "nvlink" else bus


def _text(job: Job, result: FitResult, stands: bool) -> str:
    kernels = ", ".join(sorted(job.rows["kernel"].astype(str).unique()))
    version = str(job.rows["version"].iloc[0])
    held = result.held_out
    apart = (
        f"mean error on {held.rows} rows of groups never fitted {100 * held.mape:.1f}%"
        if held.rows
        else f"mean error {100 * result.fitted.mape:.1f}%, none held out"
    )
    first = "not measured in this engine; stands in: " if stands else ""
    return (
        f"{first}{kernels} ({ENGINES[job.family]} {version}) {ORIGIN}; {REGIONS[job.operator]}; "
        f"{result.rows:,} rows in {result.groups} groups; {apart}"
    )


def _sources_text(sources: Mapping[str, Mapping[str, str]]) -> str:
    lines = ["sources:"]
    for key, source in sources.items():
        lines += [f"  {key}:", f"    kind: {source['kind']}", "    text: >-"]
        lines += textwrap.wrap(
            " ".join(source["text"].split()), 86, initial_indent=" " * 6,
            subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return "\n".join(lines) + "\n"


def _kernels_text(kernels: Mapping[str, Block]) -> str:
    lines = ["kernels:"]
    for family, block in kernels.items():
        lines.append(f"  {family}:")
        lines += _lines(block, 4)
    return "\n".join(lines) + "\n"


def _lines(block: Mapping[str, Any], indent: int) -> list[str]:
    lines = []
    for key, value in block.items():
        start = " " * indent + f"{key}:"
        if key == "ranges":
            sizes = ", ".join(f"{name}: [{low}, {high}]" for name, (low, high) in value.items())
            lines.append(f"{start} {{{sizes}}}")
        elif key == "tiles":
            lines.append(f"{start} {value}")
        elif key == "tuned":
            shapes = ", ".join(f"[{local}, {width}]" for local, width in value)
            lines += textwrap.wrap(
                f"{key}: [{shapes}]", 98, initial_indent=" " * indent,
                subsequent_indent=" " * (indent + 2),
            )  # fmt: skip
        elif key == "correlations":
            lines.append(f"{start} {flow(value)}")
        elif "value" in value:
            parts = [
                f"value: {value['value']}",
                f'unit: "{value["unit"]}"' if value["unit"] == "1" else f"unit: {value['unit']}",
                f"source: {value['source']}",
            ]
            parts += [f"stderr: {value['stderr']}"] if "stderr" in value else []
            lines.append(f"{start} {{{', '.join(parts)}}}")
        else:
            lines += [start, *_lines(value, indent + 2)]
    return lines


def main() -> None:
    """Refit the GPUs named, or all that were measured, and rewrite their profiles."""
    folder = Path(hwprofiles.__file__).parent / "gpus"
    for name in sys.argv[1:] or PROFILES:
        file = folder / f"{PROFILES[name]}.yaml"
        file.write_text(refit(name, file), encoding="utf-8")
        print(f"refitted {file.name}")


if __name__ == "__main__":
    main()
