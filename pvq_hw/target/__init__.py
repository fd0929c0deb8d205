"""Boards, device families, and what their parts can do."""
