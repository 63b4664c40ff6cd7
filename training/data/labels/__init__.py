"""Phrases and masks for pictures that have only captions, by GroundingDINO and SAM."""
