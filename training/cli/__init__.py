"""What the terminal offers: a module a command, gathered in cli.py."""
