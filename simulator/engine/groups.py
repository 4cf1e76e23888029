"""What a batch reads in each attention group, and when a sequence changes its share.

A decode step reads ``S_g = Σ reads_g(L_i)`` KV tokens in group ``g``. While no sequence crosses an
edge, ``S_g`` grows by a fixed number of tokens a step: one for every sequence still below its window,
and one for every sequence of a chunk-local group. At its window's edge a sequence stops growing; with
chunk-local attention it falls back to one token where a chunk ends. Strides end at edges.
"""

from __future__ import annotations

from heapq import heappop, heappush

from simulator.kvcache import BlockLedger
from simulator.perf.table import AttentionGroupPlan, Chunks
from simulator.request import Request


class GroupTotals:
    """What a rank has computed and read so far, by attention group.

    Attributes:
        groups: the step table's groups.
        pairs: query-key pairs.
        kv_token_steps: KV tokens read.
    """

    __slots__ = ("groups", "kv_token_steps", "pairs")

    def __init__(self, groups: tuple[AttentionGroupPlan, ...]) -> None:
        self.groups = groups
        self.pairs = [0.0] * len(groups)
        self.kv_token_steps = [0] * len(groups)

    def prefilled(self, chunks: Chunks) -> None:
        """A step computed these chunks."""
        for g, group in enumerate(self.groups):
            for p, c in chunks:
                self.pairs[g] += group.pairs(p, c)
                self.kv_token_steps[g] += group.read_back(p, c)


class GroupSums(GroupTotals):
    """The same of a rank that decodes, and what its next steps read.

    Attributes:
        reads: KV tokens read in the next step, by group.
        rates: how much that grows from step to step, by group.
    """

    __slots__ = ("edges", "rates", "reads")

    def __init__(self, groups: tuple[AttentionGroupPlan, ...]) -> None:
        super().__init__(groups)
        self.reads = [0] * len(groups)
        self.rates = [0] * len(groups)
        # (step counter, admission, group, request): valid while that admission decodes
        self.edges: list[tuple[int, int, int, Request]] = []

    def join(self, r: Request, n: int, context: int) -> None:
        """A sequence decodes from step counter ``n`` on, at ``context`` tokens."""
        for g, group in enumerate(self.groups):
            self.reads[g] += group.reads(context)
            self.rates[g] += _grows(group, context)
            self._watch(r, n, g, context)

    def leave(self, context: int) -> None:
        """A sequence at ``context`` tokens stops decoding."""
        for g, group in enumerate(self.groups):
            self.reads[g] -= group.reads(context)
            self.rates[g] -= _grows(group, context)

    def _watch(self, r: Request, n: int, g: int, context: int) -> None:
        """Note when the sequence crosses its next edge in group ``g``."""
        edge = _next_edge(self.groups[g], context)
        if edge:
            heappush(self.edges, (n + edge - context, r.admission, g, r))

    def advance(self, k: int, n: int, ledger: BlockLedger | None) -> None:
        """Account for ``k`` steps that end at step counter ``n``, and cross the edges met there.

        ``ledger``, where one grows with the sequences, is told who stops growing.
        """
        for g, rate in enumerate(self.rates):
            read = k * self.reads[g] + rate * (k * (k - 1) // 2)
            self.pairs[g] += read
            self.kv_token_steps[g] += read
            self.reads[g] += k * rate
        edges = self.edges
        while edges and edges[0][0] <= n:
            _, admission, g, r = heappop(edges)
            if r.finish_n < 0 or r.admission != admission:
                continue  # evicted since, or taken back
            context = r.offset + n
            group = self.groups[g]
            if context == group.span and ledger is not None:
                ledger.stop_growing(r.offset, group.units)
            if group.local_chunk is None:
                self.rates[g] -= 1  # the window is full
            elif context > group.local_chunk and (context - 1) % group.local_chunk == 0:
                self.reads[g] -= group.local_chunk
            self._watch(r, n, g, context)

    def steps_to_edge(self, n: int) -> int:
        """Steps from counter ``n`` after which a sequence crosses an edge; a large number if none."""
        edges = self.edges
        while edges and (edges[0][3].finish_n < 0 or edges[0][3].admission != edges[0][1]):
            heappop(edges)
        return edges[0][0] - n if edges else 1 << 60


def _grows(group: AttentionGroupPlan, context: int) -> int:
    """Whether the next step of a sequence at ``context`` tokens reads one token more."""
    return int(group.window is None or context < group.window)


def _next_edge(group: AttentionGroupPlan, context: int) -> int:
    """The next context above ``context`` at which a sequence changes its share; 0: none.

    A window's edge is where it is filled. Chunk-local attention has one where the first chunk is
    filled (no more KV is kept from there on) and one where each later chunk begins.
    """
    if group.window is not None:
        return group.window if context < group.window else 0
    chunk = group.local_chunk
    if chunk is None:
        return 0
    return chunk if context < chunk else ((context - 1) // chunk + 1) * chunk + 1
