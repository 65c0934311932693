"""Losses, as networks exported with them compute them: gathered log-probabilities, weighted and averaged."""

from __future__ import annotations

from fleetui.workshop.frontends.onnx.call import Call, Result, operator
from fleetui.workshop.graph.ir import Value


@operator("NegativeLogLikelihoodLoss")
def negative_log_likelihood(c: Call) -> Result:
    return _loss(c, c.value(0), c.value(1), c.opt(2))


@operator("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(c: Call) -> Result:
    scores = c.value(0)
    logs = c.op("log_softmax", scores, axis=1)
    return [_loss(c, logs, c.value(1), c.opt(2)), logs]


def _loss(c: Call, logs: Value, labels: Value, weights: Value | None) -> Value:
    if logs.rank < 2 or labels.shape != (logs.shape[0], *logs.shape[2:]):
        c.misfit(f"compares {list(logs.shape)} with labels of the shape {list(labels.shape)}")
    ignored = c.attrs.get("ignore_index")
    keep: Value | None = None
    if ignored is not None:
        keep = c.op("not_equal", labels, c.scalar(int(ignored), labels))
        labels = c.op("where", keep, labels, c.scalar(0, labels))
    picked = c.op("gather_elements", logs, c.unsqueeze(labels, [1]), axis=1)
    loss = c.op("neg", c.squeeze(picked, [1]))
    share: Value | None = None
    if weights is not None:
        share = c.op("gather", c.cast(weights, loss.dtype), labels, axis=0)
    if keep is not None:
        one = share if share is not None else c.scalar(1, loss)
        share = c.op("where", keep, one, c.scalar(0, loss))
    if share is not None:
        loss = c.op("mul", loss, share)
    reduction = c.text("reduction", "mean")
    if reduction == "none":
        return loss
    axes = list(range(loss.rank))
    total = c.reduce(loss, "sum", axes, keepdims=False)
    if reduction == "sum":
        return total
    if reduction != "mean":
        c.broken(f"reduces by '{reduction}'")
    if share is None:
        return c.reduce(loss, "mean", axes, keepdims=False)
    return c.op("div", total, c.reduce(share, "sum", axes, keepdims=False))
