"""Room in a core for other weights, and whether such weights find it.

A core's words and widths follow from its weights. With a reserve they are wider than these weights
ask for, so that those of a network trained again go into the same circuit, whose constants they
leave alone: as many words, padded at the end, the same widths and the same shift.
"""

from collections.abc import Mapping

from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.engine.core import CoreBase
from pvq_hw.errors import InputError
from pvq_hw.target.multipliers import multiplier_named

__all__ = ["MORE_BIAS_BITS", "require_placed", "reserved_widths", "with_room"]

MORE_BIAS_BITS = 4
"""By which biases may be longer, whatever the reserve: they vary more than sums do, and in the
adder they are beside products that are longer still."""

_NEEDS = {
    "words": ("words of weights", "give the layer fewer pulses or compile with a larger --spare"),
    "acc_bits": (
        "bits for its sums",
        "give its rows fewer pulses or compile with a larger --spare",
    ),
    "mult_bits": ("bits for its multipliers", "compile the new model anew"),
    "bias_bits": ("bits for its biases", "compile the new model anew"),
}


_SAME = {
    "n": "columns:",
    "rows": "rows:",
    "groups": "gains a row:",
    "x": "activations of",
    "out": "results of",
    "code": "the code",
    "shift": "the shift",
    "multiplier": "the multiplier",
}


def said(value: object) -> str:
    """A field of a core in words."""
    if isinstance(value, IntFormat):
        return f"{value.bits} {'signed' if value.signed else 'unsigned'} bits"
    return str(value)


def with_room(count: int, spare: int) -> int:
    """``count`` and ``spare`` percent more, rounded up."""
    return -(-count * (100 + spare) // 100)


def reserved_widths(
    needs: Mapping[str, int],
    *,
    multiplier: str,
    groups: int,
    shift: int,
    out: IntFormat,
) -> dict[str, int]:
    """Widths at which no weights overflow whose sums have ``acc_bits``.

    Parameters
    ----------
    needs : mapping of field name to int
        ``acc_bits``, with room, and the ``mult_bits`` and ``bias_bits`` that the weights ask for.
    multiplier : str
        See `CoreBase`.
    groups, shift, out
        Of the core.
    """
    acc_bits = needs["acc_bits"]
    mult_bits = multiplier_named(multiplier).widest(needs["mult_bits"])
    product = (groups << (acc_bits - 1)) * ((1 << mult_bits) - 1)
    # Biases beyond what products bring back into the output's range are cut, see
    # `pvq_hw.quantizer.requantization.requantization`.
    cut = 2 * product + ((out.max_abs + 2) << shift)
    bias_bits = min(needs["bias_bits"] + MORE_BIAS_BITS, bits_for(-cut, cut))
    most = product + (1 << (bias_bits - 1))
    return {
        "acc_bits": acc_bits,
        "mult_bits": mult_bits,
        "bias_bits": bias_bits,
        "sum_bits": max(bits_for(-most, most), shift + out.bits + 1),
    }


def require_placed(
    name: str, placed: CoreBase, needs: Mapping[str, int], same: Mapping[str, object]
) -> None:
    """Raises InputError, with the layer's name, where weights don't go into a placed core.

    Parameters
    ----------
    name : str
        The layer's.
    placed : CoreBase
    needs : mapping of field name to int
        ``words``, ``acc_bits``, ``mult_bits``, ``bias_bits``: at most what the core has.
    same : mapping of field name to value
        What must be the core's own.
    """
    for key, value in same.items():
        if value != getattr(placed, key):
            raise InputError(
                f"Layer {name!r} must have {_SAME[key]} {said(getattr(placed, key))} as in the "
                f"placed design, not {said(value)}"
            )
    for key, (what, remedy) in _NEEDS.items():
        if needs.get(key, 0) > getattr(placed, key):
            raise InputError(
                f"Layer {name!r} needs {needs[key]:,} {what}, but the placed design has "
                f"{getattr(placed, key):,}; {remedy}"
            )
