"""What the ``quantization_config`` of a checkpoint means: a format for every part of the model.

The methods are those of the checkpoints that serving engines load: fp8 and fbgemm_fp8,
compressed-tensors, NVIDIA ModelOpt, mxfp4, AWQ and GPTQ. Modules a file excludes stay in 16 bits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from simulator.errors import suggest
from simulator.model.families import Layers
from simulator.model.formats import FORMAT_BITS, Format, Quantization
from simulator.model.layers import DenseFfn, MoeFfn
from simulator.model.patterns import Patterns
from simulator.model.reader import ConfigReader

_PREFIXES = ("model.layers.", "language_model.model.layers.", "model.language_model.layers.")
"""What a layer's modules are called after, alone and inside a multimodal model."""

Aliases = tuple[tuple[str, ...], ...]
"""The matrices of a part that stand for it, each by the names checkpoints give it."""

_ATTENTION: Aliases = (
    ("self_attn.q_proj", "self_attn.q_b_proj", "self_attn.qkv_proj"),
    ("self_attn.o_proj",),
)
_DENSE: Aliases = (
    ("mlp.gate_proj", "mlp.gate_up_proj", "feed_forward.gate_proj"),
    ("mlp.down_proj", "feed_forward.down_proj"),
)
_SHARED: Aliases = tuple(
    tuple(f"{block}.{matrix}" for block in blocks)
    for blocks in (("mlp.shared_experts", "mlp.shared_expert", "feed_forward.shared_expert"),)
    for matrix in ("gate_proj", "down_proj")
)
_EXPERTS: Aliases = (
    (
        "mlp.experts.0.gate_proj",
        "feed_forward.experts.gate_up_proj",
        "block_sparse_moe.experts.0.w1",
    ),
    ("mlp.experts.0.down_proj", "feed_forward.experts.down_proj", "block_sparse_moe.experts.0.w2"),
)
GROUP, SMALL_GROUP = 128, 32
"""Weights of a group of ``int4`` and of ``int4_g32``."""

_ONLY_EXPERTS = r"re:.*mlp\.experts.*"


@dataclass(frozen=True, slots=True)
class Scheme:
    """How some modules are stored.

    Attributes:
        weights: format of their weights.
        activations: format they are multiplied with; ``"bf16"`` is weight-only.
        targets: the modules; None: every linear one.
        group: weights that share a scale, where the file says.
    """

    weights: Format
    activations: Format = "bf16"
    targets: Patterns | None = None
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Stated:
    """What a file says, in whatever words.

    Attributes:
        schemes: the first that targets a module applies to it.
        ignored: modules that stay in 16 bits.
        listed: the same as the file names them.
        kv: format of the KV cache, where the file asks for one.
    """

    schemes: tuple[Scheme, ...]
    ignored: Patterns
    listed: tuple[str, ...] = ()
    kv: Literal["bf16", "fp8"] | None = None


def quantization_of(read: ConfigReader, layers: Layers) -> Quantization:
    """Formats of the parts of a model.

    Args:
        read: the ``quantization_config``.
        layers: attention and feed-forward of every layer, in order.

    Raises:
        ModelError: a method, type or width that is not supported.
    """
    method = read.config.get("quant_method")
    if not isinstance(method, str) or method not in METHODS:
        near = (
            suggest(method, METHODS)
            if isinstance(method, str)
            else f"allowed: {', '.join(METHODS)}."
        )
        raise read.error(f"quant_method {method!r} is not supported; {near}")
    stated = METHODS[method](read)
    attention = _part(stated, [(i, _ATTENTION) for i in range(len(layers))], "attention")
    ffn = _part(
        stated,
        [
            (i, _DENSE if isinstance(ffn, DenseFfn) else _SHARED)
            for i, (_, ffn) in enumerate(layers)
            if isinstance(ffn, DenseFfn) or ffn.shared_width
        ],
        "dense and shared feed-forward",
    )
    experts = _part(
        stated,
        [(i, _EXPERTS) for i, (_, ffn) in enumerate(layers) if isinstance(ffn, MoeFfn)],
        "routed experts",
    )
    weights = ffn.format or attention.format or "bf16"
    return Quantization(
        method=method,
        weights=weights,
        experts=None if experts.format == weights else experts.format,
        attention=None if attention.format == weights else attention.format,
        activations=stated.schemes[0].activations,
        kv=stated.kv,
        ignored=stated.listed,
        notes=attention.notes + ffn.notes + experts.notes,
    )


