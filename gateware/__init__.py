"""Amaranth circuits of pvq-hw: the streaming layer cores, the boards' tops and their builds."""
