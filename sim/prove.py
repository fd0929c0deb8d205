"""``OUT`` in, what of its exported Verilog is proven for all inputs out."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pvq_hw
from gateware.board.boards import make_platform
from gateware.board.build import design_text
from gateware.board.flow import board_top
from pvq_hw.engine.core import CORES, CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.decision import AboveUnit, LargestUnit, SmoothedUnit
from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.pulse_code import PulseCode
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.engine.spram_image import CodeLayout, code_layout
from pvq_hw.engine.units import UNITS, CoreUnit, Join, Lookup, Pick, Pool, Unit, Unpack
from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.errors import CheckError, InputError
from pvq_hw.network.layer import Dense
from pvq_hw.network.network import Network
from pvq_hw.output.accelerator import Accelerator
from pvq_hw.output.build_record import BUILD, load_netlist, read_build
from pvq_hw.output.proof_record import netlist_hash, read_proof, write_proof
from pvq_hw.plan.core_layers import CoreLayer, core_layers
from pvq_hw.plan.core_parts import core_parts
from pvq_hw.plan.plan import remake_part
from pvq_hw.progress import Steps
from pvq_hw.registry import Face
from pvq_hw.tools import find as tools
from sim.proof.accumulators import check_accumulators
from sim.proof.batch_handshakes import check_batch_handshakes
from sim.proof.blocks import check_leaves, check_trees, leaf_values
from sim.proof.codes import check_codes
from sim.proof.decisions import check_largest
from sim.proof.depthwise import check_planes, check_taps, check_words
from sim.proof.digit_wires import check_digit_wires
from sim.proof.engine_handshakes import check_engine_handshakes
from sim.proof.engine_sums import EngineLayers, check_engine_moves, check_engine_sums
from sim.proof.engines import EngineBlocks
from sim.proof.equivalence import UnprovenError, check_equivalence
from sim.proof.formulas import solver_version
from sim.proof.frames import Frames, check_frames
from sim.proof.handshakes import check_handshakes
from sim.proof.loaded import check_loading, with_codes
from sim.proof.moves import check_moves, check_results, leaf_activations
from sim.proof.netlist import Bit, Netlist, each_reset, read_units
from sim.proof.pools import check_pool
from sim.proof.products import check_products, lane_activations, lane_products
from sim.proof.raster_handshakes import check_depthwise_handshakes, check_pixel_windows
from sim.proof.requantizers import check_requantizers
from sim.proof.side_handshakes import check_side_handshakes
from sim.proof.smoothed import check_smoothed
from sim.proof.structure import check_structure, check_wiring, control_ports
from sim.proof.sums import RowSums
from sim.proof.synthesis import read_circuits
from sim.proof.unit_handshakes import check_unit_handshakes
from sim.proof.units import check_sum, check_table, check_thresholds
from sim.proof.unpackers import check_places, check_unpacked
from sim.proof.unrolled_handshakes import check_unrolled_handshakes
from sim.proof.unrolled_windows import check_unrolled_windows
from sim.proof.wide_handshakes import check_wide_handshakes
from sim.proof.window_handshakes import check_window_handshakes
from sim.proof.wires import check_wires

__all__ = ["prove_output"]

_RESTS = {
    "linear": (
        ("structure", "moves", "widths", "leaves", "adder trees", "accumulators"),
        "shown",
    ),
    "fed": (
        ("structure", "handshakes", "moves", "widths", "leaves", "adder trees", "accumulators"),
        "shown",
    ),
    "wired": (("structure", "handshakes", "codes", "widths", "adders"), "open"),
    "tapped": (
        ("structure", "handshakes", "codes", "widths", "leaves", "adder trees", "moves"),
        "open",
    ),
}
"""Parts that another one rests on, and what that is where one of them is not proven: that sums are
linear in activations, and that they are those of the frame or the windows that came."""

WHOLE = "whole"
"""What the accelerator with all its units is called."""

_NEVER = (
    (
        "bitstream",
        "that place and route and packing keep the netlist, that the device's primitives are as "
        "their models, and that memories and multipliers, as primitives, do what the Verilog's do",
    ),
)
"""What no part of a proof is about, and why."""

_NETLIST = "netlist"
_UNBUILT = "that synthesis keeps the design's meaning: there is no build, run pvq-hw build"

_BRANCHES = "that FIFOs of branches that meet again are deep enough is simulated"

_SCENARIOS = "that no frame is lost or made, whatever the pauses and resets, is simulated"

Part = tuple[str, str, Callable[[], str]]
"""What a part is called, the state that it gives, and what shows it and says in figures."""


class _OpenError(Exception):
    """A part is not proven, or not in full; the text says why."""


def prove_output(accelerator: Accelerator, steps: Steps, *, fresh: bool) -> dict[str, Any]:
    """See `pvq_hw.output.accelerator.Accelerator.prove`.

    Parts are written as they are done, unit by unit: what is interrupted goes on where it was.
    """
    head = {
        "pvq_hw_version": pvq_hw.__version__,
        "manifest_sha256": accelerator.manifest["manifest_sha256"],
        "prover_sha256": _sources(),
        "tools": _versions(),
    }
    known = {} if fresh else _known(accelerator.out, head)
    units = accelerator.plan.graph.units
    found: list[dict[str, str]] = []
    netlists: dict[str, Netlist] = {}
    for name in [WHOLE, *(unit.name for unit in units)]:
        if name in known:
            found += known[name]
            continue
        if not netlists:
            tools.warm_up(["yosys"], steps.note)
            with steps.step("Read the exported Verilog"):
                netlists = read_units(accelerator.out, [unit.name for unit in units])
        with steps.step(f"Prove {name}"):
            found += prove_unit(accelerator, name, netlists, steps)
        _save(accelerator, head, found)
    return _save(accelerator, head, [*found, _netlist(accelerator, head, steps, fresh=fresh)])


def _netlist(
    accelerator: Accelerator, head: dict[str, Any], steps: Steps, *, fresh: bool
) -> dict[str, str]:
    """The part of what was built; an earlier proof's, where that was of the same netlist."""
    built = netlist_hash(accelerator.out)
    document = None if fresh else read_proof(accelerator.out)
    if document and built and document.get("netlist_sha256") == built and _same(document, head):
        kept = [part for part in document["parts"] if part["part"] == _NETLIST]
        if kept and kept[0]["state"] == "proven":
            return dict(kept[0])
    if not built:
        return {"part": _NETLIST, "unit": WHOLE, "state": "open", "says": _UNBUILT}
    tools.warm_up(["yosys"], steps.note)
    with steps.step("Prove the netlist"):
        return _shown(_NETLIST, WHOLE, "proven", lambda: _synthesis(accelerator, steps))


