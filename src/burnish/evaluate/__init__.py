"""Is the candidate better than its base? The same items, a paired test, one page to read.

evaluate.py      the stage and its settings
items.py         what is asked, its slices, its leakage
answerer.py      who answers
scorers.py       how good an answer is
statistics.py    intervals, tests, the smallest effect a set can show
comparison.py    figures and verdict of one set of items
results.py       everything the report says, as one value
report.py        its three files; plots.py, report.html.jinja and report.css make the page
"""
