"""plaudit: preference data in, a reward model that people can trust and use out.

The river, in reading order. A module imports only from modules above it; `tests/test_house.py` keeps this list true.

    errors      one family of errors, each a sentence
    group       Group, Completion, Label: the noun
    formats     disk or hub -> Groups, Groups -> disk; one dialect a file
    templates   a conversation as text, and what a chat template does to it
    encode      texts -> token ids, many at once; what they share is encoded once
    render      messages -> token ids, and the checks that keep tokens honest
    tree        K token lists -> segments with parents
    pack        trees -> packs within a token budget
    attend      pack -> positions and attention, one back end per device
    embedded    the default model, from the hub or from a wheel of the package index
    model       backbone + scalar head; forward(pack) -> score_L; load, save
    score       Scorer: a stream of Groups in, Scores out, same order
    cli         one file a command; holds no idea of its own
"""

__version__ = "0.1.0"
