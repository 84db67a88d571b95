"""Depth votes of people: what is stored and when, who is asked what, what the server refuses, and the page itself."""

import http.client
import io
import json
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from contextlib import contextmanager

import browser
import cv2
import numpy as np
import pytest

from harvest.annotate.desk import HELD_S, Desk
from harvest.annotate.pairs import Question, draw_pairs, draw_questions
from harvest.annotate.server import LARGEST_BODY, AnnotationServer
from harvest.errors import UserError
from harvest.labels import Votes, VoteStore, read_votes
from harvest.labels.votes import Pair
from harvest.learn.samples import find_samples
from harvest.skeleton import load_skeleton

JOINTS = load_skeleton("mpii16").joints
PAIR, SECOND = Pair("0001", "l_wrist", "pelvis"), Pair("0002", "head_top", "r_knee")


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_crops(folder, samples, unknown=()):
    """A folder of crops in one shard; uv of joints (16, 2) by the sample's name."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "crops.tar", "w") as tar:
        for name, uv in samples.items():
            points = [
                None if joint in unknown else list(point) for joint, point in zip(JOINTS, uv.tolist(), strict=True)
            ]
            picture = np.random.default_rng(len(name)).integers(0, 255, (8, 8, 3)).astype(np.uint8)
            jpg = cv2.imencode(".jpg", cv2.resize(picture, (256, 256)))[1].tobytes()
            label = {"joints": {"mpii16": {"uv_px": points, "visibility": [2 if point else 0 for point in points]}}}
            add(tar, f"{name}.jpg", jpg)
            add(tar, f"{name}.json", json.dumps(label).encode())
    return folder


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """Four crops whose joints lie at random; the pelvis is not known, and a knee is outside."""
    rng = np.random.default_rng(0)
    uv = {f"{index:04d}": rng.uniform(20, 236, (16, 2)).round(1) for index in range(4)}
    for points in uv.values():
        points[JOINTS.index("r_knee")] = 300, 20
    return write_crops(tmp_path_factory.mktemp("annotate") / "crops", uv, unknown=("pelvis",))


@pytest.fixture
def store(tmp_path):
    opened = VoteStore.open(tmp_path / "votes.sqlite")
    yield opened
    opened.close()


def questions(n):
    return [Question(Pair(f"{index:04d}", "l_wrist", "r_wrist"), None, np.zeros((2, 2))) for index in range(n)]


def rows(votes):
    return [*zip(*(getattr(votes, key).tolist() for key in Votes.__dataclass_fields__), strict=True)]


# --- the store


def test_votes_come_back_as_they_were_given(store, tmp_path):
    assert store.add(PAIR, "Anna", -1, 2.5) and store.add(SECOND, "Zoë", 0, 1) and store.add(PAIR, "Zoë", 1, 3.0)
    given = [(*PAIR, "Anna", -1), (*SECOND, "Zoë", 0), (*PAIR, "Zoë", 1)]
    assert rows(store.read()) == rows(read_votes(tmp_path / "votes.sqlite")) == given
    assert store.counts() == {PAIR: 2, SECOND: 1} and store.read().nearer.dtype == np.int8
    with sqlite3.connect(tmp_path / "votes.sqlite") as file:
        at, seconds = file.execute("SELECT at, seconds FROM votes WHERE annotator = 'Anna'").fetchone()
    assert seconds == 2.5 and at.endswith("+00:00") and "T" in at


def test_a_second_vote_on_a_pair_changes_nothing_until_the_first_is_undone(store):
    assert store.add(PAIR, "Ben", 0, 2.5) and store.add(PAIR, "Anna", -1, 2.5) and store.add(SECOND, "Anna", 1, 2.5)
    assert not store.add(PAIR, "Anna", 1, 2.5) and not store.add(PAIR, "Anna", -1, 2.5)
    others = [(*PAIR, "Ben", 0), (*SECOND, "Anna", 1)]
    assert rows(store.read()) == [others[0], (*PAIR, "Anna", -1), others[1]]
    assert store.undo(PAIR, "Anna") and not store.undo(PAIR, "Anna") and not store.undo(PAIR, "Zoë")
    assert store.add(PAIR, "Anna", 1, 2.5) and rows(store.read()) == [*others, (*PAIR, "Anna", 1)]


def test_no_vote_is_lost_where_many_write_at_once(tmp_path):
    stores = [VoteStore.open(tmp_path / "votes.sqlite") for _ in range(2)]  # as two processes have them

    def vote(who):
        for number in range(10):
            stores[who % 2].add(Pair(str(number), "a", "b"), f"annotator {who}", 1, 1.0)
            stores[who % 2].add(Pair(str(number), "a", "b"), "all", 0, 1.0)

    threads = [threading.Thread(target=vote, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(stores[0].counts().values()) == {7} and len(read_votes(tmp_path / "votes.sqlite")) == 70
    for one in stores:
        one.close()


def test_files_that_hold_no_votes_are_refused_in_one_line_and_left_alone(tmp_path):
    with pytest.raises(UserError, match="no file"):
        read_votes(tmp_path / "none.sqlite")
    text, other, edited = (tmp_path / name for name in ("a.txt", "other.sqlite", "edited.sqlite"))
    text.write_bytes(b"no database at all" * 100)
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE votes (sample TEXT, nearer INTEGER)")
    VoteStore.open(edited).close()
    with sqlite3.connect(edited) as file:
        file.execute("PRAGMA ignore_check_constraints = 1")
        file.execute("INSERT INTO votes VALUES ('a', 'b', 'c', 'd', 5, '', 0)")
    for path in (text, other, edited):
        before = path.read_bytes()
        for use in (read_votes, VoteStore.open):
            with pytest.raises(UserError, match=path.name) as error:
                use(path)
            assert "\n" not in str(error.value)
        assert path == edited or path.read_bytes() == before
    with pytest.raises(UserError, match="cannot be used"):
        VoteStore.open(tmp_path)


def test_votes_that_cannot_be_are_refused():
    names = [np.array(["a", "a"]), np.array(["b", "b"]), np.array(["c", "c"]), np.array(["d", "e"])]
    Votes(*names, np.array([0, 1], np.int8))
    for change in (
        {0: np.array(["a"])},
        {3: np.array(["d", "d"])},
        {2: np.array(["b", "c"])},
        {1: np.array(["", "b"])},
    ):
        with pytest.raises(ValueError):
            Votes(*(change.get(column, name) for column, name in enumerate(names)), np.array([0, 1], np.int8))
    with pytest.raises(ValueError, match="nearer"):
        Votes(*names, np.array([0, 2], np.int8))


# --- what is asked


def test_pairs_are_the_same_for_a_seed_and_lie_in_the_picture(crops):
    first, again, other = (draw_questions(crops, "mpii16", 5, seed) for seed in (0, 0, 1))
    assert [question.pair for question in first] == [question.pair for question in again]
    assert {question.pair for question in first} != {question.pair for question in other}
    assert Counter(question.pair.sample for question in first) == {f"{index:04d}": 5 for index in range(4)}
    assert not {"pelvis", "r_knee"} & {joint for question in first for joint in question.pair[1:]}
    for question in first:
        assert question.uv_px.shape == (2, 2) and (question.uv_px > 0).all() and (question.uv_px < 256).all()
    assert draw_pairs("0001", ("a", "b", "c"), 2, 0) == [Pair("0001", "c", "b"), Pair("0001", "b", "a")]  # for ever


def test_more_pairs_keep_the_former_ones_and_no_pair_comes_twice():
    every = draw_pairs("x", JOINTS, 1000, 3)
    assert len(every) == 120 == len({frozenset(pair[1:]) for pair in every})
    assert draw_pairs("x", JOINTS, 7, 3) == every[:7] and draw_pairs("x", JOINTS[::-1], 7, 3) == every[:7]
    assert draw_pairs("x", ("only",), 7, 3) == []


def test_all_pairs_and_both_orders_are_equally_probable():
    drawn = Counter(pair[1:] for index in range(6000) for pair in draw_pairs(str(index), ("a", "b", "c"), 1, 0))
    assert len(drawn) == 6 and all(abs(count - 1000) < 130 for count in drawn.values())  # 4.5 standard deviations


def test_folders_that_cannot_be_asked_about_are_refused(crops, tmp_path):
    with pytest.raises(UserError, match="harvest studio crops"):
        draw_questions(tmp_path, "mpii16", 1, 0)
    with pytest.raises(UserError, match="mpii16"):
        draw_questions(crops, "nobody", 1, 0)
    nothing = write_crops(tmp_path / "far", {"0": np.full((16, 2), 999.0)})
    with pytest.raises(UserError, match="--skeleton"):
        draw_questions(nothing, "mpii16", 1, 0)
    (crops_twice := tmp_path / "twice").mkdir()
    for name in "ab":
        (crops_twice / f"{name}.tar").write_bytes((crops / "crops.tar").read_bytes())
    assert [place.name for place in find_samples(crops_twice)[:2]] == ["0000", "0001"]
    with pytest.raises(UserError, match="two crops named 0000"):
        draw_questions(crops_twice, "mpii16", 1, 0)


def test_the_pair_with_the_fewest_votes_comes_first_and_nobody_is_asked_twice(store):
    asked = questions(3)
    store.add(asked[0].pair, "Zoë", 1, 1)
    desk = Desk(asked, store, each=2)
    state = desk.next("Anna")
    assert state.question is asked[1] and (state.done, state.left, state.votes, state.wanted) == (0, 3, 1, 6)
    seen = []
    for _ in range(3):
        seen.append(state.question.pair)
        state = desk.vote(state.question.pair, "Anna", 0, 1)
    assert seen == [asked[1].pair, asked[2].pair, asked[0].pair]
    assert state.question is None and (state.done, state.left, state.votes, state.waiting) == (3, 0, 4, False)
    assert desk.next("Zoë").left == 2 and desk.next("Ben").left == 2  # one has its two votes


def test_two_annotators_do_not_get_the_same_last_pair_until_one_has_left(store):
    now = 0.0
    desk = Desk(questions(1), store, each=1, clock=lambda: now)
    assert desk.next("Anna").question and desk.next("Anna").question
    state = desk.next("Ben")
    assert state.question is None and state.waiting and state.left == 1
    now = HELD_S + 1
    assert desk.next("Ben").question
    assert desk.vote(questions(1)[0].pair, "Anna", 1, 1).votes == 1
    state = desk.next("Ben")
    assert state.question is None and not state.waiting


def test_an_undone_pair_is_asked_again_and_a_repeated_undo_takes_no_second_vote(store):
    asked = questions(3)
    desk = Desk(asked, store, each=1)
    for question in asked[:2]:
        state = desk.vote(question.pair, "Anna", 1, 1)
    assert state.last == asked[1].pair
    for _ in range(2):
        state = desk.undo(state.last if state.question is asked[2] else asked[1].pair, "Anna")
        assert state.question is asked[1] and state.last == asked[0].pair and (state.done, state.votes) == (1, 1)
    assert desk.undo(asked[0].pair, "Anna").last is None and len(store.read()) == 0


def test_a_desk_that_is_opened_again_knows_all_votes_and_whose_was_the_last(store):
    asked = questions(3)
    first = Desk(asked, store, each=2)
    for question, annotator in ((asked[2], "Anna"), (asked[0], "Anna"), (asked[1], "Ben")):
        first.vote(question.pair, annotator, 1, 1)
    store.add(Pair("elsewhere", "a", "b"), "Anna", 1, 1)
    assert Desk(asked, store, each=2).next("Anna") == first.next("Anna")
    assert Desk(asked, store, each=2).next("Anna").last == asked[0].pair


def test_many_annotators_at_once_give_each_pair_its_votes_and_no_more(store):
    desk = Desk(questions(12), store, each=3, clock=lambda: time.sleep(0.001) or time.monotonic())  # lets others in

    def annotate(name):
        state = desk.next(name)
        while state.question or state.waiting:
            state = desk.vote(state.question.pair, name, 1, 0.1) if state.question else desk.next(name)

    threads = [threading.Thread(target=annotate, args=(f"annotator {index}",)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(store.counts().values()) == {3} and len(store.counts()) == 12


# --- the server


@contextmanager
def serving(crops, store, delay_s=0.0, each=2):
    server = AnnotationServer(Desk(draw_questions(crops, "mpii16", 1, 0), store, each), delay_s=delay_s)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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


# --- the page


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
