"""`cologen bench`: each figure is one JSON object, whose ratios are of its own seconds."""

import json

import pytest
import torch
from cologen.prw.bank.importers.find_base import PUBLIC
from cologen.training.cli.bench import read_shapes
from cologen.training.cli.main import main, make_parser


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


LAYERS = {"small": 12, "klein4b": 13}
"""Multiplications of a block's layers for a token, in squares of the width: klein's MLP is 3 wide and gated, FLUX.1's 4."""


@pytest.mark.slow
@pytest.mark.parametrize("preset", LAYERS)
@pytest.mark.parametrize("host", ["embedded", "comfyui"])
def test_bench_inference_prints_one_object(capsys, request, host, preset):
    if host == "comfyui":
        request.getfixturevalue("comfy")
    shape = [*SMALL, "--dtype", "float32", "--preset", preset, "--host", host]
    code, text, _ = run(capsys, "bench", "inference", *shape, "--json")
    found = json.loads(text)
    for key in ("plain", "concat", "uncached", "cached", "source_pass", "device", "shapes"):
        assert key in found
    assert ("host_cache" in found) == (host == "comfyui" and preset == "klein4b")
    assert found["cached_over_plain"] == found["cached"] / found["plain"]
    assert found["concat_over_cached"] == found["concat"] / found["cached"]
    assert found["cached_over_floor"] == pytest.approx(found["cached_over_plain"] / found["floor"])
    n, s, d = 8 + 16, 16, 128
    block = LAYERS[preset] * n * d**2 + 2 * n**2 * d
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


def read(*argv):
    """What a run with these options is built from."""
    return read_shapes(make_parser().parse_args(["bench", "inference", *map(str, argv)]))


@pytest.mark.parametrize("preset, kib_a_token", [("flux1", 684), ("klein4b", 300), ("klein9b", 512)])
def test_presets_are_public_models(preset, kib_a_token):
    shapes, dtype = read("--preset", preset, "--target", 1024, "--source", 1024)
    assert dtype == torch.bfloat16 and shapes.kv_bytes(dtype) == 4096 * kib_a_token * 2**10
    (public,) = [base for base in PUBLIC if (base.family, base.hidden_size) == (shapes.family, shapes.width)]
    assert (public.double_blocks, public.single_blocks) == (shapes.double, shapes.single)


def test_a_preset_can_be_cut_to_fit():
    shapes, dtype = read("--preset", "klein4b", "--double", 1, "--single", 4, "--dtype", "float32")
    assert (shapes.family, shapes.width, shapes.double, shapes.single, shapes.text) == ("flux2", 3072, 1, 4, 512)
    assert dtype == torch.float32


@pytest.mark.slow
def test_bench_controls_prints_one_object(capsys):
    small = "--width 256 --double 1 --single 1 --target 64 --source 64 --text 4 --repeats 1".split()
    found = json.loads(run(capsys, "bench", "controls", *small, "--json")[1])
    assert found["over_plain"].keys() == {"plain", "peer", *found["floor"]}
    assert found["floor"]["three"] - 1 == pytest.approx(3 * (found["floor"]["one"] - 1))
