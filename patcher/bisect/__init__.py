"""python -m patcher bisect: the smallest set of changes with which a script fails, and a report to send."""
