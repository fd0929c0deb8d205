"""The plan: every core's numbers on a target, its cycles and what it takes, before synthesis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pvq_hw.arith.formats import significant
from pvq_hw.choices import LINKS, UART
from pvq_hw.documents import (
    Document,
    Format,
    Place,
    document_text,
    integer_range,
    line,
    load_json,
    one_of,
    read,
    write_fields,
)
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.engines import AUTO, Engine, engine_named
from pvq_hw.engine.kinds import make_layer_core, remade
from pvq_hw.engine.spram_image import has_spram
from pvq_hw.engine.timing import Timing, run_frames, time_graph
from pvq_hw.engine.units import CoreUnit, Fifo, Pool, Unit, Wide
from pvq_hw.errors import InputError
from pvq_hw.host.protocol import OVERHEAD, check_repeated
from pvq_hw.naming import Names, quoted
from pvq_hw.network.layer import TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.plan.candidates import with_engines
from pvq_hw.plan.core_layers import CoreLayer, core_layers, unit_names
from pvq_hw.plan.core_parts import CorePart, core_parts, engine_part
from pvq_hw.plan.fit import check_fit
from pvq_hw.plan.folding import Folding, FoldLayer, batch_options, fold, known_layers
from pvq_hw.plan.goal import NO_GOAL, SpeedGoal
from pvq_hw.plan.layer import LayerPlan, plan_layer
from pvq_hw.plan.lowering import build_graph, plan_graph
from pvq_hw.plan.resources import Resources, budget, live_resources, load_resources, top_resources
from pvq_hw.plan.shared import ENGINE, known_steps, least_engine, make_engine
from pvq_hw.plan.sharing import fold_groups, shared_groups
from pvq_hw.plan.streaming import CodeStream
from pvq_hw.plan.unit_resources import (
    converter_resources,
    graph_operations,
    graph_resources,
    unit_resources,
)
from pvq_hw.plan.whole import (
    Lanes,
    whole_core,
    whole_engine,
    whole_layer,
    whole_plan,
)
from pvq_hw.reserved import RESERVED
from pvq_hw.tables import Table
from pvq_hw.target.baud import byte_bits, choose_rate
from pvq_hw.target.boards import TARGET, Target, get_target
from pvq_hw.target.energy import LABEL, Operations, energy_nj
from pvq_hw.target.families import family
from pvq_hw.target.pll import solve_pll

__all__ = [
    "Plan",
    "core_images",
    "part_plan",
    "plan",
    "remake",
    "remake_graph",
    "remake_part",
    "replanned",
]

FORMAT = Format("a plan", "pvq-hw plan", 2, 1 << 26)
_LONGEST_LIMIT = 300


@dataclass(frozen=True)
class Plan(Document):
    """How a network runs on a target.

    Parameters
    ----------
    network : str
        Name of the network.
    target : Target
    clock_mhz : float
        What the board's PLL is asked for; ``clock_hz`` is what it makes of that.
    baud : int
        Bits a second on the host link.
    input_bytes, output_bytes : int
        Bytes of a frame and of its results on the link, without the packet around them.
    layers : tuple of LayerPlan
        In order.
    interval_cycles, latency_cycles : int
        As `pvq_hw.engine.timing` gives them, which is what the circuit takes.
    top : bool
        Whether the board's top (UART, packets) is counted.
    graph : GraphSpec
        The units that the network is made of.
    limit : str
        In one line, which layer or part of the device stops the plan from being faster.
    goal : SpeedGoal
        The speed that was asked for.
    live : int
        Banks of memories that are loaded while the board runs: 0 where they are not; with 1 no
        frame is taken meanwhile, with 2 the weights before answer.
    measure : bool
        Whether the board's top repeats frames by itself and counts cycles.
    link : str
        One of `pvq_hw.choices.LINKS`.
    """

    derived: ClassVar[tuple[str, ...]] = (
        "clock_hz", "frames", "inferences_per_second", "inferences_per_second_over_link",
        "latency_us", "code_bits", "bits_per_weight", "parameter_bits_per_weight", "resources",
        "budget", "energy", "updatable", "code_stream",
    )  # fmt: skip

    network: str
    target: Annotated[Target, TARGET]
    clock_mhz: float
    baud: int
    input_bytes: int
    output_bytes: int
    layers: tuple[LayerPlan, ...]
    interval_cycles: int
    latency_cycles: int
    graph: GraphSpec
    top: bool = True
    limit: Annotated[str, line(_LONGEST_LIMIT)] = ""
    goal: SpeedGoal = NO_GOAL
    live: Annotated[int, integer_range(0, 2)] = 0
    measure: bool = False
    link: Annotated[str, one_of(*LINKS)] = UART

    # -- figures --------------------------------------------------------------------------------

    @property
    def specs(self) -> list[CoreBase]:
        """The cores, in order."""
        return [layer.spec for layer in self.layers]

    @property
    def shared(self) -> CoreBase | None:
        """The core that all layers share, if they do."""
        first = self.layers[0].spec
        alone = len(self.layers) > 1 or engine_named(first.engine).for_one
        return None if alone else first

    @property
    def frames(self) -> int:
        """V: frames that cores take side by side."""
        return self.graph.frames

    @property
    def updatable(self) -> bool:
        """Whether other weights of the same shape go into the same circuit."""
        return all(spec.updatable for spec in self.specs)

    @property
    def lanes(self) -> tuple[int, ...]:
        """P of every core."""
        return tuple(layer.spec.lanes for layer in self.layers)

    @property
    def clock_hz(self) -> int:
        """The circuit's clock: the highest that the board's PLL makes, up to ``clock_mhz``."""
        return _clock_hz(self.target, self.clock_mhz)

    @property
    def inferences_per_second(self) -> float:
        """Clock / interval, times the frames of a batch."""
        return self.frames * self.clock_hz / self.interval_cycles

    @property
    def latency_us(self) -> float:
        """Microseconds from the first activation in to the last result out."""
        return 1e6 * self.latency_cycles / self.clock_hz

    @property
    def inferences_per_second_over_link(self) -> float:
        """What the link allows, both ways at once."""
        longest = OVERHEAD + max(self.input_bytes, self.output_bytes)
        return min(self.inferences_per_second, self.baud / byte_bits(self.link) / longest)

    @property
    def resources(self) -> Resources:
        """All cores, and the board's top where it is counted."""
        start = Resources()
        if self.top:
            start = top_resources(
                self.target, self.input_bytes, self.updatable, self.live > 0, self.measure
            )
            start += converter_resources(
                self.graph.x, self.graph.out, self.graph.widths, family(self.target.engine)
            )
        if self.top and self.live:
            start += live_resources(self.graph, self.target.engine, self.live)
        if self.top and has_spram(self.specs):
            start += load_resources(self.target)
        start += graph_resources(self.graph, self.target.engine)
        return sum((layer.resources for layer in self.layers), start)

    @property
    def stream(self) -> CodeStream | None:
        """What of the codes comes from the flash for every frame; None where nothing does."""
        specs: list[Any] = [spec for spec in self.specs if spec.code_memory == "flash"]
        if not specs:
            return None
        return CodeStream.of(specs[0], self.interval_cycles, self.clock_hz)

    @property
    def code_bits(self) -> int:
        """All stored code bits: row ends, escapes and padding included."""
        return sum(layer.code_bits for layer in self.layers)

    @property
    def bits_per_weight(self) -> float:
        """Stored code bits per weight."""
        return self.code_bits / sum(layer.weights for layer in self.layers)

    @property
    def parameter_bits_per_weight(self) -> float:
        """Bits of multipliers and biases per weight."""
        bits = sum(layer.parameter_bits for layer in self.layers)
        return bits / sum(layer.weights for layer in self.layers)

    @property
    def operations(self) -> Operations:
        """What happens in one inference."""
        return sum((layer.operations for layer in self.layers), self._lookups)

    @property
    def _lookups(self) -> Operations:
        return graph_operations(self.graph)

    @property
    def energy_nj(self) -> float:
        """Modelled; see `pvq_hw.target.energy`."""
        tables = energy_nj(self._lookups, self.target, hard_multiplier=False)
        return tables + sum(layer.energy_nj(self.target) for layer in self.layers)

    @property
    def energy_int8_nj(self) -> float:
        """The same model's figure for plain 8-bit weights on as many lanes."""
        tables = energy_nj(self._lookups, self.target, hard_multiplier=False)
        return tables + sum(layer.energy_int8_nj(self.target) for layer in self.layers)

    # -- for people -----------------------------------------------------------------------------

    def table(self) -> Table:
        """Speed, what it takes of the board, and every core."""
        used, limit = self.resources, budget(self.target)
        parts = [
            f"{getattr(used, key):,} of {getattr(limit, key):,} {name}"
            for key, name in (("luts", f"{self.target.logic_cell}s"), ("brams", "block RAMs"),
                              ("dsps", "multipliers"), ("sprams", "SPRAMs"))
            if getattr(limit, key)
        ]  # fmt: skip
        figures = [
            ("speed", f"{self.inferences_per_second:,.0f} inferences/s at "
             f"{self.clock_hz / 1e6:g} MHz, {self.interval_cycles:,} cycles between frames, "
             f"{self.latency_cycles:,} latency"),
            ("takes", ", ".join(parts)),
        ]  # fmt: skip
        if self.stream is not None:
            figures.append(("codes", self.stream.text()))
        if self.goal:
            figures.append(("asked for", self.goal.text()))
        if self.limit:
            figures.append(("not faster since", self.limit))
        rows = [row for layer in self.layers for row in _rows(layer)]
        header = ("layer", "N/K", "lanes", "slots", "used", "cycles", "LUTs", "block RAMs")
        return Table(f"Plan of {self.network} on {self.target.board}", figures, header, rows)

    def summary(self) -> str:
        """A line for each core, and what they are together."""
        return self.table().text()

    def __repr__(self) -> str:
        return (f"<Plan of {quoted(self.network)} on {self.target.name}: "
                f"{self.interval_cycles:,} cycles, {self.resources.luts:,} LUTs>")  # fmt: skip

    def _repr_html_(self) -> str:
        return self.table().html()

    # -- checks ---------------------------------------------------------------------------------

    def verify(self) -> None:
        """Raises InputError, with the numbers and a remedy, unless all fits the target."""
        _clock_hz(self.target, self.clock_mhz)
        if self.stream is not None:
            self.stream.verify(self.target.name)
        check_fit(self.layers, self.resources, self.target)
        if not self.goal.reached(self.inferences_per_second, self.latency_us):
            found = self.goal.found(self.inferences_per_second, self.latency_us)
            raise InputError(f"The plan must have {self.goal.text()}, but has {found}")

    def verified(self) -> "Plan":
        """The plan itself, once `verify` has passed."""
        self.verify()
        return self

    # -- files ----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The plan and every figure that follows from it, as JSON values."""
        limit = budget(self.target)
        return {
            **FORMAT.header,
            **write_fields(self, but=("layers",)),
            "clock_hz": self.clock_hz,
            "frames": self.frames,
            "updatable": self.updatable,
            "inferences_per_second": significant(self.inferences_per_second),
            "inferences_per_second_over_link": significant(self.inferences_per_second_over_link),
            "latency_us": significant(self.latency_us),
            "code_bits": self.code_bits,
            **({} if self.stream is None else {"code_stream": self.stream.to_json()}),
            "bits_per_weight": significant(self.bits_per_weight),
            "parameter_bits_per_weight": significant(self.parameter_bits_per_weight),
            "resources": self.resources.to_json(),
            "budget": limit.to_json(),
            "energy": {
                "label": LABEL,
                "nj_per_inference": significant(self.energy_nj),
                "int8_nj_per_inference": significant(self.energy_int8_nj),
                "operations": self.operations.to_json(),
            },
            "layers": [layer.document(self.target) for layer in self.layers],
        }

    def save(self, path: Path) -> None:
        """Writes the plan as JSON; the same plan gives the same bytes."""
        path.write_text(document_text(self.to_json()), encoding="utf-8", newline="\n")

    @classmethod
    def from_json(cls, value: Any, place: Place | str = "Plan") -> "Plan":
        """Inverse of `to_json`; raises InputError on anything else. Derived figures are not read:
        they follow from the rest (`pvq_hw.output.verify` compares them)."""
        place = Place(place) if isinstance(place, str) else place
        plan = read(cls, FORMAT.check(value, place), place)
        try:
            plan._check()
        except InputError as error:
            raise place.refused(error) from None
        return plan

    def _check(self) -> None:
        if not self.layers or self.interval_cycles < 1 or not self.clock_mhz > 0 or self.baud < 1:
            raise InputError("A plan must have layers, cycles, a clock and a baud rate")
        _clock_hz(self.target, self.clock_mhz)
        if len({spec.name.lower() for spec in self.specs}) < len(self.layers):
            raise InputError("A plan's cores must have different names")
        if self.graph.cores != self.specs:
            raise InputError("A plan's graph must have the cores of its layers")
        if self.live and not self.updatable:
            raise InputError("A plan whose weights are loaded must have updatable cores")

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Reads what `save` wrote; raises InputError on anything else."""
        return cls.from_json(load_json(path, FORMAT) | FORMAT.header, Place(str(path)))


@lru_cache(maxsize=64)
def _clock_hz(target: Target, clock_mhz: float) -> int:
    """The search for dividers takes 50 ms on an ECP5."""
    return solve_pll(target, clock_mhz).hz


def plan(
    network: Network,
    target: Target | str,
    *,
    lanes: Sequence[int | None] | None = None,
    gap_bits: Sequence[int | None] | None = None,
    clock_mhz: float | None = None,
    baud: int | None = None,
    top: bool = True,
    check: bool = True,
    frames: int = 1,
    serial: bool = True,
    windows: int | None = None,
    stream_width: int | None = None,
    digit: int | None = None,
    widths: tuple[int, int] = (1, 1),
    codes: Mapping[str, str] | None = None,
    each: Mapping[str, Mapping[str, Any]] | None = None,
    reasons: Mapping[str, str] | None = None,
    engine_reasons: Mapping[str, str] | None = None,
    limit: str | None = None,
    reserve: Resources | None = None,
    goal: int = 0,
    live: bool = False,
    measure: bool = False,
    link: str = UART,
    **options: Any,
) -> Plan:
    """Plans the cores of a network.

    Parameters
    ----------
    network : Network
        Of layers with pulses or plain 8-bit weights, poolings, sums and concatenations.
    target : Target or str
    lanes : sequence of int, optional
        P of every layer; folded to the target unless given, None where a layer's are free.
    gap_bits : sequence of int, optional
        Of every layer; chosen with the lanes unless given.
    clock_mhz, baud : optional
        The target's defaults unless given.
    top : bool
        Whether the board's top (UART, packets) is to fit too.
    check : bool
        Whether to raise InputError where the target is too small.
    frames : int
        V: frames that the dense layers of pulses at the network's end take side by side. They come
        and go one after the other; `pvq_hw.engine.batch` says when a batch that is not full is
        closed.
    serial : bool
        False: activations of all V frames come and go in one transfer.
    windows : int, optional
        V: windows of a map that the convolutions of pulses take side by side, as far as a row has
        so many; free unless given, and for single layers in ``each``.
    stream_width : int, optional
        Results that leave a layer in a transfer, where it can give several: unrolled ones and
        convolutions with windows side by side; free unless given, and for single layers in
        ``each``.
    digit : int, optional
        Bits that the adders of unrolled layers take a cycle, one of
        `pvq_hw.engine.unrolled_core.DIGITS`, 0 for all at once; free unless given, and for single
        layers in ``each``.
    widths : (int, int)
        Activations in a transfer of the network's input, and of its output.
    codes : mapping of layer name to str, optional
        ``"pulse"`` or ``"shifted"``: pulses of weight 1, or of powers of two. Free unless given:
        shifted where that saves 3 % of the cycles and fits.
    each : mapping of layer name to options, optional
        Of `pvq_hw.engine.kinds.make_layer_core`, for single layers (``engine``, ...). An
        ``engine`` of ``"auto"`` unrolls a layer where that makes the network faster and fits.
    reasons : mapping of layer name to str, optional
        Why a layer has the code that it has, where its codes do not tell.
    engine_reasons : mapping of layer name to str, optional
        Why a layer is folded or unrolled, where that was chosen before.
    limit : str, optional
        `Plan.limit`, where the lanes come from a folding that says so.
    reserve : Resources, optional
        Kept free when lanes are chosen, besides what all units but the cores are reckoned to take.
    goal : int
        Cycles between frames that are asked for, where lanes are free: the cheapest choices that
        keep to them.
    live : bool
        Whether updatable weights are loaded while the board runs: into a second bank of memories
        where there is room for one.
    measure : bool
        Whether the top repeats frames by itself and counts cycles.
    link : str
        One of `pvq_hw.choices.LINKS`.
    **options
        Of `pvq_hw.engine.kinds.make_layer_core`, for all layers (``shift_bits``, ``engine``, ...).

    Raises
    ------
    InputError
        A layer cannot do what is asked of it, or the target is too small.
    """
    each, reasons = each or {}, reasons or {}
    board = get_target(target) if isinstance(target, str) else target
    kinds = {each.get(x.name, {}).get("engine", options.get("engine")) for x in network.weighted}
    whole = whole_engine(kinds)
    if whole is not None and len(kinds) == 1:
        return _plan_whole(
            whole, network, board, lanes=lanes, gap_bits=gap_bits, clock_mhz=clock_mhz, baud=baud,
            top=top, check=check, frames=frames, codes=codes, limit=limit, options=options,
            each=each, goal=goal, measure=measure, link=link, why=engine_reasons or {},
        )  # fmt: skip
    known, kept = known_layers(network, codes), reserve or Resources()
    wanted = {x.name: {**options, **each.get(x.name, {})} for x in known}
    known = with_engines(known, wanted)
    engines = _engine_parts(network, wanted, frames)
    around, (pace, slowest) = _around(network, engines, board, widths)
    if top:
        around += _top(network, board, wanted, live, widths, measure)
    asked: dict[str, Any] = {
        "lanes": lanes, "gap_bits": gap_bits, "frames": frames, "serial": serial,
        "windows": windows, "stream_width": stream_width, "digit": digit, "goal": goal, **options,
    }  # fmt: skip
    folding = _folded(
        known, board, engines, each=wanted if engines else each, reserve=around + kept,
        input_width=widths[0], pace=pace, slowest=slowest, **asked,
    )  # fmt: skip
    asked["each"] = each
    sides = batch_options(known, frames, serial)
    cores = _made(network, engines, board, folding, sides, options, each)
    graph, cores = _with_flush(plan_graph(network, cores, board.engine, widths), cores)
    why = _engine_reasons(known) | dict(folding.engine_reasons) | dict(engine_reasons or {})
    result = _joined(
        network, board, _planned(network, cores, board, reasons, why), graph,
        _timing(graph, cores),
        clock_mhz=clock_mhz, baud=baud, top=top,
        limit=folding.limit if limit is None else limit, live=int(live), measure=measure,
        link=link,
    )  # fmt: skip
    free = lanes is None or None in lanes
    if free and folding.fits and not result.resources.within(budget(board)):
        # Queues and line buffers came out larger than those that the lanes were chosen by.
        return plan(
            network, board, clock_mhz=clock_mhz, baud=baud, top=top, check=check, widths=widths,
            codes=codes, reasons=reasons, engine_reasons=engine_reasons, limit=limit,
            reserve=kept + _lacking(result.resources, folding.cost), live=live,
            measure=measure, link=link, **asked,
        )  # fmt: skip
    if live and (spare := replace(result, live=2)).resources.within(budget(board)):
        result = spare
    return result.verified() if check else result


def _top(
    network: Network,
    board: Target,
    wanted: Mapping[str, Mapping[str, Any]],
    live: bool,
    widths: tuple[int, int],
    measure: bool,
) -> Resources:
    """What the board's top takes, where layers have these options and streams these widths."""
    updatable = all("spare" in own for own in wanted.values())
    x, out = ((tensor.size, tensor.format) for tensor in (network.input, network.output))
    converters = converter_resources(x, out, widths, family(board.engine))
    size = _frame_bytes(network.input)
    return top_resources(board, size, updatable, live, measure) + converters


