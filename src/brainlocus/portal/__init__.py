"""Web pages and JSON over a store, read-only. Needs the extra ``portal``."""

from brainlocus.portal.app import create_app, serve

__all__ = ["create_app", "serve"]
