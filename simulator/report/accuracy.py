"""``docs/accuracy.md``, made from the bundled measurements: ``python -m simulator.report.accuracy``.

Every number in it comes from ``xpyd validate`` on rows that come with the project.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from simulator.report import style
from simulator.report.block import Block
from simulator.report.operators import operator_blocks
from simulator.report.serving import serving_blocks
from simulator.report.serving_figure import serving_figure
from simulator.report.steps import step_blocks
from simulator.validation.operators.borrowing import borrowing
from simulator.validation.operators.scores import validate_tables
from simulator.validation.operators.tables import bundled_tables
from simulator.validation.steps.eager import bundled_eager, validate_eager
from simulator.validation.steps.summed import bundled_steps, validate_summed

INTRO = """# How wrong is it?

Made by `python -m simulator.report.accuracy` from the measurements that come with the project; the
same tables come from `xpyd validate` (kernels and steps) and `xpyd validate --serving` (runs).
*Never fitted* means that no row of that shape (or, for runs, of that deployment) was seen when
parameters were chosen. Tables of your own in the same schema: `xpyd validate --operators DIR`, one
`GPU_OPERATOR.parquet` each with `framework`, `latency_us` [µs] and

| operator | columns |
|---|---|
| `gemm` | `dtype, m, n, k` |
| `attn_decode` | `kv_dtype, batch, kv_len, n_heads, n_kv_heads, head_dim, window` |
| `attn_prefill` | `kv_dtype, batch, isl, n_heads, n_kv_heads, head_dim, window` |
| `comm` | `op, n_gpus, bytes` |
| `moe` | `dtype, tokens, hidden, width, topk, experts`; optional `ep` (1) and `balanced` (false: uniform routing) |
| `mla_decode`, `mla_prefill` | `kv_dtype, batch, n_heads` and `kv_len` or `isl`; DeepSeek-V3's widths |

Types are `bfloat16`, `fp8`, `fp8_block` (of `moe` also `int4_wo`), `framework` is `vllm`, `sglang`, `trtllm` or another, which
takes the kernels of the GPU's first; `window` 0 is full attention, `op` `all_reduce`.

Kernels are scored where the tables measure what a server does: weights (of experts: of those visited)
and KV over 1.5 L2 caches (or KV under 2 MB), n and k from 1k to 60k, contexts of any length (latent
attention: of 128 tokens and more), prompts of 128 tokens and more, grouped-query heads of 128, all-reduces of 8 KB and more. Outside, predictions
carry the flag *extrapolated*.
"""

WRONG = """## Where the model is wrong

- **Small tensors that stay in the L2 cache.** A benchmark that replays one buffer reads it faster than
  memory allows; a server between two such reads runs the rest of a layer. The model predicts the
  server, so it is slower than such rows, and they are not scored above.
- **Kernels chosen by shape.** Libraries switch tiles, split-K and stages from one shape to the next; a
  form of a few parameters runs through the middle. That is most of the error of GEMMs, and its sign
  changes from shape to shape, so that whole steps are better than their parts.
- **Routing.** Expert rows are scored with even loads, which the tables name exactly. A real router is
  uneven: the busiest rank and the experts visited follow from `skew`, an assumption about the model.
- **Short contexts and prompts.** Decode attention of contexts of 128 tokens and less is one kernel
  less, up to a third faster on A100 and L40S. The scores above know it; a simulated step knows its batch
  and the sum of its contexts alone and takes all for longer ones. Prompts below 128 tokens are not scored.
- **Small KV caches in memory.** The tables time decode attention with a cache in the L2 or far larger
  than it; what a server pays between the two is an interpolation.
- **SGLang's attention on A100** changes kernels with the context: 9 % in decode.
- **TensorRT-LLM's experts without a tactic.** In the tables an eighth of its bf16 and per-tensor fp8
  curves run two to seven times slower than their neighbours, for all token counts of a shape on one GPU and
  not on the other, with even loads and not with uneven ones: what its autotuner left on the default
  tactic. A served model is tuned before it serves and is predicted so; those rows are two thirds of
  the mean error, which is why the median is a third of it.
- **fp8 depends on the kernel more than on the GPU.** Two engines differ by 10 to 25 % on one shape,
  quantisation of activations included or not.
- **Chunks after a cached prefix** were measured by nobody here; they follow from the arithmetic and
  carry the flag *extrapolated*.
- **Engines that launch kernels one by one** are bound by their host; see the steps of 2023 above. Give
  `engine.host_s`, or calibrate with your own runs.
