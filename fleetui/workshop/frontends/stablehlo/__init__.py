"""StableHLO modules, as JAX exports them."""

from fleetui.workshop.frontends.stablehlo.frontend import StableHLOFrontend

FRONTEND = StableHLOFrontend()
