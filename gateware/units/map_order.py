"""From the results of V windows of a map to one window's after the other."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from gateware.arith.activation import stream_ports
from gateware.device.memory import Ram
from gateware.units.queue import Credits, ResultQueue
from gateware.units.unpack import read_frame, take_rows
from pvq_hw.engine.map_order import MapOrder
from pvq_hw.engine.units import UNPACKER_QUEUE

__all__ = ["MapOrderUnit"]


class MapOrderUnit(wiring.Component):
    """`MapOrder` as a circuit: results of windows beyond the end of a row of the map are dropped.

    Takes a row of V results a cycle as long as a half of its memory is free. V windows' first
    result is offered ``spec.delay + 2`` cycles after their last row came, if those before have
    left; then W a cycle, without a pause between groups that are complete.

    Parameters
    ----------
    spec : MapOrder
    body : str
        How memories are built, see `gateware.device.bodies.bodies`.

    Members
    -------
    i : stream of V results
    o : stream of W results
    """

    def __init__(self, spec: MapOrder, body: str = "behavioral") -> None:
        self.spec, self.body = spec, body
        super().__init__(stream_ports(spec.x, spec.x, spec.side, spec.out_width))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        rams = [
            Ram(spec.width, spec.depth, latency=spec.latency, kind=spec.memory, body=self.body)
            for _ in range(spec.out_width)
        ]
        for k, ram in enumerate(rams):
            m.submodules[f"ram{k or ''}"] = ram
        m.submodules.queue = queue = ResultQueue(
            spec.x, UNPACKER_QUEUE, body=self.body, width=spec.out_width
        )
        m.submodules.credits = credits = Credits(UNPACKER_QUEUE)
        connect(m, queue.o, flipped(self.o))
        release, issued = Signal(), Signal()
        written = take_rows(m, self.i, rams, spec.rows, release)
        frame = self._walk(m, rams, written, release, issued, credits.some)
        read_frame(m, rams, issued, frame, spec.side, queue)
        m.d.comb += [credits.claim.eq(issued), credits.returned.eq(queue.popped)]
        return m

    def _walk(
        self,
        m: Module,
        rams: list[Ram],
        written: Signal,
        release: Signal,
        issued: Signal,
        some: Signal,
    ) -> Signal:
        """Reads all of a half, window by window; gives the window's number."""
        spec = self.spec
        row, half = Signal(max(1, (spec.words - 1).bit_length())), Signal()
        frame, whole, run = Signal(range(spec.side)), Signal(range(3)), Signal()
        at_row, at_frame, start = row == spec.words - 1, Signal(), Signal()
        m.d.comb += [
            issued.eq(run & some),
            release.eq(issued & at_row & at_frame),
            # A half that is complete follows the one before without a pause.
            start.eq((~run | release) & (whole != 0)),
            at_frame.eq(frame == self._last(m, release)),
            *(ram.r_addr.eq(Cat(row, half)) for ram in rams),
        ]
        m.d.sync += [
            whole.eq(whole + written - start),
            run.eq(start | (run & ~release)),
            half.eq(half ^ release),
        ]
        with m.If(issued):
            m.d.sync += row.eq(Mux(at_row, 0, row + 1))
            with m.If(at_row):
                m.d.sync += frame.eq(Mux(at_frame, 0, frame + 1))
        return frame

    def _last(self, m: Module, release: Signal) -> Signal:
        """The number of the group's last window that is within the row of the map."""
        counts = self.spec.counts
        last = Signal(range(self.spec.side), init=counts[0] - 1)
        if counts[-1] != counts[0]:
            group = Signal(range(len(counts)))
            with m.If(release):
                m.d.sync += [
                    group.eq(Mux(group == len(counts) - 1, 0, group + 1)),
                    last.eq(Mux(group == len(counts) - 2, counts[-1] - 1, counts[0] - 1)),
                ]
        else:
            m.d.sync += last.eq(counts[0] - 1)
        return last
