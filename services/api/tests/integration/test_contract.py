"""The OpenAPI document and the server keep each other's word: generated requests, right and wrong ones."""

import asyncio
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck
from playwright.async_api import async_playwright
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from vegamite_common.domain.market import Market

BTC = Market("kraken", "BTC/USD")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 25


@pytest.fixture
async def document(world: Any) -> dict[str, Any]:
    """The served document, of a server that tracks one market."""
    await world.market(BTC, tracked=True)
    answer = await world.http.get("/openapi.json")
    assert answer.status_code == 200
    parsed: dict[str, Any] = answer.json()
    return parsed


def _exercise(
    document: dict[str, Any],
    address: str,
    key: str,
    mode: GenerationMode,
    market: str | None = None,
) -> dict[str, set[int]]:
    """Ask every operation generated questions; return the statuses that came. Raises where an answer breaks the document.

    With `market` the questions are about that one, as nobody guesses one that is known.
    """
    schema = schemathesis.openapi.from_dict(document)
    seen: dict[str, set[int]] = {}
    headers = {"Authorization": f"Bearer {key}"}
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.label == "GET /v1/exchanges":
            continue  # it has nothing that could be wrong

        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            # The question's own key would hide what the operation does.
            for name in ("Authorization", "X-API-Key"):
                if case.headers is not None:
                    case.headers.pop(name, None)
            if market is not None and "market" in (case.query or {}):
                case.query["market"] = market
            answer = case.call(base_url=address, headers=headers, session=session)
            seen.setdefault(case.operation.label, set()).add(answer.status_code)
            case.validate_response(answer, checks=CHECKS)

        with requests.Session() as session:
            session.trust_env = False
            ask()
    return seen


async def test_generated_questions_never_fail_the_server_nor_leave_the_document(
    world: Any, document: dict[str, Any]
) -> None:
    address = str(world.http.base_url)
    key = await world.admin_key()
    right = await asyncio.to_thread(_exercise, document, address, key, GenerationMode.POSITIVE)
    wrong = await asyncio.to_thread(_exercise, document, address, key, GenerationMode.NEGATIVE)
    deep = await asyncio.to_thread(
        _exercise, document, address, key, GenerationMode.POSITIVE, BTC.key
    )
    assert len(right) == len(document["paths"]) + 1
    assert 200 in right["GET /v1/exchanges"]
    assert 200 in right["GET /v1/markets"]
    for label in ("GET /v1/candles/latest", "GET /v1/trades/latest", "GET /v1/coverage"):
        assert 200 in deep[label], (label, deep[label])
    for label, statuses in wrong.items():
        assert statuses & {400, 401, 404, 405, 406, 415}, (label, statuses)


async def test_every_operation_documents_examples_of_what_it_answers_and_refuses(
    document: dict[str, Any],
) -> None:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["summary"], path
            assert {"400", "401", "403", "500", "503"} <= operation["responses"].keys(), path
            for parameter in operation.get("parameters", []):
                assert "example" in parameter, (path, parameter["name"])
            for status, response in operation["responses"].items():
                for kind, content in response.get("content", {}).items():
                    assert "example" in content or "examples" in content, (
                        path,
                        method,
                        status,
                        kind,
                    )


async def test_the_documented_examples_fit_the_documented_schemas(document: dict[str, Any]) -> None:
    from jsonschema_rs import validator_for

    checked = 0
    for item in document["paths"].values():
        for operation in item.values():
            for response in operation["responses"].values():
                for kind, content in response.get("content", {}).items():
                    if "json" not in kind:
                        continue
                    schema = content["schema"] | {"components": document["components"]}
                    validator = validator_for(schema)
                    examples = [
                        example["value"] for example in content.get("examples", {}).values()
                    ]
                    examples += [content["example"]] if "example" in content else []
                    for example in examples:
                        validator.validate(example)
                        checked += 1
    assert checked > 50


async def test_the_stream_is_described_with_an_example_of_every_message(world: Any) -> None:
    from jsonschema_rs import validator_for

    document = (await world.http.get("/asyncapi.json")).json()
    assert document["asyncapi"] == "3.0.0"
    assert document["channels"]["stream"]["address"] == "/v1/ws"
    for name, message in document["components"]["messages"].items():
        validator = validator_for(message["payload"] | {"components": document["components"]})
        for example in message["examples"]:
            validator.validate(example["payload"])
        assert message["examples"], name


async def test_the_documentation_page_needs_nothing_from_elsewhere(world: Any) -> None:
    page = await world.http.get("/docs")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert f"/docs/{name}" in page.text
        assert (await world.http.get(f"/docs/{name}")).status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert (await world.http.get("/docs/other.js")).status_code == 404


async def test_the_documentation_page_draws_every_operation_in_a_browser(
    world: Any, document: dict[str, Any], chromium_path: Path
) -> None:
    asked: list[str] = []
    said: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(chromium_path), args=["--no-sandbox"]
        )
        page = await browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        await page.goto(f"{world.http.base_url}/docs".replace("//docs", "/docs"))
        await page.wait_for_selector("#swagger-ui .opblock")
        drawn = await page.locator("#swagger-ui .opblock").count()
        await browser.close()
    assert drawn == sum(len(item) for item in document["paths"].values())
    own = str(world.http.base_url).rstrip("/")
    assert [url for url in asked if not url.startswith((own, "data:"))] == []
    assert [line for line in said if line.startswith("error")] == []
