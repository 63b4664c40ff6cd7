"""`cologen bench`: each figure is one JSON object, whose ratios are of its own seconds."""

import json

import pytest
import torch
from cologen.training.cli.main import main


def run(capsys, *argv):
    code = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return code, captured.out.strip(), captured.err.strip()


@pytest.mark.parametrize("wrong", [["--width", 100], ["--double", 0], ["--repeats", -1], ["--device", "banana"]])
def test_bench_refuses_shapes_it_cannot_build(capsys, wrong):
    with pytest.raises(SystemExit):
        main(["bench", "inference", *map(str, wrong)])
    assert "is no positive multiple of" in (said := capsys.readouterr().err) or "cannot be used on this machine" in said


SMALL = ["--width", 128, "--double", 1, "--single", 1, "--target", 64, "--source", 64, "--text", 8, "--repeats", 1]


@pytest.mark.slow
@pytest.mark.parametrize("host", ["embedded", "comfyui"])
def test_bench_inference_prints_one_object(capsys, request, host):
    if host == "comfyui":
        request.getfixturevalue("comfy")
    code, text, _ = run(capsys, "bench", "inference", *SMALL, "--host", host, "--json")
    found = json.loads(text)
    for key in ("plain", "concat", "uncached", "cached", "source_pass", "device", "shapes"):
        assert key in found
    assert found["cached_over_plain"] == found["cached"] / found["plain"]
    assert found["concat_over_cached"] == found["concat"] / found["cached"]
    assert found["cached_over_floor"] == pytest.approx(found["cached_over_plain"] / found["floor"])
    n, s, d = 8 + 16, 16, 128
    block = 12 * n * d**2 + 2 * n**2 * d
    assert found["floor"] == pytest.approx((block + 2 * n * s * d) / block)


@pytest.mark.slow
def test_bench_experts_prints_one_object(capsys):
    found = json.loads(run(capsys, "bench", "experts", *SMALL, "--json")[1])
    assert {"time_ratio_50_5", "memory_ratio_50_5", "routing_share"} <= found.keys()


@pytest.mark.slow
def test_the_pack_drags_nothing_heavy_into_the_host(comfy):
    from cologen.training.bench.start import bench_import

    found = bench_import(1)
    assert found["heavy"] == [] and found["nodes"] >= 6


def test_the_flux1_preset_needs_the_memory_the_design_names():
    from cologen.training.bench.shapes import Shapes

    assert Shapes.flux1(1024, 512).kv_bytes(torch.bfloat16) == 684 * 2**20
    assert Shapes.flux1(1024, 1024).kv_bytes(torch.bfloat16) == 4 * 684 * 2**20


@pytest.mark.slow
def test_bench_controls_prints_one_object(capsys):
    small = "--width 256 --double 1 --single 1 --target 64 --source 64 --text 4 --repeats 1".split()
    found = json.loads(run(capsys, "bench", "controls", *small, "--json")[1])
    assert found["over_plain"].keys() == {"plain", "peer", *found["floor"]}
    assert found["floor"]["three"] - 1 == pytest.approx(3 * (found["floor"]["one"] - 1))
