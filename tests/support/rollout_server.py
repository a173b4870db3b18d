"""A test server with vLLM's protocol: real HTTP, a real small model, hot-loaded adapters.

It supports what ``transformers serve`` lacks: prompts as token ids, several completions of one
prompt, token ids and log-probs in answers, and loading adapters while it runs. It follows vLLM's
published source. It is not vLLM: it only shows that the package follows the protocol as published.
"""

import copy
import json
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from loopback import Answer, Handler, LoopbackServer, Misbehaviour
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

#: Answers the k-th request for completions; None leaves the answer to the model.
Script = Callable[[int, dict], Answer | Misbehaviour | None]


class RolloutServer(LoopbackServer):
    """Serves one base model and the adapters that a client loads.

    Args:
        base: folder of the model.
        port: port to listen on; 0 is any free one.
        processed: log-probs are those after temperature and truncation, otherwise raw.
        context: context length in tokens.
    """

    def __init__(
        self, base: Path, port: int = 0, processed: bool = False, context: int = 4096
    ) -> None:
        super().__init__(_Handler, port)
        self.model, self.tokenizer = loaded(base)
        self.processed, self.context = processed, context
        self.script: Script = lambda k, request: None
        self.mangle: Callable[[dict], object] = lambda reply: reply
        self.adapters: dict[str, Any] = {}
        self.log: list[str] = []
        self.most_loaded = 0
        self.computing = threading.Lock()

    def models(self) -> Answer:
        """List the base model and the adapters."""
        cards = [{"id": "base", "max_model_len": self.context}]
        cards += [{"id": name, "parent": "base"} for name in self.adapters]
        return as_json({"object": "list", "data": cards})

    def tokenize(self, request: dict) -> Answer:
        """Tokenize text with this server's tokenizer."""
        special = request.get("add_special_tokens", True)
        ids = self.tokenizer.encode(request["prompt"], add_special_tokens=special)
        return as_json({"count": len(ids), "max_model_len": self.context, "tokens": ids})

    def load(self, request: dict) -> Answer:
        """Load an adapter."""
        name, path = request["lora_name"], Path(request["lora_path"])
        if name in self.adapters:
            return refusal(400, f"The lora adapter '{name}' has already been loaded.")
        if not (path / "adapter_config.json").is_file():
            return refusal(404, f"Loading lora {name} failed: No adapter found for {path}")
        self.adapters[name] = PeftModel.from_pretrained(copy.deepcopy(self.model), path).eval()
        self.most_loaded = max(self.most_loaded, len(self.adapters))
        self.log.append(f"load {name}")
        return Answer(f"Success: LoRA adapter '{name}' added successfully.".encode())

    def unload(self, request: dict) -> Answer:
        """Unload an adapter."""
        name = request["lora_name"]
        if self.adapters.pop(name, None) is None:
            return refusal(404, f"The lora adapter '{name}' cannot be found.")
        self.log.append(f"unload {name}")
        return Answer(f"Success: LoRA adapter '{name}' removed successfully.".encode())

    def complete(self, request: dict) -> Answer:
        """Completions of one prompt."""
        name = request["model"]
        model = self.model if name == "base" else self.adapters.get(name)
        if model is None:
            return refusal(404, f"The model `{name}` does not exist.")
        if request["temperature"] == 0 and request["n"] > 1:
            return refusal(400, "n must be 1 when using greedy sampling")
        with self.computing:  # requests at once would only take turns, step by step
            choices = draw(model, request, self.processed)
        return as_json(self.mangle({"model": name, "choices": choices}))


@cache
def loaded(base: Path) -> tuple[Any, Any]:
    """Model and tokenizer in a folder, for all servers of a process: none of them changes it."""
    return AutoModelForCausalLM.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)


def draw(model: Any, request: dict, processed: bool) -> list[dict]:
    """The choices of an answer: sampled without a cache, each with a different seed."""
    n, prompt, temperature = request["n"], request["prompt"], request["temperature"]
    generators = [torch.Generator().manual_seed(request["seed"] + j) for j in range(n)]
    drawn: list[list[int]] = [[] for _ in range(n)]
    logprobs: list[list[float]] = [[] for _ in range(n)]
    top: list[list[dict]] = [[] for _ in range(n)]
    for _ in range(request["max_tokens"]):
        going = [
            j for j in range(n) if not drawn[j] or drawn[j][-1] not in request["stop_token_ids"]
        ]
        if not going:
            break
        with torch.no_grad():
            rows = torch.tensor([[*prompt, *drawn[j]] for j in going])
            logits = model(input_ids=rows).logits[:, -1].float()
        raw = logits.log_softmax(-1)
        scaled = keep_likely((logits / (temperature or 1.0)).log_softmax(-1), request)
        shown = scaled if processed else raw
        for row, j in enumerate(going):
            if temperature == 0:
                token = int(raw[row].argmax())
            else:
                token = int(torch.multinomial(scaled[row].exp(), 1, generator=generators[j]))
            drawn[j].append(token)
            logprobs[j].append(float(shown[row, token]))
            best = shown[row].topk(request.get("logprobs") or 1)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            top[j].append({f"token_id:{i}": value for i, value in pairs})
    return [
        {
            "index": j,
            "text": "",
            "token_ids": drawn[j],
            "prompt_token_ids": prompt,
            "logprobs": {"token_logprobs": logprobs[j], "top_logprobs": top[j]}
            if "logprobs" in request
            else None,
            "finish_reason": "stop" if drawn[j][-1] in request["stop_token_ids"] else "length",
        }
        for j in range(n)
    ]


def keep_likely(logprobs: torch.Tensor, request: dict) -> torch.Tensor:
    """Log-probs (n, V) after top-k and top-p, normalised again."""
    ordered, order = logprobs.sort(dim=-1, descending=True)
    if request["top_k"] > 0:
        ordered[:, request["top_k"] :] = float("-inf")
    ordered = ordered.log_softmax(-1)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    ordered = ordered.masked_fill(before >= request["top_p"], float("-inf")).log_softmax(-1)
    return torch.empty_like(ordered).scatter(1, order, ordered)


def as_json(reply: object) -> Answer:
    """An answer with this JSON as its body; bytes are sent unchanged."""
    return Answer(reply if isinstance(reply, bytes) else json.dumps(reply).encode())


def refusal(status: int, message: str) -> Answer:
    """An error in vLLM's form."""
    return Answer(json.dumps({"error": {"message": message, "code": status}}).encode(), status)


class _Handler(Handler):
    def do_GET(self) -> None:
        self.send(self.server.models() if self.path == "/v1/models" else refusal(404, "Not Found"))

    def do_POST(self) -> None:
        server = self.server
        request = self.body()
        handlers = {
            "/tokenize": server.tokenize,
            "/v1/load_lora_adapter": server.load,
            "/v1/unload_lora_adapter": server.unload,
        }
        if self.path == "/v1/completions":
            self.follow(self._complete, request)
        elif self.path in handlers:
            with server.lock:
                answer = handlers[self.path](request)
            self.send(answer)
        else:
            self.send(Answer(b'{"detail":"Not Found"}', 404))

    def _complete(self, k: int, request: dict) -> Answer | Misbehaviour:
        return self.server.script(k, request) or self.server.complete(request)
