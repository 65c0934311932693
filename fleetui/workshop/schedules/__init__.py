"""Groups of nodes in, kernels out: one rule set for every CPU, parameterised by vector width, registers, caches."""
