"""Which text shows what it holds: what people may be called, and how any text is printed."""

import re
import unicodedata

# Zero-width non-joiner and joiner. Persian, Sinhala and Malayalam are written with them, and emoji
# are joined by one; by themselves they show nothing.
JOINERS = "\u200c\u200d"
# letters and marks that show nothing by themselves (Unicode's Default_Ignorable_Code_Point)
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# letters and symbols with an empty picture: they look like a blank
_BLANKS = "\u115f\u1160\u2800\u3164\uffa0\U0001d159"
# the flags of England, Scotland and Wales are a black flag and tags, which show nothing elsewhere
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")
_VIRAMA = 9  # canonical combining class: the sign by which letters of India are joined


def is_visible(text: str) -> bool:
    """Whether each character of a text shows something where it stands, or joins two that do.

    Refused are controls, line separators, marks that turn the direction of writing, lone
    surrogates, tags outside of a flag, and text that shows nothing at all.

    Args:
        text: without blanks at its ends; an empty one is fine.
    """
    text = _FLAG.sub("\U0001f3f4", text)
    before = ""
    for character, after in zip(text, [*text[1:], " "], strict=False):
        if character in JOINERS:
            if not _shows(before) or not (_shows(after) or _is_virama(before)):
                return False
        elif INVISIBLE.match(character) and character not in _BLANKS:
            if not _shows(before):  # it varies the character before it
                return False
            continue  # and a joiner may follow: an emoji, its variation, a joiner, the next emoji
        elif not _shows(character) and (character != " " or not before):
            return False
        before = character
    return True


def shown(text: str) -> str:
    """Text from outside for a terminal or a list: a `?` for each character that shows nothing, or
    would move the cursor, end the line or turn the direction of writing."""
    return "".join(c if is_printed(c) else "?" for c in text)


def is_printed(character: str) -> bool:
    return character.isprintable() or character in JOINERS or _is_new_emoji(character)


def _shows(character: str) -> bool:
    if not character or character in _BLANKS or character == " " or character in JOINERS:
        return False
    return is_printed(character) and not INVISIBLE.match(character)


def _is_virama(character: str) -> bool:
    return bool(character) and unicodedata.combining(character) == _VIRAMA


def _is_new_emoji(character: str) -> bool:
    # Unicode keeps these places for pictures; Python knows those of its own release alone
    return "\U0001f000" <= character <= "\U0001faff" and unicodedata.category(character) == "Cn"
