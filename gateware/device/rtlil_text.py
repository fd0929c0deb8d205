"""RTLIL text as Amaranth writes it, without names that Yosys takes for bits of others."""

import re

__all__ = ["plain_names"]

_NAME = re.compile(r"\\\S*\[\S*")


def plain_names(text: str) -> str:
    """The design with parentheses for the brackets in names, ``\\payload(0)`` for ``\\payload[0]``.

    Amaranth names the fields of an array so. Yosys 0.70 takes such a name for bit 0 of a wire
    ``payload`` when it brings back what ABC9 has mapped, and may stop with a failed assertion.
    Selections of bits, which stand apart from the name, stay.
    """
    return _NAME.sub(lambda name: name[0].replace("[", "(").replace("]", ")"), text)
