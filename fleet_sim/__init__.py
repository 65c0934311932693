"""The agent that runs on a device, and the simulated world that runs it by the thousand."""
