"""The model card of an export. No value of the config can break its markup."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

PAPER = "arXiv 2509.07414"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LONGEST = 200


def model_card(source: str, record: Mapping[str, Any]) -> str:
    """The card as Markdown with YAML front matter.

    Args:
        source: where the base can be loaded from: a hub id or an absolute path.
        record: the run's settings and scores by name, as plain values.
    """
    adapter = record["form"] == "adapter"
    front: dict[str, Any] = {"library_name": "peft" if adapter else "transformers"}
    if _HUB_ID.fullmatch(source):  # the Hub refuses a card whose base is not on the Hub
        front["base_model"] = source
        front["base_model_relation"] = "adapter" if adapter else "finetune"
    front["pipeline_tag"] = "text-generation"
    tags = ["language-self-play", "lsp-lightning", "reinforcement-learning"]
    front["tags"] = [*tags, "lora"] if adapter else tags
    what = "A LoRA adapter for" if adapter else "A model made from"
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        "# " + ("Adapter" if adapter else "Model") + " trained by Language Self-Play",
        "",
        f"{what} {code(record['base'])}, trained by {_method(record)} ({PAPER}) with "
        "lsp-lightning.",
        "The licence of the base model applies.",
        "",
        "## The run",
        "",
        *(f"- {name}: {value}" for name, value in _rows(record)),
        "",
        "## How to load it",
        "",
        "```python",
        *_loading(source, adapter, record),
        "```",
        "",
    ]
    return "\n".join(lines)


def code(value: object) -> str:
    """A value as inline code on one line, cut to 200 characters; "none" if it is empty.

    Backticks, which would end the code span, become apostrophes.
    """
    text = "".join(c if c.isprintable() else " " for c in str(value)).replace("`", "'")
    text = " ".join(text.split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    return f"`{text}`" if text else "none"


def _method(record: Mapping[str, Any]) -> str:
    if not record.get("selfplay", True):
        return "GRPO on a file of queries, the data-driven baseline of Language Self-Play"
    return "Language Self-Play"


def _rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values for a reader, in order."""
    rows = [
        ("rounds", code(record["rounds"])),
        (
            "queries per round (N), answers per query (G)",
            _pair(record, "num_queries", "group_size"),
        ),
    ]
    for reward in record["rewards"]:
        name, enters, weight, standardized = reward[:4]
        how = f"of kind {code(enters)}, weight {code(weight)}"
        rows.append((f"reward {code(name)}", how + (", standardised" if standardized else "")))
    if record.get("selfplay", True):
        rows += [
            ("the Challenger's objective", code(record["objective"]["class"])),
            ("weight of the Challenger's loss", code(record["alpha_ch"])),
        ]
    lora, gguf = record["lora"], record.get("gguf_sha256")
    rows += [
        ("form and weight (beta) of the KL penalty", _pair(record, "kl", "beta")),
        *([("SHA-256 of the base's file", code(gguf))] if gguf else []),
        ("quantization of the base during training", code(record["quantization"] or "none")),
        ("start adapter", code(record["init_adapter"] or "none")),
        (
            "trained weights",
            f"LoRA, rank {code(lora['rank'])}, alpha {code(lora['alpha'])}" if lora else "all",
        ),
        ("chat template arguments", code(record["chat_template_kwargs"] or "none")),
        *([("date in its prompts", code(record["date"]))] if record["date"] else []),
        ("learning rate", code(record["optimizer"].get("lr"))),
        ("seed", code(record["seed"])),
        *_heldout_rows(record.get("heldout_before"), record.get("heldout_after")),
        ("versions", ", ".join(f"{k} {code(v)}" for k, v in record["versions"].items())),
    ]
    return rows


def _pair(record: Mapping[str, Any], *names: str) -> str:
    return ", ".join(code(record[name]) for name in names)


def _heldout_rows(before: Any, after: Any) -> list[tuple[str, str]]:
    """Scores before and after with their meaning; no rows if the run had no held-out scores."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return []
    meanings = {
        "win_rate": "win rate of {} answers against the reference on {} held-out prompts, scored "
        "by the reward",
        "mean": "mean reward of {} answers to {} held-out tasks",
    }
    kind = after.get("kind")
    meaning = meanings.get(str(kind), "share of {} answers that solve one of {} held-out tasks")
    digits = ".3f" if kind == "mean" else ".1%"
    return [
        (
            meaning.format(name, code(after.get("n"))),
            f"{float(before[name]):{digits}} before, {float(after[name]):{digits}} after",
        )
        for name in ("sampled", "greedy")
        if all(isinstance(scores.get(name), int | float) for scores in (before, after))
    ]


def _loading(source: str, adapter: bool, record: Mapping[str, Any]) -> list[str]:
    """Lines of Python to run in the export's folder; every value in them is a literal."""
    model, options = ["AutoModelForCausalLM", "AutoTokenizer"], f'dtype="{record["compute_type"]}"'
    if adapter and record["quantization"]:
        model.append("BitsAndBytesConfig")
        options += ", quantization_config=four_bits"
    load = f"AutoModelForCausalLM.from_pretrained({{}}, {options})"
    base = _literal(source)
    lines = ["from peft import PeftModel"] if adapter else []
    if adapter and record.get("gguf_sha256"):
        lines.insert(0, "from lsp_lightning import gguf_folder  # converts the file, once")
        base = f'gguf_folder({base}, "{record["compute_type"]}")'
    lines += [f"from transformers import {', '.join(model)}", ""]
    if "four_bits" in options:
        lines += [
            "four_bits = BitsAndBytesConfig(",
            '    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,',
            f'    bnb_4bit_compute_dtype="{record["compute_type"]}",',
            ")",
        ]
    folder = '"."  # the folder of this card'
    if adapter:
        lines += [
            f"folder = {folder}",
            f"base = {load.format(base)}",
            "model = PeftModel.from_pretrained(base, folder)",
        ]
    else:
        lines += [f"folder = {folder}", f"model = {load.format('folder')}"]
    kwargs = record["chat_template_kwargs"] or {}
    extra = f", **{_literal(kwargs)}" if kwargs else ""
    return [
        *lines,
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        'messages = [{"role": "user", "content": "Hello"}]',
        "inputs = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"' + extra,
        ")",
        f"ids = model.generate(**inputs, max_new_tokens=256, eos_token_id={record['stop_ids']})",
        "print(tokenizer.decode(ids[0, inputs['input_ids'].shape[1] :]))",
    ]


def _literal(value: object) -> str:
    """A plain value as a one-line Python literal.

    Backticks are escaped, because they could close the card's code block.
    """
    return ascii(value).replace("`", "\\x60")
