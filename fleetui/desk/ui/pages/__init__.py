"""The pages of the desk, each imported when it is first shown."""