def _timing(graph: GraphSpec, cores: Sequence[tuple[CoreBase, CoreImage]]) -> Timing:
    return time_graph(graph, {spec.name: image for spec, image in cores})


def _engine_reasons(layers: Sequence[FoldLayer]) -> dict[str, str]:
    """Why layers have no lanes, where that was asked for."""
    return {
        x.name: f"{x.engine} was asked for"
        for x in layers
        if x.engine != AUTO and not x.computed_in.laned
    }


def _engine_parts(
    network: Network, wanted: Mapping[str, Mapping[str, Any]], frames: int
) -> dict[str, Network]:
    """What each engine of several layers computes, by its name; none of layers for themselves."""
    groups = shared_groups(list(wanted), wanted)
    if groups and frames != 1:
        raise InputError(f"A shared engine takes one frame at a time, not {frames} side by side")
    names = Names({*RESERVED, *unit_names(network.layers)})
    return {names.identifier(ENGINE): engine_part(network, group) for group in groups}


def _folded(
    known: Sequence[FoldLayer], board: Target, engines: Mapping[str, Network], **asked: Any
) -> Folding:
    """Lanes of a known network's layers, and its engines."""
    if not engines:
        return fold(known, board, **asked)
    steps = {part.weighted[0].name: partial(known_steps, part) for part in engines.values()}
    groups = [[layer.name for layer in part.weighted] for part in engines.values()]
    return fold_groups(
        known, board, groups, steps=steps, passed=Resources(), best=fold, **asked
    )  # fmt: skip


