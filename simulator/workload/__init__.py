"""What the clients send: arrival processes, length distributions and traces, as plain arrays."""

from simulator.workload import arrivals, lengths
from simulator.workload.blocks import Blocks
from simulator.workload.requests import ClosedLoop, Requests
from simulator.workload.streams import stream
from simulator.workload.trace_json import TraceFile
from simulator.workload.traces import TraceFormat, read_trace, read_trace_file

__all__ = [
    "Blocks",
    "ClosedLoop",
    "Requests",
    "TraceFile",
    "TraceFormat",
    "arrivals",
    "lengths",
    "read_trace",
    "read_trace_file",
    "stream",
]
