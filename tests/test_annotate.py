"""Depth votes of people: what is stored and when, and who is asked what."""

import sqlite3
import threading
import time
from collections import Counter

import numpy as np
import pytest
from annotating import JOINTS, four_crops, rows, write_crops

from harvest.annotate.desk import HELD_S, Desk
from harvest.annotate.pairs import Question, draw_pairs, draw_questions
from harvest.errors import UserError
from harvest.labels import Votes, VoteStore, read_votes
from harvest.labels.votes import Pair
from harvest.learn.samples import find_samples

PAIR, SECOND = Pair("0001", "l_wrist", "pelvis"), Pair("0002", "head_top", "r_knee")


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    return four_crops(tmp_path_factory.mktemp("annotate") / "crops")


@pytest.fixture
def store(tmp_path):
    opened = VoteStore.open(tmp_path / "votes.sqlite")
    yield opened
    opened.close()


def questions(n):
    return [Question(Pair(f"{index:04d}", "l_wrist", "r_wrist"), None, np.zeros((2, 2))) for index in range(n)]


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
