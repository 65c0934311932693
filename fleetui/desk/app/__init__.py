"""The desk's logic: what it knows, remembers and does, without a widget in sight. Nothing in here imports Qt."""
