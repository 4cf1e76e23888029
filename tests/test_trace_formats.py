"""Readers of what benchmark tools and traces write, their description, and ``xpyd trace``."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import scenarios
from simulator.cli.app import app
from simulator.errors import ScenarioError, TraceError
from simulator.scenario import Scenario
from simulator.workload import Blocks, Requests, arrivals, read_trace, read_trace_file, stream
from simulator.workload.describe import describe

DATA = Path(__file__).parent / "data" / "traces"


def rows(requests: Requests) -> list[tuple[float, int, int]]:
    columns = (requests.arrival_s, requests.prompt_tokens, requests.output_tokens)
    return [tuple(row) for row in zip(*(c.tolist() for c in columns), strict=True)]


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [
        ("azure.csv", "azure", [(0.0, 2162, 5), (0.007405, 2399, 6), (0.1104, 76, 15)]),
        ("burstgpt.csv", "burstgpt", [(5.0, 472, 18), (45.0, 1087, 230), (118.5, 417, 276)]),
        (
            "mooncake.jsonl",
            "mooncake",
            [(0.0, 1300, 52), (0.25, 1100, 7), (3.0, 1536, 210), (3.0, 1024, 33)],
        ),
        ("aiperf.jsonl", "aiperf", [(0.0, 800, 20), (1.25, 1000, 194)]),
        ("vllm.json", "vllm", [(0.0, 512, 64), (0.25, 256, 64), (0.75, 512, 40)]),
    ],
)
def test_every_format_is_told_by_its_content(
    name: str, format: Any, expected: list[tuple[float, int, int]]
) -> None:
    for asked in ("auto", format):
        found = read_trace_file(DATA / name, asked)
        assert found.format == format
        assert found.arrivals_known
        for mine, wanted in zip(rows(found.requests), expected, strict=True):
            assert mine == pytest.approx(wanted)
        assert not found.requests.stationary
    with pytest.raises(TraceError):
        read_trace(DATA / name, "parquet")
    with pytest.raises(TraceError):
        read_trace(DATA / name, "sglang")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("burstgpt.csv", ["2 of 5 requests failed"]),
        ("aiperf.jsonl", ["1 of 3 requests failed", "warm-up"]),
        ("vllm.json", ["1 of 4 requests failed", "at most 16 requests in flight"]),
        ("mooncake.jsonl", []),
    ],
)
def test_what_is_left_out_is_said(name: str, words: list[str]) -> None:
    notes = " ".join(read_trace(DATA / name).notes)
    for word in words:
        assert word in notes
    assert bool(notes) is bool(words)


def test_a_result_without_start_times_has_lengths_but_no_arrivals() -> None:
    found = read_trace_file(DATA / "sglang.jsonl")
    assert (found.format, found.arrivals_known) == ("sglang", False)
    assert found.requests.prompt_tokens.tolist() == [256, 128, 256]
    with pytest.raises(TraceError, match=r"no start_times.*workload\.lengths\.trace"):
        read_trace(DATA / "sglang.jsonl")
    raw: dict[str, Any] = {
        "name": "x",
        "model": "llama-3.1-8b",
        "workload": {
            "closed_loop": {"concurrency": 4, "requests": 40},
            "lengths": {"trace": str(DATA / "sglang.jsonl")},
        },
        "pools": {"colocated": {"gpu": "h100_sxm"}},
    }
    drawn = Scenario.from_dict(raw).requests()
    assert set(drawn.prompt_tokens.tolist()) == {128, 256}
    replay = {**raw, "workload": {"trace": {"path": str(DATA / "sglang.jsonl")}}}
    with pytest.raises(ScenarioError, match=r"workload\.trace: .*no start_times"):
        Scenario.from_dict(replay).requests()


def test_a_pretty_printed_result_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "pretty.json"
    path.write_text(json.dumps(json.loads((DATA / "vllm.json").read_text()), indent=2))
    assert rows(read_trace(path)) == rows(read_trace(DATA / "vllm.json"))


M = '{"timestamp": 0, "input_length": 5, "output_length": 2, "hash_ids": [1]}\n'
A = (
    '{"metadata": {"request_start_ns": 5}, "metrics": {"input_sequence_length": {"value": 5}, '
    '"output_sequence_length": {"value": 2}}}\n'
)
BAD = [
    (M + "{\n", "line 2: is not JSON"),
    (M + "[1]\n", "line 2: found a list; allowed: an object"),
    (M + M.replace("5", "0"), "line 2, input_length: found 0; allowed: a whole number from 1"),
    (M + M.replace("5", "2.5"), "line 2, input_length: found 2.5"),
    (M + M.replace('"output_length": 2, ', ""), "line 2, output_length: found nothing"),
    (M + M.replace("[1]", '["a"]'), "line 2, hash_ids: found a list; allowed: a list of whole"),
    (M + M.replace(', "hash_ids": [1]', ""), "line 2, hash_ids: found nothing"),
    (M.replace("0", "9") + M, "line 2, timestamp: found 0; allowed: milliseconds from 9"),
    (M.replace(": 0", ': "0"'), 'line 1, timestamp: found "0"'),
    (M.replace(": 0", ": 1e300"), "line 1, timestamp: found 1e+300"),
    (M.replace(": 5", ": true"), "line 1, input_length: found true"),
    (A + A.replace('"value": 5', '"value": null'), "line 2, metrics.input_sequence_length.value"),
    (A + A.replace('"metrics"', '"m"'), "line 2, metrics: found nothing; allowed: an object"),
    (A.replace("5}", '"x"}', 1), 'metadata.request_start_ns: found "x"'),
    (A.replace('{"metadata"', '{"error": {}, "metadata"'), "holds no request"),
    ('{"experiments": []}', "genai-perf"),
    ('{"total_input_tokens": 3, "duration": 1}', "with totals only"),
    ('{"foo": 1}', "found the keys foo; allowed: those of a Mooncake trace"),
    ('{"input_lens": [1], "output_lens": [1, 2]}', "output_lens: found a list; allowed: 1 entries"),
    ('{"input_lens": [1], "output_lens": 3}', "output_lens: found 3; allowed: a list"),
    (
        '{"input_lens": [1], "output_lens": [1], "start_times": ["x"]}',
        'request 1, start_times: found "x"',
    ),
    ('{"input_lens": [0], "output_lens": [1]}', "request 1, input_lens: found 0"),
    (
        '{"input_lens": [1], "output_lens": [1]}\n{"input_lens": [1], "output_lens": [1]}\n',
        "line 2: found a second benchmark result",
    ),
    ("{", "line 1: is not JSON"),
    ("Timestamp,Request tokens,Response tokens\n5,0,0\n", "all 1 requests failed"),
    ("Timestamp,Request tokens,Response tokens\n5,-1,2\n", "column Request tokens: found '-1'"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "trace.any"
    path.write_text(text)
    with pytest.raises(TraceError) as caught:
        read_trace_file(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert words in sentence
    assert "\n" not in sentence


# --- blocks -------------------------------------------------------------------------------------


def test_the_ideal_hit_worked_by_hand() -> None:
    blocks = read_trace(DATA / "mooncake.jsonl").blocks
    assert blocks is not None
    prompt = np.array([1300, 1100, 1536, 1024])
    # 0,1 of the second; 0 of the third; 0,1 of the fourth, whose last token is computed anyway
    assert blocks.ideal_hit_tokens(prompt).tolist() == [0, 1024, 512, 1023]


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=12))
@settings(max_examples=80, deadline=None)
def test_blocks_keep_their_rows(listed: list[list[int]]) -> None:
    blocks = Blocks.of(listed, 4)
    assert [blocks.row(i).tolist() for i in range(len(blocks))] == listed
    order = np.arange(len(listed))[::-1]
    picked = blocks.rows(order)
    assert [picked.row(i).tolist() for i in range(len(picked))] == listed[::-1]
    prompt = np.array([4 * len(row) + 1 for row in listed])
    hits = blocks.ideal_hit_tokens(prompt)
    assert (hits >= 0).all()
    assert (hits < prompt).all()
    assert hits[0] == 0


def test_cutting_keeps_the_blocks() -> None:
    whole = read_trace(scenarios.trace_path("mooncake_conversation"))
    assert whole.blocks is not None
    cut = whole.between(100.0, 200.0)
    first = int(np.searchsorted(whole.arrival_s, 100.0))
    assert cut.blocks is not None
    np.testing.assert_array_equal(cut.blocks.row(3), whole.blocks.row(first + 3))


# --- description --------------------------------------------------------------------------------


def test_a_poisson_process_looks_like_one() -> None:
    n = 20_000
    ones = np.ones(n, dtype=np.int64)
    found = describe(Requests(arrivals.poisson(n, 10.0, stream(1, "a")), ones, ones, source="x"))
    assert found.rate_rps == pytest.approx(10, rel=0.03)
    assert found.gap_cv == pytest.approx(1, rel=0.03)
    assert found.correlation is None
    for window in found.windows:
        assert window.dispersion == pytest.approx(1, abs=5 * math.sqrt(2 * window.length_s / 2000))


def test_numbers_of_a_handful_of_requests() -> None:
    arrival = np.array([0.0, 1.0, 1.0, 4.0])
    found = describe(Requests(arrival, np.array([1, 2, 3, 4]), np.array([2, 4, 6, 8]), source="x"))
    assert (found.span_s, found.rate_rps, found.same_instant) == (4.0, 0.75, pytest.approx(1 / 3))
    assert found.gap_cv == pytest.approx(np.std([1, 0, 3]) / (4 / 3))
    assert found.correlation == pytest.approx(1.0)
    assert found.windows == ()
    one = describe(Requests(np.zeros(1), np.array([7]), np.array([8]), source="x"))
    assert (one.span_s, one.rate_rps, one.gap_cv) == (None, None, None)


def test_the_published_sharing_of_the_mooncake_trace() -> None:
    found = describe(read_trace(scenarios.trace_path("mooncake_conversation")))
    assert found.sharing is not None
    assert found.sharing.hit_rate == pytest.approx(0.37, abs=0.01)
    assert found.requests == 12_031
    code = describe(read_trace(scenarios.trace_path("azure2023_code")))
    assert (code.requests, round(code.prompt_tokens["mean"])) == (8819, 2048)


# --- the command --------------------------------------------------------------------------------


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["trace", *args])


@pytest.mark.parametrize("name", sorted(p.name for p in DATA.iterdir() if p.suffix != ".md"))
def test_the_command_describes_every_format(name: str, tmp_path: Path) -> None:
    path = str(DATA / name)
    shown = run(path)
    assert shown.exit_code == 0, shown.output
    assert "requests" in shown.stdout
    answer = json.loads(run(path, "--json").stdout)
    assert answer["schema"] == 1
    assert answer["requests"] >= 2
    out = tmp_path / "out"
    assert run(path, "--out", str(out), "--quiet").exit_code == 0
    assert {"lengths.png", "trace.json", "trace.html"} <= {p.name for p in out.iterdir()}
    assert (out / "rate.png").exists() is answer["arrivals_known"]


def test_converting_gives_the_same_requests(tmp_path: Path) -> None:
    original = read_trace(DATA / "mooncake.jsonl")
    for suffix in ("parquet", "csv"):
        made = tmp_path / f"plain.{suffix}"
        done = run(str(DATA / "mooncake.jsonl"), "--convert", str(made))
        assert done.exit_code == 0, done.output
        back = read_trace(made)
        assert rows(back) == rows(original)
        if suffix == "parquet":
            assert back.blocks is not None
            assert original.blocks is not None
            np.testing.assert_array_equal(back.blocks.ids, original.blocks.ids)
            assert "hash_ids" in pd.read_parquet(made).columns
        else:
            assert "no place for the block ids" in done.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nope"], "'nope' is no file and no bundled trace"),
        (["azure2023_con"], "did you mean 'azure2023_conv'"),
        (["missing.csv"], "no such trace file"),
        (["azure2023_conv", "--format", "azur"], "did you mean 'azure'"),
        (["azure2023_conv", "--convert", "x.txt"], "found the ending '.txt'"),
        (["azure2023_conv", "--convert", "no/such/folder/x.csv"], "cannot write to --convert"),
        ([str(DATA / "sglang.jsonl"), "--convert", "x.csv"], "does not say when"),
    ],
)
def test_bad_commands_end_with_a_sentence(
    args: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*args)
    assert done.exit_code == 2
    assert words in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


def test_the_presets_are_listed() -> None:
    found = json.loads(CliRunner().invoke(app, ["presets", "--json"]).stdout)
    assert {"chat", "rag", "agentic", "long_context_128k"} <= {p["name"] for p in found}
    assert all(p["source"] for p in found)
    assert "agentic" in CliRunner().invoke(app, ["presets"]).stdout
