"""create_app: every page of the studio and every route of the API, put together."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from burnish import __version__
from burnish.errors import InputError, UserError
from burnish.project import Project
from burnish.store import Store
from burnish.store.users import Role
from burnish.tasks import read_tasks
from burnish.web.access import OPENAPI, Gate
from burnish.web.api import api_routes
from burnish.web.artefacts import artefact_pages
from burnish.web.browse import browse_pages
from burnish.web.bulk import bulk_pages
from burnish.web.exchange import exchange_pages
from burnish.web.faults import faults_told, is_no_json
from burnish.web.guidelines import guideline_pages
from burnish.web.home import home_pages
from burnish.web.identity import identify, require
from burnish.web.labelling import label_pages
from burnish.web.overview import overview_pages
from burnish.web.people import people_pages
from burnish.web.review import review_pages
from burnish.web.sign_in import account_pages, sign_in_pages
from burnish.web.site import STATIC, Site
from burnish.web.tokens import token_pages
from burnish.web.webhooks import webhook_pages

_PAGES: tuple[tuple[Role, Callable[[Site], APIRouter]], ...] = (
    ("annotator", home_pages),
    ("annotator", label_pages),
    ("annotator", token_pages),
    ("annotator", guideline_pages),
    ("annotator", account_pages),
    ("reviewer", review_pages),
    ("reviewer", overview_pages),
    ("reviewer", browse_pages),
    ("reviewer", bulk_pages),
    ("reviewer", exchange_pages),
    ("reviewer", artefact_pages),
    ("admin", people_pages),
    ("admin", webhook_pages),
)
"""The least role for each group of pages; a page may ask for more."""


def create_app(project: Project, store: Store) -> FastAPI:
    """The studio of a project.

    Raises:
        ConfigError: a task in burnish.toml is wrong.
    """
    site = Site(project, store, read_tasks(project))
    app = FastAPI(
        title="Burnish", version=__version__, openapi_url=OPENAPI, docs_url=None, redoc_url=None
    )
    app.add_middleware(Gate, identify=lambda connection: identify(connection, project, store))
    # First, since each route before it is tried first: that took a tenth of a request for an item.
    app.include_router(api_routes(site))
    app.include_router(sign_in_pages(site), include_in_schema=False)
    for role, pages in _PAGES:
        least = Depends(require(role))
        app.include_router(pages(site), dependencies=[least], include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC))
    _answer_errors(app, site)
    return app


def _answer_errors(app: FastAPI, site: Site) -> None:
    """Every error as a page for a browser, as {"error": message} for a program."""

    def refuse(request: Request, status: int, message: str) -> Response:
        sends_json = request.headers.get("content-type", "").startswith("application/json")
        takes_html = "text/html" in request.headers.get("accept", "")
        if sends_json or not takes_html or request.url.path.startswith("/api/"):
            return JSONResponse({"error": message}, status)
        response = site.page(request, "error.html", {"status": status, "message": message})
        response.status_code = status
        return response

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        return refuse(request, error.status_code, error.detail)

    @app.exception_handler(UserError)
    def user_error(request: Request, error: UserError) -> Response:
        # What was sent is wrong for good; a full disk or a busy store is worth another try.
        return refuse(request, 422 if isinstance(error, InputError) else 503, str(error))

    @app.exception_handler(RequestValidationError)
    def wrong_form(request: Request, error: RequestValidationError) -> Response:
        return refuse(request, 400 if is_no_json(error) else 422, faults_told(error))

    @app.exception_handler(Exception)
    def our_fault(request: Request, _: Exception) -> Response:
        # The server prints the traceback.
        return refuse(request, 500, "Something went wrong in the studio; its terminal says what.")
