"""The page for depth votes: what its server refuses, what outlives a kill, and the page itself in a browser."""

import http.client
import json
import signal
import subprocess
import sys
from contextlib import contextmanager

import browser
import cv2
import numpy as np
import pytest
from annotating import four_crops, rows, serving

from harvest.annotate.pairs import draw_questions
from harvest.annotate.server import LARGEST_BODY, AnnotationServer
from harvest.errors import UserError
from harvest.labels import VoteStore, read_votes
from harvest.labels.votes import Pair


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    return four_crops(tmp_path_factory.mktemp("annotate") / "crops")


@pytest.fixture
def store(tmp_path):
    opened = VoteStore.open(tmp_path / "votes.sqlite")
    yield opened
    opened.close()


def request(port, method, path, content=None, **headers):
    """Status, kind and body of an answer; content goes out as JSON unless it is bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
    usual = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, body, usual | {key.replace("_", "-"): value for key, value in headers.items()})
    answer = connection.getresponse()
    told = answer.status, answer.getheader("Content-Type"), answer.read()
    connection.close()
    return told


@pytest.fixture
def port(crops, store):
    with serving(crops, store) as server:
        yield server.server_address[1]


def test_the_server_is_reached_from_this_machine_alone(crops, store):
    with serving(crops, store) as server:
        assert server.server_address[0] == "127.0.0.1" and server.address.startswith("http://127.0.0.1:")
        with pytest.raises(UserError, match=r"port \d+ is taken"):
            AnnotationServer(server.desk, server.server_address[1])


def test_the_page_and_its_pictures_are_served_and_nothing_else(port):
    status, kind, page = request(port, "GET", "/")
    assert status == 200 and kind.startswith("text/html") and b"default-src 'none'" in page and b"{{" not in page
    assert request(port, "GET", "/page.js")[0] == 200
    question = json.loads(request(port, "POST", "/next", {"annotator": "Anna"})[2])["question"]
    place = "&".join(f"{key}={question[key]}" for key in Pair._fields)
    status, kind, jpg = request(port, "GET", f"/picture?{place}")
    assert (status, kind) == (200, "image/jpeg")
    assert cv2.imdecode(np.frombuffer(jpg, np.uint8), cv2.IMREAD_COLOR).shape == (256, 256, 3)
    assert request(port, "GET", "/picture?sample=none&one=a&other=b")[0] == 404
    assert request(port, "GET", "/picture")[0] == 400
    for path in ("/etc/passwd", "/../page.js", "/vote"):
        assert request(port, "GET", path)[0] == 404


GOOD = {"annotator": "Anna", "nearer": 1, "seconds": 1.5}
WRONG = [
    ("a foreign host", {}, {"Host": "evil.example"}, 403),
    ("a host that only begins like ours", {}, {"Host": "127.0.0.1.evil.example:80"}, 403),
    ("a foreign origin", {}, {"Origin": "http://evil.example"}, 403),
    ("a page without an origin", {}, {"Origin": "null"}, 403),
    ("a form", {}, {"Content-Type": "text/plain"}, 415),
    ("no JSON", b"{", {}, 400),
    ("no object", b"[1]", {}, 400),
    ("no text", b"\xff\xfe", {}, 400),
    ("a deep nest", b"[" * 4000, {}, 400),
    ("not a number", {"seconds": float("nan")}, {}, 400),
    ("endless time", {"seconds": 1e300}, {}, 400),
    ("time as text", {"seconds": "1"}, {}, 400),
    ("another answer", {"nearer": 2}, {}, 400),
    ("a yes", {"nearer": True}, {}, 400),
    ("no name", {"annotator": "  "}, {}, 400),
    ("a long name", {"annotator": "x" * 61}, {}, 400),
    ("a control character", {"annotator": "a\0b"}, {}, 400),
    ("no joint", {"one": None}, {}, 400),
    ("an unknown pair", {"other": "l_ear"}, {}, 404),
    ("too much", b" " * (LARGEST_BODY + 1), {}, 413),
    ("far too much", b" " * 1_000, {"Content-Length": "99999999999999"}, 413),
    ("a length that is none", b"{}", {"Content-Length": "-5"}, 411),
]


@pytest.mark.parametrize(("change", "headers", "status"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_request_is_refused_and_stores_nothing(port, store, change, headers, status):
    asked = json.loads(request(port, "POST", "/next", {"annotator": "Anna"})[2])["question"]
    whole = {key: asked[key] for key in Pair._fields} | GOOD
    content = change if isinstance(change, bytes) else whole | change
    got, kind, told = request(port, "POST", "/vote", content, **headers)
    assert got == status and kind == "application/json" and json.loads(told)["error"]
    assert len(store.read()) == 0
    assert request(port, "POST", "/vote", whole, Origin=f"http://127.0.0.1:{port}")[0] == 200
    assert len(store.read()) == 1


def test_a_foreign_name_sees_no_picture_either(port):
    for path in ("/", "/page.js", "/picture"):
        assert request(port, "GET", path, Host="evil.example")[0] == 403
    assert request(port, "GET", "/", Host=f"localhost:{port}")[0] == 200


def test_the_same_vote_sent_twice_counts_once_and_both_are_answered(port, store):
    asked = json.loads(request(port, "POST", "/next", {"annotator": " Anna  B "})[2])["question"]
    vote = {key: asked[key] for key in Pair._fields} | GOOD | {"annotator": "Anna B"}
    told = [request(port, "POST", "/vote", vote), request(port, "POST", "/vote", vote | {"nearer": -1})]
    assert told[0][0] == told[1][0] == 200 and told[0][2] == told[1][2]
    state = json.loads(told[1][2])
    assert (state["done"], state["votes"], state["wanted"]) == (1, 1, 8) and state["question"] != asked
    assert store.read().nearer.tolist() == [1] and store.read().annotator.tolist() == ["Anna B"]
    back = json.loads(request(port, "POST", "/undo", {"annotator": "Anna B", **state["last"]})[2])
    assert back["question"] == asked and back["last"] is None and len(store.read()) == 0


def test_a_vote_that_cannot_be_stored_is_not_answered_as_one(port, store):
    asked = json.loads(request(port, "POST", "/next", {"annotator": "Anna"})[2])["question"]
    store.close()
    status, _, told = request(port, "POST", "/vote", {key: asked[key] for key in Pair._fields} | GOOD)
    assert status == 503 and "cannot be written" in json.loads(told)["error"]


@contextmanager
def command(*arguments):
    """`harvest annotate depth` in a process of its own, and its port."""
    words = [sys.executable, "-m", "harvest.cli", "annotate", "depth", *map(str, arguments)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process, int(process.stdout.readline().strip().removeprefix("http://127.0.0.1:").removesuffix("/"))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_a_vote_that_was_answered_outlives_a_kill_and_the_next_server_goes_on(crops, tmp_path):
    votes, done = tmp_path / "made" / "votes.sqlite", []
    for number in range(2):
        with command("--crops", crops, "--votes", votes) as (process, port):
            state = json.loads(request(port, "POST", "/next", {"annotator": "Anna"})[2])
            assert state["done"] == number
            vote = {key: state["question"][key] for key in Pair._fields} | GOOD
            assert request(port, "POST", "/vote", vote)[0] == 200
            process.send_signal(signal.SIGKILL)
            process.wait()
        done.append((*(vote[key] for key in Pair._fields), "Anna", 1))
        assert rows(read_votes(votes)) == done


def test_the_command_ends_well_when_it_is_told_to(crops, tmp_path):
    for how in (signal.SIGTERM, signal.SIGINT):
        with command("--crops", crops, "--votes", tmp_path / "votes.sqlite") as (process, port):
            assert request(port, "GET", "/")[0] == 200
            process.send_signal(how)
            told, errors = process.communicate(timeout=30)
        assert process.returncode == 0 and told.startswith("0 votes in") and errors == ""


def test_the_command_shows_an_example_and_says_what_is_wrong_in_one_line(harvest_command, crops, tmp_path):
    result = harvest_command("annotate", "depth", "--help")
    assert "Example: harvest annotate depth" in result.stdout.replace("\n", " ")
    (tmp_path / "votes.txt").write_text("no votes")
    for options, word in (
        (("--crops", tmp_path, "--votes", tmp_path / "v"), "no crops"),
        (("--crops", crops, "--votes", tmp_path / "votes.txt"), "votes.txt"),
        (("--crops", crops, "--votes", tmp_path / "v", "--skeleton", "none"), "no skeleton"),
    ):
        result = harvest_command("annotate", "depth", *options)
        assert result.returncode == 2 and word in result.stderr and len(result.stderr.splitlines()) == 1


def answers_taken(tab):
    tab.until("document.querySelector('.answer').getAttribute('aria-disabled') === 'false'")


@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs chromium on PATH to use the page")
def test_an_annotator_goes_from_the_instructions_to_the_end(crops, store, tmp_path):
    asked = draw_questions(crops, "mpii16", 1, 0)
    with serving(crops, store, delay_s=0.3) as server, browser.browser(tmp_path / "profile") as tab:
        tab.size(1200, 800)
        tab.call("Page.navigate", url=server.address)
        tab.until("document.body?.dataset.shows === 'intro'")
        assert tab.value("document.querySelectorAll('.examples svg').length") == 4 and not tab.shows("#task")
        tab.click("#annotator")
        for letter in "abh":  # keys of answers, which are letters here
            tab.press(letter)
        tab.click("#enter button")

        tab.until("document.querySelectorAll('#marks text').length === 2")
        tab.press("a")  # too early
        assert tab.text("#name") == "abh" and tab.text("#done").startswith("0 of 4 done") and not tab.shows("#intro")
        marks = tab.value(
            "[...document.querySelectorAll('#marks .dot')].map(d => [+d.getAttribute('cx'), +d.getAttribute('cy')])"
        )
        np.testing.assert_allclose(marks, asked[0].uv_px)
        answers_taken(tab)
        assert len(store.read()) == 0 and tab.value("document.querySelector('#task .undo').disabled")

        tab.press("h")
        assert not tab.shows("#marks") and tab.value("document.getElementById('hide').ariaPressed") == "true"
        tab.click("#hide")
        assert tab.shows("#marks")
        tab.press("h")
        tab.press("a")
        tab.until("document.getElementById('done').innerText.startsWith('1 of 4')")
        answers_taken(tab)
        assert tab.shows("#marks")  # a new picture shows its marks

        tab.click(".answer.b")
        tab.until("document.getElementById('done').innerText.startsWith('2 of 4')")
        tab.press("u")
        tab.until("document.getElementById('done').innerText.startsWith('1 of 4')")
        answers_taken(tab)
        assert [row[-1] for row in rows(store.read())] == [-1]
        tab.press("s")
        tab.until("document.getElementById('done').innerText.startsWith('2 of 4')")

        tab.call("Page.reload")
        tab.until("document.getElementById('done')?.innerText.startsWith('2 of 4')")
        answers_taken(tab)
        tab.press("?")
        assert tab.shows("#intro") and tab.value("document.getElementById('annotator').value") == "abh"
        tab.click("#enter button")
        for number in (3, 4):
            tab.until("document.body.dataset.shows === 'task'")
            answers_taken(tab)
            tab.click(".answer.same" if number == 4 else ".answer.b")
            tab.until(f"document.getElementById('done').innerText.startsWith('{number} of 4')")
        tab.until("document.body.dataset.shows === 'end'")
        assert (
            "Thank you, abh" in tab.text("#thanks")
            and "4 pairs" in tab.text("#result")
            and "4 of 8" in tab.text("#total")
        )
        assert tab.errors == []
    told = [(*question.pair, "abh", nearer) for question, nearer in zip(asked, (-1, 0, 1, 0), strict=True)]
    assert rows(store.read()) == told


@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs chromium on PATH to use the page")
@pytest.mark.parametrize("width", [420, 1200])
def test_the_page_fits_its_window(crops, store, tmp_path, width):
    with serving(crops, store) as server, browser.browser(tmp_path / "profile") as tab:
        tab.size(width, 800)
        tab.call("Page.navigate", url=server.address)
        tab.until("document.body?.dataset.shows === 'intro'")
        wide = "document.documentElement.scrollWidth <= innerWidth"
        assert tab.value(wide)
        tab.value(
            "localStorage.setItem('harvest.annotator', 'Anna'); localStorage.setItem('harvest.instructed', 'yes')"
        )
        tab.call("Page.reload")
        tab.until("document.body?.dataset.shows === 'task'")
        answers_taken(tab)
        assert tab.value(wide) and tab.value(
            "document.querySelector('.answer.same').getBoundingClientRect().bottom < 800"
        )
        side = tab.value("document.querySelector('.picture').getBoundingClientRect().width")
        assert side > (350 if width == 420 else 650)
