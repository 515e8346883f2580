"""What FastAPI cannot see by itself: bodies, scopes and errors, for `/openapi.json`."""

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.bodies import JsonBody, Needs
from gateway.schemas import DocumentsBody, ErrorView

REF = "#/components/schemas/{model}"
DESCRIPTION = """\
A self-hosted LLM and RAG serving mesh. Every route under `/v1` takes a JSON Web Token:
`Authorization: Bearer <JWT>`; each names the scopes it needs."""


def describe(app: FastAPI, generate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """FastAPI's document, completed; made once."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = generate()
    document["info"]["description"] = DESCRIPTION
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    bodies = {model for route in api_routes(app) if (model := body_of(route)) is not None}
    models: list[type[BaseModel]] = [*bodies, DocumentsBody, ErrorView]
    models.sort(key=lambda model: model.__name__)
    _, made = models_json_schema([(model, "validation") for model in models], ref_template=REF)
    for name, schema in made["$defs"].items():
        schemas.setdefault(name, schema)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    for route in api_routes(app):
        for method in route.methods or ():
            operation = document["paths"].get(route.path_format, {}).get(method.lower())
            if operation is not None:
                _complete(operation, route)
    app.openapi_schema = document
    return document


def api_routes(app: FastAPI) -> list[APIRoute]:
    """The routes that stand in the reference."""
    return [route for route in _walk(app.routes) if route.include_in_schema]


def scopes_of(route: APIRoute) -> tuple[str, ...] | None:
    """The scopes that a route needs; None for a route without a token."""
    for dependency in route.dependant.dependencies:
        if isinstance(dependency.call, Needs):
            return dependency.call.scopes
    return None


def body_of(route: APIRoute) -> type[BaseModel] | None:
    """The model of a route's JSON body."""
    for dependency in route.dependant.dependencies:
        if isinstance(dependency.call, JsonBody):
            model: type[BaseModel] = dependency.call.model
            return model
    return None


def _walk(routes: Any) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif inner := getattr(getattr(route, "original_router", None), "routes", None):
            yield from _walk(inner)


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    scopes = scopes_of(route)
    if scopes is not None:
        operation["security"] = [{"token": []}]
        operation["x-required-scopes"] = list(scopes)
    body = body_of(route)
    if body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(body)}},
        }
    elif route.path.endswith("/documents") and "POST" in (route.methods or ()):
        operation["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {"schema": _ref(DocumentsBody)},
                "multipart/form-data": {"schema": FORM},
            },
        }
    elif route.path.endswith("/import"):
        operation["requestBody"] = {
            "required": True,
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        }
    responses = operation["responses"]
    responses.pop("422", None)
    responses["default"] = {
        "description": "What went wrong.",
        "content": {"application/json": {"schema": _ref(ErrorView)}},
    }


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}


FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "One part a file.",
        },
        "metadata": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "An object for all files, or a list of one object a file.",
        },
    },
}
