"""Random graphs on a shared engine with maps: the network, the engine's golden model, the reference
that knows nothing of either, and the circuit."""

import numpy as np
import pytest
from random_graphs import RandomNetwork, random_window

import sim
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.map_core import make_map_core, window_layer
from pvq_hw.network.network import Network
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from pvq_hw.plan.shared_steps import network_chain
from sim.reference import ReferenceCore


def random_maps(seed: int) -> tuple[Network, np.random.Generator]:
    """Convolutions of all kinds, poolings, tables and sums that read any maps before them."""
    rng = np.random.default_rng([seed, 3])
    shape = (int(rng.integers(1, 8)), int(rng.integers(1, 8)), int(rng.integers(1, 5)))
    net = RandomNetwork(seed, shape)
    maps = [net.input]
    for _ in range(int(rng.integers(1, 6))):
        x, out = maps[int(rng.integers(len(maps)))], IntFormat(8, bool(rng.integers(2)))
        kinds = ["conv", "depthwise", "sum", "format", "mean", "maximum", "table", "beside"]
        kind = rng.choice(kinds)
        if kind == "conv":
            y = net.conv(x, int(rng.integers(1, 7)), out=out, **random_window(rng, x.shape))
        elif kind == "depthwise":
            rows, kernel = x.shape[2] * int(rng.integers(1, 3)), (1, 1 + 2 * (x.shape[1] > 2))
            y = net.conv(x, rows, kernel, groups=x.shape[2], k=2, out=out)
        elif kind == "sum":
            same = [other for other in maps if other.shape == x.shape]
            y = net.add(x, same[int(rng.integers(len(same)))], out=out)
        elif kind == "beside" and x.shape[2] % 2 == 0:
            same = [other for other in maps if other.shape[:2] == x.shape[:2]]
            own = net.conv(x, int(rng.integers(1, 3)) * 2, (1, 1), k=2, out=out)
            third = same[int(rng.integers(len(same)))]
            y = net.concat(*[x, own][:: int(rng.choice([1, -1]))], third, out=out, same=(0, 1))
        elif kind in ("format", "beside"):
            y = net.add(x, out=out)
        elif kind == "table":
            y = net.table(x, out=out)
        elif kind == "maximum":
            square = {"kernel": (2, 2), "stride": (2, 2)}
            often = rng.integers(2) and min(x.shape[:2]) > 1
            y = net.maxpool(x, **(square if often else random_window(rng, x.shape)))
        else:
            y = net.average(x, x.shape[:2])
        maps.append(y)
    net.dense(maps[-1], int(rng.integers(1, 5)))
    return net.network(), rng


def frames(network: Network, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Two frames, and what every layer makes of them."""
    form = network.input.format
    x = rng.integers(form.min, form.max + 1, (2, network.input.size))
    trace = network.trace(x.reshape(2, *network.input.shape))
    return x, {y.name: np.asarray(trace[y.name]).reshape(2, -1) for y in network.layers}


@pytest.mark.parametrize("seed", range(20))
def test_golden_model_and_reference_give_what_the_network_does(seed):
    network, rng = random_maps(seed)
    lanes, side, gap = int(rng.choice([2, 4, 6])), int(rng.integers(1, 5)), int(rng.integers(2, 5))
    chain, _ = network_chain(network, side)
    windows = [window_layer(part) for part in chain]
    spec, image = make_map_core(windows, lanes, family="up5k", side=side, gap_bits=gap)
    x, wanted = frames(network, rng)
    found = spec.trace(image, x)
    for name, value in wanted.items():
        assert np.array_equal(found[name], value), name
    bias = [b % (1 << spec.bias_bits) for b in image.bias]
    core = ReferenceCore(spec.to_json(), image.codes, image.mult, bias)
    last = wanted[network.layers[-1].name].tolist()
    assert [core.compute(frame)[0] for frame in x.tolist()] == last


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_the_circuit_gives_what_the_network_does_when_it_is_planned_to(seed):
    network, rng = random_maps(seed)
    count = sum(layer.weights is not None for layer in network.layers)
    made = plan(network, "icebreaker", engine="shared", lanes=[4] * count, side=1 + seed % 4)
    x, wanted = frames(network, rng)
    images, names = emit(network, made).cores, [layer.name for layer in network.layers]
    result = sim.simulate(made.graph, images, x, "amaranth", names=names, settle=False)
    compared = sim.compare(result, wanted)
    assert compared.mismatches == 0, str(compared.first)
    assert result.latency_cycles == made.latency_cycles
