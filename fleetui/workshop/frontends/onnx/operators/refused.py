"""Operators of ONNX that a static program on numbers cannot hold, each with the reason that messages give."""

from __future__ import annotations

from fleetui.workshop.frontends.onnx.call import REFUSED

_TEXT = "works on text, which we do not compute with"
_RANDOM = "draws random numbers, so that its results could not be checked"
_SIZE = "has a result whose size depends on numbers known only when the model runs"

REFUSED.update(
    dict.fromkeys(("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"), _TEXT)
)
REFUSED.update(
    dict.fromkeys(
        ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"),
        _RANDOM,
    )
)
REFUSED.update(dict.fromkeys(("NonMaxSuppression",), _SIZE))
REFUSED["TfIdfVectorizer"] = "counts phrases in tokens, which we do not compute"
REFUSED["ImageDecoder"] = "decodes image files, which a model should be given as pixels"
REFUSED["MaxRoiPool"] = "pools regions whose size is known only when the model runs"
