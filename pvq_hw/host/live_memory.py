"""The golden model of memories that are loaded while a board runs."""

import zlib
from collections.abc import Sequence
from dataclasses import replace

from pvq_hw.engine.live_image import LiveLayout
from pvq_hw.host.code_memory import CodeMemory
from pvq_hw.host.code_state import CodeState, CodeStatus
from pvq_hw.host.protocol import Description, ErrorCode, Kind

__all__ = ["LiveMemory"]

Words = dict[tuple[int, int], int]


class LiveMemory(CodeMemory):
    """The block RAMs, their banks and the state, once all that was begun is done.

    Parameters
    ----------
    layout : LiveLayout
    blocks : sequence of sequences of int
        The bitstream's words of every block.
    banks : int
        1, or 2: requests then reach the one that is not in service.
    """

    def __init__(self, layout: LiveLayout, blocks: Sequence[Sequence[int]], banks: int = 1) -> None:
        self._live, self.crc = layout, layout.right
        first = {(n, at): word for n, block in enumerate(blocks) for at, word in enumerate(block)}
        self._banks: list[Words] = [first, dict.fromkeys(first, 0)][:banks]
        self._service = 0
        self._served = True
        self.status = CodeStatus(CodeState.READY, self.crc)

    def carry_out(self, kind: Kind, payload: bytes) -> ErrorCode | None:
        """As a `CodeMemory`; which bank is in service goes with the state."""
        refused = super().carry_out(kind, payload)
        self.status = replace(self.status, second=self._service == 1)
        return refused

    @property
    def ready(self) -> bool:
        """Whether frames are taken."""
        return self._served if len(self._banks) > 1 else super().ready

    @property
    def description(self) -> Description:
        """What the bank in service says of the board."""
        last, size = len(self._live.blocks) - 1, self._live.told_bytes
        words = [word for (n, _), word in self._banks[self._service].items() if n == last]
        told = b"".join(word.to_bytes(size, "little") for word in words)
        return Description.decode(told[: Description.SIZE])

    @property
    def _target(self) -> Words:
        return self._banks[(self._service + 1) % len(self._banks)]

    def _holds_words(self, payload: bytes) -> bool:
        return len(payload) >= self._live.address_bytes

    def _write(self, payload: bytes) -> None:
        size, blocks = self._live.word_bytes, self._live.blocks
        number, at = divmod(int.from_bytes(payload[:4], "little"), 1 << 14)
        number %= 1 << self._live.block_bits
        data = payload[4:]
        for k in range(0, len(data) - size + 1, size):
            if (number, at) in self._target:
                mask = (1 << blocks[number].bits) - 1
                self._target[number, at] = int.from_bytes(data[k : k + size], "little") & mask
            if at == blocks[min(number, len(blocks) - 1)].words - 1:
                number, at = (number + 1) % (1 << self._live.block_bits), 0
            else:
                at = (at + 1) % (1 << 14)

    def _check(self) -> None:
        crc = zlib.crc32(self._live.encoded(list(self._target.values())), self._live.seed)
        right = crc == self.crc
        self.status = CodeStatus(CodeState.READY if right else CodeState.WRONG, crc)
        if right:
            self._service = (self._service + 1) % len(self._banks)

    def _reload(self) -> None:
        self._check()
