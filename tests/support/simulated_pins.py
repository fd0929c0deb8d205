"""A board's pins in Amaranth's simulator."""

from types import SimpleNamespace

from amaranth.lib import io

from gateware.board.boards import pin_direction


class SimulatedPins:
    """A platform for a `BoardTop` in Amaranth's simulator, by plain names."""

    def __init__(self, board, used):
        self.ports, self._found = {}, {}
        for name, pin in used:
            direction = pin_direction(board, pin)
            port = io.SimulationPort(direction, 1, invert=pin.invert, name=name)
            self.ports[name] = port
            resource, number, part = pin.path
            whole = self._found.setdefault((resource, number), SimpleNamespace())
            setattr(whole, part or "whole", port)

    def request(self, name, number, *, dir):
        found = self._found[name, number]
        return getattr(found, "whole", found)
