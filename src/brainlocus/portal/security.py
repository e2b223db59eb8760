"""Headers, limits and revalidation around every answer."""

from hashlib import sha256

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brainlocus.portal.problems import problem_response

__all__ = ["CONTENT_SECURITY_POLICY", "Guard"]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "worker-src 'self' blob:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing but this origin; verified with the brain view (methods/portal.md section 6)."""
MAX_URL_BYTES = 4_096

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Adds security headers, bounds the URL, and answers 304 where the client has the answer already.

    A store never changes, so an answer is named by the store's checksum and the address.
    """

    def __init__(self, app: ASGIApp, *, release: str) -> None:
        self.app = app
        self.release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, query = scope["path"], scope.get("query_string", b"")
        tag = f'W/"{sha256(f"{self.release}|{path}|".encode() + query).hexdigest()[:24]}"'
        is_api = path.startswith("/api/")

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if is_api and message["status"] == 200 and not path.endswith(("/health", "/ready")):
                    headers["ETag"] = tag
                    headers["Cache-Control"] = "no-cache"
            await send(message)

        if len(scope.get("raw_path") or b"") + len(query) > MAX_URL_BYTES:
            document = {
                "type": "/problems/url-too-long",
                "title": "The address is too long",
                "status": 414,
                "detail": f"Addresses are at most {MAX_URL_BYTES} bytes.",
            }
            await problem_response(414, document)(scope, receive, send_guarded)
        elif is_api and tag in Headers(scope=scope).get("if-none-match", ""):
            await Response(status_code=304, headers={"ETag": tag})(scope, receive, send_guarded)
        else:
            await self.app(scope, receive, send_guarded)
