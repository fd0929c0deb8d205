"""An exported accelerator as a LiteX module."""

from collections.abc import Sequence
from string import Template

from gateware.export.interfaces import Side
from gateware.export.modules import FOLDER

__all__ = ["litex_module"]

_MODULE = Template('''\
"""$name as a LiteX module: streams, and CSRs that count and clear."""

import shutil
from pathlib import Path

from litex.gen import LiteXModule
from litex.soc.interconnect import stream$imports
from litex.soc.interconnect.csr import CSRField, CSRStatus, CSRStorage
from migen import ClockSignal, If, Instance, ResetSignal, Signal

HERE = Path(__file__).resolve().parent
SOURCES = ($sources,)
MEMORIES = ($memories)
TAKEN = $taken  # transfers of a frame at the input
GIVEN = $given  # and at the output


class Accelerator(LiteXModule):
    """Takes frames at ``sink`` and gives results at ``source``.

    Parameters
    ----------
    platform
        Gets the Verilog.
    memory_folder : str
        Where the tool finds the memory contents, with a slash at its end: its working folder, into
        which `copy_memories` puts them, or ``f"{HERE}/"``.
    """

    def __init__(self, platform, memory_folder="./"):
        self.sink = sink = stream.Endpoint([("data", $inputs)])
        self.source = source = stream.Endpoint([("data", $outputs)])
$bus        self.control = CSRStorage(fields=[
            CSRField("clear", size=1, pulse=True, description="Forgets all frames and counts."),
        ])
        self.frames_taken = CSRStatus(32, description="Frames that were taken whole.")
        self.frames_given = CSRStatus(32, description="Frames whose results all were taken.")
        self._clear = self.control.fields.clear

        # # #
$last
        taken = Signal(32)
        self.sync += [
            If(sink.valid & sink.ready,
                If(taken == TAKEN - 1,
                    taken.eq(0),
                    self.frames_taken.status.eq(self.frames_taken.status + 1),
                ).Else(taken.eq(taken + 1))),
            If(source.valid & source.ready & source.last,
                self.frames_given.status.eq(self.frames_given.status + 1)),
            If(self._clear,
                taken.eq(0),
                self.frames_taken.status.eq(0),
                self.frames_given.status.eq(0)),
        ]
        self.specials += Instance(
            "$top",
$ports
        )
        for name in SOURCES:
            platform.add_source(str(HERE / name))

    @staticmethod
    def copy_memories(folder):
        """Copies the memory contents into the folder in which the tool runs (``gateware``)."""
        for name in MEMORIES:
            shutil.copyfile(HERE / name, Path(folder) / name)
''')

_PARAMETER = f"            p_{FOLDER}=memory_folder,\n"

_STREAM = """\
            i_clk=ClockSignal("sys"),
            i_rst=ResetSignal("sys") | self._clear,
            i_i__payload=sink.data,
            i_i__valid=sink.valid,
            o_i__ready=sink.ready,
            o_o__payload=source.data,
            o_o__valid=source.valid,
            i_o__ready=source.ready,"""

_AXIS = """\
            i_aclk=ClockSignal("sys"),
            i_aresetn=~(ResetSignal("sys") | self._clear),
            i_s_axis_tdata=sink.data,
            i_s_axis_tvalid=sink.valid,
            o_s_axis_tready=sink.ready,
            i_s_axis_tlast=sink.last,
            o_m_axis_tdata=source.data,
            o_m_axis_tvalid=source.valid,
            i_m_axis_tready=source.ready,
            o_m_axis_tlast=source.last,"""

_BUS = """\
        # The registers at the top of the core's Verilog, to be joined to a bus of the system.
        self.bus = bus = wishbone.Interface(data_width=32, adr_width=4, addressing="word")
"""

_WISHBONE = (
    _AXIS.replace("i_aclk", "i_clk").replace("i_aresetn=~", "i_rst=")
    + """
            i_wb_adr=bus.adr,
            i_wb_dat_w=bus.dat_w,
            o_wb_dat_r=bus.dat_r,
            i_wb_sel=bus.sel,
            i_wb_we=bus.we,
            i_wb_stb=bus.stb,
            i_wb_cyc=bus.cyc,
            o_wb_ack=bus.ack,"""
)

_LAST = """
        given = Signal(32)
        self.comb += source.last.eq(given == GIVEN - 1)
        self.sync += If(self._clear, given.eq(0)).Elif(
            source.valid & source.ready,
            If(source.last, given.eq(0)).Else(given.eq(given + 1)))
"""


def litex_module(
    name: str,
    interface: str,
    verilog: Sequence[str],
    memories: Sequence[str],
    taken: Side,
    given: Side,
) -> str:
    """Python text of a LiteX module around the exported core ``name``; an ``interface`` of ``csr``
    is reached by Wishbone."""
    modules = {
        "stream": (name, _STREAM),
        "axis": (f"{name}_axis", _AXIS),
        "csr": (f"{name}_wishbone", _WISHBONE),
    }
    top, ports = modules[interface]
    plain, bus = interface == "stream", interface == "csr"
    return _MODULE.substitute(
        name=name,
        imports=", wishbone" if bus else "",
        sources=", ".join(f'"{n}"' for n in verilog),
        memories="".join(f'"{n}", ' for n in memories).rstrip(),
        taken=taken.transfers,
        given=given.transfers,
        inputs=taken.bits if plain else taken.bus_bits,
        outputs=given.bits if plain else given.bus_bits,
        bus=_BUS if bus else "",
        last=_LAST if plain else "",
        top=top,
        ports=(_PARAMETER if memories else "") + ports,
    )
