"""What differs between device families: memories and clocks."""
