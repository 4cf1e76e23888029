"""What the clients send: arrival processes, length distributions and traces, as plain arrays."""

from simulator.workload import arrivals, lengths
from simulator.workload.blocks import Blocks
from simulator.workload.requests import ClosedLoop, Requests
from simulator.workload.streams import stream
from simulator.workload.traces import TraceFormat, read_trace

__all__ = [
    "Blocks",
    "ClosedLoop",
    "Requests",
    "TraceFormat",
    "arrivals",
    "lengths",
    "read_trace",
    "stream",
]
