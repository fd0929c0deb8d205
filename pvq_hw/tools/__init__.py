"""External programs: found, started and checked."""
