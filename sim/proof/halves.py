"""Results of V frames side by side in two halves of memories, taken row by row and read frame by
frame: what such circuits have in common, for any pauses and resets, by induction.

A half is free, whole or read, and these are always two; a row goes into the half behind those that
are whole or read.
"""

from typing import Any

from pvq_hw.engine.units import UNPACKER_QUEUE
from pvq_hw.errors import InputError
from sim.proof.claims import View
from sim.proof.cones import Bits, Cones
from sim.proof.formulas import Solver
from sim.proof.netlist import Bit, Netlist
from sim.proof.queues import QueueClaims, find_queue

__all__ = ["HalvesClaims"]


class HalvesClaims(QueueClaims):
    """The claims about one of them, up to which frames of a half are read.

    Parameters
    ----------
    netlist, where, width
        As of `Claims`.
    prefix : str
        What names of its nets start with.
    words : int
        Rows of a half of a memory.
    memories : int

    Attributes
    ----------
    _run : bit
        Whether a half is read; these are the subclass's to find.
    _whole, _last, _payload : bits
        How many halves are whole, the last frame that is read, and a row that comes.
    """

    _run: Bit
    _whole: Bits
    _last: Bits
    _payload: Bits

    def __init__(
        self, netlist: Netlist, where: str, prefix: str, words: int, memories: int, width: int
    ) -> None:
        queue = find_queue(netlist, f"{prefix}queue", UNPACKER_QUEUE)
        super().__init__(netlist, where, queue, width, Solver())
        self._words, cones = words, Cones(netlist)
        self._net = {
            name: netlist.net(f"{prefix}{name}")
            for name in ("free", "write_row", "write_half", "i__ready", "i__valid")
        }
        self._which = netlist.nets.get(f"{prefix}write_memory", [])
        self._spare = netlist.net(f"{prefix}credits.spare")
        self._frame = cones.before_bits(netlist.net(f"{prefix}frame_0"))
        rams = [c for c in netlist.cells if c.type == "$mem_v2"
                and c.name.startswith(f"{prefix}ram")]  # fmt: skip
        if len(rams) != memories:
            raise InputError("results of frames side by side are not held as expected")
        self._rams = sorted(rams, key=lambda cell: cell.name)
        *self._row, self._half = self._rams[0].ports["RD_ADDR"]

    # -- what is read out of a state ------------------------------------------------------------

    def _wide(self, v: View, name: str) -> Any:
        return v.wide(self._net[name])

    def _left(self, v: View) -> Any:
        """Transfers of the half that is read."""
        s, words = self._s, self._const(self._words)
        frames = s.op("BV_SUB", [v.wide(self._last), v.wide(self._frame)])
        rest = s.op("BV_SUB", [words, v.wide(self._row)])
        return self._if(v.one(self._run), s.add(s.op("BV_MUL", [frames, words]), rest))

    def _taken(self) -> Any:
        valid, ready = (self._net[f"i__{what}"][0] for what in ("valid", "ready"))
        return self._s.both(self._now.one(valid), self._now.one(ready))

    def _written(self) -> Any:
        """Whether a half becomes whole."""
        s, now = self._s, self._now
        last = s.same(self._wide(now, "write_row"), self._const(self._words - 1))
        return s.both(self._taken(), last, *([now.one(self._which[-1])] if self._which else []))

    def _issued(self) -> Any:
        """Whether a word is read: there is one, and a place for what is read."""
        some = self._not(self._s.same(self._free(self._now, self._spare), self._const(0)))
        return self._s.both(self._now.one(self._run), some)

    def _released(self) -> Any:
        """Whether that is a half's last one."""
        s, now = self._s, self._now
        at_row = s.same(now.wide(self._row), self._const(self._words - 1))
        at_frame = s.same(now.wide(self._frame), now.wide(self._last))
        return s.both(self._issued(), at_row, at_frame)

    # -- claims ---------------------------------------------------------------------------------

    def _invariants(self, v: View) -> dict[str, Any]:
        s, one = self._s, self._const(1)
        free, depth = self._free(v, self._spare), self._const(self._q.depth)
        halves = self._sum([self._wide(v, "free"), v.wide(self._whole), v.wide([self._run])])
        full = s.op("BV_XOR", [s.resize(v.bits(self._whole), 1), v.bits([self._run])])
        claims = {
            **self._addresses(v),
            "places are the queue's": s.op("BV_ULE", [free, depth]),
            "each place is free, promised or taken": s.same(s.add(free, self._results(v)), depth),
            "each half is free, whole or read": s.same(halves, self._const(2)),
            "no more halves are whole than there are": s.op(
                "BV_ULE", [v.wide(self._whole), self._const(2)]
            ),
            "a row is taken while a half is free": s.same(
                v.one(self._net["i__ready"][0]),
                self._not(s.same(self._wide(v, "free"), self._const(0))),
            ),
            "halves take turns": s.same(
                v.bits(self._net["write_half"]), s.op("BV_XOR", [v.bits([self._half]), full])
            ),
            "rows are a half's": s.both(
                *(s.op("BV_ULT", [row, self._const(self._words)])
                  for row in (v.wide(self._row), self._wide(v, "write_row")))
            ),
            "a half is read from its first word on": s.op(
                "OR", [v.one(self._run), s.same(v.wide(self._row), self._const(0))]
            ),
        }  # fmt: skip
        if self._which:
            each = self._sum([v.wide([bit]) for bit in self._which])
            claims["a row has one memory"] = s.same(each, one)
        return claims

    def _empty(self, v: View) -> dict[str, Any]:
        s, nothing = self._s, self._const(0)
        return {
            "the next row is a half's first": s.both(
                *(s.same(x, nothing) for x in (v.wide(self._row), self._wide(v, "write_row")))
            ),
            **({"the next row is the first memory's": v.one(self._which[0])}
               if self._which else {}),
        }  # fmt: skip

    def _walks(self) -> dict[str, Any]:
        """How rows, and what subclasses have, are counted."""
        s, now = self._s, self._now
        last = s.both(self._taken(), *([now.one(self._which[-1])] if self._which else []))
        claims = {
            "rows are read in turn": self._counted(self._row, self._words, self._issued()),
            "rows are written in turn": self._counted(self._net["write_row"], self._words, last),
        }
        if self._which:
            which = now.bits(self._which)
            turned = now.bits([self._which[-1], *self._which[:-1]])
            claims["rows go to the memories in turn"] = s.same(
                self._later.bits(self._which), s.choose(self._taken(), turned, which)
            )
        return claims

    def _counted(self, count: Bits, size: Any, step: Any) -> Any:
        """That a counter goes on with each step, and only then, from the last one to 0."""
        s, here, one = self._s, self._now.wide(count), self._const(1)
        size = self._const(size) if isinstance(size, int) else size
        following = s.add(here, one)
        following = s.choose(s.same(following, size), self._const(0), following)
        return s.same(self._later.wide(count), s.choose(step, following, here))

    def _memory(self) -> dict[str, Any]:
        """What is written and read where."""
        s, now = self._s, self._now
        claims: dict[str, Any] = {}
        payload = now.bits(self._payload)
        place = now.bits([*self._net["write_row"], *self._net["write_half"]])
        for k, ram in enumerate(self._rams):
            ports, size = ram.ports, len(ram.ports["WR_EN"])
            mine = s.both(self._taken(), *([now.one(self._which[k])] if self._which else []))
            claims |= {
                f"memory {k} takes its rows, and nothing else": s.same(
                    now.bits(ports["WR_EN"]), s.choose(mine, s.number(-1, size), s.number(0, size))
                ),
                f"memory {k} has what came, in its place": self._implies(
                    mine,
                    s.both(
                        s.same(now.bits(ports["WR_DATA"]), payload),
                        s.same(now.bits(ports["WR_ADDR"]), place),
                    ),
                ),
                f"memory {k} is read with the others": s.same(
                    now.bits(ports["RD_ADDR"]), now.bits([*self._row, self._half])
                ),
            }
        other = self._not(s.same(now.bits(self._net["write_half"]), now.bits([self._half])))
        some = self._not(s.same(now.wide(self._whole), self._const(0)))
        claims["nothing is written into the half that is read, or read next"] = self._implies(
            s.both(self._taken(), s.op("OR", [now.one(self._run), some])), other
        )
        return claims

    def _goes_on(self, comes: Any) -> dict[str, Any]:
        """That all goes on while results are taken, but where this comes."""

        def way(v: View) -> Any:
            return self._s.concat([v.bits(self._whole), self._left(v), self._way(v)])

        return {"results move on": self._move_on(way, comes)}
