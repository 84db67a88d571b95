"""What is held out of training: subjects of motion capture, clothes, shoes, hair and rooms, by name."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "val", "test")
SUBJECTS = {
    **dict.fromkeys(("01", "03", "06", "07", "09", "10", "13", "gs_pirouette", "dm"), "train"),
    **dict.fromkeys(("02", "gs_charleston"), "val"),
    **dict.fromkeys(("05", "08", "11", "12", "14", "gs_zombie", "gs_lambada", "gs_backflip"), "test"),
}
SHARES = (("train", 0.8), ("val", 0.1), ("test", 0.1))

HELD_OUT: dict[str, frozenset[str]] = {
    "val": frozenset(
        {
            *("clothes/male_casualsuit05", "clothes/female_casualsuit01", "clothes/shoes05"),
            *("hair/short03", "hair/bob01"),
            *("hall", "esplanade", "forest"),
        }
    ),
    "test": frozenset(
        {
            *("clothes/male_casualsuit06", "clothes/male_elegantsuit01", "clothes/female_casualsuit02"),
            *("clothes/shoes04", "clothes/shoes06", "hair/short04", "hair/bob02", "hair/ponytail01"),
            *("workshop", "lobby", "park", "venice", "sunset"),  # the last two are one town
        }
    ),
}


def split_of(subject: str) -> str:
    """train, val or test: the same for all that one person performs, so that a test is always of new people.

    Subjects of the bundle have their fixed place. Any other one's follows from the SHA-256 of the name, on any machine
    and for ever: 80 % of names train, 10 % val, 10 % test.
    """
    if subject in SUBJECTS:
        return SUBJECTS[subject]
    place = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8]) / 2**64
    for split, share in SHARES:
        place -= share
        if place < 0:
            return split
    return SHARES[-1][0]


def belongs(name: str, split: str) -> bool:
    """Whether a garment or a room may appear in a split: val and test see theirs alone, training all the rest."""
    if split == "train":
        return not any(name in names for names in HELD_OUT.values())
    return name in HELD_OUT[split]
