"""Training with PyTorch: fine-tuning at few pulses, and the networks that the project ships.

Needs the extra ``pvq-hw[train]``. Nothing here imports PyTorch before a training function is
called, so that everything else runs without it.
"""
