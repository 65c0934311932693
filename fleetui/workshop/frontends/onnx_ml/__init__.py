"""Importers for the operators of ``ai.onnx.ml``: what converters of scikit-learn and its kin write.

``OPERATORS`` maps a name to ``function(importer, node, inputs) -> list[Value]``; the ONNX frontend's dispatcher
consults it. Text is refused with a sentence that says what to do: we compute with numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fleetui.workshop.frontends.onnx_ml import features, linear, trees
from fleetui.workshop.frontends.onnx_ml.node import MlNode
from fleetui.workshop.graph.ir import Value

Importing = Callable[[MlNode], list[Value]]

TABLE: dict[str, Importing] = {
    "TreeEnsembleClassifier": trees.classifier,
    "TreeEnsembleRegressor": trees.regressor,
    "TreeEnsemble": trees.unified,
    "Scaler": features.scaler,
    "OneHotEncoder": features.one_hot,
    "Imputer": features.imputer,
    "Normalizer": features.normalizer,
    "Binarizer": features.binarizer,
    "ArrayFeatureExtractor": features.extractor,
    "FeatureVectorizer": features.vectorizer,
    "LabelEncoder": features.label_encoder,
    "CategoryMapper": features.category_mapper,
    "ZipMap": features.zip_map,
    "LinearClassifier": linear.classifier,
    "LinearRegressor": linear.regressor,
    "SVMClassifier": linear.svm_classifier,
    "SVMRegressor": linear.svm_regressor,
}


def _run(importing: Importing, importer: Any, node: Any, inputs: list[Any]) -> list[Value]:
    return importing(MlNode(importer, node, list(inputs), importer.attributes(node)))


OPERATORS: dict[str, Callable[[Any, Any, list[Any]], list[Value]]] = {
    name: partial(_run, importing) for name, importing in TABLE.items()
}
