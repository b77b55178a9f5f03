"""What other systems do, each in a Python environment of its own; nothing here imports Lockstep."""
