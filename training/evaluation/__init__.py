"""The paper's tables, measured: cases are drawn (draw.py), pictures are measured (measure.py), a page tells (report.py).

Read protocols.py first: a row a benchmark. case.py and benchmarks.py say what is asked, metrics.py how it is measured,
shelf.py with which networks. Nothing is fetched: data and checkpoints are folders that the user has.
"""
