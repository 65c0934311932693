"""From a trained model's file to proven, freestanding variants: no Qt, no store, no network.

::

    file -> inspect -> frontend -> Graph -> passes (fold, simplify, lay out) -> groups (fuse)
         -> kernels (schedules, one rule set per operator) -> TIR -> object -> entry in C -> link -> prove

TVM, ONNX and the frameworks are imported inside functions only, so that importing this room costs nothing.
"""
