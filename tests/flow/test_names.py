"""Whatever the layers are called: every generated name is its own, and no tool's word."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from random_graphs import RandomNetwork, build

from gateware.export.export import export_accelerator
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.errors import InputError
from pvq_hw.naming import Names, check_module_name, identifiers
from pvq_hw.network.golden_inputs import golden_inputs
from pvq_hw.output.golden_vectors import load_vectors, write_vectors
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from pvq_hw.reserved import LANGUAGE, RESERVED, SYSTEM_VERILOG, VERILOG_2005
from pvq_hw.tools import find as tools
from sim.result import compare
from sim.run import simulate

KEYWORDS = sorted(VERILOG_2005 | SYSTEM_VERILOG)
# Words of the wrappers around the units, of their ports, and of what the files are called.
WRAPPERS = [
    *("clk", "rst", "i", "o", "i0", "o0", "i__valid", "i__ready", "i__payload", "o__payload"),
    *("codes", "codes__load", "dut", "tb", "top", "pvq_sim", "pvq_rom", "pvq_spram", "accelerator"),
    *("core0", "chain", "packer", "unpacker", "batches", "input", "output", "expected", "vectors"),
    *("l0_valid", "i_payload", "Model", "value", "stage", "sync", "CON", "nul", "bool", "wone"),
    *("axis", "csr", "axilite", "wishbone", "rom", "spram", "MEMORY_FOLDER"),
]
# Pairs that would meet after a prefix, a suffix, in another case, or when cut to length.
PAIRS = [
    *("linear", "linear_1", "w_linear", "w_linear_1", "linear.1", "linear-1", "linear_in0"),
    *("linear_fork", "linear_fifo0", "linear_fifo1", "input_fork", "w_input_0", "w_i", "a", "A"),
    *("a_codes", "a_mult", "a_bias", "a_codes_codes", "a_2", "A_2", "a__2", "layer_1", "1"),
    *("reg_", "REG", "reg_2", "w", "w_", "w_0", "x" * 47 + "1", "x" * 48, "x" * 46 + "_2", "0_"),
]


def named(names: Sequence[str], seed: int = 0) -> RandomNetwork:
    """A chain of residual blocks, whose layers are called so: a convolution, and the sum of its
    input and output; the input and every sum are read twice."""
    net = RandomNetwork(seed, (1, 1, 1))
    x = net.input
    for index, name in enumerate(names):
        made = net.maxpool(x, (1, 1)) if index % 2 else net.add(x, x)
        if index % 2:
            net.layers[-1] = type(net.layers[-1])(name, x.name, made, net.layers[-1].geometry)
        else:
            last = net.layers[-1]
            net.layers[-1] = type(last)(name, last.inputs, made, last.mult, last.shift)
        x = made
    net.dense(x, 2)
    return net


@pytest.mark.parametrize("names", [KEYWORDS, WRAPPERS, PAIRS, [n.upper() for n in KEYWORDS]])
def test_identifiers_are_different_and_no_words(names):
    found = identifiers(names)
    assert len({name.lower() for name in found}) == len(names)
    assert not {name.lower() for name in found} & RESERVED
    for name in found:
        assert name.isidentifier()
        assert "__" not in name
        assert len(name) <= 48


def test_new_names_are_free_in_whatever_case_and_no_longer_than_asked():
    names = Names(LANGUAGE)
    asked = ["wire", "Wire", "data", "DATA", "data_2", "x" * 12, "X" * 12, "a__", "A__"]
    found = [names.new(name, 12) for name in asked]
    assert found == [
        *("wire_2", "Wire_3", "data", "DATA_2", "data_2_2"),
        *("x" * 12, "X" * 10 + "_2", "a__", "A_2"),
    ]
    assert all(name in names and name.upper() in names for name in found)
    assert "always" in names
    assert "other" not in names


@pytest.mark.parametrize("name", ["reg", "Logic", "tb", "pvq_rom", "1st", "a-b", "a\n", ""])
def test_modules_must_have_names_that_verilog_takes(name):
    with pytest.raises(InputError, match="Module name must"):
        check_module_name(name)


@pytest.mark.parametrize("names", [KEYWORDS, WRAPPERS, PAIRS, PAIRS[::-1]])
def test_units_and_wires_of_a_graph_have_names_of_their_own(names):
    graph = build(named(names)).graph
    assert isinstance(graph, GraphSpec)
    units = [unit.name.lower() for unit in graph.units]
    assert len(set(units)) == len(units)
    assert not set(units) & RESERVED
    assert len(units) > 2 * len(names)


@pytest.mark.skipif(not tools.have_tool("iverilog"), reason="needs Icarus Verilog")
def test_icarus_takes_all_of_them_as_instances(tmp_path):
    names = identifiers([*KEYWORDS, *WRAPPERS, *PAIRS])
    cells = "".join(f"  leaf {name}();\n" for name in names)
    text = f"module leaf; wire o; endmodule\nmodule top;\n{cells}endmodule\n"
    (tmp_path / "top.v").write_text(text)
    tools.run("iverilog", ["-g2012", "-o", "top.vvp", "top.v"], folder=tmp_path)


@pytest.mark.skipif(not tools.have_tool("iverilog"), reason="needs Icarus Verilog")
@pytest.mark.parametrize("simulator", ["icarus", "compiled"])
def test_a_graph_of_hard_names_computes_in_every_simulator(simulator):
    made = build(named(["reg", "clk", "output", "clk_2", "linear", "linear_1"]), frames=1)
    images = [made.images[spec.name] for spec in made.graph.cores]
    names = [layer.name for layer in made.network.layers]
    result = simulate(made.graph, images, made.x, simulator, names=names, settle=False)
    compared = compare(result, made.network.trace(made.x))
    assert (compared.mismatches, compared.outputs_compared) == (0, len(names) + 1)


# What modules are made of, by which unit and submodule names meet, and what the top module with
# codes to load declares itself.
INNER = [
    *("a", "a_queue", "A_QUEUE", "a_queue_ram", "a_fifo0_queue", "accelerator_a", "a_fork", "ram"),
    *("clear", "open_", "first", "signal", "Signal_1", "port_1_0", "n", "mem", "mem_index", "_00_"),
    *("queue", "credits", "scaler", "reader", "code_port", "bias", "mult", "weights", "table"),
]


def declared(verilog: str) -> dict[str, tuple[list[str], list[str]]]:
    """Signals and memories, and instances, of every module."""
    found = {}
    for module, text in re.findall(
        r"^module (\w+)(.*?)^endmodule", verilog, re.MULTILINE | re.DOTALL
    ):
        kind = r"(?:wire|reg|integer)(?: signed)?(?: \[[^]]*\])?"
        signals = re.findall(rf"^  {kind} (\w+)", text, re.MULTILINE)
        cells = re.findall(
            r"^  (?!initial)\w+ (?:#\(.*?\) )?(\w+) \($", text, re.MULTILINE | re.DOTALL
        )
        assert module not in found
        found[module] = signals, cells
    return found


@pytest.mark.skipif(not tools.have_tool("yosys"), reason="needs Yosys")
@pytest.mark.parametrize("kind", ["graph", "loaded"])
def test_layers_called_as_what_is_inside_meet_nothing_there(kind):
    """In any case of letters, since VHDL and some tools don't tell them apart; and the top module
    has its units by their own names, by which simulators find them."""
    if kind == "graph":
        made = build(named(INNER[:8] + INNER[12:]), frames=1)
        graph, images = made.graph, [made.images[spec.name] for spec in made.graph.cores]
    else:
        net = RandomNetwork(0, (4,))
        x = net.input
        for _ in INNER[8:12]:
            x = net.dense(x, 4)
        net.layers = [replace(x, name=n) for x, n in zip(net.layers, INNER[8:12], strict=True)]
        network = net.network()
        planned = plan(network, "icebreaker", code_memory="spram", check=False)
        graph, images = planned.graph, emit(network, planned).cores
    modules = declared(export_accelerator(graph, images)["accelerator.v"])
    assert len({name.lower() for name in modules}) == len(modules) > len(graph.units)
    for signals, cells in modules.values():
        names = [name.lower() for name in (*signals, *cells)]
        assert sorted(set(names)) == sorted(names)
    assert {unit.name for unit in graph.units} <= set(modules["accelerator"][1])
    files = [name.lower() for spec in graph.cores for name in spec.memories]
    files += [f"{unit.name}.{table}".lower() for unit in graph.units for table in unit.tables]
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("kind", ["chain", "graph"])
def test_golden_vectors_have_a_file_each(tmp_path, kind):
    names = ["input", "Input", "vectors", "output", "input_2"]
    net = named(names) if kind == "graph" else RandomNetwork(0, (4,))
    if kind == "chain":
        x = net.input
        for _ in names:
            x = net.dense(x, 4)
        net.layers = [
            replace(layer, name=name) for layer, name in zip(net.layers, names, strict=True)
        ]
    network = net.network()
    x = golden_inputs(network, 3)
    write_vectors(tmp_path, network, x)
    found, outputs = load_vectors(tmp_path, network)
    assert np.array_equal(found, x)
    trace = network.trace(x)
    for layer, values in zip(network.layers, outputs, strict=True):
        assert np.array_equal(values, trace[layer.name])
    assert len(list((tmp_path / "vectors").iterdir())) == len(network.layers) + 2