# --- which format a part has --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    format: Format | None
    notes: tuple[str, ...] = ()


def _part(stated: Stated, modules: list[tuple[int, Aliases]], what: str) -> _Part:
    """Format of most layers of a part, and a note on the others; None where no layer has it."""
    if not modules:
        return _Part(None)
    found = Counter(_scheme(stated, layer, aliases) for layer, aliases in modules)
    (most, number), *others = found.most_common()
    notes = [
        f"{what}: {n} of {len(modules)} layers are {_format(scheme)}, "
        f"counted as {_format(most)} like the other {number}"
        for scheme, n in others
    ]
    if most is not None and most.weights == "int4" and most.group not in (None, GROUP):
        notes.append(
            f"{what}: int4 in groups of {most.group}, counted as in groups of {GROUP} "
            f"({FORMAT_BITS['int4']:.2f} bits a weight)"
        )
    return _Part(_format(most), tuple(notes))


def _format(scheme: Scheme | None) -> Format:
    return "bf16" if scheme is None else scheme.weights


def _scheme(stated: Stated, layer: int, aliases: Aliases) -> Scheme | None:
    """What the matrices of a part in one layer are stored in; None: 16 bits."""
    matrices = [
        [f"{prefix}{layer}.{alias}" for prefix in _PREFIXES for alias in matrix]
        for matrix in aliases
    ]
    if all(stated.ignored.names_any(names) for names in matrices):
        return None
    for scheme in stated.schemes:
        if scheme.targets is None or any(scheme.targets.names_any(names) for names in matrices):
            return scheme
    return None


# --- methods ------------------------------------------------------------------------------------


def _stated(
    read: ConfigReader,
    schemes: tuple[Scheme, ...],
    *keys: str,
    more: tuple[str, ...] = (),
    kv: Literal["bf16", "fp8"] | None = None,
) -> Stated:
    """The schemes, and the modules that the first of these lists excludes."""
    listed = more + _names(read, *keys)
    return Stated(schemes, Patterns(listed), listed, kv)


def _names(read: ConfigReader, *keys: str) -> tuple[str, ...]:
    """The first of these lists of patterns that is there."""
    for key in keys:
        value = read.config.get(key)
        if value is None:
            continue
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise read.error(f"{key} is {value!r}; allowed: a list of module names.")
        for name in value:
            _check_pattern(read, key, name)
        return tuple(value)
    return ()


def _check_pattern(read: ConfigReader, key: str, name: str) -> None:
    try:
        Patterns([name])
    except re.error as error:
        raise read.error(f"{key} has {name!r}, which is no regular expression.") from error


def _fp8(read: ConfigReader) -> Stated:
    blocks = read.integers("weight_block_size")
    scheme = Scheme("fp8_block" if blocks else "fp8", "fp8")
    return _stated(read, (scheme,), "modules_to_not_convert", "ignored_layers")


def _fbgemm(read: ConfigReader) -> Stated:
    return _stated(read, (Scheme("fp8", "fp8"),), "modules_to_not_convert")


def _mxfp4(read: ConfigReader) -> Stated:
    """Only the routed experts are converted, whatever else is listed."""
    scheme = Scheme("mxfp4", targets=Patterns([_ONLY_EXPERTS]))
    return _stated(read, (scheme,), "modules_to_not_convert")


def _awq(read: ConfigReader) -> Stated:
    scheme = _integers(read, read.integer("bits", default=4), read.config.get("group_size", 128))
    return _stated(read, (scheme,), "modules_to_not_convert")


def _gptq(read: ConfigReader) -> Stated:
    scheme = _integers(read, read.integer("bits"), read.config.get("group_size", 128))
    rules = read.inner("dynamic")
    skipped = [] if rules is None else [str(rule) for rule in rules.config]
    for rule in skipped:
        if not rule.startswith("-:"):
            raise read.error(f"dynamic has {rule!r}; allowed: rules that begin with '-:'.")
    patterns = tuple("re:" + rule.removeprefix("-:") for rule in skipped)
    for pattern in patterns:
        _check_pattern(read, "dynamic", pattern)
    return _stated(read, (scheme,), "modules_to_not_convert", more=patterns)


