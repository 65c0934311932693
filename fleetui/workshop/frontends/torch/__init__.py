"""PyTorch's exported programs (``.pt2``)."""

from fleetui.workshop.frontends.torch.frontend import TorchFrontend

FRONTEND = TorchFrontend()
