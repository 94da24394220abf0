"""Queries, keys and values of a layer's attention, for the transformer blocks of timm.

They are what attention multiplies, after the norm of queries and keys in models that have one, and
before a rotation by the patches' positions (RoPE): rotated keys of two patches that look the same
differ by their distance.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from cuvler.errors import ConfigError

_LETTERS = {"query": "q", "key": "k", "value": "v"}
# Blocks of timm's models -> their norm in front of attention; None if the norm is behind it. A
# block that is not listed could order its parts in any way.
_NORMS = {
    "beit.Block": "norm1",
    "cait.LayerScaleBlock": "norm1",
    "convit.Block": "norm1",
    "deepseek_vit.DeepseekVitBlock": "norm1",
    "eva.EvaBlock": "norm1",
    "eva.EvaBlockPostNorm": None,
    "vision_transformer.Block": "norm1",
    "vision_transformer.DiffParallelScalingBlock": "in_norm",
    "vision_transformer.ParallelScalingBlock": "in_norm",
    "vision_transformer.ResPostBlock": None,
    "vision_transformer_relpos.RelPosBlock": "norm1",
    "vision_transformer_relpos.ResPostRelPosBlock": None,
    "vision_transformer_sam.Block": "norm1",
    "xcit.XCABlock": "norm1",
}


class ProjectionBlock(nn.Module):
    """Takes the place of a block: returns projections of its attention instead of new tokens.

    Args:
        block: of a model of timm.
        feature: ``key``, ``query``, ``value`` or ``key_query_value``, all three concatenated.

    Raises:
        ConfigError: the block is of a kind that has no such projections, or none that are known.
    """

    def __init__(self, block: nn.Module, feature: str) -> None:
        super().__init__()
        kind = f"{type(block).__module__.rpartition('.')[2]}.{type(block).__name__}"
        # Blocks that compute attention and MLP at once have no part of their own for attention.
        attention = getattr(block, "attn", block)
        parts = ("qkv", "k_proj", "in_proj")
        if kind not in _NORMS or all(getattr(attention, part, None) is None for part in parts):
            raise ConfigError(
                f"no {feature} is known of blocks of timm's {kind} with "
                f"{type(attention).__name__}; choose the feature patch_tokens"
            )
        norm = _NORMS[kind]
        self.norm = getattr(block, norm) if norm else nn.Identity()
        names = ("key", "query", "value") if feature == "key_query_value" else (feature,)
        self.projections = nn.ModuleList(_Projection(attention, name) for name in names)

    def forward(self, tokens: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return the projections of (b, ..., d) tokens; other arguments are for other layers."""
        normed = self.norm(tokens)
        return torch.cat([projection(normed) for projection in self.projections], dim=-1)


class _Projection(nn.Module):
    """The queries, keys or values of an attention layer."""

    def __init__(self, attention: Any, name: str) -> None:
        super().__init__()
        weight, bias = _linear(attention, name)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.head_norm = getattr(attention, f"{_LETTERS[name]}_norm", nn.Identity())
        # All heads as one, where there is no norm of each.
        self.head_dim = getattr(attention, "head_dim", weight.shape[0])

    def forward(self, tokens: Tensor) -> Tensor:
        projected = nn.functional.linear(tokens, self.weight, self.bias)
        heads = self.head_norm(projected.reshape(*projected.shape[:-1], -1, self.head_dim))
        return cast("Tensor", heads.flatten(-2))


def _linear(attention: Any, name: str) -> tuple[Tensor, Tensor | None]:
    """Return the weight and the bias of a projection, from a layer of its own or a shared one."""
    letter = _LETTERS[name]
    own = getattr(attention, f"{letter}_proj", None)
    if own is not None:
        return own.weight, own.bias
    shared = getattr(attention, "qkv", None)
    if shared is None:
        # Its first rows are the MLP's.
        mlp, *sizes = attention.in_split
        shared, rows = attention.in_proj, slice(mlp, mlp + sum(sizes))
    else:
        rows = slice(None)
    third = list(_LETTERS).index(name)
    weight: Tensor = shared.weight[rows].chunk(3)[third]
    if shared.bias is not None:
        return weight, shared.bias[rows].chunk(3)[third]
    # Models without a bias of the keys have parameters for the other two.
    return weight, getattr(attention, f"{letter}_bias", None)
