"""Verification finds one changed bit anywhere, and names the file, the layer and the row."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cli_tools import reseal
from plan_networks import random_network

from pvq_hw.errors import InputError
from pvq_hw.network.golden_inputs import golden_inputs
from pvq_hw.network.network import Network
from pvq_hw.output import verify as verify_module
from pvq_hw.output.build_record import write_build
from pvq_hw.output.folder import OutputFolder
from pvq_hw.output.golden_vectors import write_vectors
from pvq_hw.output.manifest import load_manifest, write_manifest
from pvq_hw.output.verify import verify_output
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan


def write_output(out: Path, target: str = "ulx3s-25f") -> dict[str, np.ndarray]:
    """An output as `compile` writes it; gives the original weights."""
    network, weights = random_network()
    p = plan(network, target)
    with OutputFolder(out).replace() as folder:
        (folder / "network").mkdir()
        network.save(folder / "network")
        p.save(folder / "plan.json")
        emit(network, p).write(folder)
        write_vectors(folder, network, golden_inputs(network, 3))
        (folder / "verilog").mkdir()
        (folder / "verilog" / "top.v").write_text("module top; endmodule\n")
        write_manifest(folder, network, p, weights=weights, extra={"accuracy": 97.5})
    return weights


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    out = tmp_path_factory.mktemp("verify") / "out"
    return out, write_output(out)


@pytest.fixture
def out(original, tmp_path):
    shutil.copytree(original[0], tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def weights(original):
    return original[1]


def change(path: Path, function) -> None:
    """Rewrites a JSON file."""
    document = json.loads(path.read_text())
    function(document)
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


@pytest.mark.parametrize("target", ["icebreaker", "hx8k", "ulx3s-85f", "orangecrab-25f"])
def test_untouched_output_has_no_findings(tmp_path, target):
    weights = write_output(tmp_path / "out", target)
    assert verify_output(tmp_path / "out") == []
    assert verify_output(tmp_path / "out", weights=weights) == []


def test_parts_that_come_later_are_not_the_manifests(out):
    with OutputFolder(out).update("build") as folder:
        (folder / "build").mkdir()
        (folder / "build" / "top.bit").write_text("bits")
        write_build(folder / "build", {"bitstream": "top.bit"})
        (folder / "report.json").write_text("{}")
    assert verify_output(out) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("top.bit", "bitz", "differs from its hash in build.json"),
        ("top.bit", None, "is missing"),
        ("mine.txt", "mine", "is not in build.json"),
        ("build.json", "{}", "is no report of a build: build.json: bitstream is missing"),
        ("build.json", '{"bitstream": "top.bit", "files": {}}', "differs from its own hash"),
        ("build.json", None, "is missing"),
    ],
)
def test_each_file_of_a_build_is_covered(out, name, content, message):
    (out / "build").mkdir()
    (out / "build" / "top.bit").write_text("bits")
    write_build(out / "build", {"bitstream": "top.bit"})
    path = out / "build" / name
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    assert str(verify_output(out)[0]) == f"build/{name}: {message}"


def test_a_build_of_another_output_is_found(out):
    (out / "build").mkdir()
    (out / "build" / "top.bit").write_text("bits")
    mine = load_manifest(out)["manifest_sha256"]
    for made_from, found in ((mine, []), ("ab" * 32, ["is a build of another output"])):
        write_build(out / "build", {"bitstream": "top.bit", "manifest_sha256": made_from})
        assert [f.message for f in verify_output(out)] == found


def covered(out: Path) -> list[str]:
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())


def test_one_flipped_bit_anywhere_is_found_and_the_file_named(out):
    """Many positions of every file: always found, always named, never an exception."""
    rng = random.Random(5)
    names = covered(out)
    assert {"manifest.json", "plan.json", "network/network.json", "network/weights.pvq"} < set(
        names
    )
    assert len(names) == 15
    for name in names:
        path = out / name
        data = path.read_bytes()
        positions = {0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(20))}
        for position in sorted(positions):
            bit = rng.randrange(8)
            broken = bytearray(data)
            broken[position] ^= 1 << bit
            path.write_bytes(broken)
            found = verify_output(out)
            assert any(f.file == name for f in found), (name, position, bit, found)
        path.write_bytes(data)
    assert verify_output(out) == []


def test_every_byte_of_the_manifests_figures_counts(out, weights):
    path = out / "manifest.json"
    data = path.read_bytes()
    start = data.index(b'"row_cosine"')
    for position in range(start, start + 60):
        broken = bytearray(data)
        broken[position] ^= 1
        path.write_bytes(broken)
        assert any(f.file == "manifest.json" for f in verify_output(out))


@pytest.mark.parametrize("name", ["image/fc1_codes.hex", "network/weights.pvq", "verilog/top.v"])
def test_missing_and_further_files_are_named(out, name):
    (out / name).unlink()
    assert any(f.file == name for f in verify_output(out))
    (out / "image" / "more.hex").write_text("00\n")
    assert any(
        (f.file, f.message) == ("image/more.hex", "is not in the manifest")
        for f in verify_output(out)
    )


# -- contents, when the hashes are right ----------------------------------------------------------


def test_forged_hashes_alone_change_nothing(out):
    reseal(out)
    assert verify_output(out) == []


def test_code_of_another_sign_is_traced_to_its_row(out):
    path = out / "image" / "fc2_codes.hex"
    network = Network.load(out / "network")
    spec = plan(network, "ulx3s-25f").specs[1]
    words = [int(line, 16) for line in path.read_text().split()]
    last = spec.code.word_bits - 1
    row = 3
    start = [0, *(i + 1 for i, w in enumerate(words) if w >> last)][row]
    words[start] ^= 1 << spec.code.gap_bits
    digits = len(path.read_text().splitlines()[0])
    path.write_text("".join(f"{w:0{digits}x}\n" for w in words))
    reseal(out)
    (found,) = verify_output(out)
    assert (found.file, found.where) == ("image/fc2_codes.hex", f"layer 'fc2' row {row}")
    assert found.message.startswith("decodes to ")


@pytest.mark.parametrize("kind", ["mult", "bias"])
def test_changed_constant_is_traced_to_its_row(out, kind):
    path = out / "image" / f"fc1_{kind}.hex"
    lines = path.read_text().splitlines()
    lines[7] = f"{int(lines[7], 16) ^ 1:0{len(lines[7])}x}"
    path.write_text("\n".join(lines) + "\n")
    reseal(out)
    (found,) = verify_output(out)
    assert (found.file, found.where) == (f"image/fc1_{kind}.hex", "layer 'fc1' row 7")


def test_changed_vector_is_traced_to_frame_and_output(out):
    path = out / "vectors" / "fc1.hex"
    lines = path.read_text().splitlines()
    lines[12 + 5] = f"{int(lines[12 + 5], 16) ^ 1:02x}"
    path.write_text("\n".join(lines) + "\n")
    reseal(out)
    (found,) = verify_output(out)
    assert (found.file, found.where) == ("vectors/fc1.hex", "layer 'fc1' frame 1 output 5")


def test_forged_figures_of_the_plan_are_derived_again(out):
    def edit(document):
        document["interval_cycles"] -= 1
        document["layers"][1]["code_bits"] += 1
        document["energy"]["nj_per_inference"] *= 0.5

    change(out / "plan.json", edit)
    reseal(out)
    where = {f.where for f in verify_output(out) if f.file == "plan.json"}
    assert {"interval_cycles", "layers.1.code_bits", "energy.nj_per_inference"} <= where


def test_forged_figures_of_the_manifest_are_derived_again(out, weights):
    def edit(document):
        document["layers"][0]["row_k"][4] += 1
        document["layers"][1]["row_cosine"][2] = 0.999
        document["layers"][1]["relative_error"] = 0.0
        document["n_over_k"] = 1.5

    change(out / "manifest.json", edit)
    reseal(out)
    assert {f.where for f in verify_output(out)} == {"layer 'fc1' row 4 row_k", "n_over_k"}
    assert {f.where for f in verify_output(out, weights=weights)} == {
        "layer 'fc1' row 4 row_k",
        "layer 'fc2' row 2 row_cosine",
        "layer 'fc2' relative_error",
        "n_over_k",
    }


def test_one_changed_weight_of_the_model_is_traced_to_its_row(out, weights):
    changed = {name: w.copy() for name, w in weights.items()}
    changed["fc1"][6, 0] += 0.5
    where = {f.where for f in verify_output(out, weights=changed)}
    assert {"layer 'fc1' row 6 row_cosine", "layer 'fc1' cosine"} <= where
    assert all("row 6" in w or "row" not in w for w in where)


def test_multiplier_that_is_not_the_gains_is_found(out, weights):
    network = Network.load(out / "network")
    first = network.layers[0]
    gain = first.gain.copy()
    gain[2] *= 1.1
    forged = replace(network, layers=(replace(first, gain=gain), *network.layers[1:]))
    findings = verify_module.check_gains(forged)
    assert [f.where for f in findings] == ["layer 'fc1' row 2"]


def test_model_of_another_hash_is_found(out, weights, monkeypatch):
    monkeypatch.setattr(verify_module, "model_weights", lambda model, network: weights)
    monkeypatch.setattr(verify_module, "check_numbers", lambda model, network: [])
    right, other = (SimpleNamespace(source_sha256=c * 32, outputs=()) for c in ("ab", "cd"))
    assert verify_output(out, model=right) == []
    (found,) = verify_output(out, model=other)
    assert (found.file, found.where) == ("manifest.json", "model")


# -- hostile files --------------------------------------------------------------------------------


def test_no_output_is_one_line(tmp_path, out):
    with pytest.raises(InputError, match="must exist; run pvq-hw compile first"):
        verify_output(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="lacks its manifest"):
        verify_output(tmp_path / "empty")
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(InputError, match="must not be a symbolic link"):
        verify_output(tmp_path / "link")
    (out / "image" / "x.hex").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"symbolic links, but 'image/x\.hex' is one"):
        verify_output(out)


@pytest.mark.parametrize("name", ["manifest.json", "plan.json", "network/network.json"])
@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "nul", "[" * 100_000, '{"format": 1e999}', "\xff"]
)
def test_broken_json_is_a_finding(out, name, text):
    (out / name).write_text(text, encoding="latin-1")
    assert any(f.file == name for f in verify_output(out))


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["layers"][0]["core"].update(n=1 << 20, rows=1 << 20),
        lambda d: d["layers"][0]["core"].update(words=1 << 24),
        lambda d: d["layers"][0]["core"].update(name="../../etc/x"),
        lambda d: d["layers"][0]["core"]["code"].update(lanes=1024),
        lambda d: d["layers"][0].update(engine="stratix"),
        lambda d: d["layers"].pop(),
        lambda d: d["target"].update(name="moon"),
        lambda d: d["target"].update(definition=3),
        lambda d: d["target"].update(definition={"name": "../x", "board": "<script>"}),
        lambda d: d.update(clock_mhz=-1),
        lambda d: d.update(layers=7),
    ],
)
def test_absurd_plan_is_a_finding(out, edit):
    change(out / "plan.json", edit)
    assert any(f.file == "plan.json" for f in verify_output(out))


@pytest.mark.parametrize("key", ["layers", "files", "extra", "model", "quantization", "plan"])
@pytest.mark.parametrize("value", [None, 3, [], "x", {"x": [1]}])
def test_absurd_manifest_is_a_finding(out, key, value):
    change(out / "manifest.json", lambda d: d.update({key: value}))
    assert any(f.file == "manifest.json" for f in verify_output(out))


def test_manifest_says_what_an_output_is_made_of(out, weights):
    document = load_manifest(out)
    assert document["pvq_hw_version"]
    assert document["model"] == {"sha256": "ab" * 32}
    assert document["quantization"]["seed"] == 0
    assert document["input"]["file_shape"] == [20]
    assert document["target"]["device"] == "LFE5U-25F"
    assert document["extra"] == {"accuracy": 97.5}
    first = document["layers"][0]
    assert first["row_n"] == [20] * 12
    assert first["row_k"] == [8] * 12
    network = Network.load(out / "network")
    layer = network.layers[0]
    w, approximation = weights["fc1"][3], layer.gain[3, 0] * layer.y[3]
    cosine = w @ approximation / np.linalg.norm(w) / np.linalg.norm(approximation)
    assert first["row_cosine"][3] == pytest.approx(cosine, rel=1e-9)
    error = np.linalg.norm(w - approximation) / np.linalg.norm(w)
    assert first["row_relative_error"][3] == pytest.approx(error, rel=1e-9)


def test_same_output_has_the_same_bytes(out, tmp_path):
    write_output(tmp_path / "again")
    for name in covered(out):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
