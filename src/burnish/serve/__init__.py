"""A model behind OpenAI's HTTP interface, with restrictions as data and feedback that returns.

serve.py      the stage and its settings
engine.py     the thread that owns the model and decodes all requests together
requests.py   what a client may ask, checked
answers.py    from a request to pieces of its answers, guarded
responses.py  answers in OpenAI's form, whole or as a stream
app.py        the routes
access.py     who is let in, and the form of every error
guard.py      restrictions: what may be asked and answered
feedback.py   ratings and corrections, kept for `burnish collect`
"""
