"""Shared prefixes: tokens that several rows start with are computed and stored once.

Rows (prompts, or prompts with completions) become one flat sequence that holds each shared
beginning once. Its *pieces* form a tree, and a row is the path from the root to a leaf. The rows
"the cat sat", "the cat ran" and "the dog"::

    the --+-- cat --+-- sat        index      0    1    2    3    4
          |         +-- ran        token      the  cat  sat  ran  dog
          +-- dog                  position   0    1    2    2    1

take one pass over five tokens instead of eight. Each token attends to the tokens on its path only,
so every row gets the hidden states that it would get alone. Beginnings that save few tokens are not
shared.

=================  ================================================================
``tree``           rows as a tree
``attention``      attention over a tree
``hooks``          how a Hugging Face model is given this attention
``sharing``        whether a model can share prefixes, and if not, why
``cache``          a KV cache that stores each prompt once
``grouping``       which completions continue the same prompt
``decoders``       decoding with a KV cache, with shared prompts or without
``static_cache``   a cache whose tensors keep their addresses, for CUDA graphs
``cuda_graph``     a decoding step as a CUDA graph
=================  ================================================================
"""
