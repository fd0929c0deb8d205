"""DATA.npz: what makes it, what reads it, and what is refused."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from pvq_hw.data.arrays import read_array, read_npz, write_npz
from pvq_hw.data.dataset import Data, load_data, make_data, save_data
from pvq_hw.documents import Format, load_json, load_toml
from pvq_hw.errors import InputError

RNG = np.random.default_rng(11)
X = RNG.integers(0, 256, (6, 4, 5), dtype=np.uint8)
Y = np.arange(6, dtype=np.uint8)


def idx(path, array, kind=0x08, dims=None):
    dims = array.shape if dims is None else dims
    content = struct.pack(f">HBB{len(dims)}I", 0, kind, len(dims), *dims) + array.tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path, suffix):
    files = [idx(tmp_path / f"x{suffix}", X), idx(tmp_path / f"y{suffix}", Y)]
    make_data(files, tmp_path / "d.npz", shape=(1, 4, 5), count=4)
    data = load_data(tmp_path / "d.npz", 255)
    assert np.array_equal(data.x, X[:4].reshape(4, 1, 4, 5))
    assert data.x.dtype == np.uint8
    assert np.array_equal(data.y, Y[:4])
    assert np.array_equal(data.real(), data.x / 255)
    assert len(data.head(2)) == 2


@pytest.mark.parametrize(
    ("kind", "dtype"), [(9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
def test_idx_types(tmp_path, kind, dtype):
    values = np.array([[-1, 2], [3, 100]], dtype=dtype)
    data = make_data([idx(tmp_path / "x", values, kind)])
    assert np.array_equal(data.x, values)
    assert data.x.dtype.isnative


def test_npy_files_and_order(tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(X.astype(">f8")))
    np.save(tmp_path / "y.npy", Y[:, None])
    data = make_data([tmp_path / "x.npy", tmp_path / "y.npy"])
    assert np.array_equal(data.x, X)
    assert data.y.shape == (6,)


def test_npz_with_keys(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x_train=X[:1], y_train=Y[:1], x_test=X, y_test=Y)
    data = make_data([path], keys=["x_test", "y_test"])
    assert np.array_equal(data.x, X)
    assert np.array_equal(data.y, Y)
    assert make_data([path], keys=["x_train"]).y is None
    with pytest.raises(InputError, match=r"holds 'x_train', 'y_train', 'x_test', 'y_test'; choose"):
        make_data([path])
    with pytest.raises(InputError, match="must hold 'z', but holds"):
        make_data([path], keys=["z"])


def test_files_of_different_kinds(tmp_path):
    np.savez(tmp_path / "x.npz", only=X)
    idx(tmp_path / "y", Y)
    data = make_data([tmp_path / "x.npz", tmp_path / "y"])
    assert np.array_equal(data.x, X)
    assert np.array_equal(data.y, Y)


def test_same_data_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        save_data(Data(X, Y), tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert b"\x00\x00\x21\x00" in (tmp_path / "a.npz").read_bytes()[:20]  # 1980-01-01
    assert list(np.load(tmp_path / "a.npz")) == ["x", "y"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_regression_targets_and_floats(tmp_path):
    x = np.linspace(0, 1, 8)[:, None]
    save_data(Data(x, np.sin(x)), tmp_path / "d.npz")
    data = load_data(tmp_path / "d.npz", 7)
    assert np.array_equal(data.real(), x)
    assert data.y.shape == (8, 1)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"images": X}, "must hold 'x', but holds 'images'"),
        ({}, "but holds nothing"),
        ({"x": X, "y": Y[:5]}, "must have a label per frame, not 5 for 6"),
        ({"x": X[:0]}, "must have frames"),
        ({"x": np.zeros((3, 0))}, "must have frames"),
        ({"x": np.array(1.0)}, "must have frames"),
        ({"x": np.array([[np.nan]])}, "must be finite"),
        ({"x": np.array([[1.0]]), "y": np.array([np.inf])}, "must be finite"),
    ],
)
def test_data_that_makes_no_sense(tmp_path, arrays, text):
    write_npz(tmp_path / "d.npz", arrays)
    with pytest.raises(InputError, match=text) as info:
        load_data(tmp_path / "d.npz")
    assert "\n" not in str(info.value)


def test_objects_and_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="not pickled Python objects"):
        load_data(tmp_path / "d.npz")
    (tmp_path / "t").write_bytes(b"hello")
    with pytest.raises(InputError, match="must be an npz file: File is not a zip file"):
        load_data(tmp_path / "t")
    with pytest.raises(InputError, match="must be an idx, npz or npy file"):
        make_data([tmp_path / "t"])
    with pytest.raises(InputError, match="No such file"):
        load_data(tmp_path / "none")
    with pytest.raises(InputError, match="No such file"):
        make_data([tmp_path / "none"])
    with pytest.raises(InputError, match="must be an npz file"):
        load_data(tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_of_a_wrong_length(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    cases = [((6, 4, 6), "cut off|claims"), ((6, 4, 4), "goes on"), ((1 << 31, 1 << 31), "claims")]
    for dims, text in cases:
        idx(path, X, dims=dims)
        with pytest.raises(InputError, match=text):
            make_data([path])


def test_truncated_gzip(tmp_path):
    path = idx(tmp_path / "x.gz", RNG.integers(0, 256, (50, 50), dtype=np.uint8))
    content = path.read_bytes()
    for cut in (3, 12, len(content) // 2, len(content) - 4):
        path.write_bytes(content[:cut])
        with pytest.raises(InputError) as info:
            make_data([path])
        assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"count": 0}, "Count must be at least 1, not 0"),
        ({"shape": (3, 3)}, "Shape must have 20 values"),
        ({"shape": (-4, -5)}, "Shape must have 20 values"),
        ({"keys": []}, "Keys must be one or two names"),
        ({"keys": ["a", "b", "c"]}, "Keys must be one or two names"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, text):
    write_npz(tmp_path / "d.npz", {"x": X, "y": Y})
    with pytest.raises(InputError, match=text):
        make_data([tmp_path / "d.npz"], tmp_path / "out.npz", **options)
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf])
def test_input_scale(scale):
    with pytest.raises(InputError, match="Input scale must be a number > 0"):
        Data(X, Y, scale)


def test_number_of_files(tmp_path):
    with pytest.raises(InputError, match="one or two files, not 0"):
        make_data([])


def test_failed_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "d.npz"
    save_data(Data(X), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="allow_pickle"):
        write_npz(path, {"x": np.array([{}], dtype=object)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="must be a file in a folder that exists"):
        save_data(Data(X), tmp_path / "no" / "d.npz")


def test_limit_counts_all_arrays(tmp_path):
    write_npz(tmp_path / "d.npz", {"x": X, "y": X})
    with pytest.raises(InputError, match="array 'y' claims 248 bytes; 40 are left"):
        read_npz(tmp_path / "d.npz", limit=1000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_refused_before_anything_waits_for_them(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        for read in (load_data, read_npz, read_array, lambda p: load_toml(p, "a file"),
                     lambda p: load_json(p, Format("a file"))):  # fmt: skip
            with pytest.raises(InputError, match=r"must be a file, not a device or a pipe$"):
                read(path)
