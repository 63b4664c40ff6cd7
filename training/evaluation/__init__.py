"""The paper's tables, measured: generate.py draws answers, measure.py scores them, report.py writes a page.

Read protocols.py first: a row a benchmark. case.py and benchmarks.py read what is asked, metrics.py says how answers are
measured, networks.py with which networks. Nothing is fetched: data and checkpoints are folders that the user has.
"""
