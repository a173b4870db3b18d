"""Cross-play: who writes, who answers, and what the matrix says."""

import json
import math

import pytest
import torch
from small_game import SHORT_PROMPT, Checksum, make_policy, stir

from lsp_lightning import Challenger, ConfigError, Player, Sampling, VerifiableReward
from lsp_lightning.cli import crossplay as command
from lsp_lightning.cli.main import main
from lsp_lightning.evaluation.crossplay import (
    BASE,
    TRAINED,
    Contender,
    CrossPlay,
    Game,
    cross_play,
    require_players,
)
from lsp_lightning.models.other_weights import trained_weights
from lsp_lightning.rewards import Verifier
from lsp_lightning.runs import RunFolder
from lsp_lightning.seeding import derive_seed

N, G = 6, 3


class Long(Verifier):
    """Answers of three characters are right; queries of odd length have no right answer."""

    def check(self, query, answers, solution):
        return [float(len(answer) >= 3 and len(query) % 2 == 0) for answer in answers]

    def describe(self, query):
        return None if len(query) % 2 else {"length": len(query)}


def game(verifier=None, **changes) -> Game:
    settings = {
        "source": Challenger(prompt=SHORT_PROMPT, sampling=Sampling(max_new_tokens=6)),
        "rewards": [VerifiableReward(verifier or Checksum())],
        "sampling": Sampling(max_new_tokens=4),
        "solver_prompt": "{query}",
        "passage_prompt": None,
        "num_queries": N,
        "group_size": G,
        "seed": 2,
    }
    return Game(**{**settings, **changes})


@pytest.fixture
def policy(brief_folder):
    found = make_policy(brief_folder)
    stir(found, scale=0.5)
    return found


@pytest.fixture
def kept(policy, tmp_path):
    """A folder with the adapter of another rank, stirred otherwise."""
    other = make_policy(policy.base, rank=2)
    stir(other, scale=0.5, seed=9)
    other.save_adapter(tmp_path / "other")
    return str(tmp_path / "other"), other


def test_each_player_is_the_policy_with_its_weights(policy, kept):
    """The base, the trained weights and an adapter of another rank, each against itself."""
    folder, other = kept
    who = [Contender("base", BASE), Contender("now", TRAINED), Contender("other", folder)]
    found = cross_play(policy, who, game())
    assert found.names == ("base", "now", "other")
    for k, owner in ((1, policy), (2, other)):
        assert_same_cell(found.rates_KKN[k, k], Player.local(owner))
    base = make_policy(policy.base)  # an adapter that was not trained adds nothing
    assert_same_cell(found.rates_KKN[0, 0], Player.local(base))


def assert_same_cell(rates_N, player):
    """The diagonal of the matrix, played by hand."""
    setting = game()
    batch = setting.source.draw(player, N, 0, derive_seed(setting.seed, "cross-play"))
    for i, query in enumerate(batch.texts):
        if not batch.written.valid_C[i]:
            assert math.isnan(rates_N[i])
            continue
        prompt = player.codec.encode("{query}", {"query": query})
        seed = derive_seed(setting.seed, "answers", query)
        answers = player.respond([prompt], G, setting.sampling, [seed]).spoken
        assert rates_N[i].item() == pytest.approx(sum(Checksum().check(query, answers, None)) / G)


def test_afterwards_the_policy_is_as_it_was(policy, kept):
    before, modes = trained_weights(policy), [m.training for m in policy.modules()]
    cross_play(policy, [Contender("base", BASE), Contender("other", kept[0])], game())
    after = trained_weights(policy)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert modes == [m.training for m in policy.modules()]


def test_a_result_does_not_depend_on_who_else_plays(policy, kept):
    both = [Contender("base", BASE), Contender("now", TRAINED)]
    few = cross_play(policy, both, game())
    many = cross_play(policy, [*both, Contender("other", kept[0])], game())
    a, b = few.rates_KKN, many.rates_KKN[:2, :2]
    assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))


def test_queries_without_a_right_answer_count_for_nobody(policy):
    found = cross_play(policy, [Contender("base", BASE), Contender("now", TRAINED)], game(Long()))
    alone = cross_play(policy, [Contender("base", BASE), Contender("now", TRAINED)], game())
    assert (found.malformed_K >= alone.malformed_K).all()
    assert (found.malformed_K > alone.malformed_K).any()
    unknown = found.rates_KKN.isnan()
    assert torch.equal(unknown[:, 0], unknown[:, 1])
    assert torch.allclose(unknown[:, 0].float().mean(1), found.malformed_K)


# -- what the matrix says --------------------------------------------------------------------------


def handmade(rates, is_rate=True) -> CrossPlay:
    rates_KKN = torch.tensor(rates)
    K = len(rates_KKN)
    return CrossPlay(tuple(f"p{k}" for k in range(K)), rates_KKN, torch.zeros(K), is_rate)


