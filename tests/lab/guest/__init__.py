"""What runs inside a lab host; `files.py` puts it there."""
