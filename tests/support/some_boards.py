"""Boards for tests that need not try them all, and a board of the user's own."""

SOME_BOARDS = ("icebreaker", "hx8k", "ulx3s-25f", "ulx3s-85f", "orangecrab-25f")

STICK = {
    "name": "my-stick",
    "board": "My stick",
    "device": "iCE40HX4K",
    "package": "TQ144",
    "clock_mhz": 36.0,
    "baud": 1_000_000,
    "link": "USB",
    "source": "its own drawing",
    "oscillator": {"mhz": 12.0},
    "pins": {"clk": "21", "rx": "9", "tx": "8", "heartbeat": "99"},
}
