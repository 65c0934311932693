"""Keras files (``.keras``, ``.h5``) and TensorFlow SavedModels, by way of TFLite."""

from fleetui.workshop.frontends.tensorflow.frontend import KerasFrontend, SavedModelFrontend

KERAS = KerasFrontend()
SAVED_MODEL = SavedModelFrontend()
"""Both convert in a limited process of TensorFlow's own; only the peer runs it in ours."""
