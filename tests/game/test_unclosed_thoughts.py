"""A thought that never ends is an empty answer: in every reward, query, score and record."""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from chat_server import StandIn, says
from handmade import playout
from tiny_models import LLAMA_TEMPLATE, build_llama, llama_tokenizer

from lsp_lightning import (
    Challenger,
    FunctionReward,
    JudgeReward,
    Player,
    Policy,
    PreferenceReward,
    Reward,
    Sampling,
    SelfReward,
    VerifiableReward,
    play_round,
)
from lsp_lightning.callbacks.transcripts import close_shard, rows
from lsp_lightning.evaluation.heldout import answer_greedily, score_tasks
from lsp_lightning.game.player import FrozenPlayer
from lsp_lightning.game.queries import Query, QueryBatch, QuerySource
from lsp_lightning.rewards import Verifier, score_all
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.padding import pad_right
from lsp_lightning.text.thinking import Reading
from lsp_lightning.training.metrics import _answer_metrics
from lsp_lightning.training.query_metrics import query_metrics
from lsp_lightning.types import Completions

CUT_OFF = r"Let me see. Maybe \boxed{5}? Wait, no, let me recompute, so"
RIGHT = rf"{CUT_OFF}</think> The answer is \boxed{{5}}"
THINKS = LLAMA_TEMPLATE.removesuffix("{% endif %}") + "<think>\n{% endif %}"
PLAIN = Sampling(max_new_tokens=200)


@dataclass
class Says:
    """An engine that says what it is told, one text after another."""

    codec: ChatCodec
    texts: list[str]
    truncated: bool = False

    def generate(self, prompts, draws, sampling, seed, finished=None) -> Completions:
        n = len(prompts) * draws
        told = [self.texts[i % len(self.texts)] for i in range(n)]
        ids = [[*self.codec.encode_plain(text), self.codec.stop_ids[0]] for text in told]
        for row, tokens in enumerate(ids if finished else []):
            finished(row, tokens)
        padded, mask = pad_right(ids, 0)
        cut = torch.full((n,), self.truncated)
        return Completions(padded, mask, torch.zeros(padded.shape), cut)


def player(*texts: str, template: str = THINKS) -> Player:
    tokenizer = llama_tokenizer(template)
    codec = ChatCodec(tokenizer, {}, [tokenizer.eos_token_id])
    return Player(Says(codec, list(texts)), codec, 0)


class Given(QuerySource):
    """The same query for ever."""

    def draw(self, player, num_queries, index, seed) -> QueryBatch:
        return QueryBatch(("2+3?",) * num_queries, solutions=("5",) * num_queries)


class Kept(Reward):
    """Remembers what it is given, early and in the end."""

    def __init__(self) -> None:
        super().__init__(weight=1.0, name="kept")
        self.early: list[str | None] = []
        self.judged: list[tuple[str, ...]] = []

    def prefetch(self, query, answer, solution) -> None:
        self.early.append(answer)

    def score(self, playout):
        self.judged = playout.spoken_groups()
        return torch.zeros(len(playout.query_texts), playout.group_size)


def played(source=None, *rewards, template=THINKS, texts=(CUT_OFF, RIGHT)):
    return play_round(
        player(*texts, template=template),
        source or Given(),
        rewards,
        num_queries=1,
        group_size=2,
        sampling=PLAIN,
    )


def test_a_thought_cut_off_is_an_empty_answer_and_one_that_ends_is_judged_by_what_follows():
    kept = Kept()
    round_ = played(None, kept)
    spoken = ("", r"The answer is \boxed{5}")
    assert kept.judged == [spoken]
    assert kept.early == [None, *spoken]  # the same texts early as in the end
    assert round_.playout.answer_groups() == [(CUT_OFF, RIGHT)]  # records keep the whole text
    plain = Kept()
    played(None, plain, template=LLAMA_TEMPLATE, texts=(CUT_OFF, "5"))
    assert plain.judged == [(CUT_OFF, "5")]


class Contains(Verifier):
    """An answer is right if it contains the solution."""

    def check(self, query, answers, solution):
        return [float(solution in answer) for answer in answers]


def test_a_verifier_and_a_function_pay_no_thought():
    says_five = FunctionReward(lambda q, a, s: [float("5" in text) for text in a], name="five")
    round_ = played(None, VerifiableReward(Contains(), name="contains"), says_five)
    assert round_.components["contains"].tolist() == [[0.0, 1.0]]
    assert round_.components["five"].tolist() == [[0.0, 1.0]]


