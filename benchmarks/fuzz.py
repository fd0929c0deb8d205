"""Damaged model files, output folders and bytes on the link: taken, or refused in one line; and
random networks, whose circuits give what the golden model does, when the plan says.

Run as ``make fuzz``, or ``python -m benchmarks.fuzz [KIND ...] [--cases N] [--seed S]`` with
``tests/support`` on the path, whose files are what is damaged. Every case follows from its kind,
the seed and its number. What was done is kept in ``results/fuzz.json`` and not done again by the
same version of the code, so the run may be stopped at any time. A fault is an exception that is no
`PvqError`, a message of more than one line, a case that takes longer than its limit, or an answer
that is wrong: then the exit status is 1.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from pvq_hw import __version__
from pvq_hw.api import compile as compile_file
from pvq_hw.arith.formats import IntFormat
from pvq_hw.bundled import DIGITS, DIGITS_DATA
from pvq_hw.documents import document_text
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.patterns import NONE
from pvq_hw.engine.timing import fifo_needs, with_depths
from pvq_hw.errors import InputError, PvqError
from pvq_hw.host.board_model import Responder
from pvq_hw.host.protocol import Description, Kind, Packet, PacketDecoder, WireFormat
from pvq_hw.model.export import save_model
from pvq_hw.model.load import load_model
from pvq_hw.output.manifest import covered_files
from pvq_hw.output.verify import examine_output

__all__ = ["CASES", "KINDS", "SECONDS", "FaultError", "fuzz", "main"]

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
SECONDS = 20.0
"""Of the processor, for one case: more is a fault."""
_LETTERS = 1200  # of a message
_SAVED = 100  # cases between two times that the results are kept
_FRAME = 4  # bytes of the frame whose errors are tried
_CHUNK = 1000  # random bytes of a case
_FAMILIES = ("ecp5", "up5k", "hx8k")


class FaultError(Exception):
    """What a case found."""


Case = Callable[[int, np.random.Generator, Path], str]


@dataclass(frozen=True)
class _Kind:
    """How the cases of a kind are made, how many there are, and what they damage."""

    case: Case
    cases: int
    prepare: Callable[[Path], Any] = str


# -- model files --------------------------------------------------------------------------------


def _models(place: Path) -> list[Path]:
    """Good files of every format, made once."""
    folder = place / "models"
    if not folder.is_dir():
        import quantized_onnx
        from tflite_files import everything, integers, tiny

        folder.mkdir()
        shutil.copy(DIGITS, folder / "digits.onnx")
        save_model(load_model(DIGITS), folder / "digits.npz")
        for name, content in (("all", everything()), ("int8", integers()), ("tiny", tiny())):
            (folder / f"{name}.tflite").write_bytes(content)
        for name, model in (("q", quantized_onnx.asymmetric()),
                            ("f", quantized_onnx.float_network())):  # fmt: skip
            (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    return sorted(folder.iterdir())


def _damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, taken out, put in, doubled, or cut off."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at, size = int(rng.integers(len(data))), int(rng.integers(1, 9))
        match rng.integers(6):
            case 0 | 1:
                data[at] = int(rng.integers(256))
            case 2:
                data[at] ^= 1 << int(rng.integers(8))
            case 3:
                del data[at : at + size]
            case 4:
                data[at:at] = rng.bytes(size) if rng.random() < 0.5 else data[at : at + 64 * size]
            case _:
                data[at : at + 4] = int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF])).to_bytes(
                    4, "big"
                )
        if not data:
            return b""
    return bytes(data[: int(rng.integers(len(data)))] if rng.random() < 0.03 else data)


def _model_file(number: int, rng: np.random.Generator, place: Path) -> str:
    files = _models(place)
    source = files[number % len(files)]
    path = place / f"m{source.suffix}"
    path.write_bytes(_damaged(source.read_bytes(), rng))
    model = load_model(path)
    with np.errstate(all="ignore"):
        model.predict(np.zeros((1, *model.input_shape)))
    return "taken"


# -- output folders -----------------------------------------------------------------------------


def _output(place: Path) -> Path:
    """A small accelerator, compiled once."""
    out = place / "output"
    if not out.is_dir():
        with np.load(DIGITS_DATA) as digits:
            x = digits["x_train"][:300]
        compile_file(DIGITS, out, target="icebreaker", ratio=4.0, calibrate=x)
    return out


def _folder(number: int, rng: np.random.Generator, place: Path) -> str:
    out = _output(place)
    names = sorted({*covered_files(out), "manifest.json"})
    path = out / names[number % len(names)]
    whole, other = path.read_bytes(), out / names[int(rng.integers(len(names)))]
    try:
        match rng.integers(5):
            case 0:
                path.unlink()
            case 1:
                path.write_bytes(whole[: int(rng.integers(len(whole)))])
            case 2:
                path.write_bytes(other.read_bytes())
            case _:
                path.write_bytes(_damaged(whole, rng))
        same = path.exists() and path.read_bytes() == whole
        if not examine_output(out).findings and not same:
            raise FaultError(f"{path.name} was changed, and nothing was found")
    finally:
        path.write_bytes(whole)
    return "found"


# -- the link -----------------------------------------------------------------------------------


def _request() -> bytes:
    return Packet(Kind.INFER, 7, bytes(range(1, 1 + _FRAME))).encode()


def _board() -> Responder:
    x, out = WireFormat(_FRAME, IntFormat(8, False)), WireFormat(1, IntFormat(16, True))
    said = Description(x, out, 12_000_000, 115_200, 4, bytes(8))
    return Responder(said, lambda frame: np.array([int(frame.sum())]))


def _answered(board: Responder, data: bytes) -> list[Packet]:
    """What a host hears: the replies to some bytes, a pause, and a good request."""
    decoder = PacketDecoder()
    return decoder.feed(board.feed(data) + board.idle() + board.feed(_request()))


def _after(board: Responder, data: bytes) -> None:
    """Raises FaultError unless a good request behind some bytes gets its answer."""
    want = (1 + _FRAME) * _FRAME // 2
    last = _answered(board, data)[-1:]
    good = Packet(Kind.RESULTS, 7, want.to_bytes(2, "little"))
    if last != [good]:
        raise FaultError(f"{data[:40].hex()} and a good request gave {last}")


def _bit_errors() -> list[tuple[int, ...]]:
    bits = range(8 * len(_request()))
    return [(bit,) for bit in bits] + list(combinations(bits, 2))


def _frame_errors(number: int, rng: np.random.Generator, place: Path) -> str:
    """Every one and two wrong bits of a frame: never taken for another frame."""
    data = bytearray(_request())
    for bit in _bit_errors()[number]:
        data[bit // 8] ^= 1 << bit % 8
    board = _board()
    heard = _answered(board, bytes(data))
    frames = [packet for packet in heard if packet.kind == Kind.RESULTS]
    if len(frames) != 1 or board.counts["frames"] != 1:
        raise FaultError(f"bits {_bit_errors()[number]}: a wrong frame was computed")
    _after(board, b"")
    return "refused"


def _random_bytes(number: int, rng: np.random.Generator, place: Path) -> str:
    """A thousand at a time, magic bytes among them; the host hears them as well."""
    data = bytearray(rng.bytes(_CHUNK))
    for _ in range(rng.integers(4)):
        at = int(rng.integers(_CHUNK - 8))
        data[at : at + 4] = _request()[:4]
    PacketDecoder().feed(bytes(data))
    _after(_board(), bytes(data))
    return "refused"


# -- random networks ----------------------------------------------------------------------------


def _network(number: int, rng: np.random.Generator, place: Path) -> str:
    """Branches that part and meet again, on a family of each multiplier: every layer's outputs
    without pauses, in the cycles of the plan, and with some, from queues as deep as planned."""
    from graph_cases import STALLS, check
    from random_graphs import build, random_network

    network = random_network(int(rng.integers(1 << 31)))
    built = build(network, family=_FAMILIES[number % len(_FAMILIES)], frames=2)
    graph = with_depths(built.graph, fifo_needs(built.graph, built.images))
    if GraphSpec.from_json(graph.to_json()) != graph:
        raise FaultError("the plan is another one once it was written and read")
    check(built, graph, NONE, STALLS)
    return "taken"


KINDS = {
    "model files": _Kind(_model_file, 10_000, _models),
    "output folders": _Kind(_folder, 3_000, _output),
    "errors of a frame": _Kind(_frame_errors, len(_bit_errors())),
    "thousands of random bytes": _Kind(_random_bytes, 1_000),
    "whole networks": _Kind(_network, 1_000),
}
"""Every kind with the cases that ``make fuzz`` tries."""
CASES = {name: kind.cases for name, kind in KINDS.items()}


# -- the run ------------------------------------------------------------------------------------


def fuzz(
    kinds: Sequence[str],
    results: Path,
    *,
    cases: int | None = None,
    seed: int = 0,
    limit: float = SECONDS,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Tries what ``results`` doesn't hold yet; gives, and keeps, what it holds then.

    Parameters
    ----------
    kinds : sequence of str
        Keys of `KINDS`.
    results : Path
        Made where there is none; begun anew for another seed or version.
    cases : int, optional
        Of each kind at most.
    seed : int
    limit : float
        Processor seconds of a case, above which it is a fault.
    tell : function of str
        Is told each fault, and how far it is.

    Returns
    -------
    dict
        ``pvq_hw_version``, ``seed`` and ``kinds``: cases, how many were ``taken``, ``found`` or
        ``refused``, the slowest in seconds and the faults, each with its case's number.

    Raises
    ------
    InputError
        A kind that isn't known.
    """
    for name in kinds:
        if name not in KINDS:
            raise InputError(f"A kind must be one of {', '.join(KINDS)}, not {name!r}")
    head = {"pvq_hw_version": __version__, "seed": seed}
    document: dict[str, Any] = head | {"kinds": {}}
    if results.is_file():
        earlier = json.loads(results.read_text(encoding="utf-8"))
        if {key: earlier[key] for key in head} == head:
            document = earlier
    with tempfile.TemporaryDirectory() as folder:
        for name in kinds:
            kind, most = KINDS[name], min(cases or KINDS[name].cases, KINDS[name].cases)
            found = document["kinds"].setdefault(
                name, {"cases": 0, "slowest_seconds": 0.0, "faults": []}
            )
            if found["cases"] < most:
                kind.prepare(Path(folder))
            while found["cases"] < most:
                _try(kind, name, seed, found, Path(folder), limit, tell)
                if found["cases"] % _SAVED == 0 or found["cases"] == most:
                    results.write_text(document_text(document), encoding="utf-8")
            tell(f"{name}: {found['cases']:,} cases, {len(found['faults'])} faults")
    return document


