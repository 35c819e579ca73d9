"""The networks that experiments try: the paper's own, their ablations, and the seven peers."""

from __future__ import annotations

from functools import partial

from torch import nn

from her2bridge.experiments.peers import PEERS, SMALLEST_PX, build_peer
from her2bridge.experiments.plan import Candidate
from her2bridge.model.attention import Attention
from her2bridge.model.repvgg import BlockKind, NetworkSpec, build
from her2bridge.records import TileClass


def repvgg(name: str, attention: Attention, block: BlockKind = "ecm", other_name: str | None = None) -> Candidate:
    """RepVGG-A0 with this attention and block."""
    return Candidate(name, partial(_build, NetworkSpec(attention=attention, block=block)), other_name=other_name)


def _build(spec: NetworkSpec) -> nn.Module:
    return build(spec)


OURS = (repvgg("RepVGG-GCT", "gct"), repvgg("RepVGG-SE", "se"))
"""The two that the paper proposes."""

SEVEN = tuple(Candidate(name, partial(build_peer, name, len(TileClass)), SMALLEST_PX.get(name, 32)) for name in PEERS)
"""The seven that it compares with."""

BLOCKS = (
    repvgg("plain", "none", "plain"),
    repvgg("plain + GCT", "gct", "plain"),
    repvgg("plain with BN", "none", "plain-bn"),
    repvgg("plain with BN + GCT", "gct", "plain-bn"),
    repvgg("ECM", "none"),
    repvgg("ECM + GCT", "gct", other_name=OURS[0].name),
    repvgg("ECM + SE", "se", other_name=OURS[1].name),
)
"""Those of the ablation; the two with BN alone and ECM + SE are not in the paper."""
