"""How device and station talk: topics, messages, codec, and transports (paho-mqtt, or in memory)."""