- **GPUs nobody measured** borrow efficiencies; the table above says what that costs.
"""

MADE_FROM = "Made from profiles and measurements with the fingerprint `{}`."

Section = Callable[[], str]


def markdown(block: Block) -> str:
    """A block as a Markdown table under its title."""
    header = block.header or ("",) * max(len(row) for row in block.rows)
    right = ["---"] + ["---:"] * (len(header) - 1)
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *block.rows)]
    lines.insert(1, f"|{'|'.join(right)}|")
    note = f"\n\n{block.note}" if block.note else ""
    return f"### {block.title}\n\n" + "\n".join(lines) + note


def _section(title: str, blocks: Iterable[Block]) -> str:
    return "\n\n".join((f"## {title}", *(markdown(block) for block in blocks)))


def operators_section() -> str:
    """Kernels one by one."""
    found = validate_tables(bundled_tables())
    figure = "![Measured and predicted kernels](img/accuracy_operators.png)"
    return _section("Kernels", operator_blocks(found)) + f"\n\n{figure}"


def steps_section() -> str:
    """Whole steps."""
    return _section(
        "Steps", step_blocks(validate_summed(bundled_steps()), validate_eager(bundled_eager()))
    )


def borrowing_section() -> str:
    """What borrowing efficiencies costs."""
    found = borrowing(bundled_tables())
    return _section("GPUs nobody measured", [borrowing_block(found)])


def borrowing_block(found: pd.DataFrame) -> Block:
    """What borrowing efficiencies costs, as a table.

    Args:
        found: ``simulator.validation.operators.borrowing.borrowing``.
    """
    names = {
        "gemm": "GEMM",
        "attn_decode": "decode attention",
        "attn_prefill": "prefill attention",
        "comm": "all-reduce",
        "moe": "experts",
        "mla_decode": "latent decode",
        "mla_prefill": "latent prefill",
    }
    rows = [
        (
            f"{names[str(row['operator'])]}, {row['gpu']} from {row['lender']}",
            f"{row['rows']:,}",
            f"{100 * row['mape']:.0f}",
            f"{100 * row['bias']:+.0f}",
            f"{100 * row['own_mape']:.0f}",
        )
        for _, row in found.iterrows()
    ]
    return Block(
        "One calibrated GPU predicted with the efficiencies of another",
        ("", "rows", "mean", "bias", "its own"),
        tuple(rows),
        "Relative error [%], bf16, vLLM kernels, on the GPU's own data sheet.",
    )


def serving_section() -> str:
    """Whole runs, simulated as what they were; all development rows are in docs/serving.md."""
    figure = "![Measured and simulated runs](img/accuracy_serving.png)"
    return _section("Measured serving runs", serving_blocks(_serving())) + f"\n\n{figure}"


@cache
def _serving() -> pd.DataFrame:
    from simulator.validation.serving.data import bundled_runs
    from simulator.validation.serving.predict import predict_all
    from simulator.validation.serving.runs import read_runs
    from simulator.validation.serving.scores import joined

    runs = read_runs(bundled_runs())
    return joined(runs, predict_all(runs, jobs=2))


def operators_figure(found: pd.DataFrame) -> Figure:
    """Predicted over measured against measured time, one panel an operator, cold rows.

    Args:
        found: ``validate_tables``.
    """
    kept = found[(found["region"] == "cold") & found["predicted_us"].notna()]
    operators = [
        o for o in ("gemm", "attn_decode", "attn_prefill", "comm") if o in set(found.operator)
    ]
    fig = style.figure(10.0, 2.6 * len(operators), "Predicted against measured kernels")
    axes = np.atleast_1d(np.asarray(fig.subplots(len(operators), 1, sharey=True)))
    for ax, operator in zip(axes, operators, strict=True):
        part = kept[kept["operator"] == operator]
        for fitted, colour, label in (
            (True, style.GREY, "fitted"),
            (False, style.VERMILION, "never fitted"),
        ):
            dots = part[part["fitted"] == fitted]
            if len(dots):
                ax.scatter(
                    dots["measured_us"] * 1e-6,
                    100.0 * dots["error"],
                    s=3,
                    alpha=0.35,
                    color=colour,
                    label=label,
                    linewidths=0,
                    rasterized=True,
                )
        style.dress(ax, x="measured", y="error [%]", grid="y", title=operator)
        style.time_axis(ax, part["measured_us"].min() * 1e-6, part["measured_us"].max() * 1e-6)
        ax.axhline(0.0, color=style.INK, linewidth=0.8)
        ax.set_ylim(-60, 100)
        style.legend(ax)
    return fig


SECTIONS: tuple[Section, ...] = (
    operators_section,
    steps_section,
    borrowing_section,
    serving_section,
)


def fingerprint() -> str:
    """Hash of every file of numbers the page depends on: profiles, engines, measurements."""
    simulator, hardware = resources.files("simulator"), resources.files("hwprofiles")
    folders = (
        hardware / "gpus",
        hardware / "links",
        hardware / "measurements",
        simulator / "engine_profiles",
        simulator / "validation" / "data",
    )
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.iterdir(), key=lambda f: f.name):
            if file.name.endswith((".yaml", ".parquet")):
                digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def document(sections: Iterable[Section] = SECTIONS) -> str:
    """The whole page."""
    parts = (INTRO.rstrip(), *(section() for section in sections), WRONG.rstrip())
    return "\n\n".join((*parts, MADE_FROM.format(fingerprint()))) + "\n"


if __name__ == "__main__":
    docs = Path(__file__).parents[2] / "docs"
    style.save_png(
        operators_figure(validate_tables(bundled_tables())), docs / "img" / "accuracy_operators.png"
    )
    style.save_png(serving_figure(_serving()), docs / "img" / "accuracy_serving.png")
    (docs / "accuracy.md").write_text(document(), encoding="utf-8")
