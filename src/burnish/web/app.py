"""create_app: every page of the studio, put together."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from burnish.errors import InputError, UserError
from burnish.project import Project
from burnish.store import Store
from burnish.tasks import find_task
from burnish.web.access import Gate
from burnish.web.artefacts import artefact_pages
from burnish.web.labelling import label_pages
from burnish.web.overview import overview_pages
from burnish.web.review import review_pages
from burnish.web.site import STATIC, Site


def create_app(project: Project, store: Store) -> FastAPI:
    """The studio of a project.

    Raises:
        ConfigError: the [label] table of burnish.toml is wrong.
    """
    site = Site(project, store, find_task(project))
    app = FastAPI(title="Burnish studio", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Gate)
    for pages in (overview_pages, label_pages, review_pages, artefact_pages):
        app.include_router(pages(site))
    app.mount("/static", StaticFiles(directory=STATIC))

    def refuse(request: Request, status: int, message: str) -> Response:
        sends_json = request.headers.get("content-type", "").startswith("application/json")
        takes_html = "text/html" in request.headers.get("accept", "")
        if sends_json or not takes_html or request.url.path.endswith(".json"):
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
        faults = (f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return refuse(request, 422, "\n".join(faults))

    @app.exception_handler(Exception)
    def our_fault(request: Request, _: Exception) -> Response:
        # The server prints the traceback.
        return refuse(request, 500, "Something went wrong in the studio; its terminal says what.")

    return app
