"""Small widgets that more than one page uses. Those that take the focus require an accessible name."""
