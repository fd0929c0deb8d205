"""Where the outputs of inner layers are read."""
