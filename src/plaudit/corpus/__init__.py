"""Settings -> what to train on and what to measure on, and what there is to say about it before anything is learned.

Stands on `intake`, `keys` and `surface`, above `losses`; no torch. In reading order:

    settings   what a corpus is made of             reading    a part's sources -> Groups, digests
    sift       Groups that teach something          lengths    how long a stream may be
    mixture    shares, copies, splits, overlap      findings   what there is to say: notes and alarms
    whole      all of it, in memory                 stream     a Group at a time, in bounded memory

Invariant: nothing is left out, repeated or set aside without a count and a sentence; the same rows and seed give the
same corpus, whichever file is listed first; and no prompt is both trained on and measured on, unless the user insists.
"""

from __future__ import annotations

from plaudit.corpus.settings import CorpusSettings, Part
from plaudit.corpus.stream import CorpusStream, stream_corpus
from plaudit.corpus.whole import Corpus, read_corpus

__all__ = ["Corpus", "CorpusSettings", "CorpusStream", "Part", "read_corpus", "stream_corpus"]
