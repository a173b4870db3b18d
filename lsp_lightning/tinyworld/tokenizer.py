"""The tokenizer: one token for each character of ALPHABET, plus control tokens and score tags."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lsp_lightning.tinyworld.tasks import ALPHABET

BASIC_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
ROLE_TOKENS = ("<|user|>", "<|assistant|>", "<|challenger|>", "<|judge|>", "<|answer|>")
SCORE_TAGS = ("<Calculation>", "</Calculation>", "<Score>", "</Score>")
CONTEXT_LENGTH = 256  # tokens

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant turns exist here.') }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template. Only the template adds special tokens.

    The judge's score tags are ordinary tokens, so a decoded reply still contains them.
    """
    vocabulary = {
        token: index
        for index, token in enumerate((*BASIC_TOKENS, *ROLE_TOKENS, *SCORE_TAGS, *ALPHABET))
    }
    backend = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in (*BASIC_TOKENS, *ROLE_TOKENS)]
    )
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in SCORE_TAGS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(ROLE_TOKENS),
        padding_side="left",
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
