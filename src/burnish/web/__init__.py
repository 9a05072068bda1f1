"""The studio: the web app in which people label, review and look at what was made.

    studio.py      the command: one port on this machine
    app.py         create_app: every page, put together
    access.py      who may send requests, and the headers every answer carries
    site.py        what pages work with; HTML or JSON at the same URL
    overview.py    / : how far the labelling is
    labelling.py   /label : guidelines, example, answer
    review.py      /review : what a person must settle
    artefacts.py   /artefacts : snapshots, checkpoints, reports and their lineage
    templates/ static/   server-rendered HTML, one stylesheet, a little JavaScript, all of it ours

Pages hold no rules: what is asked, kept and counted is decided in `burnish.label`.
"""

from burnish.web.app import create_app
from burnish.web.studio import studio

__all__ = ["create_app", "studio"]
