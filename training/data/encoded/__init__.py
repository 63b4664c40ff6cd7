"""Encoded samples, in memory or on disk: dataset.py (what the loop reads), cached.py, and cache_writer.py, which writes shards."""
