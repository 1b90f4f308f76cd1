"""What fuzzers begin with and what they have found, and whatever hypothesis thinks of, for all that reads what others send."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz import tape
from tests.fuzz.targets import TARGETS

CASES = Path(__file__).resolve().parent / "cases"


@st.composite
def _changed(draw: st.DrawFn, good: list[bytes]) -> bytes:
    """One of some inputs with up to six changes, and perhaps the rest of another one."""
    data = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    if draw(st.booleans()):
        other = draw(st.sampled_from(good))
        data[draw(st.integers(0, len(data))) :] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)


class CaseTests(SynchronousTestCase):
    def test_what_was_found_once(self) -> None:
        cases = [file for file in CASES.glob("*/*") if file.is_file()]
        self.assertGreater(len(cases), 0)
        for file in cases:
            with self.subTest(case=f"{file.parent.name}/{file.name}"):
                TARGETS[file.parent.name][0](file.read_bytes())

    def test_what_fuzzers_begin_with(self) -> None:
        for name, (read, corpus) in TARGETS.items():
            with self.subTest(target=name):
                for data in corpus(1):
                    read(data)

    def test_honest_tapes_open_tunnels(self) -> None:
        opened = 0
        for data in tape.corpus(1, 100):
            player = tape.Player(data)
            player.play()
            opened += player.rig.registry.counts().opened
        self.assertGreater(opened, 20)


class AnyInputTests(SynchronousTestCase):
    """Each target by a test of its own, so that what fails says where."""

    def check(self, name: str, examples: int = 150) -> None:
        read, corpus = TARGETS[name]

        @settings(max_examples=examples)
        @given(_changed(corpus(2)) | st.binary(max_size=200))
        def check(data: bytes) -> None:
            read(data)

        check()

    def test_door(self) -> None:
        self.check("door", 300)

    def test_session(self) -> None:
        self.check("session", 300)

    def test_fields(self) -> None:
        self.check("fields")

    def test_coded_text(self) -> None:
        self.check("coded_text")

    def test_payload(self) -> None:
        self.check("payload")

    def test_config(self) -> None:
        self.check("config")

    def test_stats(self) -> None:
        self.check("stats")

    def test_entry(self) -> None:
        self.check("entry")

    def test_challenge(self) -> None:
        self.check("challenge")

    def test_worker(self) -> None:
        self.check("worker")

    def test_name_answer(self) -> None:
        self.check("name_answer")

    def test_worker_words(self) -> None:
        self.check("worker_words")

    def test_visitor(self) -> None:
        self.check("visitor")

    def test_upstream(self) -> None:
        self.check("upstream")

    def test_download(self) -> None:
        self.check("download")

    def test_rest(self) -> None:
        self.check("rest")

    def test_database(self) -> None:
        self.check("database", 50)

    def test_token_file(self) -> None:
        self.check("token_file", 50)

    def test_archive(self) -> None:
        self.check("archive")

    def test_home_files(self) -> None:
        self.check("home_files")

    def test_release(self) -> None:
        self.check("release", 50)

    def test_signed_list(self) -> None:
        self.check("signed_list", 50)

    def test_peer(self) -> None:
        self.check("peer")

    def test_values(self) -> None:
        self.check("values")

    def test_texts(self) -> None:
        self.check("texts")

    def test_names(self) -> None:
        self.check("names")

    def test_tls(self) -> None:
        self.check("tls")

    def test_handover(self) -> None:
        self.check("handover")

    def test_all_are_checked(self) -> None:
        self.assertEqual({name for name in TARGETS if not hasattr(self, f"test_{name}")}, set())
