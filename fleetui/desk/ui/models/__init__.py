"""Qt models: the desk's tables as views see them."""
