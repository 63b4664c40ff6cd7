"""What the terminal offers: a module a command; main.py is their table."""
