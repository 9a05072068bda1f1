"""The studio: the web app in which people label, review and look at what was made.

    studio.py      the command: one port, on this machine or for everybody who signs in
    app.py         create_app: every page and the API, put together
    access.py      the door: who is let in, and the headers every answer carries
    identity.py    who sends a request, and what they may do
    site.py        what pages work with; one way to answer in HTML
    sheets.py      an example and an answer to it, as pages show them

    home.py        / : the tasks
    labelling.py   /tasks/NAME/label : guidelines, example, answer
    tokens.py      /tasks/NAME/tokens : what training will see of it
    guidelines.py  /tasks/NAME/guidelines : with history, and an editor
    review.py      /tasks/NAME/review : what a person must settle
    overview.py    /tasks/NAME/overview, /agreement : how far, by whom, how well people agree
    browse.py      /tasks/NAME/browse : search
    bulk.py        /tasks/NAME/bulk : one action on many examples
    exchange.py    /tasks/NAME/exchange : import and export
    people.py      /people : who may sign in
    sign_in.py     /sign-in, /sign-out, /account
    artefacts.py   /artefacts : snapshots, checkpoints, reports and their lineage
    api/           /api : the same for programs

    templates/     server-rendered HTML
    static/        one stylesheet and a little JavaScript; kinds/ has a form's script for each kind

Pages hold no rules: what is asked, kept and counted is decided in `burnish.label`.
"""

from burnish.web.app import create_app
from burnish.web.studio import studio

__all__ = ["create_app", "studio"]