def _synthesis(accelerator: Accelerator, steps: Steps) -> str:
    """That what place and route was given is the board's design of this output."""
    target = accelerator.plan.target
    read_build(accelerator.out)
    design = design_text(make_platform(target), board_top(accelerator))
    text = (accelerator.out / BUILD / "top.il").read_text(encoding="utf-8")
    if design != text:
        raise InputError("the build is not what this version makes of the output: build it again")
    gold, gate = read_circuits(design, load_netlist(accelerator.out), target.family)
    try:
        found = check_equivalence(
            gold, gate, lambda done, total: steps.progress(done, total, "registers")
        )
    except UnprovenError as reason:
        raise _OpenError(str(reason)) from None
    memories = f", {found.memories:,} of distributed memories" if found.memories else ""
    return (
        f"what nextpnr was given is the board's design, by induction: {found.registers:,} bits of "
        f"registers, {found.inputs:,} into {len(gold.boxes)} primitives and out{memories}"
    )


def _versions() -> dict[str, str]:
    yosys = tools.find_tool("yosys")
    return {
        "yosys": f"{yosys.source} {yosys.version}",
        "numpy": np.__version__,
        "bitwuzla": solver_version() or "none",
    }


def _sources() -> str:
    """Hash of the code that proves."""
    files = [Path(__file__), *sorted((Path(__file__).parent / "proof").glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _same(document: dict[str, Any], head: dict[str, Any]) -> bool:
    """Whether a proof is of the same files by the same code and tools."""
    return all(document.get(key) == value for key, value in head.items())


def _known(out: Path, head: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Parts by unit that an earlier proof of the same files by the same tools has."""
    document = read_proof(out)
    if document is None or not _same(document, head):
        return {}
    found: dict[str, list[dict[str, str]]] = {}
    for part in document["parts"]:
        if part["part"] in (*dict(_NEVER), _NETLIST):
            continue
        found.setdefault(part["unit"], []).append(part)
    return {u: parts for u, parts in found.items() if all(p["state"] != "wrong" for p in parts)}


def _save(
    accelerator: Accelerator, head: dict[str, Any], parts: list[dict[str, str]]
) -> dict[str, Any]:
    whole = {part["unit"] for part in parts} >= {u.name for u in accelerator.plan.graph.units}
    whole = whole and any(part["part"] == _NETLIST for part in parts)
    never = [{"part": what, "unit": WHOLE, "state": "open", "says": why} for what, why in _NEVER]
    kept = [part for part in parts if part["part"] not in dict(_NEVER)]
    value: dict[str, Any] = {}
    built = netlist_hash(accelerator.out)
    if built and any(part["part"] == _NETLIST for part in parts):
        head = head | {"netlist_sha256": built}

    def fill(staging: Path) -> dict[str, Any]:
        value.update(write_proof(staging, head | {"complete": whole, "parts": kept + never}))
        return {"prove": {"complete": whole, "parts": value["parts"]}}

    accelerator.update(fill)
    return value


def prove_unit(
    accelerator: Accelerator, name: str, netlists: dict[str, Netlist], steps: Steps
) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for what, state, show in _parts(accelerator, name, netlists, steps):
        needed, other = _RESTS.get(state, ((), state))
        firm = all(part["state"] == "proven" for part in found if part["part"] in needed)
        state = "proven" if needed and firm else other
        firm = not needed or state != "open"
        found.append(_shown(what, name, state, show if firm else _leaning))
    return found


def _leaning() -> str:
    raise _OpenError("it rests on parts that are not proven")


def _shown(what: str, name: str, state: str, show: Callable[[], str]) -> dict[str, str]:
    """A part, of the state that what shows it leaves it in."""
    part = {"part": what, "unit": name, "state": state}
    try:
        part["says"] = show()
    except (_OpenError, InputError) as reason:
        part |= {"state": "open", "says": str(reason)}
    except CheckError as error:
        part |= {"state": "wrong", "says": str(error)}
    return part


def _parts(
    accelerator: Accelerator, name: str, netlists: dict[str, Netlist], steps: Steps
) -> Iterator[Part]:
    """The parts of a unit, or of the whole."""
    graph = accelerator.plan.graph
    if name == WHOLE:
        tables = tuple(f"{u.name}.{t}" for u in graph.units for t in u.tables)
        yield "structure", "proven", lambda: _structure(netlists[""], tables)
        yield "wiring", "proven", lambda: f"{check_wiring(netlists[''], graph):,} streams"
        if any(len(unit.inputs) > 1 for unit in graph.units):
            yield "branches", "open", lambda: _BRANCHES
        return
    unit, netlist = graph.unit(name), netlists[name]
    control = control_ports(netlist, unit)
    yield "structure", "proven", lambda: _structure(netlist, unit.tables, control)
    if isinstance(unit, CoreUnit):
        if unit.core.code_memory == "spram":
            layout, number = code_layout(accelerator.plan.specs), _number(accelerator, unit)
            yield "loading", "proven", lambda: _loading(netlist, unit.core, layout, number)
            try:
                loaded = with_codes(netlist, layout, accelerator.image.cores, number)
            except InputError as reason:
                why = str(reason)
                yield "sums", "open", lambda: why
                return
            netlist = loaded
        yield (
            "handshakes",
            "proven",
            lambda: _claims(
                sum(control_proof(unit.core, view, unit.window) for view in each_reset(netlist))
            ),
        )
        yield from core_proof(unit.core, netlist, unit, accelerator, steps)
        return
    views = each_reset(netlist)
    yield (
        "handshakes",
        "proven",
        lambda: _claims(sum(_unit_control(unit, view, graph) for view in views)),
    )
    # Payloads pass forks and picks by; that others give what came is part of the handshakes.
    if not unit.passes and not isinstance(unit, Pick):
        yield "values", "proven", lambda: proof(unit, views[0])


def _unit_control(unit: Unit, netlist: Netlist, graph: GraphSpec) -> int:
    if isinstance(unit, Unpack):
        check_places(unit, [before.core for before in graph.batched(unit)])
    return check_unit_handshakes(unit, netlist)


control_proof: Face[[Netlist, WindowSpec | None], int] = CORES.face("control_proof")
"""Shows by induction that a core loses and makes no frame, whatever the pauses and resets; how many
claims."""


@control_proof.of(CoreBase)
def _scenarios(spec: CoreBase, netlist: Netlist, window: WindowSpec | None) -> int:
    raise _OpenError(_SCENARIOS)


@control_proof.of(CoreSpec)
def _inductive(spec: CoreSpec, netlist: Netlist, window: WindowSpec | None) -> int:
    if window is None:
        check_frames_taken = check_batch_handshakes if spec.flush_cycles else check_handshakes
        return check_frames_taken(netlist, spec)
    check = check_side_handshakes if window.side > 1 else check_window_handshakes
    return check(netlist, spec, window)


@control_proof.of(UnrolledSpec)
def _wired_inductive(spec: UnrolledSpec, netlist: Netlist, window: WindowSpec | None) -> int:
    if window is not None:
        check = check_pixel_windows if spec.by_pixel else check_unrolled_windows
        return check(netlist, spec, window)
    return check_unrolled_handshakes(netlist, spec)


@control_proof.of(DepthwiseSpec)
def _depthwise_inductive(spec: DepthwiseSpec, netlist: Netlist, window: WindowSpec | None) -> int:
    return check_depthwise_handshakes(netlist, spec)


@control_proof.of(Int8Spec)
def _wide_inductive(spec: Int8Spec, netlist: Netlist, window: WindowSpec | None) -> int:
    return check_wide_handshakes(netlist, spec, window)


@control_proof.of(SharedSpec)
def _engine_inductive(spec: SharedSpec, netlist: Netlist, window: WindowSpec | None) -> int:
    return check_engine_handshakes(netlist, spec)


def _claims(found: int) -> str:
    return f"no frame is lost or made for any pauses and resets: {found} claims, by induction"


def _structure(netlist: Netlist, tables: tuple[str, ...], control: tuple[str, ...] = ()) -> str:
    found = check_structure(netlist, tables, control)
    if found.leaks:
        raise CheckError("; ".join(found.leaks))
    return (
        f"no payload reaches {found.control:,} bits of control registers, a stream's handshake, "
        f"or the addresses and enables of {found.memories} memories; {found.data:,} bits of "
        "registers are data"
    )


core_proof: Face[[Netlist, CoreUnit, Accelerator, Steps], Iterator[Part]] = CORES.face("proof")
"""The parts of a core, given its unit and what that is a part of."""


def _number(accelerator: Accelerator, unit: CoreUnit) -> int:
    """Which of the cores a unit has."""
    return [spec.name for spec in accelerator.plan.specs].index(unit.core.name)


def _loading(netlist: Netlist, spec: CoreBase, layout: CodeLayout, number: int) -> str:
    words = check_loading(netlist, spec, layout, number)
    return f"each of {words:,} words that are loaded goes to its place, and no other one is written"


def _held(accelerator: Accelerator, unit: CoreUnit) -> tuple[Dense, CoreImage]:
    """What a core of one layer computes, and the contents of its memories."""
    at = _number(accelerator, unit)
    part = core_parts(accelerator.network, accelerator.plan.specs)[at]
    assert isinstance(part, CoreLayer)
    return part.dense, accelerator.image.cores[at]


@core_proof.of(CoreBase)
def _unknown(
    spec: CoreBase, netlist: Netlist, unit: CoreUnit, accelerator: Accelerator, steps: Steps
) -> Iterator[Part]:
    yield "sums", "open", lambda: f"cores of kind {spec.kind} are not followed"


@core_proof.of(SharedSpec)
def _shared(
    spec: SharedSpec, netlist: Netlist, unit: CoreUnit, accelerator: Accelerator, steps: Steps
) -> Iterator[Part]:
    yield "codes", "proven", lambda: _program(accelerator, unit)
    dense = spec.kind == SharedSpec.kind and spec.code_memory != "flash"
    if isinstance(spec.code, PulseCode):
        try:
            blocks = EngineBlocks(netlist, spec)
        except InputError as reason:
            why = str(reason)
            yield "leaves", "open", lambda: why
        else:
            yield from _engine_blocks(blocks, spec)
            if dense:
                yield from _engine_sums(netlist, blocks, unit, accelerator, steps)
                return
    yield "sums", "open", lambda: "what an engine of several layers reads and adds is simulated"


def _engine_sums(
    netlist: Netlist, blocks: EngineBlocks, unit: CoreUnit, accelerator: Accelerator, steps: Steps
) -> Iterator[Part]:
    """What an engine of dense layers reads and adds."""
    at, spec = _number(accelerator, unit), unit.core
    part = core_parts(accelerator.network, accelerator.plan.specs)[at]
    assert isinstance(spec, SharedSpec)
    assert isinstance(part, Network)
    dense = tuple(layer.dense for layer in core_layers(part))
    try:
        layers = EngineLayers(spec, dense, accelerator.image.cores[at])
    except InputError as reason:
        why = str(reason)
        yield "sums", "open", lambda: why
        return
    yield "widths", "proven", lambda: _engine_widths(layers)
    yield "moves", "proven", lambda: _engine_moves(netlist, layers.spec, blocks)
    yield "sums", "fed", lambda: _engine_frames(netlist, layers, steps)


def _engine_widths(layers: EngineLayers) -> str:
    low, high = layers.check_widths()
    return f"sums are {low:,} to {high:,} in {layers.spec.acc_bits} bits"


def _engine_moves(netlist: Netlist, spec: SharedSpec, blocks: EngineBlocks) -> str:
    return f"{check_engine_moves(netlist, spec, blocks.activations()):,} bits"


def _engine_frames(netlist: Netlist, layers: EngineLayers, steps: Steps) -> str:
    return _ran(
        check_engine_sums(netlist, layers, lambda done, total: steps.progress(done, total, "sums"))
    )


def _engine_blocks(blocks: EngineBlocks, spec: SharedSpec) -> Iterator[Part]:
    """The parts of an engine's datapath."""
    yield "leaves", "proven", lambda: f"{blocks.leaves():,} values"
    yield "adder trees", "proven", lambda: f"{blocks.trees():,} adders"
    yield "accumulators", "proven", lambda: f"{blocks.accumulators():,} carry chains"
    if spec.params_places:
        why = "multipliers and biases that come from the flash are not followed"
        yield "requantizers", "open", lambda: why
        return
    yield "requantizers", "proven", lambda: _finishes(blocks)


def _finishes(blocks: EngineBlocks) -> str:
    return f"{blocks.finishes():,} ways from products to activations, and every product"


@core_proof.of(CoreSpec)
def _pulses(
    spec: CoreSpec, netlist: Netlist, unit: CoreUnit, accelerator: Accelerator, steps: Steps
) -> Iterator[Part]:
    if not isinstance(spec.code, PulseCode):
        yield "sums", "open", lambda: f"codes of kind {spec.code.kind} are not followed"
        return
    lanes: list[Part] = [
        ("moves", "proven", lambda: _moves(netlist, unit, leaf_activations(netlist, spec))),
        ("leaves", "proven", lambda: f"{check_leaves(netlist, spec):,} values"),
        ("adder trees", "proven", lambda: _trees(netlist, spec, leaf_values(netlist, spec))),
    ]
    yield from _laned(netlist, unit, accelerator, steps, lanes, gated=False)


@core_proof.of(Int8Spec)
def _int8(
    spec: Int8Spec, netlist: Netlist, unit: CoreUnit, accelerator: Accelerator, steps: Steps
) -> Iterator[Part]:
    activations, products = lane_activations(netlist, spec), lane_products(netlist, spec)
    lanes: list[Part] = [
        ("moves", "proven", lambda: _moves(netlist, unit, activations, spec.flipped)),
        ("leaves", "proven", lambda: f"{check_products(netlist, spec):,} products"),
        ("adder trees", "proven", lambda: _trees(netlist, spec, products)),
    ]
    yield from _laned(netlist, unit, accelerator, steps, lanes, gated=True)


def _moves(netlist: Netlist, unit: CoreUnit, ends: list[list[Bit]], inverted: int = 0) -> str:
    return f"{check_moves(netlist, unit.core, ends, inverted, unit.window):,} bits"


def _trees(netlist: Netlist, spec: CoreSpec | Int8Spec, values: list[list[Bit]]) -> str:
    return f"{check_trees(netlist, spec, values):,} adders"


def _laned(
    netlist: Netlist,
    unit: CoreUnit,
    accelerator: Accelerator,
    steps: Steps,
    lanes: list[Part],
    *,
    gated: bool,
) -> Iterator[Part]:
    """The parts of a core that computes in lanes, given those of the lanes themselves."""
    layer, image = _held(accelerator, unit)
    sums = RowSums.of(layer, unit.core, image)
    yield "codes", "proven", lambda: _codes(layer, unit, image)
    yield "widths", "proven", lambda: _widths(sums)
    yield from lanes
    yield (
        "accumulators",
        "proven",
        lambda: f"{check_accumulators(netlist, unit.core, gated=gated):,} carry chains",
    )
    yield "requantizers", "proven", lambda: _requantizers(netlist, sums, steps)
    # A linear function is known by frames that tell every weight.
    yield "sums", "linear", lambda: _frames(netlist, unit, sums, steps)


@core_proof.of(UnrolledSpec)
def _unrolled(
    spec: UnrolledSpec, netlist: Netlist, unit: CoreUnit, accelerator: Accelerator, steps: Steps
) -> Iterator[Part]:
    layer, image = _held(accelerator, unit)
    sums = RowSums.of(layer, spec, image)
    yield "codes", "proven", lambda: _weights(spec, layer, image, sums)
    yield "widths", "proven", lambda: _widths(sums)
    yield "adders", "proven", lambda: _wires(netlist, spec, layer, image)
    yield "requantizers", "proven", lambda: _requantizers(netlist, sums, steps)
    # The frame that is held is what came, and each requantizer gets its row's sum, by handshakes.
    yield "sums", "wired", lambda: _wired_sums(spec, unit)


@core_proof.of(DepthwiseSpec)
def _depthwise(
    spec: DepthwiseSpec, netlist: Netlist, unit: CoreUnit, accelerator: Accelerator, steps: Steps
) -> Iterator[Part]:
    layer, image = _held(accelerator, unit)
    sums = RowSums.of(layer, spec, image)
    yield "codes", "proven", lambda: _read_words(netlist, spec, layer, image, sums)
    yield "widths", "proven", lambda: _widths(sums)
    yield "leaves", "proven", lambda: f"{check_taps(netlist, spec):,} bits of weights"
    yield "adder trees", "proven", lambda: f"{check_planes(netlist, spec):,} adders"
    # Windows are what has come, and words follow the rows, by handshakes.
    yield "moves", "proven", lambda: f"{check_results(netlist, spec):,} bits of results"
    yield "requantizers", "proven", lambda: _requantizers(netlist, sums, steps)
    yield (
        "sums",
        "tapped",
        lambda: f"{spec.rows:,} sums of each window meet their rows' multipliers and biases",
    )


def _read_words(
    netlist: Netlist, spec: DepthwiseSpec, layer: Dense, image: CoreImage, sums: RowSums
) -> str:
    _weights(spec, layer, image, sums)
    return f"{check_words(netlist, spec, image):,} words are the weights and parameters"


def _wired_sums(spec: UnrolledSpec, unit: CoreUnit) -> str:
    what = "each window" if unit.window is not None else "the frame that came"
    return f"{spec.sums:,} sums of {what} meet their rows' multipliers and biases"


def _wires(netlist: Netlist, spec: UnrolledSpec, layer: Dense, image: CoreImage) -> str:
    if spec.digit:
        adders = check_digit_wires(netlist, spec, spec.graph(image), layer.y)
    else:
        adders = check_wires(netlist, spec, layer.y)
    return f"{adders:,} adders of a held frame give the {spec.sums:,} sums"


def _weights(spec: CoreBase, layer: Dense, image: CoreImage, sums: RowSums) -> str:
    if not np.array_equal(spec.decode(image), layer.y):
        raise CheckError(f"Core {spec.name!r}: the file's weights must be the layer's")
    same = np.array_equal(sums.mult, spec.multipliers(image)) and sums.bias == tuple(image.bias)
    if not same:
        raise CheckError(f"Core {spec.name!r}: multipliers and biases must be the layer's")
    return f"{layer.y.size:,} words are the weights"


def _codes(layer: Dense, unit: CoreUnit, image: CoreImage) -> str:
    found = check_codes(layer, unit.core, image)
    return (
        f"{found.words:,} words are the {found.rows:,} rows of weights, of which {found.weights:,} "
        f"are not 0, at the places of {found.activations:,} activations"
    )


def _program(accelerator: Accelerator, unit: CoreUnit) -> str:
    """The words of a shared engine, which are the network's and no others."""
    at = _number(accelerator, unit)
    spec, image = accelerator.plan.specs[at], accelerator.image.cores[at]
    part = core_parts(accelerator.network, accelerator.plan.specs)[at]
    assert isinstance(spec, SharedSpec)
    if (spec, image) != remake_part(part, spec, accelerator.plan.target):
        raise CheckError("the engine's words must be those of the network's layers")
    return f"{spec.words:,} words of {len(spec.layers)} steps are the network's layers"


def _widths(sums: RowSums) -> str:
    sums.check_widths()
    low, high = sums.bounds
    return f"sums are {low.min():,} to {high.max():,} in {sums.spec.acc_bits} bits"


def _requantizers(netlist: Netlist, sums: RowSums, steps: Steps) -> str:
    values, left = check_requantizers(
        netlist, sums, lambda done, total: steps.progress(done, total, "rows")
    )
    if left:
        raise _OpenError(
            f"{len(left)} of {sums.spec.rows} rows have too many sums to run; "
            f"the others' {values:,} are right"
        )
    return f"{values:,} sums, all that rows can have"


def _frames(netlist: Netlist, unit: CoreUnit, sums: RowSums, steps: Steps) -> str:
    found = check_frames(
        netlist, unit, sums, lambda done, total: steps.progress(done, total, "sums")
    )
    return _ran(found)


def _ran(found: Frames) -> str:
    return (
        f"{found.sums:,} sums of {found.frames:,} frames that tell every weight, "
        f"in {found.cycles:,} cycles with pauses"
    )


proof: Face[[Netlist], str] = UNITS.face("proof")
"""Checks what a unit does with values in a netlist; what was looked at, in words."""


@proof.of(Unit)
def _open(unit: Unit, netlist: Netlist) -> str:
    raise _OpenError(f"what a {unit.kind} does with values is simulated")


@proof.of(Lookup)
def _table(unit: Lookup, netlist: Netlist) -> str:
    return f"{check_table(netlist, unit):,} values, all of every table"


@proof.of(Pool)
def _pool(unit: Pool, netlist: Netlist) -> str:
    return f"{check_pool(netlist, unit):,} results a frame, each of its window"


@proof.of(Join)
def _sum(unit: Join, netlist: Netlist) -> str:
    what = "values, all of its inputs" if unit.runs else "combinations, all of its operands"
    return f"{check_sum(netlist, unit):,} {what}"


@proof.of(AboveUnit)
def _above(unit: AboveUnit, netlist: Netlist) -> str:
    return f"{check_thresholds(netlist, unit):,} values, all at each threshold"


@proof.of(LargestUnit)
def _largest(unit: LargestUnit, netlist: Netlist) -> str:
    return f"the {unit.count} largest of {unit.size} values: {check_largest(netlist, unit)} claims"


@proof.of(SmoothedUnit)
def _smoothed(unit: SmoothedUnit, netlist: Netlist) -> str:
    claims = check_smoothed(netlist, unit)
    return f"averages of {unit.size} values and the class that holds: {claims} claims"


@proof.of(Unpack)
def _unpacked(unit: Unpack, netlist: Netlist) -> str:
    claims = check_unpacked(netlist, unit)
    return f"each result of {unit.batch} frames side by side, as it came: {claims} claims"
