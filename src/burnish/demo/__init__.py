"""The whole road on bundled data: CLINC150's banking requests (see NOTICE).

road.py       the stages one after another, as a person would run them
labels.py     two annotators' labels, one of them imperfect in a documented, seeded way
"""
