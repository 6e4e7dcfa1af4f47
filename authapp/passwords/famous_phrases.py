"""Famous phrases: texts that everybody has seen, as an example of a password or a typing sample.

They are long and made of unrelated words, so neither a list of breached passwords nor an estimate
finds them. Attackers try them early.
"""

PHRASES = (
    "correct horse battery staple",
    "the quick brown fox jumps over the lazy dog",
    "the quick brown fox jumps",
    "the quick brown fox",
    "lorem ipsum dolor sit amet",
    "to be or not to be that is the question",
    "to be or not to be",
    "may the force be with you",
    "i love my mom and dad",
    "once upon a time",
    "winter is coming",
    "live long and prosper",
    "hello darkness my old friend",
    "it was the best of times",
    "in the beginning was the word",
    "supercalifragilisticexpialidocious",
    "twinkle twinkle little star",
    "mary had a little lamb",
    "all your base are belong to us",
    "the cake is a lie",
    "never gonna give you up",
    "elementary my dear watson",
    "i think therefore i am",
    "houston we have a problem",
    "all work and no play makes jack a dull boy",
)
_JOINS = ("", " ", "-", "_", ".")

SPELLINGS = frozenset(join.join(phrase.split()) for phrase in PHRASES for join in _JOINS)
