"""A past for a simulated fleet."""

from fleet_sim.history.record import record

__all__ = ["record"]
