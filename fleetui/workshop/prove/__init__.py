"""Is the compiled form the model? Every variant is run against its source, and says how close it came.

The reference is the source framework where it is installed, else our own evaluation of the imported graph in
numpy (the proof says which). Inputs are the ``--check`` data where given, else seeded numbers. The compiled form
runs natively, or under qemu-user for a foreign architecture; where neither is possible the proof says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.errors import ToleranceError, WorkshopError
from fleetui.workshop.frontends.base import Frontend, Peer
from fleetui.workshop.graph import ir
from fleetui.workshop.graph.ir import Array, Graph
from fleetui.workshop.options import Optimise, Options, Weights
from fleetui.workshop.progress import Progress
from fleetui.workshop.prove import data, execute
from fleetui.workshop.target import Target

SETS = 3
"""Generated sets of inputs to compare on."""
GOLDEN = 2
"""How many of them travel with the variant."""
LOSS: dict[Weights, float] = {Weights.FP16: 0.02, Weights.W8: 0.1, Weights.INT8: 0.5, Weights.W4: 1.0}
"""Relative error beyond which a smaller form is broken rather than coarse."""


@dataclass(slots=True)
class Proof:
    """``max_error`` is relative to the largest number of the output; ``None`` stands for "not measured"."""

    reference: str
    executed: str
    max_error: float | None = None
    mean_error: float | None = None
    agreement: float | None = None
    accuracy: float | None = None
    source_accuracy: float | None = None
    rows: int = 0
    latency_us: float | None = None
    """One call on one thread of this machine, the least of several; not known for what ran elsewhere."""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Prover:
    """Runs the source once and every variant against it. One job, one thread."""

    def __init__(
        self, source: Path, frontend: Frontend, graph: Graph, options: Options, progress: Progress
    ) -> None:
        self.graph, self.options, self.progress = graph, options, progress
        self.check = data.load(Path(options.check), graph, labels=True) if options.check else None
        self._source, self._frontend = source, frontend
        self._peer: Peer | None = None
        self._reference: list[tuple[dict[str, Array], dict[str, Array]]] = []
        self.reference_name = ""

    # ------------------------------------------------------------ the reference

    def reference(self) -> list[tuple[dict[str, Array], dict[str, Array]]]:
        """Sets of inputs and what the source says to them; made at the first call."""
        if self._reference:
            return self._reference
        self._peer = self._frontend.peer(self._source, self.options.inputs, 1)
        if self._peer is not None:
            self.reference_name = f"{self._peer.name} {self._peer.version}"
        else:
            self.reference_name = "FleetUI's own evaluation"
        sets = self.check.batches() if self.check is not None else data.generated(self.graph, SETS)
        for number, feeds in enumerate(sets):
            self.progress.step(number, len(sets), self.reference_name)
            self._reference.append((feeds, self.source_run(feeds)))
        return self._reference

    def close(self) -> None:
        close = getattr(self._peer, "close", None)
        if close is not None:
            close()
        self._peer = None

    def source_run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        if self._peer is not None:
            found = self._peer.run(feeds)
            return {value.name: np.asarray(found[value.name]) for value in self.graph.outputs}
        return ir.run(self.graph, feeds)

    # ------------------------------------------------------------ a variant

    def prove(self, folder: Path, target: Target, wish: Optimise) -> Proof:
        """Measure, write golden vectors and ``proof.json``; ``ToleranceError`` if it is another model."""
        pairs = self.reference()
        runner = execute.runner_for(folder, target)
        if runner is None:
            proof = Proof(self.reference_name, "")
            proof.warnings.append(f"not executed here: {execute.why_not(target)}")
            data.write_golden(folder, pairs[:GOLDEN])
            return proof
        with runner:
            proof = Proof(self.reference_name, runner.how)
            have = []
            for number, (feeds, _) in enumerate(pairs):
                self.progress.step(number, len(pairs), runner.how)
                have.append(runner.run(feeds))
            proof.latency_us = runner.latency_us()
        self._compare(proof, [want for _, want in pairs], have)
        self._judge(proof, wish, target)
        # What the variant itself answers is what a device must answer, within the proof's own error.
        data.write_golden(folder, [(f, h) for (f, _), h in zip(pairs[:GOLDEN], have, strict=False)])
        data.write_json(folder / "proof.json", proof.to_json())
        return proof

    def _compare(self, proof: Proof, want: list[dict[str, Array]], have: list[dict[str, Array]]) -> None:
        worst, total, count = 0.0, 0.0, 0
        same = asked = 0
        for wished, got in zip(want, have, strict=True):
            for name, array in wished.items():
                other = np.asarray(got[name])
                if other.shape != array.shape:
                    raise ToleranceError(
                        f"The output {name} has shape {other.shape} where the source gives {array.shape}",
                        "This is a fault of ours: report it with the model's structure",
                    )
                error, mean = data.errors(other, array)
                worst, total, count = max(worst, error), total + mean, count + 1
                if array.ndim >= 2 and array.shape[-1] >= 2 and array.dtype.kind == "f":
                    agree = np.argmax(other, -1) == np.argmax(array, -1)
                    same, asked = same + int(agree.sum()), asked + agree.size
        proof.max_error, proof.mean_error = worst, total / max(1, count)
        proof.agreement = same / asked if asked else None
        proof.rows = sum(next(iter(w.values())).shape[0] if next(iter(w.values())).ndim else 1 for w in want)
        if self.check is not None and self.check.labels is not None:
            proof.source_accuracy = self.check.accuracy(want)
            proof.accuracy = self.check.accuracy(have)

    def _judge(self, proof: Proof, wish: Optimise, target: Target) -> None:
        error = proof.max_error if proof.max_error is not None else 0.0
        if wish.prune:
            limit = float("inf")
        else:
            limit = self.options.tolerance if wish.weights is Weights.FP32 else LOSS[wish.weights]
        if not error <= limit:
            raise ToleranceError(
                f"The {wish.label} variant for {target.name} differs from {proof.reference} by {error:.2g} "
                f"(allowed: {limit:.2g}), so it was not produced",
                "Allow more with --tolerance, or leave out this form",
            )
        if wish.weights is Weights.W4:
            proof.warnings.append(f"4-bit weights cost precision: largest relative error {error:.2g}")
        lost = (proof.source_accuracy or 0.0) - (proof.accuracy or 0.0)
        if lost > 0.01:
            proof.warnings.append(f"accuracy fell by {lost * 100:.1f} points")


__all__ = ["Proof", "Prover", "WorkshopError"]
