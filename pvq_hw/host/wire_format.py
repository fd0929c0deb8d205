"""How a frame's activations lie in the payload of a packet."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError

__all__ = ["MAX_PAYLOAD", "WireFormat"]

MAX_PAYLOAD = 0xFFFF  # bytes of a packet's payload


@dataclass(frozen=True)
class WireFormat:
    """How one frame of a tensor lies in a payload.

    ``count`` activations in channel-last order, one byte each up to 8 bits, else two; signed ones
    are sign-extended, binary ones are 0 for +1 and -1 for -1.
    """

    count: int
    format: IntFormat

    def __post_init__(self) -> None:
        if self.count < 1 or self.frame_bytes > MAX_PAYLOAD:
            raise InputError(
                f"Frame must have 1 to {MAX_PAYLOAD // self.value_bytes:,} values, "
                f"not {self.count:,}"
            )

    @classmethod
    def of(cls, tensor: Any) -> "WireFormat":
        """The wire format of anything with ``size`` and ``format``, for instance a
        `pvq_hw.network.layer.TensorSpec`."""
        return cls(int(tensor.size), tensor.format)

    @property
    def value_bytes(self) -> int:
        """Bytes of one activation."""
        return 1 if self.format.bits <= 8 else 2

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return self.count * self.value_bytes

    def encode(self, frame: npt.ArrayLike) -> bytes:
        """``count`` integers within the format -> payload."""
        values = np.asarray(frame, dtype=np.int64).reshape(-1)
        if values.size != self.count:
            raise InputError(f"Frame must have {self.count:,} values, not {values.size:,}")
        if not self.format.contains(values):
            raise InputError(f"Frame must be within {self.format.min}..{self.format.max}")
        if self.format.binary:
            values = np.where(values < 0, -1, 0)
        return values.astype(
            f"<i{self.value_bytes}" if self.format.signed else self._dtype
        ).tobytes()

    def decode(self, payload: bytes) -> npt.NDArray[np.int64]:
        """Payload -> int64 (count,)."""
        if len(payload) != self.frame_bytes:
            raise InputError(f"Payload must have {self.frame_bytes:,} bytes, not {len(payload):,}")
        values = np.frombuffer(payload, dtype=self._dtype).astype(np.int64)
        if self.format.binary:
            return np.where(values & 1, -1, 1).astype(np.int64)
        values &= (1 << self.format.bits) - 1
        if self.format.signed:
            values -= (values >> (self.format.bits - 1)) << self.format.bits
        return values

    @property
    def _dtype(self) -> str:
        return f"<u{self.value_bytes}"
