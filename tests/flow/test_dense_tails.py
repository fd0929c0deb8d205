"""Dense layers behind convolutions do in a circuit all that they do in a chain."""

import pytest
from quantizer_graphs_cases import dense_behind_maps, inputs

from pvq_hw.data.dataset import Data
from pvq_hw.flow.compile import plan_for, quantize_for
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.plan.image import emit
from pvq_hw.target.boards import get_target
from sim.result import compare
from sim.run import simulate

GROUPS = {"first": LayerChoice(unit=9), "conv": LayerChoice(unit="layer")}


@pytest.mark.parametrize("sign", [False, True], ids=["gains of groups", "signs"])
def test_gains_of_groups_and_signs_behind_a_convolution_in_the_circuit(sign):
    model = dense_behind_maps(sign)
    options = CompileOptions(target="ulx3s-25f", ratio=2, layers={} if sign else GROUPS)
    board = get_target(options.target)
    network, folding = quantize_for(model, board, options, Data(inputs(64)))
    assert folding.gap_bits[0] is None  # convolutions are held to no gap, dense layers are
    assert None not in folding.gap_bits[1:]
    planned = plan_for(network, board, options, folding)
    assert planned.specs[1].groups == (1 if sign else 4)
    assert (planned.specs[1].multiplier == "none") == sign
    x = network.quantize_input(inputs(2, 5))
    names = [layer.name for layer in network.layers]
    result = simulate(
        planned.graph, emit(network, planned).cores, x, "amaranth", names=names,
        idle="random:0.3", stall="random:0.3", settle=False,
    )  # fmt: skip
    found = compare(result, network.trace(x))
    assert found.outputs_compared == 2 * (144 + 36 + 12 + 3)
    assert not found.mismatches
