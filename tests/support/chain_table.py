"""The table of random chains that the reference and every simulator must agree on."""

from functools import cache

from random_layers import Case, Chain, make_chain

from pvq_hw.arith.formats import IntFormat

__all__ = ["CHAINS", "chain"]

U8, S8, S16, BINARY = (
    IntFormat(8, False),
    IntFormat(8, True),
    IntFormat(16, True),
    IntFormat(1, True),
)

_UNROLLED = {"engine": "unrolled"}

# name: (inputs, input format, layers)
CHAINS: dict[str, tuple[int, IntFormat, tuple[Case, ...]]] = {
    "plain": (24, U8, (Case(10, 16, 4), Case(8, 9, 3), Case(5, 6, 2, S16))),
    "one weight": (1, S8, (Case(1, 1, 1, S8),)),
    "one column": (1, U8, (Case(5, 3, 1), Case(3, 4, 2, S16))),
    "one row": (17, U8, (Case(1, 9, 3, strong=True), Case(4, 2, 1, S16))),
    "one pulse": (20, S8, (Case(9, 1, 5), Case(4, 1, 9, S16))),
    "sixteen lanes": (64, U8, (Case(12, 40, 16), Case(6, 12, 12, S16))),
    "all lanes": (13, S8, (Case(7, 20, 13, S8), Case(3, 7, 7, S8))),
    "zero rows": (16, U8, (Case(6, 8, 4, zero_rows=(0, 2, 5)), Case(3, 4, 2, S16, zero_rows=(1,)))),
    "all zero": (8, U8, (Case(3, 4, 2, S8, zero_rows=(0, 1, 2)),)),
    "groups": (24, S8, (Case(6, 18, 4, groups=3), Case(4, 9, 2, S16, groups=2))),
    "one column a group": (4, S8, (Case(5, 9, 2, S8, groups=4),)),
    "escapes": (96, U8, (Case(6, 9, 2, options={"gap_bits": 1}), Case(3, 3, 1, S16))),
    "shifted pulses": (24, U8, (Case(8, 90, 4, options={"shift_bits": 2}), Case(4, 30, 2, S16))),
    "saturation": (16, U8, (Case(8, 30, 4, S8, strong=True), Case(4, 20, 2, S16, strong=True))),
    "binary": (24, BINARY, (Case(12, 15, 4, BINARY), Case(5, 7, 2, S16))),
    "thresholds": (
        24,
        BINARY,
        (
            Case(12, 15, 4, BINARY, shift=1, threshold=True),
            Case(9, 6, 3, BINARY, shift=1, threshold=True, zero_rows=(2,)),
            Case(5, 7, 2, S16),
        ),
    ),
    "two bits": (24, IntFormat(2, False), (Case(12, 15, 4, IntFormat(2, True)), Case(5, 7, 2))),
    "sixteen bits": (
        24,
        S16,
        (Case(8, 15, 4, IntFormat(16, False), shift=14), Case(5, 7, 2, S16, shift=14)),
    ),
    "small chip": (
        24,
        U8,
        (
            Case(10, 16, 4, options={"family": "up5k"}),
            Case(8, 9, 3, options={"family": "hx8k"}),
            Case(5, 6, 2, S16, options={"family": "up5k"}),
        ),
    ),
    "two frames": (
        15,
        U8,
        (Case(7, 9, 4, options={"frames": 2}), Case(4, 5, 2, S16, options={"frames": 2})),
    ),
    "five frames": (
        12,
        S8,
        (Case(6, 9, 3, S8, options={"frames": 5}), Case(3, 5, 2, S16, options={"frames": 5})),
    ),
    "hybrid": (
        23,
        U8,
        (
            Case(10, 0, 4, shift=12, encoding="int8"),
            Case(9, 8, 3, S8),
            Case(5, 0, 2, S16, shift=12, encoding="int8", zero_rows=(1,)),
        ),
    ),
    "hybrid of signs": (
        20,
        BINARY,
        (
            Case(10, 0, 4, BINARY, shift=1, encoding="int8", threshold=True),
            Case(9, 6, 3, BINARY, shift=1, threshold=True),
            Case(7, 0, 4, BINARY, shift=9, encoding="int8"),
            Case(4, 0, 3, S16, shift=12, encoding="int8"),
        ),
    ),
    "plain weights, sixteen bits": (
        10,
        S16,
        (
            Case(6, 0, 4, IntFormat(16, False), shift=20, encoding="int8"),
            Case(4, 0, 6, S16, shift=20, encoding="int8", options={"products": "logic"}),
        ),
    ),
    "plain weights, small chips": (
        17,
        U8,
        (
            Case(6, 0, 4, shift=12, encoding="int8", options={"family": "up5k"}),
            Case(5, 0, 6, S8, shift=12, encoding="int8", options={"family": "hx8k"}),
            Case(3, 5, 2, BINARY, shift=1, threshold=True, options={"family": "up5k"}),
        ),
    ),
    "unrolled": (
        16,
        U8,
        (
            Case(9, 14, 1, S8, groups=2, zero_rows=(4,), options={"engine": "unrolled"}),
            Case(6, 8, 3),
            Case(5, 0, 1, S16, shift=12, encoding="int8", options={"engine": "unrolled"}),
        ),
    ),
    "digit by digit": (
        16,
        U8,
        (
            Case(9, 14, 1, S8, groups=2, zero_rows=(4,), options=_UNROLLED | {"digit": 1}),
            Case(6, 8, 1, options=_UNROLLED | {"digit": 4}),
            Case(5, 0, 1, S16, shift=12, encoding="int8", options=_UNROLLED | {"digit": 2}),
        ),
    ),
    "one bit shift": (12, S8, (Case(6, 8, 3, S8, shift=1), Case(3, 4, 2, S16, shift=1))),
}


@cache
def chain(name: str) -> Chain:
    """The chain of that name, always the same."""
    n, form, cases = CHAINS[name]
    return make_chain(sum(name.encode()), n, form, *cases)
