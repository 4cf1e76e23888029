"""Every number has a unit and a source; data sheets are dense; bad files are refused precisely."""

from __future__ import annotations

import copy
import pickle
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

import hwprofiles
from hwprofiles import (
    BusAllReduce,
    NvlinkAllReduce,
    Param,
    Source,
    gpu_names,
    link_names,
    load_gpu,
    load_link,
    load_prices,
    schema,
)
from simulator.errors import ProfileError

CALIBRATED = ["a100_sxm_80gb", "h100_sxm", "h200_sxm", "l40s"]
GPUS = gpu_names()
DATA = files("hwprofiles")


def bundled(name: str, folder: str = "gpus") -> dict[str, Any]:
    return copy.deepcopy(_parsed(name, folder))


@cache
def _parsed(name: str, folder: str) -> dict[str, Any]:
    loaded = yaml.safe_load(DATA.joinpath(folder, f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def saved(tmp_path: Path, data: object) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(
        yaml.dump(data, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
    )
    return file


def change(data: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """``data`` with the value at a dotted path replaced, or removed with ``...``."""
    *parents, last = path.split(".")
    place = data
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


# ------------------------------------------------------------------------------- what is bundled


def test_the_bundled_names() -> None:
    assert [name for name in GPUS if load_gpu(name).calibrated] == CALIBRATED
    asked = {"h100_pcie", "h100_nvl", "h20", "a100_sxm_40gb", "a100_pcie_80gb", "a10g", "l4", "l40"}
    asked |= {"rtx_4090", "rtx_5090", "rtx_pro_6000", "b200", "b300", "gb200_nvl72", "gh200"}
    asked |= {"mi300x", "mi325x", "mi355x"}
    assert set(GPUS) == asked | set(CALIBRATED)
    links = {"nvlink3", "nvlink", "nvlink5", "nvl72", "ib_hdr", "ib_ndr", "ib_xdr", "roce_100g"}
    links |= {"roce_200g", "roce_400g", "efa_p4d", "efa_p5", "tcp_10g", "tcp_25g", "tcp_100g"}
    links |= {"pcie4", "pcie5", "wan_1ms", "wan_10ms", "wan_50ms"}
    assert set(link_names()) == links


def test_the_public_names_exist() -> None:
    assert all(hasattr(hwprofiles, name) for name in hwprofiles.__all__)


@pytest.mark.parametrize("name", GPUS)
def test_every_parameter_has_a_unit_a_source_and_a_text(name: str) -> None:
    seen = dict(load_gpu(name).parameters())
    assert len(seen) > 30
    kinds = {"datasheet", "measured", "fitted", "borrowed", "assumed"}
    for path, param in seen.items():
        assert param.unit, path
        assert param.source.kind in kinds, path
        assert len(param.source.text) > 10, path


@pytest.mark.parametrize("name", CALIBRATED)
def test_parameters_yields_every_number_in_the_file(name: str) -> None:
    def numbers(node: object) -> int:
        if not isinstance(node, dict):
            return 0
        return 1 if "value" in node else sum(numbers(child) for child in node.values())

    assert len(list(load_gpu(name).parameters())) == numbers(bundled(name))


def test_hopper_and_ampere_have_nvlink_and_the_l40s_a_bus() -> None:
    for name in ("h100_sxm", "h200_sxm", "a100_sxm_80gb"):
        assert isinstance(load_gpu(name).family().all_reduce, NvlinkAllReduce)
    bus = load_gpu("l40s").family().all_reduce
    assert isinstance(bus, tuple)
    assert all(isinstance(entry, BusAllReduce) for entry in bus)
    assert [entry.gpus for entry in bus] == [2, 4, 8]


def test_links_are_bytes_one_way() -> None:
    gbps = {"ib_hdr": 200, "ib_ndr": 400, "ib_xdr": 800, "efa_p4d": 400 / 8, "efa_p5": 3200 / 8}
    gbps |= {f"tcp_{rate}g": rate for rate in (10, 25, 100)}
    gbps |= {f"roce_{rate}g": rate for rate in (100, 200, 400)}
    for name, rate in gbps.items():
        assert load_link(name).nic_bytes_per_s.value == rate * 1e9 / 8
    ports = (("nvlink", "h100"), ("nvlink3", "a100"), ("nvlink5", "b200"), ("nvl72", "gb200"))
    for link, gpu in ports:
        port = load_gpu(gpu).nvlink_bytes_per_s
        assert port is not None
        assert load_link(link).nic_bytes_per_s.value == port.value
    for link, gpu in (("pcie4", "l40s"), ("pcie5", "h100_pcie")):
        assert load_link(link).nic_bytes_per_s.value == load_gpu(gpu).pcie_bytes_per_s.value


@pytest.mark.parametrize("ms", [1, 10, 50])
def test_a_wide_area_hop_adds_its_distance_to_tcp(ms: int) -> None:
    hop, near = load_link(f"wan_{ms}ms"), load_link("tcp_100g")
    assert hop.base_latency_s.value == pytest.approx(ms * 1e-3 + near.base_latency_s.value)
    assert hop.usable_bytes_per_s < near.usable_bytes_per_s


@pytest.mark.parametrize(
    ("tokens", "measured_ms"),
    [(128, 0.54), (1024, 1.50), (8192, 8.84), (32768, 31.65)],
)
def test_ib_hdr_reproduces_published_transfers(tokens: int, measured_ms: float) -> None:
    # Qwen3-8B between two vLLM instances over 8 x 200 Gb/s RoCE, Mooncake connector (Apache-2.0),
    # kvcache-ai.github.io/Mooncake/performance/vllm-v1-support-benchmark.html; 147,456 B a token.
    link = load_link("ib_hdr")
    seconds = link.base_latency_s.value + tokens * 147_456 / (8 * link.usable_bytes_per_s)
    assert seconds == pytest.approx(measured_ms * 1e-3, rel=0.08)


@pytest.mark.parametrize("name", link_names())
def test_link_parameters_have_sources_and_do_not_exceed_the_port(name: str) -> None:
    link = load_link(name)
    for field in schema.LINK:
        param = getattr(link, field.name)
        assert isinstance(param, Param)
        assert param.unit == field.unit
        assert param.source.text
    assert link.usable_bytes_per_s == link.nic_bytes_per_s.value * link.efficiency.value
    assert link.usable_bytes_per_s < link.nic_bytes_per_s.value


# ------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("H100", "h100_sxm"),
        ("a100_sxm", "a100_sxm_80gb"),
        ("A100", "a100_sxm_80gb"),
        ("L40S", "l40s"),
    ],
)
def test_aliases_and_case(alias: str, name: str) -> None:
    assert load_gpu(alias).name == name


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ProfileError, match=r"GPU 'h100_smx' is unknown; did you mean 'h100_sxm'\?"):
        load_gpu("h100_smx")
    with pytest.raises(ProfileError, match=r"link 'ib_nrd' is unknown; did you mean 'ib_ndr'\?"):
        load_link("ib_nrd")
    with pytest.raises(ProfileError, match="kernels 'vlm' are unknown; did you mean 'vllm'"):
        load_gpu("h100").family("vlm")


def test_profiles_are_hashable_and_travel_to_workers() -> None:
    gpu = load_gpu("h100")
    assert pickle.loads(pickle.dumps(gpu)) == gpu
    assert hash(pickle.loads(pickle.dumps(gpu))) == hash(gpu)


# ------------------------------------------------------------------------------- own files


def test_an_own_file_loads(tmp_path: Path) -> None:
    data = change(bundled("l40s"), "name", "My_L40S")
    data = change(data, "gpu.memory_bytes.value", 24e9)
    gpu = load_gpu(saved(tmp_path, data))
    assert gpu.name == "my_l40s"
    assert gpu.memory_bytes.value == 24e9
    assert gpu.family() == load_gpu("l40s").family()


def test_bus_entries_may_come_in_any_order(tmp_path: Path) -> None:
    data = bundled("l40s")
    bus = data["kernels"]["vllm"]["all_reduce"]["bus"]
    data["kernels"]["vllm"]["all_reduce"]["bus"] = {key: bus[key] for key in ("n8", "n2", "n4")}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    assert load_gpu(file).family().all_reduce == load_gpu("l40s").family().all_reduce


def test_a_source_may_be_given_in_place(tmp_path: Path) -> None:
    source = {"kind": "measured", "text": "a card on my desk"}
    data = change(bundled("l40s"), "gpu.tdp_w.source", source)
    gpu = load_gpu(saved(tmp_path, data))
    assert gpu.tdp_w.source == Source("measured", "a card on my desk")
    assert str(gpu.tdp_w.source) == "measured: a card on my desk"


def test_an_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    # YAML 1.1 reads 33e9 as a text.
    file = saved(tmp_path, bundled("l40s"))
    text = file.read_text().replace("value: 32000000000.0", "value: 33e9")
    assert "33e9" in text
    file.write_text(text)
    assert load_gpu(file).pcie_bytes_per_s.value == 33e9


GPU_REFUSALS: list[tuple[str, object, str]] = [
    ("gpu.sms.unit", ..., "gpu.sms: key 'unit' is missing"),
    ("gpu.sms.source", ..., "gpu.sms: key 'source' is missing"),
    ("gpu.sms.source", "dtasheet", "gpu.sms.source: source 'dtasheet' is unknown; did you mean"),
    ("gpu.memory_bytes.unit", "GB", "gpu.memory_bytes.unit: found 'GB'; allowed: bytes."),
    ("gpu.sms.value", 1.5, "gpu.sms.value: found 1.5; allowed: a whole number from 1 to"),
    ("gpu.sms.value", -3, "gpu.sms.value: found -3; allowed: a whole number"),
    ("gpu.sms.value", "many", "gpu.sms.value: found 'many'; allowed: a whole number"),
    ("gpu.sms.value", True, "gpu.sms.value: found True; allowed: a whole number"),
    ("gpu.tdp_w.value", float("nan"), "gpu.tdp_w.value: found nan; allowed: a number from 1"),
    ("gpu.tdp_w.stderr", -1, "gpu.tdp_w.stderr: found -1; allowed: a number from 0"),
    ("gpu.tdp_w", ..., "gpu: key 'tdp_w' is missing"),
    ("gpu.tdp_w", 350, "gpu.tdp_w: found 350; allowed: a mapping."),
    ("gpu.cores", {}, "gpu: key 'cores' is unknown; allowed: bf16_flops"),
    ("kernals", {}, "key 'kernals' is unknown; did you mean 'kernels'"),
    ("schema", 2, "schema: found 2; allowed: a whole number from 1 to 1."),
    ("description", " ", "description: found ' '; allowed: a text that is not empty."),
    ("aliases", "l40", "aliases: found 'l40'; allowed: a list of names."),
    ("kernels", {}, "kernels: no kernel family; at least one is required (or borrow:"),
    ("kernels.vllm.gemm.bf16", ..., "kernels.vllm.gemm: key 'bf16' is missing"),
    ("kernels.vllm.gemm.fp6", {}, "kernels.vllm.gemm: key 'fp6' is unknown"),
    ("kernels.vllm.gemm.bf16.p.value", 0.5, "kernels.vllm.gemm.bf16.p.value: found 0.5; allowed"),
    ("kernels.vllm.all_reduce", {}, "kernels.vllm.all_reduce: found 0 kinds; allowed: exactly one"),
    ("kernels.vllm.all_reduce.bus", {}, "kernels.vllm.all_reduce.bus: no entry"),
    ("kernels.vllm.all_reduce.bus.n1", {}, "kernels.vllm.all_reduce.bus: key 'n1'; allowed: n2"),
    ("kernels.vllm.moe.bf16.tuned", 8, "kernels.vllm.moe.bf16.tuned: found no list; allowed: [["),
    ("kernels.vllm.moe.bf16.tuned", [[8]], "kernels.vllm.moe.bf16.tuned[0]: found no pair"),
    ("kernels.vllm.moe.bf16.tuned", [[8, 0]], "kernels.vllm.moe.bf16.tuned[0]: found 0; allowed:"),
    (
        "kernels.vllm.moe.bf16.tiles",
        [16, 8],
        "kernels.vllm.moe.bf16.tiles: found rows out of order",
    ),
    ("gpu.fp8_flops", ..., "kernels.vllm.gemm.fp8: found without gpu.fp8_flops"),
    ("sources.nic.kind", "guess", "sources.nic.kind: found 'guess'; allowed: assumed, borrowed"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), GPU_REFUSALS)
def test_a_bad_gpu_file_is_refused_in_one_sentence(
    tmp_path: Path, path: str, value: object, sentence: str
) -> None:
    file = saved(tmp_path, change(bundled("l40s"), path, value))
    with pytest.raises(ProfileError) as refusal:
        load_gpu(file)
    message = str(refusal.value)
    assert message.startswith(f"{file}: {sentence}")
    assert message.endswith(".")
    assert "\n" not in message


def test_nvlink_kernels_need_nvlink(tmp_path: Path) -> None:
    file = saved(tmp_path, change(bundled("h100_sxm"), "gpu.nvlink_bytes_per_s", ...))
    with pytest.raises(ProfileError, match=r"all_reduce\.nvlink: found without gpu\.nvlink_bytes"):
        load_gpu(file)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("link.efficiency.value", 1.2, "link.efficiency.value: found 1.2; allowed: a number from"),
        ("link.message_s", ..., "link: key 'message_s' is missing"),
        ("coalesced", "no idea", "coalesced: found 'no idea'; allowed: true, false."),
        ("kernels", {}, "key 'kernels' is unknown"),
    ],
)
def test_a_bad_link_file_is_refused(
    tmp_path: Path, path: str, value: object, sentence: str
) -> None:
    file = saved(tmp_path, change(bundled("ib_ndr", "links"), path, value))
    with pytest.raises(ProfileError) as refusal:
        load_link(file)
    assert str(refusal.value).startswith(f"{file}: {sentence}")