def _run(kind: _Kind, name: str, seed: int, number: int, place: Path) -> tuple[str, str, float]:
    """A case: its outcome, its fault if any, and processor seconds."""
    rng = np.random.default_rng([seed, sorted(KINDS).index(name), number])
    begun, fault = time.process_time(), ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outcome = kind.case(number, rng, place)
    except PvqError as error:
        outcome, text = "refused", str(error)
        if not text.isprintable() or len(text) > _LETTERS:
            fault = f"a message of {len(text)} letters: {text[:80]!r}"
    except Exception as error:
        outcome, fault = "faults", f"{type(error).__name__}: {error}"[:300]
    return outcome, fault, time.process_time() - begun


def _try(
    kind: _Kind,
    name: str,
    seed: int,
    found: dict[str, Any],
    place: Path,
    limit: float,
    tell: Callable[[str], None],
) -> None:
    """One case, counted; again where it took long, since code is compiled at its first use."""
    number = found["cases"]
    outcome, fault, seconds = _run(kind, name, seed, number, place)
    if seconds > limit:
        outcome, fault, seconds = _run(kind, name, seed, number, place)
    if seconds > limit:
        fault = fault or f"took {seconds:.0f} s"
    found["cases"] += 1
    found["slowest_seconds"] = round(max(found["slowest_seconds"], seconds), 2)
    if fault:
        found["faults"].append([number, fault])
        tell(f"{name}, case {number}: {fault}")
    elif outcome != "faults":
        found[outcome] = found.get(outcome, 0) + 1


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 where a fault was found."""
    parser = argparse.ArgumentParser(prog="benchmarks.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--cases", type=int, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--results", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    try:
        document = fuzz(
            args.kinds or list(KINDS), args.results, cases=args.cases, seed=args.seed,
            tell=lambda line: print(line, flush=True),
        )  # fmt: skip
    except PvqError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return int(any(kind["faults"] for kind in document["kinds"].values()))


if __name__ == "__main__":
    sys.exit(main())
