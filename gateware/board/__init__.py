"""Boards, constraints and bitstreams."""
