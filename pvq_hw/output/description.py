"""What the board with an output's bitstream says of itself."""

from collections.abc import Mapping
from typing import Any

from pvq_hw.host.description import describe_board
from pvq_hw.host.protocol import Description, WireFormat
from pvq_hw.network.network import Network
from pvq_hw.plan.plan import Plan

__all__ = ["describe"]


def describe(plan: Plan, network: Network, manifest: Mapping[str, Any]) -> Description:
    """The description; its identity is the first 8 bytes of the manifest's own hash."""
    return describe_board(
        plan.target,
        plan.clock_mhz,
        plan.baud,
        WireFormat.of(network.input),
        WireFormat.of(network.output),
        bytes.fromhex(manifest["manifest_sha256"])[:8],
        measure=plan.measure,
        link=plan.link,
    )