def _integers(read: ConfigReader, bits: int, group: object) -> Scheme:
    if bits not in (4, 8):
        raise read.error(f"bits is {bits}; allowed: 4, 8.")
    if isinstance(group, bool) or not isinstance(group, int):
        raise read.error(f"group_size is {group!r}; allowed: a whole number, or -1 for whole rows.")
    return Scheme(_int4(group) if bits == 4 else "int8", group=group)


def _int4(group: object) -> Format:
    """The int4 whose groups are of that size; of other sizes the common one, and a note says so."""
    return "int4_g32" if group == SMALL_GROUP else "int4"


def _modelopt(read: ConfigReader) -> Stated:
    inner = read.inner("quantization") or read
    algorithm = inner.config.get("quant_algo")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        allowed = ", ".join(sorted(_ALGORITHMS))
        raise inner.error(f"quant_algo {algorithm!r} is not supported; allowed: {allowed}.")
    kv = inner.config.get("kv_cache_quant_algo")
    return _stated(
        inner,
        (_ALGORITHMS[algorithm],),
        "exclude_modules",
        "ignore",
        kv="fp8" if kv == "FP8" else _kv_scheme(inner),
    )


_ALGORITHMS = {
    "FP8": Scheme("fp8", "fp8"),
    "FP8_PB_WO": Scheme("fp8_block", "fp8"),
    "FP8_PER_CHANNEL_PER_TOKEN": Scheme("fp8", "fp8"),
    "NVFP4": Scheme("nvfp4", "nvfp4"),
    "W4A16_AWQ": Scheme("int4"),
    "W8A16": Scheme("int8"),
}
"""Algorithms of NVIDIA ModelOpt."""


def _compressed_tensors(read: ConfigReader) -> Stated:
    groups = read.inner("config_groups")
    if groups is None or not groups.config:
        raise read.error("key 'config_groups' is missing.")
    schemes = tuple(_group(groups, name) for name in groups.config)
    return _stated(read, schemes, "ignore", kv=_kv_scheme(read))


def _group(groups: ConfigReader, name: str) -> Scheme:
    read = groups.inner(name)
    weights = None if read is None else read.inner("weights")
    if read is None or weights is None:
        raise groups.error(f"{name} has no weights.")
    inputs = read.inner("input_activations")
    group = weights.optional("group_size") if weights.config.get("group_size", -1) != -1 else None
    targets = _names(read, "targets")
    return Scheme(
        weights=_stored(weights),
        activations="bf16" if inputs is None else _stored(inputs),
        targets=Patterns(targets) if targets else None,
        group=group,
    )


def _stored(read: ConfigReader) -> Format:
    """Format of a tensor from its type, bits and group."""
    bits, kind = read.integer("num_bits"), read.config.get("type")
    if (kind, bits) == ("float", 8):
        return "fp8_block" if read.config.get("strategy") == "block" else "fp8"
    if (kind, bits) == ("float", 4):
        return "mxfp4" if read.config.get("group_size") == 32 else "nvfp4"
    if kind == "int" and bits in (4, 8):
        return _int4(read.config.get("group_size")) if bits == 4 else "int8"
    raise read.error(
        f"found type {kind!r} of {bits} bits; allowed: float 4, float 8, int 4, int 8."
    )


def _kv_scheme(read: ConfigReader) -> Literal["fp8"] | None:
    scheme = read.inner("kv_cache_scheme")
    if scheme is None:
        return None
    if (scheme.config.get("type"), scheme.config.get("num_bits")) != ("float", 8):
        raise scheme.error("only a KV cache of type float and 8 bits is supported.")
    return "fp8"


METHODS: dict[str, Callable[[ConfigReader], Stated]] = {
    "awq": _awq,
    "compressed-tensors": _compressed_tensors,
    "fbgemm_fp8": _fbgemm,
    "fp8": _fp8,
    "gptq": _gptq,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "mxfp4": _mxfp4,
}
"""Every ``quant_method`` that is understood."""
