"""Lanes that multiply by 8-bit weights: every product there is."""

import numpy as np

from pvq_hw.engine.int8_core import WEIGHT_BITS, Int8Spec
from pvq_hw.errors import CheckError, InputError
from sim.proof.evaluate import Evaluator, as_signed
from sim.proof.netlist import Bit, Netlist

__all__ = ["check_products", "lane_activations", "lane_products"]

_MOST_BITS = 10  # of an activation, for which all its products are run


def _operands(netlist: Netlist) -> tuple[str, str]:
    """The nets of all lanes' weights and activations; of one lane a multiplier's operands."""
    names = [("products.w", "products.x"), ("products.a", "products.b")]
    return next((pair for pair in names if set(pair) <= netlist.nets.keys()), names[0])


def lane_activations(netlist: Netlist, spec: Int8Spec) -> list[list[Bit]]:
    """What each lane multiplies, as stored: unsigned."""
    bits, size = netlist.net(_operands(netlist)[1]), spec.x.bits
    return [bits[p * size : (p + 1) * size] for p in range(spec.lanes)]


def lane_products(netlist: Netlist, spec: Int8Spec) -> list[list[Bit]]:
    """What each lane gives to the adder tree."""
    bits = netlist.either("tree.i", "accumulator0.i", "accumulator0.value")
    size = spec.product_bits
    return [bits[p * size : (p + 1) * size] for p in range(spec.lanes)]


def check_products(netlist: Netlist, spec: Int8Spec) -> int:
    """Runs all lanes side by side on every weight and activation, each lane on other ones in the
    same cycle, and on others in the cycles behind; returns how many products.

    Raises
    ------
    CheckError
        A product is wrong, or comes in another cycle.
    InputError
        Activations have too many bits for that.
    """
    bits, lanes = spec.x.bits, np.arange(spec.lanes)
    if bits > _MOST_BITS:
        raise InputError(f"activations of {bits} bits have too many products to run")
    code = np.arange(1 << (WEIGHT_BITS + bits))
    places = [np.roll(code, 257 * int(p)) for p in lanes]
    weights = [place >> bits for place in places]
    activations = [place & ((1 << bits) - 1) for place in places]
    products = lane_products(netlist, spec)
    wanted = [bit for product in products for bit in product]
    names = _operands(netlist)
    evaluator = Evaluator(netlist, len(code), cut=names, wanted=wanted)
    operands = _words(weights, WEIGHT_BITS), _words(activations, bits)
    for cycle in range(spec.product_delay):
        for name, word in zip(names, operands, strict=True):
            evaluator.set(name, np.roll(word, 4099 * cycle))
        evaluator.settle()
        evaluator.clock()
    evaluator.settle()
    for p, product in enumerate(products):
        got = as_signed(evaluator.get(product), spec.product_bits)
        if not np.array_equal(got, as_signed(weights[p], WEIGHT_BITS) * activations[p]):
            raise CheckError(f"Lane {p} of core {spec.name!r} must give weight times activation")
    return len(code) * spec.lanes


def _words(parts: list[np.ndarray], size: int) -> np.ndarray:
    """All lanes' operands in one word, of any width."""
    wide = len(parts) * size > 62
    total = np.zeros(len(parts[0]), dtype=object if wide else np.int64)
    for p, part in enumerate(parts):
        total |= (part.astype(object) if wide else part) << p * size
    return total