def _planned(
    network: Network,
    cores: Sequence[tuple[CoreBase, CoreImage]],
    board: Target,
    reasons: Mapping[str, str],
    why: Mapping[str, str],
) -> tuple[LayerPlan, ...]:
    """Every core's part of a plan."""
    found = []
    parts = core_parts(network, [spec for spec, _ in cores])
    for part, (spec, image) in zip(parts, cores, strict=True):
        name = spec.shared_by[0] if isinstance(part, Network) else part.name
        found.append(part_plan(part, spec, image, board, reasons.get(name), why.get(name)))
    return tuple(found)


def part_plan(
    part: CorePart,
    spec: CoreBase,
    image: CoreImage,
    board: Target,
    reason: str | None = None,
    engine_reason: str | None = None,
) -> LayerPlan:
    """What a plan says of a core; ``reason`` is what the codes say unless given, and
    ``engine_reason`` why a layer is where it is."""
    if isinstance(part, Network):
        own = whole_layer(spec, board)
        text = own.reason if reason is None else reason
        return replace(own, reason="; ".join(filter(None, (text, engine_reason))))
    return plan_layer(
        part.dense, spec, image, board.engine, part.positions, part.conv_groups, reason,
        engine_reason,
    )  # fmt: skip


def _frame_bytes(tensor: TensorSpec) -> int:
    """Bytes of a frame on the link."""
    return tensor.size * -(-tensor.format.bits // 8)


def _plan_whole(
    engine: Engine,
    network: Network,
    board: Target,
    *,
    lanes: Lanes,
    gap_bits: Lanes,
    clock_mhz: float | None,
    baud: int | None,
    top: bool,
    check: bool,
    frames: int,
    codes: Mapping[str, str] | None,
    limit: str | None,
    options: Mapping[str, Any],
    each: Mapping[str, Mapping[str, Any]],
    goal: int,
    measure: bool,
    link: str,
    why: Mapping[str, str],
) -> Plan:
    """The plan of a network in one core; what is asked of layers must be asked of all."""
    what = f"A {engine.kind} engine"
    if frames != 1:
        raise InputError(f"{what} takes one frame at a time, not {frames} side by side")
    shifted = sorted({kind for kind in (codes or {}).values() if kind != "pulse"})
    if shifted:
        raise InputError(f"{what} has codes of single pulses, not {shifted[0]} ones")
    weighted = [layer.name for layer in network.layers if layer.weights is not None]
    asked = [{**options, **each.get(name, {})} for name in weighted]
    if any(part != asked[0] for part in asked):
        raise InputError(f"{what} is that of all layers: options must be the same for all")
    chosen = {key: value for key, value in asked[0].items() if key != "engine"}
    input_bytes = _frame_bytes(network.input)
    reserve = top_resources(board, input_bytes, measure=measure) if top else Resources()
    spec, image, folding = whole_plan(
        engine, network, board, lanes, gap_bits, reserve, goal, chosen
    )
    graph = plan_graph(network, [(spec, image)], board.engine)
    timing = _timing(graph, [(spec, image)])
    result = _joined(
        network, board, (part_plan(network, spec, image, board, None, why.get(weighted[0])),),
        graph, timing, clock_mhz=clock_mhz,
        baud=baud, top=top, limit=folding.limit if limit is None else limit, measure=measure,
        link=link,
    )  # fmt: skip
    return result.verified() if check else result


def _joined(
    network: Network,
    board: Target,
    layers: tuple[LayerPlan, ...],
    graph: GraphSpec,
    timing: Timing,
    *,
    clock_mhz: float | None,
    baud: int | None,
    top: bool,
    limit: str,
    live: int = 0,
    measure: bool = False,
    link: str = UART,
) -> Plan:
    """The plan of layers and the graph around them; clock and rate of the link are the board's
    where they are None."""
    output = network.output
    board.check_link(link)
    clock_mhz = board.clock_mhz if clock_mhz is None else float(clock_mhz)
    if baud is None:
        baud = board.baud if link == UART else choose_rate(link, _clock_hz(board, clock_mhz))
    if measure:
        check_repeated(_frame_bytes(network.input))
        if graph.together != (1, 1):
            raise InputError(
                "What a board measures must have one activation a transfer, not {} and {}: leave "
                "out --measure".format(*graph.together)
            )
    return Plan(
        network=network.name,
        target=board,
        clock_mhz=clock_mhz,
        baud=int(baud),
        input_bytes=_frame_bytes(network.input),
        output_bytes=_frame_bytes(output),
        layers=layers,
        interval_cycles=timing.interval_cycles,
        latency_cycles=timing.latency_cycles,
        top=top,
        graph=graph,
        limit=limit,
        live=live,
        measure=measure,
        link=link,
    )


def _made(
    network: Network,
    engines: Mapping[str, Network],
    board: Target,
    folding: Folding,
    sides: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    each: Mapping[str, Mapping[str, Any]],
) -> list[tuple[CoreBase, CoreImage]]:
    """The cores of a folding; what was asked of all layers, and of single ones, goes before what
    it chose."""
    names = dict(zip((x.name for x in network.layers), unit_names(network.layers), strict=True))
    shared = {x.name: name for name, part in engines.items() for x in part.weighted}
    reckoned = dict(zip(engines, folding.engines, strict=True))
    chosen = zip(
        core_layers(network), folding.lanes, folding.gap_bits, folding.memories, sides, strict=True
    )
    cores, done = [], set[str]()
    for layer, p, gap, memories, side in chosen:
        own = each.get(layer.name, {})
        name = shared.get(layer.name)
        if name is None:
            cores.append(
                make_layer_core(
                    layer.dense, layer.x, p, gap_bits=gap, family=board.engine,
                    name=names[layer.name], **{
                        **(memories | dict(side) | dict(options) | _of_core(own)),
                        "engine": folding.engine(layer.name),
                    },
                )
            )  # fmt: skip
        elif name not in done:
            asked = {key: value for key, value in {**options, **own}.items() if key != "engine"}
            cores.append(make_engine(engines[name], reckoned[name], board, name, asked))
            done.add(name)
    return cores


def _lacking(taken: Resources, reckoned: Resources) -> Resources:
    """What is taken beyond what was reckoned with."""
    over = taken - reckoned
    return Resources(**{key: max(0, value) for key, value in vars(over).items()})


def _of_core(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a core; what it takes and gives at once is among what the folding chose."""
    chosen = ("windows", "stream_width", "digit")
    return {key: value for key, value in asked.items() if key not in chosen}


def _rows(layer: LayerPlan) -> list[tuple[str, ...]]:
    """A core's lines of the table, those of the layers that share it first."""
    parts = layer.parts if layer.spec.shared_by else []
    return [
        *(
            (part["name"], f"{part['n_over_k']:.2f}", "shared", f"{part['slots']:,}",
             f"{100 * part['utilization']:.0f} %", f"{part['cycles']:,}", "", "")
            for part in parts
        ),
        (
            layer.layer, "int8" if layer.n_over_k is None else f"{layer.n_over_k:.2f}",
            *_lanes(layer),
            f"{layer.cycles:,}", f"{layer.resources.luts:,}", f"{layer.resources.brams}",
        ),
    ]  # fmt: skip


def _lanes(layer: LayerPlan) -> tuple[str, str, str]:
    """Lanes, slots and the used ones, in words."""
    spec, engine = layer.spec, engine_named(layer.spec.engine)
    side = f" x {spec.frames}" if spec.row_windows else ""
    wide = f", {spec.out_width} a cycle" if spec.out_width > 1 else ""
    lanes = (f"{spec.lanes}{side}" if engine.laned else engine.kind) + wide
    if layer.utilization is None:
        return lanes, "", ""
    return lanes, f"{spec.words:,}", f"{100 * layer.utilization:.0f} %"


def _with_flush(
    graph: GraphSpec, cores: list[tuple[CoreBase, CoreImage]]
) -> tuple[GraphSpec, list[tuple[CoreBase, CoreImage]]]:
    """A core that makes batches of what other units give waits longer for the next frame than
    these pause between two."""
    images = [image for _, image in cores]
    cores = list(zip(graph.cores, images, strict=True))  # which take as much as their wires give
    makers = [u for u in graph.units if isinstance(u, CoreUnit) and u.core.flush_cycles]
    if not makers or makers[0] is graph.first:
        return graph, cores
    (maker,) = makers
    moved = run_frames(graph, {spec.name: image for spec, image in cores}, 3)[maker.inputs[0]].moved
    n = maker.core.n
    pause = max(b - a for a, b in zip(moved[n - 1 :: n], moved[n::n], strict=False))
    flush = maker.core.flush_cycles + pause + pause // 4
    units = tuple(
        replace(u, core=replace(maker.core, flush_cycles=flush)) if u is maker else u
        for u in graph.units
    )
    graph = replace(graph, units=units)
    return graph, list(zip(graph.cores, (image for _, image in cores), strict=True))


def _around(
    network: Network, engines: Mapping[str, Network], target: Target, widths: tuple[int, int]
) -> tuple[Resources, tuple[int, str]]:
    """What all units but the cores take, their FIFOs the shortest, since their depths are not known
    yet; the cycles of the slowest of them or of the network's ends, and which one that is."""
    first = {part.weighted[0].name: name for name, part in engines.items()}
    shared = {layer.name for part in engines.values() for layer in part.weighted}
    cores = [
        least_engine(engines[first[x.name]], target, first[x.name])[0]
        if x.name in first
        else make_layer_core(x.dense, x.x, 1, family=target.engine)[0]
        for x in core_layers(network)
        if x.name in first or x.name not in shared
    ]
    graph = build_graph(network, cores, target.engine)
    total, slowest = Resources(), (0, "")
    for what, tensor, width in zip(
        ("inputs come", "results leave"), (network.input, network.output), widths, strict=True
    ):
        if tensor.size // width > slowest[0]:
            text = f"the network's {tensor.size:,} {what} {width if width > 1 else 'one'} a cycle"
            slowest = tensor.size // width, text
    for unit in graph.units:
        if unit.cores:
            continue
        if (cycles := _least_cycles(unit)) > slowest[0]:
            slowest = cycles, f"unit {unit.name!r} passes {cycles:,} activations one a cycle"
        total += unit_resources(unit, target.engine)
    return total, slowest


def _least_cycles(unit: Unit) -> int:
    """Cycles that a unit takes for a frame, however wide its streams are; 0 where they may be."""
    if isinstance(unit, Wide) and not (isinstance(unit, Pool) and unit.window):
        return 0
    return unit.cycles


def core_images(network: Network, plan: Plan) -> list[CoreImage]:
    """The memory contents of the plan's cores; raises InputError unless the plan is the
    network's."""
    images = []
    for part, layer in zip(core_parts(network, plan.specs), plan.layers, strict=True):
        if isinstance(part, CoreLayer) and part.name != layer.layer:
            raise InputError("A plan must have the network's layers")
        spec, image = remake_part(part, layer.spec, plan.target)
        if spec != layer.spec and isinstance(part, Network):
            raise InputError("The plan's shared engine is not the network's")
        if spec != layer.spec:
            raise InputError(f"Layer {layer.layer!r}: the plan's core is not the network's")
        images.append(image)
    return images


def remake_part(part: CorePart, spec: CoreBase, target: Target) -> tuple[CoreBase, CoreImage]:
    """The core of a layer, or of several on an engine, with the choices that a spec has made."""
    if isinstance(part, Network):
        return whole_core(spec, part, target)
    return remake(part, spec, target.engine)


def remake(layer: CoreLayer, spec: CoreBase, engine: str) -> tuple[CoreBase, CoreImage]:
    """The core of a layer with the choices that a spec has made."""
    dense, x = layer.dense, layer.x
    if spec.lanes > dense.y.shape[1]:
        raise InputError(f"Layer {layer.name!r}: lanes must be 1 to {dense.y.shape[1]}")
    return remade(spec, dense, x, engine)


def replanned(
    network: Network, plan: Plan, layers: Sequence[LayerPlan], graph: GraphSpec, timing: Timing
) -> Plan:
    """The plan of a network in the circuit of a plan, given its layers, and graph and timing as
    `remake_graph` gives them."""
    return replace(
        plan,
        network=network.name,
        input_bytes=_frame_bytes(network.input),
        output_bytes=_frame_bytes(network.output),
        layers=tuple(layers),
        interval_cycles=timing.interval_cycles,
        latency_cycles=timing.latency_cycles,
        graph=graph,
    )


def remake_graph(
    network: Network, plan: Plan, cores: Sequence[tuple[CoreBase, CoreImage]]
) -> tuple[GraphSpec, Timing]:
    """The graph with the depths that a plan has chosen, and its timing.

    Raises
    ------
    InputError
        The plan has cores that do not suit the network.
    CheckError
        The graph stands still.
    """
    specs = [spec for spec, _ in cores]
    depths = {unit.name: unit.depth for unit in plan.graph.units if isinstance(unit, Fifo)}
    graph = build_graph(network, specs, plan.target.engine, depths, plan.graph.widths)
    return graph, _timing(graph, cores)
