"""The list of what is bundled, one link, and two profiles side by side."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from hwprofiles import gpu_names, link_names, load_gpu, load_link
from simulator.cli.app import app
from simulator.errors import InputError, ProfileError
from simulator.report.hardware_diff import diff_view, hardware_diff
from simulator.report.hardware_list import hardware_blocks, hardware_list
from simulator.report.hardware_sheet import link_report, link_view
from simulator.report.text import MISSING


def shown(view: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=1000)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def run(*args: str) -> str:
    result = CliRunner().invoke(app, ["hardware", *args])
    assert result.exit_code == 0, result.stderr
    return result.stdout


# ------------------------------------------------------------------------------- list


def test_the_list_has_every_gpu_and_link_with_the_numbers_of_its_profile() -> None:
    found = hardware_list()
    assert [g["name"] for g in found["gpus"]] == gpu_names()
    assert [link["name"] for link in found["links"]] == link_names()
    for row in found["gpus"]:
        gpu = load_gpu(row["name"])
        assert row["bf16_flops"] == gpu.bf16_flops.value
        assert row["fp4_flops"] == (None if gpu.fp4_flops is None else gpu.fp4_flops.value)
        assert row["calibrated"] is gpu.calibrated
        assert row["usd_per_gpu_hour"] is not None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_table_of_gpus_puts_the_calibrated_first_and_names_lenders() -> None:
    gpus, links = hardware_blocks(hardware_list())
    kernels = {row[0]: row[gpus.header.index("kernels")] for row in gpus.rows}
    assert [name for name, lender in kernels.items() if lender == "own"] == list(kernels)[:4]
    assert kernels["b200"] == "h200_sxm"
    rows = {row[0]: row for row in gpus.rows}
    assert rows["b200"][1:8] == (
        "192 GB", "7.70 TB/s", "2,250", "4,500", "9,000", "900 GB/s", "1000 W",
    )  # fmt: skip
    assert rows["a10g"][gpus.header.index("fp8")] == MISSING
    assert rows["a10g"][gpus.header.index("NVLink")] == MISSING
    assert links.rows[0][0] in {"nvl72", "nvlink5"}
    assert len(links.rows) == len(link_names())


def test_the_tables_fit_the_width_of_a_pipe() -> None:
    assert all(len(line) <= 110 for line in run().splitlines())


# ------------------------------------------------------------------------------- one link


def test_a_link_shows_its_parameters_and_sources() -> None:
    report = link_report("ib_hdr")
    text = shown(link_view(report))
    for row in report["parameters"]:
        assert row["name"] in text
        assert row["source_text"] in text
    assert "usable 18.25 GB/s" in text
    assert json.loads(run("IB_HDR", "--json"))["link"] == "ib_hdr"
    assert "wide-area hop" in run("wan_10ms")


# ------------------------------------------------------------------------------- diff


def test_a_profile_does_not_differ_from_itself() -> None:
    found = hardware_diff("h100", "h100_sxm")
    assert not any(row["differs"] for row in found["parameters"])
    count = len(list(load_gpu("h100").parameters()))
    assert len(found["parameters"]) == count
    assert f"{count} parameters are equal; --all shows them" in shown(diff_view(found))


def test_ratios_are_b_over_a_and_the_reverse_is_their_inverse() -> None:
    there = {row["name"]: row for row in hardware_diff("h100", "b200")["parameters"]}
    back = {row["name"]: row for row in hardware_diff("b200", "h100")["parameters"]}
    assert there["memory_bytes_per_s"]["ratio"] == pytest.approx(7.7 / 3.35)
    assert set(there) == set(back)
    for name, row in there.items():
        if row["ratio"]:
            assert back[name]["ratio"] == pytest.approx(1 / row["ratio"])


def test_what_only_one_has_is_missing_and_not_zero() -> None:
    rows = {row["name"]: row for row in hardware_diff("a100", "b200")["parameters"]}
    assert rows["fp4_flops"]["a"] is None
    assert rows["fp4_flops"]["ratio"] is None
    assert rows["fp4_flops"]["differs"]
    assert rows["fp4_flops"]["b"]["value"] == 9e15


def test_only_what_differs_is_shown_unless_all_is_asked_for() -> None:
    found = hardware_diff("h100", "h200")
    brief, full = shown(diff_view(found)), shown(diff_view(found, everything=True))
    assert "memory_bytes" in brief
    assert "tdp_w" not in brief
    assert "tdp_w" in full
    assert "parameters are equal" not in full
    for row in found["parameters"]:
        if row["differs"]:
            assert row["a"]["source_text"] in brief
            assert row["b"]["source_text"] in brief


def test_a_borrower_is_marked_in_the_comparison() -> None:
    assert "h100_pcie is not calibrated" in shown(diff_view(hardware_diff("h100", "h100_pcie")))


def test_links_compare_too() -> None:
    rows = {row["name"]: row for row in hardware_diff("ib_hdr", "ib_ndr")["parameters"]}
    assert rows["nic_bytes_per_s"]["ratio"] == 2
    assert rows["base_latency_s"]["a"]["value"] == load_link("ib_hdr").base_latency_s.value


def test_files_compare_with_names(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "hwprofiles/gpus/l40s.yaml").read_text(encoding="utf-8")
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("name: l40s", "name: mine").replace("value: 142,", "value: 71,"))
    out = json.loads(run("diff", "l40s", str(mine), "--json"))
    assert [row["name"] for row in out["parameters"] if row["differs"]] == ["sms"]
    assert (out["a"]["name"], out["b"]["name"]) == ("l40s", "mine")
    assert "parameters are equal" in run("diff", "l40s", str(mine))
    assert "tdp_w" in run("diff", "l40s", str(mine), "--all")


@pytest.mark.parametrize(
    ("names", "error", "sentence"),
    [
        (("h100", "ib_ndr"), InputError, "h100 is a GPU and ib_ndr a link; allowed: two of a kind"),
        (("h100", "h201"), ProfileError, "GPU or link 'h201' is unknown; did you mean 'h20"),
        (("h100", "none.yaml"), ProfileError, "profile file 'none.yaml' does not exist"),
    ],
)
def test_bad_comparisons_are_refused(
    names: tuple[str, str], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as refusal:
        hardware_diff(*names)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["diff", "h100"], "hardware diff: found 1 names; allowed: two."),
        (["diff", "h100", "h200", "--tp", "2"], "--tp has no effect with diff."),
        (["h100", "--all"], "--all has no effect without diff."),
        (["h100", "h200"], "found 2 names; allowed: one, or 'diff' and two of them."),
        (["ib_ndr", "--model", "llama-3.1-8b"], "--model has no effect with a link"),
    ],
)
def test_options_without_effect_are_refused(args: list[str], sentence: str) -> None:
    result = CliRunner().invoke(app, ["hardware", *args])
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_the_docs_show_the_tables_of_what_is_bundled() -> None:
    page = (Path(__file__).parents[1] / "docs" / "hardware.md").read_text(encoding="utf-8")
    gpus, links = hardware_blocks(hardware_list())
    # prices move; the page leaves them to the command
    for row in (*(row[:-1] for row in gpus.rows), *links.rows):
        assert f"| {' | '.join(row)} |" in page
