"""/ : how far the labelling is, who did what, how well people agree."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import Response

from burnish.label.agreement import Agreement, Estimate
from burnish.label.status import label_status
from burnish.web.site import Site


@dataclass(frozen=True, slots=True)
class _Measure:
    """One row of the agreement table."""

    name: str
    note: str
    estimate: Estimate


def overview_pages(site: Site) -> APIRouter:
    """The overview, also as /.json."""
    router = APIRouter()

    @router.get("/")
    @router.get("/.json")
    def overview(request: Request) -> Response:
        status = label_status(site.store, site.task)
        if request.url.path.endswith(".json"):
            return site.page(request, "", {"status": status})
        return site.page(
            request,
            "overview.html",
            {"status": status, "measures": _measures(status.agreement)},
        )

    return router


def _measures(agreement: Agreement) -> list[_Measure]:
    return [
        _Measure("Percent", "share of equal pairs; by chance alone above 0", agreement.percent),
        _Measure(
            "Krippendorff’s α", "any number of answers per example", agreement.krippendorff_alpha
        ),
        _Measure("Fleiss’ κ", "the same number for each", agreement.fleiss_kappa),
        *(
            _Measure(f"Cohen’s κ: {first}, {second}", "two annotators", kappa)
            for (first, second), kappa in agreement.cohen_kappa.items()
        ),
    ]
