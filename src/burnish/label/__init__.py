"""Labelling: who is asked what, what they answered, and how far they agree. No HTTP, no torch.

guidelines.py    what annotators work by, and its versions
queue.py         next_item, submit, undo_last: exactly as many answers per example as it wants
order.py         priorities, assignments, gold items
review.py        next_dispute: each dispute before one reviewer at a time
agreement/       how far annotators agree, for each kind of task, with intervals
rules.py         how answers settle an example without a person, for each kind of task
resolve.py       a rule or a person settles what annotators answered
status.py        how far the labelling is, who did what, how well they agree
quote.py         the hours and the money the rest will take
label_errors.py  answers that are probably wrong
reliability.py   how often each annotator errs (Dawid and Skene)
interchange/     labels in and out: Label Studio, Argilla, Prodigy, doccano, JSONL, CSV
bulk.py          one thing done to many examples: those of a list, or all that a search finds
drafts.py        what a model proposes; endpoint.py asks one over HTTP, model_order.py orders by one
preferences.py   preference pairs from edits and rankings
people.py        who may work here: passwords, sessions, tokens
webhooks.py      tell other systems what happened
"""
