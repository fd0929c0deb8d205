"""Digit-serial unrolled layers: the golden model's results, and every cycle the timing's."""

import json
from dataclasses import replace

import pytest
from engine import check_streams
from graph_cases import STALLS, check
from random_graphs import RandomNetwork, build
from random_layers import Case, make_chain

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.patterns import NONE
from pvq_hw.engine.timing import time_graph
from pvq_hw.errors import InputError

U8, S8, S4, BIT = IntFormat(8, False), IntFormat(8, True), IntFormat(4, True), IntFormat(1, True)
SAME = ((1, 1), (1, 1))


def by(digit, **more):
    return {"engine": "unrolled", "digit": digit} | more


# Every chain is one circuit: all digits, formats, groups, shifts of more and of fewer bits than a
# digit, and sums that are a single digit.
CHAINS = {
    "one and two bits": (
        (9, U8, Case(20, 12, 1, S8, strong=True, options=by(1)), Case(3, 5, 1, options=by(2)))
    ),
    "groups, a row of zeros, signed": (
        (12, S8, Case(5, 9, 1, S4, groups=3, zero_rows=(1,), options=by(4)))
    ),
    "one input, one pulse a row": (1, U8, Case(2, 1, 1, options=by(8))),
    "weights of several digits": (
        (
            16,
            S4,
            Case(3, 1, 1, U8, encoding="int8", shift=12, options=by(1, family="hx8k")),
            Case(4, 1, 1, S8, encoding="int8", shift=12, options=by(4)),
            Case(4, 1, 1, S4, encoding="int8", shift=12, options=by(8)),
        )
    ),
    "signs, of which each transfer has several": (
        (
            10,
            BIT,
            Case(12, 8, 1, BIT, threshold=True, options=by(1, out_width=4)),
            Case(4, 6, 1, S8, options=by(2)),
        )
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_results_are_the_golden_models_and_cycles_the_timings(name):
    n, form, *cases = CHAINS[name]
    chain = make_chain(3, n, form, *cases, frames=2)
    if name.startswith("signs"):
        chain.specs[1] = replace(chain.specs[1], in_width=4)
    for spec in chain.specs:
        assert CoreBase.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    check_streams(chain)


@pytest.mark.parametrize("digit", [1, 4])
def test_frames_follow_one_another_as_fast_as_their_sums_have_digits(digit):
    """All of a frame comes and goes in a transfer: no adder has a cycle to rest."""
    net = RandomNetwork(5, (12,))
    net.dense(net.input, 4, k=9)
    built = build(net, digits={"fc0": digit}, widths={"fc0": 4}, ends=(12, 4), frames=12)
    (spec,) = built.graph.cores
    timing = time_graph(built.graph, built.images)
    assert timing.interval_cycles == spec.digits == -(-spec.acc_bits // digit)
    assert timing.latency_cycles == spec.sum_delay + 2 + spec.output_delay
    check(built, built.graph, NONE, STALLS)


def test_windows_of_a_convolution_are_added_digit_by_digit_too():
    net = RandomNetwork(6, (4, 5, 2), S8)
    x = net.conv(net.input, 4, (3, 3), k=5, pads=SAME)
    x = net.conv(x, 4, (2, 2), groups=4, k=4, stride=(2, 2))
    net.dense(x, 4, k=20, groups=2)
    digits = {"conv0": 1, "conv1": 4, "fc2": 2}
    built = build(net, digits=digits, widths={"conv0": 4, "conv1": 2}, frames=2)
    check(built, built.graph, NONE, STALLS)


def test_what_cannot_be_is_refused():
    chain = make_chain(1, 6, U8, Case(4, 4, 1, options=by(2)))
    (spec,) = chain.specs
    with pytest.raises(InputError, match="digit must be 1, 2, 4, 8 bits a cycle, or 0 for all"):
        replace(spec, digit=3)
    with pytest.raises(InputError, match="must be pipelined to add 2 bits a cycle"):
        replace(spec, pipelined=False)
