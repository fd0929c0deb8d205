"""What a board's top will say of itself, known before any circuit is made."""

from pvq_hw.choices import UART
from pvq_hw.host.protocol import REPEATING_VERSION, VERSION, Description, WireFormat
from pvq_hw.target.baud import check_rate, choose_rate
from pvq_hw.target.boards import Target, get_target
from pvq_hw.target.pll import solve_pll

__all__ = ["WINDOW", "describe_board"]

WINDOW = 4  # frames; more would only help where a reply takes longer than three frames


def describe_board(
    target: str | Target,
    clock_mhz: float,
    baud: int | None,
    input: WireFormat,
    output: WireFormat,
    identity: bytes,
    *,
    window: int = WINDOW,
    measure: bool = False,
    link: str = UART,
) -> Description:
    """The description of an accelerator on a board.

    Parameters
    ----------
    target : str or Target
        A board, as `pvq_hw.target.boards.get_target` takes it.
    clock_mhz : float
        Wish; ``clock_hz`` of the result is what the board's PLL achieves, at or below it.
    baud : int, optional
        Bits a second of the link. By default the fastest usual one, up to the target's, that the
        clock meets within 2 %; of SPI a sixth of the clock.
    input, output : WireFormat
    identity : bytes
        First 8 bytes of the manifest's SHA-256.
    measure : bool
        Whether it takes `pvq_hw.host.protocol.Kind.REPEAT`.
    link : str
        One of `pvq_hw.choices.LINKS`.

    Raises
    ------
    InputError
        Target, clock, baud rate or frame size are impossible.
    """
    board = get_target(target)
    clock_hz = solve_pll(board, clock_mhz).hz
    most = board.baud if link == UART else None
    rate = check_rate(link, clock_hz, baud) if baud else choose_rate(link, clock_hz, most)
    version = REPEATING_VERSION if measure else VERSION
    return Description(input, output, clock_hz, rate, window, identity, version)
