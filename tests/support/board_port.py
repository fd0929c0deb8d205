"""A serial port behind which the golden model of a board answers."""

from dataclasses import replace

import numpy as np

from pvq_hw.flow.board import describe_output
from pvq_hw.host.board_model import Responder


class ResponderPort:
    """A port to a `Responder`, which has it at once."""

    def __init__(self, board):
        self.board, self._coming = board, b""

    def write(self, data):
        self._coming += self.board.feed(data)

    def read(self, seconds):
        data, self._coming = self._coming, b""
        return data

    def close(self):
        pass


class BoardPort:
    """A port behind which the golden model of a board answers."""

    def __init__(self, accelerator, *, wrong=lambda out: out, spoil=bytes, **said):
        network = accelerator.network

        taken = []

        def predict(frame):
            shaped = frame.reshape(1, *network.input.shape)
            if network.remembers:  # from the first frame on
                taken.append(shaped)
                shaped = np.concatenate(taken)
            return wrong(network.predict(shaped)[-1].reshape(-1))

        self.board = Responder(replace(describe_output(accelerator), **said), predict)
        self._spoil, self.coming, self.closed = spoil, b"", False

    def write(self, data):
        assert not self.closed
        self.coming += self.board.feed(self._spoil(data))

    def read(self, seconds):
        data, self.coming = self.coming[:50], self.coming[50:]
        return data or self.board.idle()

    def close(self):
        self.closed = True
