"""The web application over one store: JSON under ``/api/v1``, pages from the built bundle."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.middleware.gzip import GZipMiddleware

from brainlocus._version import __version__
from brainlocus.portal import problems
from brainlocus.portal.routes import build_router
from brainlocus.portal.security import Guard
from brainlocus.store import LocalStore

__all__ = ["BUNDLE", "create_app", "serve"]

BUNDLE = Path(__file__).parent / "_web"
"""The built front end; made by ``python hatch_build.py``, shipped in the wheel."""

_ASSET = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".woff2": "font/woff2",
}
_NO_BUNDLE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>brainlocus</title>
<h1>brainlocus: the pages are not built</h1>
<p>The server runs and answers under <a href="/api/v1/meta">/api/v1/meta</a> (<a href="/openapi.json">all routes</a>),
but its pages have not been built. From a checkout, run</p>
<pre>python hatch_build.py</pre><p>and start the server again. Wheels have the pages built in.</p></html>"""


def create_app(store_path: Path, *, bundle: Path = BUNDLE) -> FastAPI:
    """Return the application over the store in a folder.

    Raises
    ------
    FormatError
        The folder is no store, or of a newer format.
    """
    store = LocalStore(store_path)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        store.close()

    app = FastAPI(
        lifespan=lifespan,
        title=f"brainlocus: {store.meta.get('title', 'study')}",
        version=__version__,
        description="Results of an imaging-genomics study, read-only.",
        docs_url=None,
        redoc_url=None,
    )
    problems.register(app)
    app.include_router(build_router(store))
    _add_pages(app, bundle)
    app.add_middleware(GZipMiddleware, minimum_size=1_024, compresslevel=1)
    release = sha256((store.root / "store.json").read_bytes()).hexdigest()
    app.add_middleware(Guard, release=f"{__version__}|{release}")
    return app


def _add_pages(app: FastAPI, bundle: Path) -> None:
    index = bundle / "index.html"

    @app.get("/assets/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        path = bundle / "assets" / name
        if not _ASSET.match(name) or not path.is_file():
            raise problems.not_found("asset", name, [])
        # Names carry a content hash, so that they can be kept for ever.
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return FileResponse(path, media_type=_TYPES.get(path.suffix, "application/octet-stream"), headers=headers)

    @app.get("/favicon.svg", include_in_schema=False)
    def favicon() -> Response:
        if not (bundle / "favicon.svg").is_file():
            raise problems.not_found("asset", "favicon.svg", [])
        return FileResponse(bundle / "favicon.svg", media_type="image/svg+xml")

    @app.get("/{path:path}", include_in_schema=False)
    def page(path: str) -> Response:
        if path.startswith(("api/", "assets/")):
            raise problems.not_found("route", f"/{path}", [])
        if not index.is_file():
            return HTMLResponse(_NO_BUNDLE)
        return FileResponse(index, media_type="text/html", headers={"Cache-Control": "no-cache"})


def serve(store: Path, *, host: str = "127.0.0.1", port: int = 8750) -> None:
    """Serve a store until interrupted; only this machine can reach it unless `host` says otherwise.

    Raises
    ------
    FormatError
        The folder is no store, or of a newer format.
    """
    import uvicorn

    uvicorn.run(create_app(store), host=host, port=port, log_level="warning", server_header=False)
