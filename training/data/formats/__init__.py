"""File formats of training data: pictures, JSON lines, Parquet, tars, run-length masks. Nothing here knows which dataset it reads."""
