"""The agent that runs on a device: a core without I/O and a shell around it. Knows ``fleetui.common`` only."""
