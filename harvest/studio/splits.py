"""What is held out of training: clothes, shoes, hair and rooms, by name, as bodies and motions are by theirs."""

from __future__ import annotations

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
            *("workshop", "lobby", "park", "venice"),
        }
    ),
}


def belongs(name: str, split: str) -> bool:
    """Whether a garment or a room may appear in a split: val and test see theirs alone, training all the rest."""
    if split == "train":
        return not any(name in names for names in HELD_OUT.values())
    return name in HELD_OUT[split]
