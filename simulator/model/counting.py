"""Parameters of a model by part, all of them and those one token uses."""

from __future__ import annotations

from dataclasses import dataclass, fields

from simulator.model.layers import Ffn, LayerKind, MoeFfn


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Numbers of parameters.

    Attributes:
        embedding: the input embedding: a table looked up, not a matrix multiplied.
        attention: projections of attention.
        dense_ffn: dense feed-forward networks.
        routed_experts: routed experts, their biases included.
        shared_experts: experts every token visits.
        router: routers' matrices, and gates of shared experts.
        small: norms, biases outside the experts, sinks.
        head: the LM head, where it is not the embedding.
        encoder: encoders of images, which a token of text does not use.
    """

    embedding: int
    attention: int
    dense_ffn: int
    routed_experts: int
    shared_experts: int
    router: int
    small: int
    head: int
    encoder: int

    @property
    def total(self) -> int:
        """Their sum."""
        return sum(getattr(self, part.name) for part in fields(self))


def count(
    kinds: tuple[LayerKind, ...],
    *,
    hidden: int,
    vocab: int,
    norms_per_layer: int,
    tied_embeddings: bool,
    encoder: int,
    active: bool,
) -> ParameterCount:
    """Count the parameters of a decoder.

    Args:
        kinds: its layers.
        hidden: width of the residual stream.
        vocab: rows of the embedding.
        norms_per_layer: norms of width ``hidden`` in a layer.
        tied_embeddings: the LM head is the input embedding.
        encoder: parameters of encoders of images.
        active: only what one token uses: of the routed experts those it visits.
    """
    shared = sum(k.count * k.ffn.shared(hidden) for k in kinds if isinstance(k.ffn, MoeFfn))
    router = sum(k.count * k.ffn.router(hidden) for k in kinds if isinstance(k.ffn, MoeFfn))
    return ParameterCount(
        embedding=vocab * hidden,
        attention=sum(k.count * k.attention.linear(hidden) for k in kinds),
        dense_ffn=sum(k.count * dense(k.ffn, hidden) for k in kinds),
        routed_experts=sum(k.count * experts(k.ffn, hidden, active=active) for k in kinds),
        shared_experts=shared,
        router=router,
        small=sum(k.count * small(k, hidden, norms_per_layer) for k in kinds) + hidden,
        head=0 if tied_embeddings else vocab * hidden,
        encoder=0 if active else encoder,
    )


def dense(ffn: Ffn, hidden: int) -> int:
    """Weights of a dense feed-forward network; 0 for a mixture of experts."""
    return 0 if isinstance(ffn, MoeFfn) else ffn.linear(hidden)


def experts(ffn: Ffn, hidden: int, *, active: bool) -> int:
    """Weights and biases of the routed experts, all or those a token visits."""
    if not isinstance(ffn, MoeFfn):
        return 0
    number = ffn.experts_per_token if active else ffn.experts
    return number * (ffn.expert(hidden) + ffn.expert_biases(hidden))


def small(kind: LayerKind, hidden: int, norms_per_layer: int) -> int:
    """Norms, biases and sinks of one layer."""
    return norms_per_layer * hidden + kind.attention.small(hidden) + kind.ffn.small(hidden)
