"""TFLite models (``.tflite``)."""

from fleetui.workshop.frontends.tflite.frontend import TFLiteFrontend

FRONTEND = TFLiteFrontend()
