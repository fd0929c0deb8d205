"""Read-only memories of a core in a netlist: their words, and where they are read."""

from dataclasses import dataclass

from pvq_hw.errors import InputError
from sim.proof.cones import Bits, Cones
from sim.proof.netlist import Netlist, parameter_register

__all__ = ["Rom", "read_rom"]


@dataclass(frozen=True)
class Rom:
    """What a memory has.

    Parameters
    ----------
    words : tuple of int
    address : list of bits
        By which it is read.
    data : list of bits
        The word, its latency later.
    """

    words: tuple[int, ...]
    address: Bits
    data: Bits


def read_rom(netlist: Netlist, name: str, latency: int) -> Rom:
    """A memory of weights, multipliers or biases, by the name that its module begins with.

    Raises InputError where its word is not there after so many cycles.
    """
    cones, pipe = Cones(netlist), netlist.net(parameter_register(netlist, name))
    data = back = pipe[-(len(pipe) // latency) :]
    for _ in range(latency):
        back = [cones.before(bit, resets=False) for bit in back]
    cell = cones.maker(back[0], "$mem_v2")
    if cell.output != back or cell.written or cell.number("OFFSET"):
        raise InputError(f"memory {name!r} is not read as expected")
    text, width = cell.parameters["INIT"], cell.number("WIDTH")
    digits = [text[max(0, at - width) : at] for at in range(len(text), 0, -width)]
    if any(set(word) - {"0", "1"} for word in digits[: cell.number("SIZE")]):
        raise InputError(f"memory {name!r} has words that are not known")
    words = tuple(int(word, 2) for word in digits[: cell.number("SIZE")])
    return Rom(words, cell.ports["RD_ADDR"], data)
