"""`bert-lamb study`: many runs of `pretrain` on the same number of sequences, compared.

grid.py      which runs a study has, and which of them come next, from its definition and the results so far
cell.py      one run of it: `pretrain`, and what it came to
results.py   a run's metrics -> its result
processes.py runs at the same time, each in a process
command.py   the study: its folder, its runs one after the other, study.json
"""
