"""Our own graph of a model: static shapes, few primitive operators, numpy constants. Knows nothing of TVM.

``ir`` has the data, ``ops`` the table of primitives (shape rule, reference evaluation in numpy, cost), ``build``
makes nodes. Frontends make graphs, passes rewrite them, schedules turn them into kernels.
"""
