"""Errors as documents: ``application/problem+json`` (RFC 9457)."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from brainlocus.store import QueryTimeoutError

__all__ = ["ProblemError", "bad_key", "not_found", "problem_response", "register", "too_large"]

MEDIA_TYPE = "application/problem+json"


class ProblemError(Exception):
    """An answer that is a problem document."""

    def __init__(self, status: int, kind: str, title: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.document = {"type": f"/problems/{kind}", "title": title, "status": status, "detail": detail, **extra}


def not_found(kind: str, key: str, near: list[str]) -> ProblemError:
    """Return the problem for an unknown entity, with up to three near matches."""
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return ProblemError(
        404,
        f"unknown-{kind}",
        f"Unknown {kind}",
        f"There is no {kind} {key[:80]!r} in this store.{hint}",
        near=near[:3],
    )


def bad_key(kind: str, key: str, allowed: str) -> ProblemError:
    """Return the problem for a key that cannot name anything."""
    detail = f"{key[:80]!r} is not a {kind} key; expected {allowed}."
    return ProblemError(400, "malformed-key", f"Malformed {kind} key", detail, field=kind, allowed=allowed)


def too_large(detail: str) -> ProblemError:
    """Return the problem for an answer above the bounds; `detail` says how to narrow it."""
    return ProblemError(413, "answer-too-large", "The answer is too large", detail)


def problem_response(status: int, document: dict[str, Any]) -> JSONResponse:
    """Return a problem document as a response."""
    return JSONResponse(document, status_code=status, media_type=MEDIA_TYPE)


def _problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)  # noqa: S101 - registered for this class only
    return problem_response(error.status, error.document)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:])
    context = {k: v for k, v in first.get("ctx", {}).items() if isinstance(v, str | int | float)}
    document = {
        "type": "/problems/invalid-parameter",
        "title": "Invalid parameter",
        "status": 422,
        "detail": f"{field}: {first['msg']}.",
        "field": field,
        "allowed": context,
    }
    return problem_response(422, document)


def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    document = {"type": "about:blank", "title": error.detail, "status": error.status_code, "detail": error.detail}
    return problem_response(error.status_code, document)


def _timeout(_: Request, error: Exception) -> JSONResponse:
    document = {
        "type": "/problems/timeout",
        "title": "The query took too long",
        "status": 503,
        "detail": f"{error} Ask for a smaller region or fewer rows.",
    }
    return problem_response(503, document)


def register(app: FastAPI) -> None:
    """Turn every error of the app into a problem document."""
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(QueryTimeoutError, _timeout)
