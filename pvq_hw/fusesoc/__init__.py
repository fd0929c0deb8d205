"""A FuseSoC library with a generator of accelerators: see `pvq_hw.fusesoc.generate`."""
