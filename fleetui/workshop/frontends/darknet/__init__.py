"""Darknet networks: a ``.cfg`` in text and its ``.weights`` beside it, as YOLO is handed around.

The layers of the YOLO family up to v4 are known, and those of Darknet's classifiers. Detection layers give their
boxes decoded: [batch, boxes, 5 + classes], centre and size as parts of the picture, confidence, class scores;
non-maximum suppression is the application's. There is no framework to run beside ours.
"""

from fleetui.workshop.frontends.darknet.frontend import DarknetFrontend

FRONTEND = DarknetFrontend()
