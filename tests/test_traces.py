"""Reading traces: formats, what is refused, and the bundled one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scenarios
from simulator.errors import TraceError
from simulator.workload import read_trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
PLAIN = "arrival_s,prompt_tokens,output_tokens\n"


def write(folder: Path, text: str | bytes, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_azure_dates_become_seconds_to_a_tenth_of_a_microsecond(tmp_path: Path) -> None:
    text = f"{AZURE}2023-11-16 18:17:03.9799600,374,44\n2023-11-16 18:17:08.2945391,396,109\n"
    got = read_trace(write(tmp_path, text))
    assert got.arrival_s.tolist() == [0.0, 4.3145791]
    assert got.prompt_tokens.tolist() == [374, 396]
    assert got.output_tokens.tolist() == [44, 109]
    assert (got.stationary, got.source, got.notes) == (False, "trace.csv", ())


def test_azure_dates_with_a_time_zone_and_across_midnight(tmp_path: Path) -> None:
    text = f"{AZURE}2024-05-10 23:59:59.5+00:00,1,1\n2024-05-11 00:00:00.009930+00:00,2,2\n"
    assert read_trace(write(tmp_path, text)).arrival_s.tolist() == [0.0, 0.50993]


def test_dated_rows_out_of_order_are_sorted_stably_with_a_note(tmp_path: Path) -> None:
    rows = "2023-11-16 18:00:02,2,1\n2023-11-16 18:00:00,1,1\n2023-11-16 18:00:02,3,1\n"
    got = read_trace(write(tmp_path, AZURE + rows))
    assert got.arrival_s.tolist() == [0.0, 2.0, 2.0]
    assert got.prompt_tokens.tolist() == [1, 2, 3]
    assert "sorted" in got.notes[0]


def test_plain_csv_keeps_its_seconds(tmp_path: Path) -> None:
    got = read_trace(write(tmp_path, f"{PLAIN}0.5,10,20\n0.5,11,21\n7,12,22\n"))
    assert got.arrival_s.tolist() == [0.5, 0.5, 7.0]
    assert got.output_tokens.tolist() == [20, 21, 22]


def test_columns_in_any_order_and_ignored_ones_are_noted(tmp_path: Path) -> None:
    text = "user,output_tokens,arrival_s,prompt_tokens\na,3,0,5\n"
    got = read_trace(write(tmp_path, text))
    assert (got.prompt_tokens[0], got.output_tokens[0]) == (5, 3)
    assert got.notes == ("trace.csv: ignored columns user.",)


def test_byte_order_mark_crlf_blank_lines_and_quotes_are_fine(tmp_path: Path) -> None:
    text = '\ufeff"arrival_s", prompt_tokens,output_tokens\r\n\r\n"0", 5,6\r\n'
    assert read_trace(write(tmp_path, text)).prompt_tokens.tolist() == [5]


def test_parquet_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    frame = pd.DataFrame(
        {"arrival_s": [0.0, 1.5], "prompt_tokens": [3, 4], "output_tokens": [5, 6]}
    )
    frame.assign(hash_ids=[[1], [2]]).to_parquet(path)
    got = read_trace(path)
    assert got.arrival_s.tolist() == [0.0, 1.5]
    assert got.notes == ()
    assert got.blocks is not None
    assert [got.blocks.row(i).tolist() for i in range(2)] == [[1], [2]]


D = "2023-11-16 18:00:00"
BAD = [
    (f"{AZURE}{D},374,44\n{D},x,44\n", "line 3, column ContextTokens: found 'x'; allowed: a whole"),
    (f"{AZURE}\n{D},374,0\n", "line 3, column GeneratedTokens: found '0'; allowed: a whole number"),
    (f"{AZURE}{D},-5,44\n", "line 2, column ContextTokens: found '-5'"),
    (f"{AZURE}{D},1.5,44\n", "found '1.5'"),
    (f"{AZURE}{D},,44\n", "column ContextTokens: found nothing"),
    (f"{AZURE}{D},nan,44\n", "found 'nan'"),
    (f"{AZURE}{D},1e30,44\n", "found '1e30'"),
    (f"{AZURE}yesterday,1,44\n", "column TIMESTAMP: found 'yesterday'; allowed: a date and time"),
    (f"{AZURE}2023-13-45 18:00:00,1,44\n", "column TIMESTAMP: found '2023-13-45"),
    (f"{AZURE},1,44\n", "column TIMESTAMP: found nothing"),
    (f"{AZURE}{D},374\n", "line 2: found 2 values; allowed: 3"),
    (f"{AZURE}{D},374,44,9\n", "line 2: found 4 values; allowed: 3"),
    (f"{PLAIN}0,1,1\nabc,1,1\n", "line 3, column arrival_s: found 'abc'; allowed: a number of sec"),
    (f"{PLAIN}-1,1,1\n", "line 2, column arrival_s: found '-1'"),
    (f"{PLAIN}inf,1,1\n", "found 'inf'"),
    (f"{PLAIN}nan,1,1\n", "found 'nan'"),
    (
        f"{PLAIN}1700000000,1,1\n",
        "found '1700000000'; allowed: a number of seconds from 0 to 1e+08",
    ),
    (f"{PLAIN}0,1,1\n5,1,1\n4,1,1\n", "line 4, column arrival_s: found '4'; allowed: at least 5"),
    (
        "0,1,1\n1,1,1\n",
        "line 1: found the header '0,1,1'; allowed: a header with each of TIMESTAMP",
    ),
    ("arrival_s,prompt_tokens\n0,1\n", "line 1: found the header 'arrival_s,prompt_tokens'"),
    ("arrival_s,arrival_s,prompt_tokens,output_tokens\n0,0,1,1\n", "once"),
    ("", "the file is empty"),
    ("\n\n", "line 1: found the header ''"),
    (AZURE, "holds no request; allowed: at least one"),
    (f"{PLAIN}\n\n", "holds no request"),
    (b"\xff\xfe\x00\x01garbage\x00", "is not text"),
    (b"PAR1 and then nothing of the kind", "not a readable Parquet file"),
    (f'{PLAIN}0,"1,1\n', "line"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_a_bad_trace_is_refused_in_one_sentence(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert words in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"prompt_tokens": [1, 2]}, "found the columns prompt_tokens; allowed: arrival_s"),
        (
            {"arrival_s": [0.0, None], "prompt_tokens": [1, 2], "output_tokens": [1, 2]},
            "row 2, column arrival_s",
        ),
        (
            {"arrival_s": [0.0, 1.0], "prompt_tokens": [1.0, None], "output_tokens": [1, 2]},
            "row 2, column prompt_tokens",
        ),
        (
            {"arrival_s": [1.0, 0.5], "prompt_tokens": [1, 2], "output_tokens": [1, 2]},
            "row 2, column arrival_s: found 0.5; allowed: at least 1",
        ),
        (
            {"arrival_s": ["a", "b"], "prompt_tokens": [1, 2], "output_tokens": [1, 2]},
            "column arrival_s: found type",
        ),
        (
            {"arrival_s": [0.0], "prompt_tokens": [[1]], "output_tokens": [1]},
            "column prompt_tokens: found type list",
        ),
        (
            {"arrival_s": np.zeros(0), "prompt_tokens": np.zeros(0), "output_tokens": np.zeros(0)},
            "holds no request",
        ),
    ],
)
def test_bad_parquet_is_refused(
    tmp_path: Path, columns: dict[str, list[object]], words: str
) -> None:
    path = tmp_path / "trace.parquet"
    pd.DataFrame(columns).to_parquet(path)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert words in str(caught.value)


def test_a_format_that_is_asked_for_is_insisted_on(tmp_path: Path) -> None:
    plain = write(tmp_path, f"{PLAIN}0,1,1\n")
    assert len(read_trace(plain, "csv")) == 1
    with pytest.raises(TraceError, match=r"GeneratedTokens \(azure\) once"):
        read_trace(plain, "azure")
    with pytest.raises(TraceError, match="not a Parquet file; allowed with format 'parquet'"):
        read_trace(plain, "parquet")
    with pytest.raises(TraceError, match="found a Parquet file; allowed with format 'csv'"):
        read_trace(scenarios.trace_path("azure2023_conv"), "csv")


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nope.csv: no such trace file"):
        read_trace(tmp_path / "nope.csv")
    with pytest.raises(TraceError, match="is a directory"):
        read_trace(tmp_path)


def test_the_bundled_trace_is_whole_and_small() -> None:
    path = scenarios.trace_path("azure2023_conv")
    assert path.stat().st_size < 300_000
    got = read_trace(path)
    assert len(got) == 19_366
    assert got.arrival_s[0] == 0.0
    assert got.arrival_s[-1] == pytest.approx(3501.721937)
    # medians as published (Patel et al., Splitwise, ISCA 2024, section III): 1,020 and 129 tokens
    assert np.median(got.prompt_tokens) == 1020
    assert np.median(got.output_tokens) == 129
    assert (int(got.prompt_tokens.max()), int(got.output_tokens.max())) == (14_050, 1_000)
    assert (np.diff(got.arrival_s) >= 0).all()


def test_bundled_names() -> None:
    assert scenarios.trace_names() == ["azure2023_code", "azure2023_conv", "mooncake_conversation"]
    assert "quick_8b" in scenarios.scenario_names()
    with pytest.raises(KeyError):
        scenarios.trace_path("nope")
    with pytest.raises(KeyError):
        scenarios.scenario_path("nope")
