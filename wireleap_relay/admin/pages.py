"""Which path shows what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool

from wireleap_relay.admin import snapshot
from wireleap_relay.admin.archive import read_archive
from wireleap_relay.admin.metrics import CONTENT_TYPE, exposition
from wireleap_relay.admin.page import page_answer
from wireleap_relay.admin.rest import Answer, Page, json_answer
from wireleap_relay.admin.view import View


def make_pages(reactor: Any, view: Callable[[], View], archive: Callable[[], Path | None]) -> Mapping[str, Page]:
    """Make the pages of the REST API.

    :param archive: gives the folder with the records of closed windows.
    """

    def usage() -> Deferred[Answer]:
        shown, folder = view(), archive()
        records: Deferred[list[dict[str, Any]]] = (
            deferToThreadPool(reactor, reactor.getThreadPool(), read_archive, folder, str(shown.relay))
            if folder is not None
            else succeed([])
        )
        return records.addCallback(lambda found: json_answer(snapshot.api_usage(shown, found)))

    def health() -> Answer:
        data = snapshot.api_health(view())
        return json_answer(data, 200 if data["healthy"] else 503)

    description = files("wireleap_relay.admin").joinpath("openapi.json").read_bytes()
    return {
        "/": lambda: page_answer(view()),
        "/api/openapi.json": lambda: Answer(description),
        "/api/status": lambda: json_answer(snapshot.api_status(view())),
        "/api/health": health,
        "/api/contracts": lambda: json_answer(snapshot.api_contracts(view())),
        "/api/tokens": lambda: json_answer(snapshot.api_tokens(view())),
        "/api/usage": usage,
        "/api/workers": lambda: json_answer(snapshot.api_workers(view())),
        "/api/upgrade": lambda: json_answer(snapshot.api_upgrade(view())),
        "/api/events": lambda: json_answer(snapshot.api_events(view())),
        "/metrics": lambda: Answer(exposition(view()), content_type=CONTENT_TYPE),
    }
