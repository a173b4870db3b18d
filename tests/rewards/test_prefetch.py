"""Judging beside the sampling: it begins as soon as an answer is there, and changes no score."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from chat_server import StandIn, says
from few import few
from handmade import playout, rollouts
from loopback import hangs
from small_game import make_policy, tiny_round

from lsp_lightning import JudgeReward, Reward, VerifiableReward, play_round
from lsp_lightning.game.queries import QueryBatch, QuerySource
from lsp_lightning.rewards import Group, RoundVerifier, Verdict, score_all
from lsp_lightning.rewards.verifiers import CodeVerifier, MathVerifier, ProgramOutputVerifier
from lsp_lightning.runtime import http
from lsp_lightning.runtime.http import Client
from lsp_lightning.runtime.workers import LineWorkers
from lsp_lightning.sandbox import Limits, MontySandbox, Outcome, Program, Sandbox

pytestmark = pytest.mark.usefixtures("short_pauses")

# A sampler that follows a script, in place of an engine.


@dataclass
class Scripted:
    """A player whose answers are known beforehand."""

    groups: Sequence[Sequence[str]]
    """N x G."""
    seconds: float = 0.0
    """Between one answer and the next."""
    drawn_before: Sequence[tuple[int, str]] = ()
    """What it tells before memory runs out and everything is drawn again."""
    fails: BaseException | None = None
    """What it raises at the end."""

    @property
    def codec(self) -> "Scripted":
        return self

    def encode(self, template: str, slots: dict[str, str]) -> list[int]:
        return [0]

    def respond(self, prompts, draws, sampling, seed, finished: Callable[[int, str], None]):
        texts = [text for group in self.groups for text in group]
        for row, text in self.drawn_before:
            finished(row, text)
        for row in sorted(range(len(texts)), key=lambda row: row % draws):  # any order will do
            time.sleep(self.seconds)
            finished(row, texts[row])
        if self.fails is not None:
            raise self.fails
        return rollouts(texts)


@dataclass
class Given(QuerySource):
    """Queries and solutions known beforehand."""

    texts: Sequence[str]
    solutions: Sequence[object] | None = None

    def draw(self, player, num_queries, index, seed) -> QueryBatch:
        solutions = None if self.solutions is None else tuple(self.solutions)
        return QueryBatch(tuple(self.texts), solutions=solutions)


def play(player: Scripted, source: Given, *rewards: Reward):
    n, g = len(player.groups), len(player.groups[0])
    return play_round(player, source, rewards, num_queries=n, group_size=g)


def idle() -> None:
    """Wait until nothing is worked on any more."""
    while any(thread.name == "prefetch" for thread in threading.enumerate()):
        time.sleep(0.005)


# The same scores, whatever was prefetched.

EIGHTH = r"so \boxed{\frac{1}{8}}"
MATHS = [
    [EIGHTH, r"\boxed{0.125}", "no idea", EIGHTH],
    [r"\boxed{5}", r"\boxed{2^{3^{4^5}}}", "<think>\\boxed{5}</think> \\boxed{6}", ""],
    [r"\boxed{\sqrt{8}}", r"\boxed{2\sqrt{2}}", r"\boxed{3}", r"\boxed{\sqrt{8}}"],
]
TESTS = {"function": "f", "tests": [{"args": [[1, 2]], "output": 3}, {"args": [[]], "output": 0}]}
SUM = "def f(x): return sum(x)"
CODE = [
    [SUM, "def f(x):\n    while True: pass", "nonsense(", "def g(): pass"],
    ["def f(x): return 3", SUM, f"<think>hm</think>{SUM}", SUM],
]
CHANCE = "import random\nprint(random.random())"
PROGRAMS = ["print(2+3)", "while True: pass", CHANCE, "1+", "print"]
PRINTED = [["5", "6", "```\n5\n```", "5"]] * 5


class Prefetched(MontySandbox):
    """A sandbox that is everywhere, taken for one whose programs are worth beginning early."""

    prefetch = Sandbox.prefetch


def monty() -> MontySandbox:
    return Prefetched(Limits(seconds=0.3))


@pytest.fixture(scope="module")
def maths():
    """One verifier of mathematics, because its workers take a second to start."""
    verifier = MathVerifier()
    yield verifier
    verifier.close()


#: Queries, answers and solutions; the first word of a name says who judges.
CASES = {
    "maths, solutions": (["q"] * 3, MATHS, ["1/8", 5, "8^{1/2}"]),
    "maths, majority": (["q"] * 3, MATHS, None),
    "code": (["q"] * 2, CODE, [TESTS, TESTS]),
    "programs": (PROGRAMS, PRINTED, None),
}


@pytest.fixture(params=CASES)
def case(request, maths):
    """A reward, and the queries, answers and solutions that it judges."""
    make = {"code": CodeVerifier, "programs": ProgramOutputVerifier}.get(request.param)
    verifier = maths if make is None else make(monty())
    verifier.prepare()
    yield VerifiableReward(verifier), *CASES[request.param]
    if make is not None:
        verifier.close()


class Patient(Scripted):
    """Between one answer and the next there is time for everything."""

    def respond(self, *args, finished: Callable[[int, str], None]):
        def slowly(row: int, text: str) -> None:
            idle()
            finished(row, text)
            idle()

        return super().respond(*args, finished=slowly)


@pytest.mark.parametrize("player", few(1, [Patient, Scripted]))
def test_prefetching_changes_no_score(case, player):
    """Either most work still waits when judging begins, or it is all done."""
    reward, queries, groups, solutions = case
    in_vain = [(0, r"\boxed{77}"), (1, "def f(x): return 77"), (0, groups[1][0])]
    expected = score_all([reward], playout(queries, groups, solutions=solutions))
    assert 0 < expected.rewards_NG.mean() < 1
    played = play(player(groups, drawn_before=in_vain), Given(queries, solutions), reward)
    found = played.components["verifiable"]
    torch.testing.assert_close(found, expected.components["verifiable"], equal_nan=True)
    assert played.query_info == expected.query_info


def test_where_there_is_time_judging_has_nothing_left_to_ask(case, monkeypatch):
    asked: dict[bool, list[object]] = {True: [], False: []}

    def spy(method):
        def spied(self, what, *args):
            asked[threading.current_thread().name == "prefetch"].append(what)
            return method(self, what, *args)

        return spied

    reward, queries, groups, solutions = case
    monkeypatch.setattr(LineWorkers, "_ask", spy(LineWorkers._ask))
    monkeypatch.setattr(MontySandbox, "_run", spy(MontySandbox._run))
    play(Patient(groups), Given(queries, solutions), reward)
    # but whether final answers without a solution are the same, for that needs two of them, and
    # what took too long, which may have been for want of a core
    again = ('"same"', "while True")
    assert [what for what in asked[False] if not any(text in str(what) for text in again)] == []
    assert len(set(map(repr, asked[True]))) == len(asked[True]) > 0  # and nothing was asked twice
    if queries == PROGRAMS:  # one that is no program is not run in a second world
        sources = Counter(program.source for program in asked[True])
        assert sources == dict.fromkeys(PROGRAMS, 1) | {"print(2+3)": 5}


# What is gained: the longer of both times instead of their sum.

SLOW = "import time\nfrom lsp_lightning.runtime.workers import serve\n" + (
    "def handle(request):\n    time.sleep(0.05)\n    return len(request) % 2 == 0\nserve(handle)\n"
)


class SlowVerifier(RoundVerifier):
    """Even lengths are right; finding that out takes a worker 50 ms."""

    def __init__(self) -> None:
        self.workers = LineWorkers("slow_verifier", processes=2)

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        if answer is not None:
            self.workers.prefetch(answer, 20.0)

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        replies = iter(self.workers.map([a for group in groups for a in group.answers], 20.0))
        return [Verdict.of([float(next(replies)) for _ in group.answers]) for group in groups]


@pytest.mark.slow
def test_a_round_takes_the_longer_of_sampling_and_judging_not_both(tmp_path, monkeypatch):
    (tmp_path / "slow_verifier.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    groups = [["x" * (10 * i + j) for j in range(6)] for i in range(4)]
    verifier = SlowVerifier()
    verifier.workers.map([0, 1], 20.0)  # warm
    reward, source = VerifiableReward(verifier), Given(["q"] * 4)

    def seconds() -> dict[str, float]:
        played = play(Scripted(groups, 0.03), source, reward)
        assert played.rewards_NG.tolist() == [[1.0, 0.0] * 3] * 4
        return dict(played.seconds)

    beside = seconds()  # 24 answers: 0.72 s of sampling, 0.6 s of two workers' time
    with monkeypatch.context() as patch:
        patch.setattr(SlowVerifier, "prefetch", RoundVerifier.prefetch)
        after = seconds()
    verifier.workers.close()
    assert after["rewards"] > 0.55
    assert beside["rewards"] < 0.5 * after["rewards"]
    assert sum(beside.values()) < 0.8 * sum(after.values())


def test_what_took_too_long_beside_the_sampling_gets_its_time_afterwards(tmp_path, monkeypatch):
    """Its time is the clock's, and where cores are few the sampling takes of it."""
    flag = tmp_path / "sampled"
    (tmp_path / "slow_beside.py").write_text(
        "import pathlib, time\nfrom lsp_lightning.runtime.workers import serve\n"
        f"def handle(request):\n    time.sleep(0 if pathlib.Path({str(flag)!r}).exists() else 9)\n"
        "    return 1\nserve(handle)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    workers = LineWorkers("slow_beside", processes=1)
    workers.prefetch("4", 0.2)
    idle()
    flag.touch()
    assert workers.map(["4"], 0.2) == [1]
    workers.close()


def test_a_program_that_took_too_long_beside_the_sampling_is_run_again(monkeypatch):
    outcomes = iter([Outcome("timeout"), Outcome("ok", "4")])
    monkeypatch.setattr(MontySandbox, "_run", lambda self, program: next(outcomes))
    sandbox = Prefetched()
    sandbox.prefetch(Program("print(4)"))
    idle()
    assert sandbox.run_all([Program("print(4)")]) == [Outcome("ok", "4")]
    sandbox.close()


# A judge behind a server.


def grade(points: int) -> str:
    return f"<Calculation>{points}</Calculation><Score>{points}</Score>"


JUDGED = [["4", "5", "4", "<think>4</think> 5"], ["sea", "sand", "", "lake"]]


def by_length(k: int, prompt: str):
    return says(grade(len(prompt) % 6))


def test_a_judge_is_asked_beside_the_sampling_once_for_each_prompt():
    with StandIn(by_length, seconds=0.02) as server:
        plain = JudgeReward(server.url, "m")
        expected = score_all([plain], playout(["What?", "Where?"], JUDGED))
        distinct = len(server.prompts)
        reward = JudgeReward(server.url, "m", client=Client(concurrency=3))
        played = play(Scripted(JUDGED, 0.05), Given(["What?", "Where?"]), reward)
        assert distinct == 6  # "4" twice and "5" twice, one of them after a thought
        assert sorted(server.prompts[:6]) == sorted(server.prompts[6:])
        assert server.most_busy <= 8
        found = played.components["judge"]
        torch.testing.assert_close(found, expected.components["judge"], equal_nan=True)
        for name in ("unreadable", "unanswered"):
            key = f"judge/{name}"
            assert torch.equal(played.reward_metrics[key], expected.metrics[key])


def test_a_judge_asks_nothing_more_once_a_run_has_broken_off():
    with StandIn(by_length, seconds=0.2) as server:
        reward = JudgeReward(server.url, "m", client=Client(concurrency=1))
        for answer in ("a", "bb", "ccc", "dddd"):
            reward.prefetch("What?", answer, None)
        reward.on_exception(None, None, KeyboardInterrupt())
        time.sleep(0.5)
        assert len(server.prompts) <= 1


@pytest.mark.filterwarnings("ignore:reward 'judge'")
def test_requests_that_failed_beside_the_sampling_are_asked_again_and_counted_once(monkeypatch):
    monkeypatch.setattr(http, "RETRIES", 0)

    def script(k: int, prompt: str):
        return hangs if "sand" in prompt else by_length(k, prompt)

    with StandIn(script) as server:
        reward = JudgeReward(server.url, "m", client=Client(timeout=0.2))
        played = play(Scripted(JUDGED, 0.05), Given(["What?", "Where?"]), reward)
        assert sum("sand" in prompt for prompt in server.prompts) == 2
    scores = played.components["judge"].flatten()
    assert scores.isnan().nonzero().flatten().tolist() == [5]
    assert played.reward_metrics["judge/unanswered"].sum() == 1


def test_what_is_compared_is_not_asked_for_before_all_answers_are_there():
    with StandIn(lambda k, prompt: says("<Winner>tie</Winner>")) as server:
        reward = JudgeReward(server.url, "m", mode="compare")
        reward.prefetch("What?", "4", None)
        idle()
        assert server.prompts == []


# The sampling is not disturbed.


class Unwilling(VerifiableReward):
    """Its prefetch always fails."""

    error: BaseException = OSError("no")

    def __init__(self) -> None:
        super().__init__(ProgramOutputVerifier(monty()))
        self.seen: list[tuple[str, str | None, object]] = []

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        self.seen.append((query, answer, solution))
        raise self.error


@pytest.mark.parametrize("error", [OSError("no"), SystemExit(0)], ids=["error", "exit"])
def test_a_prefetch_that_raises_does_not_end_the_sampling(error):
    reward = Unwilling()
    reward.error = error
    groups = [["3", "<think>2</think>4"], ["1", "2"]]
    played = play(Scripted(groups), Given(["print(3)", "print(2)"], ["a", "b"]), reward)
    assert played.rewards_NG.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    # first all queries, then every answer to its query, as its reader will see it
    assert reward.seen[:2] == [("print(3)", None, "a"), ("print(2)", None, "b")]
    assert sorted(reward.seen[2:]) == [
        ("print(2)", "1", "b"),
        ("print(2)", "2", "b"),
        ("print(3)", "3", "a"),
        ("print(3)", "4", "a"),
    ]
    reward.teardown(None, None, "fit")


def test_an_interrupt_during_prefetch_ends_the_round():
    reward = Unwilling()
    reward.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        play(Scripted([["5"]]), Given(["print(2+3)"]), reward)


def test_a_round_that_is_broken_off_leaves_the_next_one_its_scores():
    reward = VerifiableReward(ProgramOutputVerifier(monty()))
    broken = Scripted([["5", "6"]], fails=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        play(broken, Given(["print(2+3)"]), reward)
    played = play(Scripted([["7", "6"]]), Given(["print(3+4)"]), reward)
    assert played.rewards_NG.tolist() == [[1.0, 0.0]]
    reward.teardown(None, None, "fit")


def test_programs_are_the_same_only_if_their_arguments_are_of_the_same_types():
    sandbox = monty()
    programs = [Program("def f(x): return str(x)", "f", ((x,),)) for x in (1, True, 1.0)]
    for program in programs:
        sandbox.prefetch(program)
        idle()
    outcomes = sandbox.run_all(programs)
    assert [outcome.values for outcome in outcomes] == [("1",), ("True",), ("1.0",)]
    sandbox.close()


def test_the_engine_tells_every_answer_before_it_is_judged(tiny_llama_folder):
    class Listening(Unwilling):
        def score(self, played):
            expected = [
                (query, answer, None)
                for query, group in zip(played.query_texts, played.spoken_groups(), strict=True)
                for answer in (None, *group)
            ]
            assert sorted(self.seen, key=str) == sorted(expected, key=str)
            return super().score(played)

    reward = Listening()
    tiny_round(make_policy(tiny_llama_folder), rewards=[reward])
    assert len(reward.seen) == 4 + 4 * 3
    reward.teardown(None, None, "fit")
