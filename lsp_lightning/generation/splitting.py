"""Split the completions of a call into parts that fit into memory."""


def split_rows(
    *,
    prompts: int,
    draws: int,
    prompt_tokens: int,
    new_tokens: int,
    max_rows: int,
    max_tokens: int | None,
    shared: bool,
) -> list[range]:
    """Split the rows of a call, prompt-major, into parts that are decoded together.

    A part has all completions of as many prompts as fit. If the completions of one prompt have too
    many tokens, a part has as many of them as fit, at least one.

    Args:
        prompts: number of prompts.
        draws: completions of each prompt.
        prompt_tokens: tokens of the longest prompt.
        new_tokens: most tokens of a completion.
        max_rows: most rows of a part, unless one prompt has more completions.
        max_tokens: most tokens of a part, padding included; None is no limit.
        shared: whether a prompt counts once for all of its completions.
    """
    row_tokens = prompt_tokens + new_tokens
    rows_of_one, together = draws, max(1, max_rows // draws)
    if max_tokens is not None:
        group_tokens = prompt_tokens + draws * new_tokens if shared else draws * row_tokens
        together = min(together, max_tokens // group_tokens)
        if together == 0:
            fitting = (
                (max_tokens - prompt_tokens) // new_tokens if shared else max_tokens // row_tokens
            )
            rows_of_one, together = min(draws, max(1, fitting)), 1
    rows = range(prompts * draws)
    if rows_of_one == draws:
        return [rows[i : i + together * draws] for i in rows[:: together * draws]]
    return [
        rows[i + done : i + min(done + rows_of_one, draws)]
        for i in rows[::draws]
        for done in range(0, draws, rows_of_one)
    ]
