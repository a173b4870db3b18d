"""Crowding: the same texts leave as by the whole table of similarities, but at less cost."""

import random
from dataclasses import replace

import pytest
from fast import assert_fast
from handmade import scored_round

from lsp_lightning import Pool
from lsp_lightning.game import crowding
from lsp_lightning.game.crowding import Crowd
from lsp_lightning.game.pool import PooledQuery
from lsp_lightning.text.compared import compared
from lsp_lightning.text.similarity import similarity_table


def by_the_whole_table(texts, count) -> list[int]:
    """The straightforward way: all similarities, and the first largest one of them."""
    forms = [compared(text) for text in texts]
    alike = similarity_table(forms, forms).fill_diagonal_(-1.0)
    places = []
    for _ in range(count):
        places.append(min(divmod(int(alike.argmax()), len(texts))))
        alike[places[-1], :] = alike[:, places[-1]] = -1.0
    return places


def some_text(chance) -> str:
    """Short texts of few letters: many pairs are equally alike, and texts repeat."""
    return "".join(chance.choices("abA \u00ad", k=chance.randrange(8)))


def played(texts, rewards):
    """A round of these queries."""
    found = scored_round(rewards)
    playout = replace(found.playout, query_texts=tuple(texts))
    return replace(found, playout=playout, solve_rates_N=found.rewards_NG.mean(1))


@pytest.mark.parametrize("seed", range(20))
def test_the_same_texts_leave_as_by_the_whole_table(seed):
    chance, crowd = random.Random(seed), Crowd()
    texts: list[str] = []
    for _ in range(25):  # texts come, go for another reason, and move to the end
        texts += [some_text(chance) for _ in range(chance.randint(1, 9))]
        texts = [text for text in texts if chance.random() < 0.9]
        moved = [text for text in texts if chance.random() < 0.1]
        texts = [text for text in texts if text not in moved] + moved
        count = max(0, len(texts) - chance.choice([3, 10, 20]))
        places = crowd.leaving(texts, count)
        assert places == by_the_whole_table(texts, count)
        texts = [text for i, text in enumerate(texts) if i not in places]


def test_equal_texts_are_most_alike_and_the_earlier_one_leaves():
    texts = ["one", "sort 4213", "two", "sort 4213", "three", "SORT  4213"]
    assert Crowd().leaving(texts, 2) == [1, 3]


@pytest.mark.parametrize("seed", range(5))
def test_a_pool_keeps_what_it_kept_before(seed):
    """Over rounds, and after its state was loaded by another pool."""
    chance, pool, expected = random.Random(seed), Pool(size=12), list[str]()
    for index in range(30):
        texts = list(dict.fromkeys(some_text(chance) for _ in range(6)))
        good = [[1.0, 0.0] if chance.random() < 0.8 else [1.0, 1.0] for _ in texts]
        kept = [text for text in expected if text not in texts]
        kept += [text for text, group in zip(texts, good, strict=True) if group == [1.0, 0.0]]
        leaving = by_the_whole_table(kept, max(0, len(kept) - 12))
        expected = [text for i, text in enumerate(kept) if i not in leaving]
        if index == 20:
            state, pool = pool.state_dict(), Pool(size=12)
            pool.load_state_dict(state)
        pool.observe(played(texts, good))
        assert list(pool.texts) == expected


def test_a_loaded_pool_knows_nothing_of_its_former_texts():
    pool = Pool(size=3)
    for texts in (["a", "b", "x1", "x2"], ["c", "d", "y1", "y2"]):
        pool.load_state_dict({"queries": [vars(PooledQuery(text)) for text in texts]})
        pool.observe(played(["z"], [[1.0, 1.0]]))
        assert pool.texts == (*texts[:2], texts[3])


def test_only_new_texts_are_compared(monkeypatch):
    pairs = []

    def counting(texts, others):
        pairs.append(len(texts) * len(others))
        return similarity_table(texts, others)

    monkeypatch.setattr(crowding, "similarity_table", counting)
    texts, crowd = [f"{i}" for i in range(104)], Crowd()
    crowd.leaving(texts, 4)
    pairs.clear()
    left = texts[:100] + ["new"] * 4
    crowd.leaving(left, 4)
    assert sum(pairs) <= 8 * 104  # four that had left and four that are new, of 104


def test_a_large_pool_of_long_texts_makes_room_in_no_time():
    chance = random.Random(0)

    def some(count):
        return [" ".join(f"{chance.getrandbits(20):x}" for _ in range(83)) for _ in range(count)]

    texts, crowd = some(600), Crowd()

    def make_room():
        texts.extend(some(4))
        for place in sorted(crowd.leaving(texts, 4), reverse=True):
            del texts[place]

    make_room()  # all pairs, once
    assert_fast(make_room, 0.2)  # 1.5 s by the whole table