TWO = [
    [[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]],
    [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, math.nan]],
]


def test_means_errors_and_changes_against_values_by_hand():
    found = handmade(TWO)
    means, errors = found.matrix
    # the last query of the second Challenger is unknown for one Solver alone in this example
    assert means.tolist()[0] == [0.5, 0.75]
    assert means[1, 0].item() == 0.25
    # 1 0 1 0: variance 1/3, four queries
    assert errors[0, 0].item() == pytest.approx(math.sqrt(1 / 3 / 4))
    change, error = found.challenger_change(0, 1, 0)
    assert change == pytest.approx(-0.25)
    # 0 0 1 0: variance 1/4, and the two means are independent
    assert error == pytest.approx(math.sqrt(1 / 3 / 4 + 1 / 4 / 4))
    change, error = found.solver_change(0, 1, 0)
    # by query 0 1 0 0
    assert change == pytest.approx(0.25)
    assert error == pytest.approx(math.sqrt(1 / 4 / 4))


def test_the_sentences_claim_only_what_the_interval_allows():
    n = 100
    better = torch.ones(n)
    half = torch.tensor([0.0, 1.0] * (n // 2))
    found = handmade(torch.stack([torch.stack([half, better])] * 2).tolist())
    harder, stronger = command.findings(found)
    assert "not clearly harder or easier than" in harder
    assert "p1 is better than p0: +0.50 [+0.40, +0.60]" in stronger


def test_without_known_limits_of_R_there_are_no_ratings():
    assert handmade(TWO[:1] * 2, is_rate=False).ratings is None
    nothing = torch.full((2, 2, 3), math.nan)
    assert handmade(nothing.tolist()).ratings is None
    assert (
        command.as_json(handmade(nothing.tolist()), command.Sizes(3, 1))["solve_rate"]
        == [[None, None]] * 2
    )


def test_players_are_at_least_two_and_named_once():
    one = Contender("a", BASE)
    with pytest.raises(ConfigError, match=r"players: there is only a; play with checkpoint\.snap"):
        require_players([one])
    with pytest.raises(ConfigError, match="players: 'a' is there twice"):
        require_players([one, one])


# -- the command -----------------------------------------------------------------------------------


def fit(folder, *arguments):
    return main(
        [
            *("fit", "--config", "configs/tiny_lsp.yaml", "--trainer.max_steps", "2"),
            *("--data.num_queries", "4", "--data.group_size", "2", "--data.heldout", "null"),
            *("--trainer.default_root_dir", str(folder), *arguments),
        ]
    )


@pytest.mark.usefixtures("untouched_process")
def test_a_run_with_snapshots_is_played_against_itself(tmp_path, capsys, monkeypatch):
    run = RunFolder(tmp_path / "run")
    assert fit(run.path, "--checkpoint.snapshots", "1") == 0
    assert sorted(run.snapshots()) == [1, 2]
    capsys.readouterr()
    arguments = ["crossplay", "--ckpt_path", str(run.checkpoint_path), "--queries", "5"]
    assert main([*arguments, "--answers", "2"]) == 0
    shown = capsys.readouterr()
    found = json.loads(run.crossplay_path.read_text())
    assert found["players"] == ["base", "round 1", "round 2"]
    assert found["n"] == 5
    assert len(found["solve_rate"]) == len(found["solve_rate"][0]) == 3
    assert "queries by" in shown.out
    assert "written to" in shown.err
    assert "cross-play 12/12" in shown.err
    # again: the same numbers
    first = run.crossplay_path.read_bytes()
    assert main([*arguments, "--answers", "2", "--json"]) == 0
    assert run.crossplay_path.read_bytes() == first
    assert json.loads(capsys.readouterr().out) == found
    # an adapter of the same base from elsewhere, by its folder
    chosen = f"[base, {run.snapshot_path(1)}]"
    out = tmp_path / "new" / "two.json"
    assert main([*arguments, "--players", chosen, "--out", str(out)]) == 0
    assert json.loads(out.read_text())["players"] == ["base", "run, round 00001"]
    capsys.readouterr()
    mistakes = {
        ("--players", "[base]"): "players: there is only base; play with checkpoint.snapshots, or",
        ("--players", "[base, nowhere]"): "players: 'nowhere' is not a peft adapter",
        ("--queries", "1"): "queries: is 1, but a mean over one query has no error; set 2 or more",
        ("--answers", "0"): "answers: is 0, but a query needs an answer; set 1 or more",
    }
    for typed, message in mistakes.items():
        assert main([*arguments, *typed]) == 2
        assert message in capsys.readouterr().err


def test_snapshots_are_refused_without_an_adapter(tmp_path, capsys):
    assert fit(tmp_path / "run", "--model.lora", "null", "--checkpoint.snapshots", "1") == 2
    assert "checkpoint.snapshots: is 1, but without LoRA" in capsys.readouterr().err
