"""Which tests look at which source, and which mutants are the same circuit or program."""

import json
from pathlib import Path

__all__ = ["CHECKS", "EQUIVALENT", "EQUIVALENT_CELLS", "FIXED", "LEFT_CELLS"]


def _tests(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/{name}.py" for name in names)


_CORE = _tests("gateware/test_gateware_core", "gateware/test_resets")
_PARTS = _tests("gateware/test_gateware_parts")
_GRAPH = _tests("gateware/test_graph")
_UNROLLED = _tests("gateware/test_unrolled_core", "gateware/test_unrolled_windows")
_SHARED = _tests("gateware/test_shared_core", "gateware/test_resets", "gateware/test_map_core")
_INT8 = _tests("gateware/test_int8_core")
_PACKET = _tests("gateware/test_packet", "gateware/test_top")
_CODES = _tests("gateware/test_live", "host/test_code_board")
_HOST = _tests("gateware/test_packet", "host/test_link", "benchmarks/test_fuzz")

_CIRCUITS = {
    "accelerator/accelerator": _CORE + _tests("gateware/test_spram", "gateware/test_live") + _GRAPH,
    "arith/adder_graph": _tests("sim/test_unrolled_handshakes") + _UNROLLED,
    "arith/carry": _PARTS + _CORE,
    "arith/digit_adders": _tests("gateware/test_digit_serial"),
    "arith/requantizer": _PARTS + _CORE,
    "arith/scaler": _GRAPH,
    "arith/tree": _PARTS + _CORE,
    "core/decoder": _CORE,
    "core/depthwise_core": _tests("gateware/test_depthwise_core"),
    "core/int8_core": _INT8,
    "core/int8_products": _INT8,
    "core/int8_window": _INT8,
    "core/leaf": _PARTS + _CORE,
    "core/map_core": _SHARED,
    "core/parameters": _CORE,
    "core/pulse_core": _CORE + _tests("gateware/test_side_windows", "gateware/test_batch"),
    "core/sequencer": _CORE,
    "core/shared_core": _SHARED,
    "core/side_loader": _tests("gateware/test_side_windows"),
    "core/unrolled_core": _tests("sim/test_unrolled_handshakes") + _UNROLLED,
    "core/window_collector": _tests("gateware/test_unrolled_windows"),
    "core/window_loader": _GRAPH,
    "core/writer_ports": _GRAPH,
    "device/memory": _PARTS + _CORE,
    "device/spram": _tests("gateware/test_spram"),
    "link/code_control": _CODES,
    "link/code_loader": _CODES,
    "link/control": _tests("gateware/test_control") + _PACKET,
    "link/crc": _PACKET,
    "link/decision_pins": _tests("gateware/test_decision_pins"),
    "link/flash": _CODES,
    "link/frames": _PACKET,
    "link/packet": _PACKET,
    "link/serial_writer": _tests("gateware/test_batch"),
    "link/top": _PACKET + _tests("gateware/test_decision_pins", "gateware/test_repeat"),
    "link/uart": _tests("gateware/test_uart"),
    "units/converter": _tests("gateware/test_wide_streams"),
    "units/decision": _tests("flow/test_decisions", "gateware/test_decision_pins"),
    "units/join": _GRAPH + _tests("gateware/test_wide_streams"),
    "units/line_buffer": _GRAPH + _tests("gateware/test_by_pixel"),
    "units/lines": _tests("engine/test_lines"),
    "units/lookup": _GRAPH,
    "units/map_order": _tests("gateware/test_side_windows"),
    "units/pick": _GRAPH,
    "units/pool": _GRAPH,
    "units/queue": _GRAPH,
    "units/raster": _tests("gateware/test_depthwise_core", "gateware/test_unrolled_windows"),
    "units/unpack": _tests("gateware/test_batch", "gateware/test_capabilities"),
}
_PYTHON = {
    "arith/formats": _tests("arith/test_formats"),
    "engine/hexfile": _tests("engine/test_codes", "plan/test_image"),
    "engine/pulse_code": _tests("engine/test_codes", "engine/test_code_image"),
    "host/board_model": _HOST,
    "host/code_memory": _tests("engine/test_code_image", "host/test_code_link"),
    "host/link": _tests("host/test_link"),
    "host/protocol": _HOST,
    "host/wire_format": _HOST,
    "network/bits": _tests("network/test_packing"),
    "network/rans": _tests("network/test_packing"),
    "network/weights_file": _tests("network/test_packing"),
    "pyramid/enumeration": _tests("pyramid/test_pyramid", "network/test_packing"),
}
CHECKS = {
    "circuits": {f"gateware/{name}.py": tests for name, tests in _CIRCUITS.items()},
    "python": {f"pvq_hw/{name}.py": tests for name, tests in _PYTHON.items()},
}
"""Of every kind its files, each with its tests, the quickest first."""

EQUIVALENT: dict[str, str] = {
    "gateware/core/map_core.py: MapWriter.__init__: 1 -> 0 #2": "nothing reads this port where "
    "windows are not side by side",
    'gateware/core/map_core.py: WindowFetcher.elaborate: Signal(fields["rows"]) -> '
    "(Signal(fields['rows'], reset_less=True))": "set as a layer begins",
    'gateware/core/map_core.py: WindowFetcher.elaborate: Signal(signed(fields["x"])) -> '
    "(Signal(signed(fields['x']), reset_less=True))": "set as a layer begins",
    "gateware/core/parameters.py: row_words: rom.depth - 1 -> (rom.depth + 1)": "the address has a "
    "bit more, always 0",
    "gateware/core/shared_core.py: lane_sums: side > 1 -> (side >= 1)": "the name of a module",
    "gateware/device/memory.py: Ram._logic: device and not words -> False": "an attribute for "
    "synthesis: the memory does the same in block RAM",
    "gateware/units/line_buffer.py: _Shapes.__init__: spec.pixel_words & (spec.pixel_words - 1) -> "
    "(spec.pixel_words | spec.pixel_words - 1)": "words are counted where pixels would do",
    "gateware/units/raster.py: _WindowPosition._axis: 1 -> 0 #4": "a comparison more, always true",
    "gateware/units/unpack.py: take_rows: Signal(init=1) -> "
    "(Signal(init=1, reset_less=True))": "ready a cycle later after some resets",
    "gateware/units/line_buffer.py: _Walk._steps: 1 -> 0": "a counter of 0 counts as little as "
    "one of 1",
    "pvq_hw/host/link.py: module: 8 -> 9": "how long a host waits is a choice, one pause more no "
    "fault",
}
"""Mutants that no test is to find, and why."""

EQUIVALENT_CELLS: dict[str, str] = {
    "a loader: cnot1 $ternary$top.v:342$111 A 1 8": "bit 8 of a counter of mistakes, which takes "
    "256 of them",
    r"a shared engine: const1 $flatten\fc2.\saturate0.$not$dut.v:962$371 A 0": "the bit of results "
    "of 128 and more, where the layer's weights give 24 at most",
    r"windows by the pixel: const0 $flatten\conv0.\shifter.$ternary$dut.v:1295$569 Y 2": "counts "
    "four results as 0, 3, 2, 1 instead of from 4 on, and only the 1 is looked at",
}
"""Mutants of exported Verilog, as ``circuit: mutant``, that no testbench is to find, and why."""

LEFT_CELLS: dict[str, str] = {
    r"a loader: const0 $flatten\codes_162.$ternary$top.v:7038$9312 S 0": "a request that is "
    "done in the very cycle of a reset, which no talk over the line can meet; a test of the "
    "circuit does",
}
"""Others that their testbench does not find, and what does."""

FIXED: dict[str, str] = json.loads(
    Path(__file__).with_name("mutate_fixed.json").read_text(encoding="utf-8")
)
"""Twenty mutants that `make test` tries, each with a test that is quick to find it."""
