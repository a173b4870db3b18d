"""What keeps the queries of a round out of training: the form rules, and the gate."""

from collections.abc import Mapping

from lsp_lightning.callbacks.remedies import Remedies, Stall
from lsp_lightning.functional import dead_groups
from lsp_lightning.game.gate.gate import INVALID
from lsp_lightning.training.query_metrics import refusals
from lsp_lightning.types import SelfPlayRound, Written


def all_refused(written: Written | None, remedies: Remedies) -> Stall | None:
    """The gate, if it refused every query that was drawn."""
    if written is None or not written.refused:
        return None
    rows = enumerate(written.answered_C.tolist())
    if any(i >= 0 and row not in written.refused for row, i in rows):
        return None
    reasons = refusals(written)
    return Stall(
        "queries refused",
        f"every query was refused by the gate{counts(reasons)}",
        remedy_of_refusals(written, reasons, remedies),
    )


def none_valid(written: Written | None, remedies: Remedies) -> Stall | None:
    """The written queries, if none of them follows the form rules."""
    if written is None or written.valid_C.any():
        return None
    if written.rollouts.truncated.all():
        return Stall(
            "queries cut off",
            f"every query was cut off{remedies.at_query_limit}, and such a query is invalid",
            remedies.longer_queries,
        )
    if not any(text.strip() for text in written.rollouts.texts):
        return Stall("queries empty", "every query was empty", remedies.other_queries)
    return Stall(
        "queries invalid",
        "every query was invalid (empty, cut off, or with a template tag)",
        remedies.queries_alone,
    )


def all_out_of_range(played: SelfPlayRound, remedies: Remedies) -> Stall | None:
    """The gate's range of solve rates, if every judged query that was written lies outside.

    Those of the pool were in the range when they entered it, and tell nothing of the Challenger.
    """
    gate, rates_N = remedies.gate, played.solve_rates_N
    judged_N = played.judged_N & played.playout.written_N
    if gate is None or gate.solve_rate is None or rates_N is None or not judged_N.any():
        return None
    if gate.admits(rates_N, judged_N)[judged_N].any():
        return None
    low, high = gate.solve_rate
    hard = int((judged_N & (rates_N < low)).sum())
    easy = int(judged_N.sum()) - hard
    limits = f"data.gate.solve_rate ({low:g} to {high:g})"
    if not easy or not hard:
        fact = f"every query was too {'hard' if hard else 'easy'} for {limits}"
        remedy = remedies.easier_queries if hard else remedies.harder_queries
    else:
        fact = f"every query was outside of {limits}: {hard} too hard, {easy} too easy"
        remedy = remedies.medium_queries
    if not dead_groups(played.rewards_NG[judged_N]).all():
        remedy = f"{remedy}, or {remedies.wider_range}"
    return Stall("solve rates", f"{fact}, so nothing was learned from it", remedy)


def remedy_of_refusals(written: Written, reasons: Mapping[str, int], remedies: Remedies) -> str:
    """What to change where queries are refused, or would be: most for the first reason."""
    reason = next(iter(reasons))
    refused = {found.reason for found in written.refused.values()}
    if reason == INVALID:
        remedy = remedy_of_invalid(written, reasons[reason], remedies)
        return (
            f"{remedy} (data.gate lets no invalid query through)" if reason in refused else remedy
        )
    return remedies.admitted_queries(reason) if reason in refused else remedies.queries_in_form


def remedy_of_invalid(written: Written, invalid: int, remedies: Remedies) -> str:
    """What to change where most bad queries break the form rules: most of these are alike."""
    if 2 * int(written.rollouts.truncated.sum()) > invalid:
        return remedies.longer_queries
    if 2 * sum(not text.strip() for text in written.rollouts.texts) > invalid:
        return remedies.other_queries
    return remedies.queries_alone


def counts(found: Mapping[str, int]) -> str:
    """(3 invalid, 2 malformed), without those of 0; nothing if all are."""
    shown = [f"{count} {name}" for name, count in found.items() if count]
    return f" ({', '.join(shown)})" if shown else ""
