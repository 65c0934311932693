"""The devices page: ten thousand rows that can be asked, sorted and looked into."""

from fleetui.desk.ui.pages.devices.page import DevicesPage

__all__ = ["DevicesPage"]
