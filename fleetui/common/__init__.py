"""What device, station and desk share. Nothing in here imports Qt, SQLAlchemy, TVM or another room."""
