"""The computer's end of a board: protocol, link, programming, and a model of the board."""