def test_a_file_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"profile file 'no/gpu\.yaml' does not exist"):
        load_gpu("no/gpu.yaml")
    file = tmp_path / "broken.yaml"
    file.write_text("a: [1, 2\nb: 3\n")
    with pytest.raises(ProfileError, match=r"broken\.yaml: .* at line \d"):
        load_gpu(file)
    file.write_text("- 1\n")
    with pytest.raises(ProfileError, match=r"broken\.yaml: found \[1\]; allowed: a mapping"):
        load_gpu(file)
    file.write_text("schema: 1\nschema: 1\n")
    with pytest.raises(ProfileError, match=r"broken\.yaml: key 'schema' appears twice at line 1"):
        load_gpu(file)


# ------------------------------------------------------------------------------- prices


def test_example_prices_cover_the_bundled_gpus_and_say_they_are_an_example() -> None:
    book = load_prices()
    assert "example" in book.note
    assert book.date.startswith("20")
    assert all(0.1 < book.usd_per_gpu_hour(name) < 20 for name in gpu_names())
    assert book.usd_per_gpu_hour("A100") == book.usd_per_gpu_hour("a100_sxm_80gb")


def test_own_prices(tmp_path: Path) -> None:
    data = {
        "schema": 1,
        "date": "2030-01-01",
        "note": "contract",
        "usd_per_gpu_hour": {"my_gpu": 0.5, "H100": 2},
    }
    book = load_prices(saved(tmp_path, data))
    assert book.usd_per_gpu_hour("MY_GPU") == 0.5
    assert book.usd_per_gpu_hour("h100") == 2
    with pytest.raises(ProfileError, match="no price for GPU 'my_gp'; did you mean 'my_gpu'"):
        book.usd_per_gpu_hour("my_gp")
    data["usd_per_gpu_hour"] = {"my_gpu": -1}
    with pytest.raises(
        ProfileError, match=r"usd_per_gpu_hour\.my_gpu: found -1; allowed: a number"
    ):
        load_prices(saved(tmp_path, data))
    with pytest.raises(ProfileError, match=r"price file 'none\.yaml' does not exist"):
        load_prices("none.yaml")


# ------------------------------------------------------------------------------- documentation


def test_the_docs_list_every_field_with_its_unit_and_meaning() -> None:
    page = (Path(__file__).parents[1] / "docs" / "hardware.md").read_text(encoding="utf-8")
    for fields in schema.SECTIONS.values():
        for field in fields:
            required = "yes" if field.required else "no"
            row = f"| `{field.name}` | {field.unit} | {required} | {field.description} |"
            assert row in page
