"""ONNX models: read with care, imported operator by operator from the specification.

``FRONTEND`` is what the table of frontends takes. ``call`` says how an operator's importer looks, ``operators``
holds them by family. Operators of ``ai.onnx.ml`` come from ``fleetui.workshop.frontends.onnx_ml.OPERATORS``.
"""

from __future__ import annotations

from fleetui.workshop.frontends.onnx.frontend import FRONTEND, OnnxFrontend, import_source

__all__ = ["FRONTEND", "OnnxFrontend", "import_source"]
