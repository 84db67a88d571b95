"""Motion of our own making, where no recording may or can be used: walks, squats, waves and free movement, as clips;
and low poses, which recordings hardly have: sitting, crouching, crawling, lying, upside down.

Angles are smooth functions of time within what joints can do. They look like puppets rather than people; the truth
about them is as exact as about any other clip.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from harvest.studio.motion import CHANNELS, Clip
from harvest.studio.rotations import about, to_quaternions

Floats = NDArray[np.float64]
FPS, SECONDS = 30.0, 20.0
EACH = 6  # clips of each kind in a split
EACH_LOW = 24  # of each kind of low pose, which differ more between clips than inside one
X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
# In the zero pose arms point sideways and legs down, in leg lengths.
THIGH, SHANK, SOLE, HIP = 0.49, 0.51, 0.09, 0.12
CHEST, HEAD, SHOULDER, UPPER_ARM, FOREARM, THICK = 0.55, 0.3, 0.2, 0.33, 0.33, 0.13
Angles = dict[str, Floats]  # radians, each (T,)


def own_clips(split: str) -> list[Clip]:
    """Clips for a split, the same ones always, different ones for every split."""
    seed = {"train": 0, "val": 1, "test": 2}[split]
    clips = []
    for kind, (name, make) in enumerate(KINDS.items()):
        for number in range(EACH):
            rng = np.random.default_rng([seed, kind, number])
            clips.append(_clip(f"own_{name}_{split}_{number}", split, make(rng, np.arange(int(SECONDS * FPS)) / FPS)))
    return clips


def low_clips(split: str) -> list[Clip]:
    """Clips of people who do not stand, other ones for every split."""
    seed = {"train": 0, "val": 1, "test": 2}[split]
    clips = []
    for kind, (name, make) in enumerate(LOW_KINDS.items(), start=len(KINDS)):
        for number in range(EACH_LOW):
            rng = np.random.default_rng([seed, kind, number])
            clips.append(_clip(f"own_{name}_{split}_{number}", split, make(rng, np.arange(int(SECONDS * FPS)) / FPS)))
    return clips


def _wave(rng: np.random.Generator, t: Floats, low: float, high: float, slowest_s: float = 4.0) -> Floats:
    """A smooth random angle between two limits: three sines of different speed."""
    total = np.zeros(len(t))
    for faster in (1.0, 1.7, 2.9):
        total += np.sin(2 * np.pi * t * faster * rng.uniform(0.8, 1.2) / slowest_s + rng.uniform(0, 2 * np.pi)) / faster
    return low + (high - low) * (0.5 + 0.5 * np.tanh(1.2 * total))


def _base(rng: np.random.Generator, t: Floats) -> Angles:
    """Standing, nearly still."""
    names = ("turn", "lean", "side", "twist", "nod", "shake", "x", "y")
    still = {name: np.zeros(len(t)) for name in (*names, "tip", "roll")}  # tip: forwards, of the whole body
    for side in "LR":
        still |= {
            f"raise.{side}": _wave(rng, t, 0.05, 0.2),  # of the arm, from hanging to sideways
            f"swing.{side}": _wave(rng, t, -0.15, 0.15),  # of the arm, forwards
            f"elbow.{side}": _wave(rng, t, 0.1, 0.4),
            f"hip.{side}": np.zeros(len(t)),  # forwards
            f"spread.{side}": np.full(len(t), 0.08),
            f"knee.{side}": np.full(len(t), 0.05),
        }
    return still


def walk(rng: np.random.Generator, t: Floats) -> Angles:
    """Walking in a circle."""
    angles, pace, radius = _base(rng, t), 2 * np.pi * rng.uniform(0.7, 1.1), rng.uniform(0.6, 1.3)
    for side, phase in (("L", 0.0), ("R", np.pi)):
        step = np.sin(pace * t + phase)
        angles[f"hip.{side}"] = 0.42 * step + 0.05
        angles[f"knee.{side}"] = 0.15 + 0.75 * np.clip(np.cos(pace * t + phase), 0, None) ** 2
        angles[f"swing.{side}"], angles[f"elbow.{side}"] = -0.45 * step, 0.35 - 0.2 * step
    speed = 0.8 * pace / (2 * np.pi) * 1.35  # leg lengths a second: two steps of 0.54 a period
    heading = speed * t / radius * rng.choice([-1, 1])
    angles["turn"] = heading
    # A body at rest faces -y; turned by the heading it faces the way the circle goes.
    direction = np.sign(heading[-1])
    angles["x"], angles["y"] = -radius * direction * np.cos(heading), -radius * direction * np.sin(heading)
    angles["lean"] = np.full(len(t), 0.05)
    return angles


def squat(rng: np.random.Generator, t: Floats) -> Angles:
    """Up and down, arms to the front."""
    angles = _base(rng, t)
    deep = rng.uniform(0.6, 1.3) * (0.5 - 0.5 * np.cos(2 * np.pi * t / rng.uniform(2.5, 5)))
    for side in "LR":
        angles[f"hip.{side}"], angles[f"knee.{side}"] = deep, 1.9 * deep
        angles[f"swing.{side}"] = 0.9 * deep
        angles[f"spread.{side}"] = np.full(len(t), rng.uniform(0.1, 0.3))
    angles["lean"] = 0.45 * deep
    return angles


def wave(rng: np.random.Generator, t: Floats) -> Angles:
    """Arms that wave, reach and point."""
    angles = _base(rng, t)
    for side in "LR":
        angles[f"raise.{side}"] = _wave(rng, t, 0.1, 2.6)
        angles[f"swing.{side}"] = _wave(rng, t, -0.3, 1.4)
        angles[f"elbow.{side}"] = _wave(rng, t, 0.0, 2.0, 2.5)
    angles["turn"], angles["twist"] = _wave(rng, t, -0.6, 0.6, 8.0), _wave(rng, t, -0.4, 0.4)
    return angles


def free(rng: np.random.Generator, t: Floats) -> Angles:
    """Everything moves, slowly."""
    angles = wave(rng, t)
    for side in "LR":
        angles[f"hip.{side}"], angles[f"knee.{side}"] = _wave(rng, t, -0.3, 1.0), _wave(rng, t, 0.0, 1.5)
        angles[f"spread.{side}"] = _wave(rng, t, 0.02, 0.5)
    angles["lean"], angles["side"] = _wave(rng, t, -0.2, 0.9), _wave(rng, t, -0.35, 0.35)
    angles["nod"], angles["shake"] = _wave(rng, t, -0.4, 0.5), _wave(rng, t, -0.8, 0.8)
    return angles


def sit(rng: np.random.Generator, t: Floats) -> Angles:
    """On a chair or on the floor, legs before the body or crossed, hands at work."""
    angles = _busy_hands(rng, t)
    crossed, low = rng.random() < 0.25, rng.random() < 0.3
    for side in "LR":
        hip = rng.uniform(1.2, 1.8)
        knee = rng.uniform(2.0, 2.5) if crossed else rng.uniform(0.0, 0.7) if low else rng.uniform(1.0, 1.9)
        angles[f"hip.{side}"], angles[f"knee.{side}"] = _near(rng, t, hip), _near(rng, t, knee)
        angles[f"spread.{side}"] = _near(rng, t, rng.uniform(0.5, 0.9) if crossed else rng.uniform(0.0, 0.4))
    angles["tip"] = _near(rng, t, rng.uniform(-0.4, 0.15))
    return angles


def crouch(rng: np.random.Generator, t: Floats) -> Angles:
    """Squatting low, or on one knee or both."""
    angles = _busy_hands(rng, t)
    for side in "LR":
        kneels = rng.random() < 0.5
        hip, knee = (rng.uniform(-0.1, 0.7), rng.uniform(1.5, 2.3)) if kneels else (2.0, rng.uniform(1.9, 2.4))
        angles[f"hip.{side}"], angles[f"knee.{side}"] = _near(rng, t, hip), _near(rng, t, knee)
        angles[f"spread.{side}"] = _near(rng, t, rng.uniform(0.05, 0.5))
    angles["lean"] = _near(rng, t, rng.uniform(0.0, 0.9))
    return angles


def crawl(rng: np.random.Generator, t: Floats) -> Angles:
    """On hands and knees or hands and feet, or bent down to the floor."""
    angles = _base(rng, t)
    tipped, straight = rng.uniform(0.9, 1.8), rng.random() < 0.4
    for side in "LR":
        angles[f"swing.{side}"] = _near(rng, t, rng.uniform(1.2, 1.9), 0.3)
        angles[f"elbow.{side}"] = _near(rng, t, rng.uniform(0.0, 0.4))
        angles[f"hip.{side}"] = _near(rng, t, tipped * rng.uniform(0.7, 1.1), 0.35)
        angles[f"knee.{side}"] = _near(rng, t, rng.uniform(0.0, 0.4) if straight else rng.uniform(1.2, 1.8), 0.3)
    angles["tip"], angles["nod"] = _near(rng, t, tipped), _near(rng, t, rng.uniform(-0.8, 0.3))
    return angles


def lie(rng: np.random.Generator, t: Floats) -> Angles:
    """On the back, the belly or a side."""
    angles = _busy_hands(rng, t)
    for side in "LR":
        bent = rng.uniform(0.0, 1.5) if rng.random() < 0.6 else 0.05
        angles[f"hip.{side}"] = _near(rng, t, bent * rng.uniform(0.4, 1.0))
        angles[f"knee.{side}"] = _near(rng, t, bent * rng.uniform(0.8, 1.4))
        angles[f"spread.{side}"] = _near(rng, t, rng.uniform(0.0, 0.4))
        angles[f"raise.{side}"] = _near(rng, t, rng.uniform(0.1, 2.8), 0.3)
    angles["tip"] = _near(rng, t, rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.12), 0.1)
    angles["roll"] = _near(rng, t, rng.uniform(-np.pi / 2, np.pi / 2), 0.2)
    return angles


def upside_down(rng: np.random.Generator, t: Floats) -> Angles:
    """On the hands, legs anywhere."""
    angles = _base(rng, t)
    for side in "LR":
        angles[f"raise.{side}"] = _near(rng, t, rng.uniform(2.5, 3.0))
        angles[f"elbow.{side}"] = _near(rng, t, rng.uniform(0.0, 0.5))
        angles[f"hip.{side}"] = _near(rng, t, rng.uniform(-0.7, 1.4), 0.4)
        angles[f"knee.{side}"] = _near(rng, t, rng.uniform(0.0, 1.3), 0.4)
        angles[f"spread.{side}"] = _near(rng, t, rng.uniform(0.0, 0.9))
    angles["tip"], angles["lean"] = _near(rng, t, np.pi, 0.3), _near(rng, t, rng.uniform(-0.5, 0.5))
    return angles


def _near(rng: np.random.Generator, t: Floats, angle: float, by: float = 0.15) -> Floats:
    """A smooth angle near another."""
    return _wave(rng, t, angle - by, angle + by)


def _busy_hands(rng: np.random.Generator, t: Floats) -> Angles:
    """Hands that rest, reach, or hold something before the body."""
    angles = _base(rng, t)
    for side in "LR":
        angles[f"raise.{side}"] = _near(rng, t, rng.uniform(0.05, 0.8))
        angles[f"swing.{side}"] = _near(rng, t, rng.uniform(-0.4, 1.4), 0.3)
        angles[f"elbow.{side}"] = _near(rng, t, rng.uniform(0.2, 2.1), 0.3)
    angles["lean"], angles["twist"] = _near(rng, t, rng.uniform(-0.2, 0.6)), _near(rng, t, rng.uniform(-0.3, 0.3))
    angles["nod"], angles["shake"] = _near(rng, t, rng.uniform(-0.2, 0.5)), _wave(rng, t, -0.6, 0.6)
    return angles


LOW_KINDS: dict[str, Callable[[np.random.Generator, Floats], Angles]] = {
    "sit": sit,
    "crouch": crouch,
    "crawl": crawl,
    "lie": lie,
    "upside_down": upside_down,
}
KINDS: dict[str, Callable[[np.random.Generator, Floats], Angles]] = {
    "walk": walk,
    "squat": squat,
    "wave": wave,
    "free": free,
}


def _clip(name: str, split: str, angles: Angles) -> Clip:
    """A clip of these angles, whatever is lowest on the floor in every frame."""
    frames = len(angles["turn"])
    turns, directions = np.empty((frames, len(CHANNELS), 3, 3)), np.zeros((len(CHANNELS), 3))
    hips = about(Z, angles["turn"]) @ about(X, angles["tip"]) @ about(Z, angles["roll"])
    # Positive leans forwards (the body faces -y), positive side to its left.
    bend, aside, twist = about(X, angles["lean"] / 3), about(Y, angles["side"] / 3), about(Z, angles["twist"] / 3)
    spine = hips
    chain = {"root": hips}
    for part in ("spine04", "spine03", "spine01"):
        spine = spine @ twist @ aside @ bend
        chain[part] = spine
    neck = spine @ about(Z, angles["shake"] / 2) @ about(X, angles["nod"] / 2)
    head = neck @ about(Z, angles["shake"] / 2) @ about(X, angles["nod"] / 2)
    chain |= {"neck01": neck, "neck03": neck, "head": head}
    chest = CHEST * spine[:, 2, 2]
    lowest = np.minimum(np.minimum(chest, 0.0), chest + HEAD * head[:, 2, 2]) - THICK
    for side, sign in (("L", 1.0), ("R", -1.0)):
        # From sideways down to hanging (about y), then forwards (about x), the elbow forwards too.
        hang = about(X, -angles[f"swing.{side}"]) @ about(Y, sign * (np.pi / 2 - angles[f"raise.{side}"]))
        upper = spine @ hang
        lower = upper @ about(Z, -sign * angles[f"elbow.{side}"])
        thigh = hips @ about(Y, -sign * angles[f"spread.{side}"]) @ about(X, -angles[f"hip.{side}"])
        shank = thigh @ about(X, angles[f"knee.{side}"])
        foot = hips @ about(X, 0.3 * (angles[f"knee.{side}"] - angles[f"hip.{side}"]))
        chain |= {
            f"clavicle.{side}": spine,
            f"upperarm.{side}": upper,
            f"lowerarm.{side}": lower,
            f"wrist.{side}": lower,
        }
        chain |= {f"upperleg.{side}": thigh, f"lowerleg.{side}": shank, f"foot.{side}": foot}
        for part in ("upperarm", "lowerarm", "wrist"):
            directions[CHANNELS.index(f"{part}.{side}")] = (sign, 0.0, 0.0)
        for part in ("upperleg", "lowerleg"):
            directions[CHANNELS.index(f"{part}.{side}")] = (0.0, 0.0, -1.0)
        knee = -THIGH * thigh[:, 2, 2] + sign * HIP * hips[:, 2, 0]
        ankle = knee - SHANK * shank[:, 2, 2]
        elbow = chest + sign * (SHOULDER * spine[:, 2, 0] + UPPER_ARM * upper[:, 2, 0])
        hand = elbow + sign * FOREARM * lower[:, 2, 0]
        lowest = np.minimum.reduce([lowest, knee - 0.5 * THICK, elbow - 0.3 * THICK, hand - 0.3 * THICK])
        for reach in (0.06, -0.22):  # heel and toes
            lowest = np.minimum(lowest, ankle - SOLE * foot[:, 2, 2] + reach * foot[:, 2, 1])
    for channel, part in enumerate(CHANNELS):
        turns[:, channel] = chain[part]
    root = np.stack([angles["x"], angles["y"], -lowest], axis=-1)
    quaternions = to_quaternions(turns)
    for frame in range(1, frames):  # neighbours on the same side, so that what lies between them can be mixed
        flip = (quaternions[frame] * quaternions[frame - 1]).sum(-1) < 0
        quaternions[frame, flip] *= -1
    return Clip(name, "own", split, "own", FPS, quaternions, root, 0.0, directions, 0.0)
