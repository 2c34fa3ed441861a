"""Operators that are translated to ONNX here, because torch's exporter makes slower nodes of them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the table of operators that ``torch.onnx.export`` translates by our functions instead of its own."""
    from onnxscript import opset18 as op

    def attention(query: Any, key: Any, value: Any, attn_mask: Any, *_: Any, **__: Any) -> Any:
        """Translate softmax(Q K^T / sqrt(D/H)) V for (B, H, T', D/H) each; ``attn_mask`` bool is True on real frames.

        Dropout and another scale are ignored; an exported model has neither. Masked scores get the least number instead of
        minus infinity, so a row without a real frame has no NaN. torch's exporter would look for NaN, which takes 9 % of the
        time of an int8 file.
        """
        zero, least = (op.Constant(value_float=number) for number in (0.0, torch.finfo(torch.float32).min))
        scores = op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2]))
        scores = op.Mul(scores, op.Constant(value_float=1.0 / math.sqrt(query.shape[-1])))
        bias: Any = op.Where(attn_mask, zero, least)  # type: ignore[type-var]
        return op.MatMul(op.Softmax(op.Add(scores, bias), axis=-1), value)

    def conv1d(
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Sequence[int] = (1,),
        padding: Sequence[int] = (0,),
        dilation: Sequence[int] = (1,),
        groups: int = 1,
    ) -> Any:
        """Translate a convolution of (B, C, T) with ``weight`` (O, C / groups, K). That of a front end becomes a product.

        A front end has width 3 and stride 2. Each output frame is the product of three input frames, side by side, with the
        weight. The quantiser takes products, but no convolutions.
        """
        outputs, channels, width = weight.shape
        given = [] if bias is None else [bias]
        if (width, *stride, *padding, *dilation, groups) != (3, 2, 0, 1, 1):
            return op.Conv(
                x, weight, *given, strides=list(stride), pads=[*padding] * 2, dilations=list(dilation), group=groups
            )  # fmt: skip
        frames = op.Transpose(x, perm=[0, 2, 1])
        last, axis, step = torch.iinfo(torch.int64).max, _ints(op, 1), _ints(op, 2)
        parts = [op.Slice(frames, _ints(op, first), _ints(op, end), axis, step) for first, end in ((0, -2), (1, -1), (2, last))]
        product = op.MatMul(
            op.Concat(*parts, axis=2), op.Reshape(op.Transpose(weight, perm=[2, 1, 0]), _ints(op, 3 * channels, outputs))
        )
        return op.Transpose(op.Add(product, *given) if given else product, perm=[0, 2, 1])

    return {torch.ops.aten.scaled_dot_product_attention.default: attention, torch.ops.aten.conv1d.default: conv1d}


def _ints(op: Any, *values: int) -> Any:
    return op.Constant(value_ints=list(values))
