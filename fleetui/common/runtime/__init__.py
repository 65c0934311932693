"""Loads and calls compiled models with ctypes and numpy only, the same on a device, simulated or at the desk."""
