"""Figures as ratios, each measured in one run on this machine: a module a figure."""
