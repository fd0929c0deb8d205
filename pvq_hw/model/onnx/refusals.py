"""What stops a file from becoming a Model: every node at once, each with what helps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pvq_hw.errors import InputError
from pvq_hw.naming import quoted

__all__ = ["Refusal", "RefusalError", "remedy"]

_SHOWN = 12  # reasons in one error
_NAMES = 3  # nodes of one reason

_TRAIN = ", and train on"
_RECURRENT = f"replace by 1-D convolutions over a window of the sequence{_TRAIN}"
_NORM = f"replace by BatchNormalization, which folds into the weights{_TRAIN}"
_UP = f"keep to one size of map or to strided convolutions and poolings{_TRAIN}"
_GATE = f"leave it out, or replace by an Add of both branches{_TRAIN}"
_POOL = f"replace by AveragePool or MaxPool{_TRAIN}"
_DATA = "do it to the data before they reach the model"
_REMEDIES = {
    **dict.fromkeys(("LSTM", "GRU", "RNN", "Scan", "Loop"), _RECURRENT),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization",
                     "RMSNormalization", "LRN", "LpNormalization",
                     "MeanVarianceNormalization"), _NORM),
    **dict.fromkeys(("ConvTranspose", "Resize", "Upsample", "DepthToSpace", "MaxUnpool",
                     "GridSample", "Col2Im"), _UP),
    **dict.fromkeys(("Attention", "MultiHeadAttention", "Einsum", "RotaryEmbedding"),
                    f"replace by convolutions or dense layers{_TRAIN}"),
    **dict.fromkeys(("LpPool", "GlobalLpPool", "MaxRoiPool", "RoiAlign", "ReduceProd", "ReduceL1",
                     "ReduceL2"), _POOL),
    **dict.fromkeys(("Mul", "Div", "Max", "Min", "Pow", "Where"), _GATE),
    **dict.fromkeys(("Normalizer", "OneHotEncoder", "LabelEncoder", "Imputer", "TfIdfVectorizer",
                     "StringNormalizer", "FeatureVectorizer", "Binarizer", "DFT", "STFT",
                     "MelWeightMatrix"), _DATA),
    **dict.fromkeys(("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble",
                     "SVMClassifier", "SVMRegressor"), "train a network of dense layers instead"),
    **dict.fromkeys(("If", "Loop", "Scan"), "export the model without control flow"),
    "Conv3D": f"replace by 1-D or 2-D convolutions{_TRAIN}",
    "DeformConv": f"replace by Conv{_TRAIN}",
    "MatMul": f"replace by a dense layer, whose weights are constant{_TRAIN}",
}  # fmt: skip


def remedy(kind: str) -> str:
    """What to do instead of an operation that isn't supported."""
    return _REMEDIES.get(kind, f"replace by a supported operation, such as Relu or Conv{_TRAIN}")


@dataclass(frozen=True)
class Refusal:
    """One reason why a model is refused.

    Parameters
    ----------
    name : str
        Of the node as the file has it; not safe to show. Empty where no node is at fault.
    kind : str
        Its operator, as the file has it.
    reason : str
        Begins as "must ..."; a whole sentence where no node is at fault.
    remedy : str
        What to do instead, where that is more than the reason says.
    place : int
        Of the node in the file, sorted as its nodes are; -1 where no node is at fault.
    unknown : bool
        Whether it is the operator itself that isn't supported.
    """

    name: str
    kind: str
    reason: str
    remedy: str = ""
    place: int = -1
    unknown: bool = False

    def line(self) -> str:
        """The reason, and what helps, in one line."""
        return f"{self.reason}; {self.remedy}" if self.remedy else self.reason

    def to_json(self) -> dict[str, Any]:
        """JSON values; names are escaped and cut."""
        return {"name": quoted(self.name)[1:-1], "operation": quoted(self.kind)[1:-1],
                "reason": self.reason, "remedy": self.remedy}  # fmt: skip


class RefusalError(InputError):
    """A model that can't be taken: one line with all that stops it.

    Parameters
    ----------
    path : Path
        Of the file.
    refusals : sequence of Refusal
    known : sequence of str
        The operators that are supported.
    """

    def __init__(self, path: Path, refusals: Sequence[Refusal], known: Sequence[str]) -> None:
        self.refusals = tuple(refusals)
        groups: dict[tuple[str, str], list[Refusal]] = {}
        for refusal in self.refusals:
            groups.setdefault((refusal.kind, refusal.reason), []).append(refusal)
        if len(self.refusals) == 1:
            text = _one(path, self.refusals[0])
        else:
            parts = [_several(group) for group in list(groups.values())[:_SHOWN]]
            more = len(groups) - len(parts)
            parts += [f"{more} more reasons"] if more else []
            text = f"{path}: {len(self.refusals)} things stop it: {'; '.join(parts)}"
        if any(refusal.unknown for refusal in self.refusals):
            text += f"; supported are {', '.join(known)}; pvq-hw check says what to do instead"
        super().__init__(text)


def _one(path: Path, refusal: Refusal) -> str:
    if refusal.place < 0:
        colon = "" if refusal.reason.startswith("must") else ":"
        return f"{path}{colon} {refusal.reason}"
    if refusal.unknown:
        return (
            f"{path}: node {quoted(refusal.name)} has the operation {quoted(refusal.kind)}"
            f"{_domain(refusal)}, which isn't supported"
        )
    return f"{path}: node {quoted(refusal.name)} ({refusal.kind}) {refusal.reason}"


def _domain(refusal: Refusal) -> str:
    return refusal.reason.removeprefix("isn't supported").replace(", of", " of")


def _several(group: Sequence[Refusal]) -> str:
    """Nodes of one kind with one reason."""
    first = group[0]
    if first.place < 0:
        return f"the model {first.reason}" if first.reason.startswith("must") else first.reason
    names = ", ".join(quoted(refusal.name) for refusal in group[:_NAMES])
    more = len(group) - _NAMES
    names += f" and {more} more" if more > 0 else ""
    names = f"{'node' if len(group) == 1 else 'nodes'} {names}"
    if first.unknown:
        have = "has" if len(group) == 1 else "have"
        return f"{names} {have} the operation {quoted(first.kind)}{_domain(first)}"
    return f"{names} ({quoted(first.kind)[1:-1]}) {first.reason}"
