"""The world around simulated devices: who they are, what they sense, what goes wrong. From a seed."""