def test_a_query_inside_a_thought_that_never_ends_is_no_query():
    challenger = Challenger(prompt=None, sampling=PLAIN)
    drawn = challenger.draw(player(CUT_OFF, "Hm.</think>\n2+3?\n"), 2, 0, 0)
    assert drawn.texts == ("", "2+3?")
    assert drawn.written.valid_C.tolist() == [False, True]
    open_again = challenger.draw(player("<think>Maybe 2+3?", template=LLAMA_TEMPLATE), 1, 0, 0)
    assert open_again.texts == ("",)
    assert not open_again.written.valid_C.any()


def test_held_out_scores_and_predictions_are_of_what_is_said():
    five = FunctionReward(lambda q, a, s: [float("5" in text) for text in a], binary=True)
    scores = score_tasks(player(CUT_OFF), [Query("2+3?", "5")], five, PLAIN, "{query}")
    assert scores.sampled.tolist() == [[0.0]]
    assert scores.greedy.tolist() == [0.0]
    for text, said in ((CUT_OFF, ""), (RIGHT, r"The answer is \boxed{5}")):
        [row] = answer_greedily(player(text), [Query("2+3?")], PLAIN, "{query}")
        assert row == {"query": "2+3?", "answer": said}


def test_transcripts_keep_the_whole_text_and_show_what_was_judged(tmp_path):
    source = Challenger(sampling=PLAIN)
    texts = (f"{CUT_OFF}</think>2+3?", RIGHT)  # the first is the query, then both are answers
    round_ = played(source, Kept(), texts=texts)
    [first, second] = rows(round_)
    assert (first["query"], first["written_query"]) == ("2+3?", texts[0])
    assert (first["answer"], first["judged_answer"]) == (texts[0], "2+3?")
    assert second["judged_answer"] == r"The answer is \boxed{5}"
    (tmp_path / "open.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(round_)))
    close_shard(tmp_path)
    [path] = tmp_path.glob("*.parquet")
    assert pq.read_table(path)["judged_answer"].to_pylist() == [
        first["judged_answer"],
        second["judged_answer"],
    ]
    plain = played(source, Kept(), template=LLAMA_TEMPLATE, texts=("2+3?", "5"))
    assert not {"written_query", "judged_answer"} & {name for row in rows(plain) for name in row}


def test_the_share_of_unclosed_thoughts_is_a_metric_where_models_think():
    round_ = played(Challenger(sampling=PLAIN), Kept())
    assert _answer_metrics(round_.playout.answers)["answers/unclosed_thoughts"].tolist() == [
        1.0,
        0.0,
    ]
    assert query_metrics(round_)["queries/unclosed_thoughts"].tolist() == [1.0]
    plain = played(None, Kept(), template=LLAMA_TEMPLATE, texts=("5", "6"))
    names = [*_answer_metrics(plain.playout.answers), *query_metrics(plain)]
    assert not [name for name in names if "thoughts" in name]


def test_an_answer_by_hand_is_read_as_before():
    groups = [["<think>2+3", "<think>2+3</think>5", "2+3</think>5", "5"]]
    assert playout(["q"], groups).spoken_groups() == [("", "5", "5", "5")]
    assert Reading().said("5") == "5"


# -- judges ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thinker(tmp_path_factory) -> Policy:
    """A random model whose chat template begins every reply inside a thought."""
    return Policy(str(build_llama(tmp_path_factory.mktemp("thinker"), chat_template=THINKS)))


def test_the_players_of_a_policy_read_by_its_template(thinker):
    prompt = thinker.codec.encode("{query}", {"query": "2+3?"})
    short = Sampling(max_new_tokens=4)
    for one in (Player.local(thinker), FrozenPlayer(thinker)):
        answers = one.respond([prompt], 2, short, seed=0)
        assert answers.spoken == ("", "")
        assert answers.unclosed_thoughts.all()
        assert all(answers.texts)


def test_a_judges_score_is_read_after_its_thought_not_inside(thinker, monkeypatch):
    judge, seen = SelfReward(), []
    judge.connect(FrozenPlayer(thinker))
    passes = thinker.next_token_logprobs

    def noted(prompts, *args):
        seen.extend(prompts)
        return passes(prompts, *args)

    monkeypatch.setattr(thinker, "next_token_logprobs", noted)
    judge.score(playout(["2+3?"], [["5"]]))
    [prompt] = seen
    assert thinker.codec.decode(prompt).endswith("<think>\n\n</think>\n\n<Score>")


def grade(points: int) -> str:
    return f"Fine.\n<Calculation>{points}</Calculation><Score>{points}</Score>"


@pytest.mark.parametrize("closed", [False, True])
def test_a_local_judges_grade_inside_a_thought_that_never_ends_is_unreadable(closed):
    class Judge:
        """A reference that writes one reply."""

        context = None
        codec = player("").codec

        def encode(self, *args):
            return self.codec.encode(*args)

        def respond(self, prompts, draws, sampling, seed):
            text = f"Is it {grade(1)}</think>{grade(6)}" if closed else grade(6)
            return player(text).respond(prompts, draws, sampling, seed)

    judge = SelfReward(reading="sampled")
    judge.connect(Judge())
    judgement = judge.score(playout(["2+3?"], [["5"]]))
    assert judgement.metrics["unreadable"].tolist() == [0.0 if closed else 1.0]
    assert not closed or judgement.scores.item() == pytest.approx(6 / 7)


def test_a_served_judges_grade_inside_a_thought_that_never_ends_is_unreadable():
    replies = [f"Is it {grade(1)}?</think>{grade(6)}"] * 3 + [grade(5)]
    with StandIn(lambda k, p: says(replies[int(p.split("number ")[1][0])])) as server:
        answers = [[f"number {i}" for i in range(4)]]
        judgement = JudgeReward(server.url, "m").score(playout(["q"], answers))
    assert judgement.scores[0, :3].tolist() == pytest.approx([6 / 7] * 3)
    assert judgement.scores[0, 3].isnan()
    assert judgement.metrics["unreadable"].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_a_served_judge_that_sends_its_thinking_apart_may_send_no_reply():
    answer = says(None)
    body = json.loads(answer.body)
    body["choices"][0]["message"]["reasoning_content"] = grade(5)
    thought = type(answer)(json.dumps(body).encode())
    with StandIn(lambda k, p: thought) as server:
        judgement = JudgeReward(server.url, "m").score(playout(["q"], [["a", "b"]]))
    assert judgement.metrics["unreadable"].tolist() == [1.0, 1.0]
    assert judgement.metrics["unanswered"].tolist() == [0.0, 0.0]


# -- texts by API ----------------------------------------------------------------------------------

WILD = {
    "half of a pair": "a\ud800b",
    "NUL": "a\x00b",
    "long": "a word, " * 20_000,
    "much longer": "x" * 2_000_000,
    "control tokens": "<|user|></s>" * 4_000,
}


@pytest.mark.parametrize(
    ("name", "reading"), [*((n, "expected") for n in WILD), ("long", "sampled")]
)
def test_a_judges_prompt_fits_into_its_context_whatever_it_judges(
    tmp_path_factory, monkeypatch, name, reading
):
    policy = small_context(str(tmp_path_factory.getbasetemp()))
    judge = SelfReward(reading=reading, sampling=Sampling(max_new_tokens=9))
    judge.connect(FrozenPlayer(policy))
    encode, lengths = policy.codec.encode, []
    monkeypatch.setattr(
        policy.codec, "encode", lambda *a: lengths.append(len(ids := encode(*a))) or ids
    )
    scores = judge.score(playout([WILD[name]], [[WILD[name], "short"]])).scores
    assert scores.shape == (1, 2)
    assert max(lengths) <= 2048 - (9 if reading == "sampled" else 0)
    assert len(lengths) == 2


_POLICIES: dict[str, Policy] = {}


def small_context(base: str) -> Policy:
    """A policy with a context of 2048 tokens, made once."""
    if base not in _POLICIES:
        folder = build_llama(Path(base) / "small-context", hidden=16, layers=1)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
        _POLICIES[base] = Policy(str(folder))
    return _POLICIES[base]


@pytest.mark.parametrize("name", WILD)
def test_other_rewards_take_any_text(name, tmp_path_factory):
    played_ = playout([WILD[name]], [[WILD[name], "short"]])
    policy = small_context(str(tmp_path_factory.getbasetemp()))
    preference = PreferenceReward("pkg:lsp_lightning/tinyworld/reward_model", max_tokens=256)
    preference.connect(FrozenPlayer(policy))
    with StandIn(lambda k, p: says(grade(len(p) % 8))) as server:
        judge = JudgeReward(server.url, "m")
        scored = score_all([preference, judge], played_)
        assert all(len(prompt) < 500_000 for prompt in server.prompts)
    assert scored.judged_NG.all()
