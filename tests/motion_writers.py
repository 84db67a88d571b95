"""Motion files with known content, and the rotations that they hold."""

import json

import numpy as np
from scipy.spatial.transform import Rotation

from harvest.studio.motion import CHANNELS
from harvest.studio.recording import HUMANOID3D

# A person of 16 joints facing z, y up, left along x: joint, parent, offset. A thigh and a shank are 0.9 together.
PERSON = (
    ("hips", None, (0, 1, 0)),
    ("belly", "hips", (0, 0.1, 0)),
    ("chest", "belly", (0, 0.2, -0.01)),
    ("neck", "chest", (0, 0.2, 0)),
    ("head", "neck", (0, 0.1, 0.02)),
    ("clavicle.L", "chest", (0.03, 0.15, 0)),
    ("upperarm.L", "clavicle.L", (0.15, 0, 0)),
    ("lowerarm.L", "upperarm.L", (0.3, 0, 0)),
    ("hand.L", "lowerarm.L", (0.25, 0, 0)),
    ("thigh.L", "hips", (0.1, -0.05, 0)),
    ("shin.L", "thigh.L", (0, -0.45, 0)),
    ("foot.L", "shin.L", (0, -0.45, 0)),
    ("toes.L", "foot.L", (0, -0.08, 0.15)),
)
PERSON += tuple(
    (name.replace(".L", ".R"), parent.replace(".L", ".R"), (-offset[0], *offset[1:]))
    for name, parent, offset in PERSON
    if ".L" in name
)
PARTS = [name for name, _, _ in PERSON]
# The part that each channel follows.
FOLLOWS = {
    "root": "hips",
    "spine04": "belly",
    "spine03": "belly",
    "spine01": "chest",
    "neck01": "neck",
    "neck03": "neck",
}
FOLLOWS |= {"head": "head"}
for side in "LR":
    FOLLOWS |= {f"{name}.{side}": f"{name}.{side}" for name in ("clavicle", "upperarm", "lowerarm", "foot")}
    FOLLOWS |= {
        f"wrist.{side}": f"hand.{side}",
        f"upperleg.{side}": f"thigh.{side}",
        f"lowerleg.{side}": f"shin.{side}",
    }

NAMES = {
    "cmu": "Hips Spine Spine1 Neck Head LeftShoulder LeftArm LeftForeArm LeftHand LeftUpLeg LeftLeg LeftFoot LeftToe",
    "daz": "hip abdomen chest neck head lCollar lShldr lForeArm lHand lThigh lShin lFoot lToe",
    "makehuman": "root spine02 spine01 neck01 head clavicle.L upperarm01.L lowerarm01.L wrist.L upperleg01.L"
    " lowerleg01.L foot.L toe1.L",
    "xsens": "Hips Chest Chest2 Neck Head LeftCollar LeftShoulder LeftElbow LeftWrist LeftHip LeftKnee LeftAnkle Toes",
    "unreal": "pelvis spine_01 spine_02 neck_01 head clavicle_l upperarm_l lowerarm_l hand_l thigh_l calf_l foot_l b",
    "motive": "Hip Ab Chest Neck Head LShoulder LUArm LFArm LHand LThigh LShin LFoot LToe",
    "asf": "root lowerback thorax neck head lclavicle lhumerus lradius lhand lfemur ltibia lfoot ltoes",
    "smpl": "Pelvis Spine1 Spine2 Neck Head L_Collar L_Shoulder L_Elbow L_Wrist L_Hip L_Knee L_Ankle L_Foot",
    "kinect": "HipCenter Spine ShoulderCenter Neck Head CollarLeft ShoulderLeft ElbowLeft WristLeft HipLeft KneeLeft"
    " AnkleLeft FootLeft",
}
NAMES = {tool: names.split() for tool, names in NAMES.items()}
NAMES["mixamo"] = [f"mixamorig:{name}" for name in NAMES["cmu"]]
NAMES["vroid"] = [f"J_Bip_{name}" for name in "C_Hips C_Spine C_Chest C_Neck C_Head L_Shoulder L_UpperArm".split()]
NAMES["vroid"] += [f"J_Bip_L_{name}" for name in "LowerArm Hand UpperLeg LowerLeg Foot ToeBase".split()]
NAMES["biped"] = [f"Bip01 {name}" for name in ("Pelvis", "Spine", "Spine1", "Neck", "Head")]
NAMES["biped"] += [f"Bip01 L {name}" for name in "Clavicle UpperArm Forearm Hand Thigh Calf Foot Toe0".split()]


def frame_of(*axes):
    """(3, 3) that takes left, up and forward to a file's axes."""
    return np.stack([np.eye(3)["xyz".index(axis[-1])] * (-1 if axis[0] == "-" else 1) for axis in axes], axis=1)


FRAMES = {
    "y up, facing z": frame_of("x", "y", "z"),
    "z up, facing -y, centimetres": frame_of("x", "z", "-y") * 100,
    "z up, facing x": frame_of("y", "z", "x"),
    "y up, facing -x, inches": frame_of("z", "y", "-x") / 0.0254,
    "x up, facing z": frame_of("-y", "x", "z"),
    "y up, facing -z, left-handed": frame_of("x", "y", "-z"),
}


def names_of(tool):
    """The tool's name of each part, the right ones made of the left ones."""
    left = NAMES[tool]
    swap = {"Left": "Right", " L ": " R ", "_L_": "_R_", "L_": "R_", ".L": ".R", "_l": "_r"}

    def other(name):
        for one, another in swap.items():
            if one in name:
                return name.replace(one, another)
        return {"l": "r", "L": "R"}.get(name[0], name[0]) + name[1:]

    return dict(zip(PARTS, [*left, *map(other, left[5:])]))


def dance(frames=6, seed=0, bend_deg=40):
    """Rotations of each part within its parent {part: (T, 3, 3)} and the hips' places (T, 3), left, up, forward."""
    rng = np.random.default_rng(seed)
    turns = {
        part: Rotation.from_rotvec(np.radians(rng.uniform(-bend_deg, bend_deg, (frames, 3)))).as_matrix()
        for part in PARTS
    }
    turns["hips"] = turns["hips"] @ Rotation.from_rotvec([0, 2.5, 0]).as_matrix()
    return turns, rng.normal(0, 1, (frames, 3)) + [0, 1, 0]


def write_bvh(path, steps, frame=FRAMES["y up, facing z"], tool="cmu", orders="ZXY", fps=30.0, person=PERSON):
    """A BVH file of a dance in a file's axes and unit; `orders` is one order of angles for all or one for each part."""
    turns, places = steps
    names, orders = names_of(tool), orders if isinstance(orders, dict) else dict.fromkeys(PARTS, orders)
    offsets = {part: frame @ offset for part, _, offset in person}
    columns = [places @ frame.T]

    def block(part):
        matrices = frame @ turns[part] @ np.linalg.inv(frame)
        columns.append(Rotation.from_matrix(matrices).as_euler(orders[part], degrees=True))
        angles = " ".join(f"{axis}rotation" for axis in orders[part])
        position = "6 Xposition Yposition Zposition" if part == "hips" else "3"
        lines = [f"{'ROOT' if part == 'hips' else 'JOINT'} {names[part]}", "{", f"OFFSET {numbers(offsets[part])}"]
        lines.append(f"CHANNELS {position} {angles}")
        inner = [line for child, parent, _ in person if parent == part for line in block(child)]
        lines += inner or ["End Site", "{", f"OFFSET {numbers(frame @ [0, 0, 0.1])}", "}"]
        return ["\t" + line for line in [*lines, "}"]]

    lines = ["HIERARCHY", *block("hips"), "MOTION", f"Frames: {len(places)}", f"Frame Time: {1 / fps:.8f}"]
    path.write_text("\n".join([*lines, *map(numbers, np.concatenate(columns, axis=1))]) + "\n")
    return path


def numbers(values):
    return " ".join(f"{value:.9f}" for value in values)


def expected(turns):
    """(T, 21, 3, 3) world rotations of the channels in studio axes, by multiplying along the person's tree."""
    studio = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    world = {}
    for part, parent, _ in PERSON:
        world[part] = turns[part] if parent is None else world[parent] @ turns[part]
    return studio @ np.stack([world[FOLLOWS[channel]] for channel in CHANNELS], axis=1) @ studio.T


def degrees_between(a, b):
    """Degrees between rotations (..., 3, 3)."""
    skew = np.swapaxes(a, -1, -2) @ b
    sine = np.stack([skew[..., i, j] - skew[..., j, i] for i, j in ((0, 1), (0, 2), (1, 2))], -1) / 2
    return np.degrees(np.arctan2(np.linalg.norm(sine, axis=-1), (np.trace(skew, axis1=-2, axis2=-1) - 1) / 2))


def steady(fps, seconds):
    """A dance whose arm turns by 70 degrees a second and whose hips run 2 units a second."""
    times = np.arange(round(fps * seconds) + 1) / fps
    turns = {part: np.tile(np.eye(3), (len(times), 1, 1)) for part in PARTS}
    turns["upperarm.L"] = Rotation.from_rotvec(np.radians(70) * times[:, None] * [0, 0.6, 0.8]).as_matrix()
    return turns, np.stack([0 * times, 1 + 0 * times, 2 * times], axis=1)


def deepmimic_frame(duration_s=1 / 30, place=(0.0, 0.9, 0.0), **turns):
    """The 44 numbers of a frame: for joints that are named a quaternion, or an angle, for others no turn."""
    frame = [duration_s, *place]
    for joint, _, _, count in HUMANOID3D:
        if count:
            frame += np.ravel(turns.get(joint, 0.0 if count == 1 else [1.0, 0, 0, 0])).tolist()
    return frame


def write_deepmimic(path, *frames):
    path.write_text(json.dumps({"Loop": "wrap", "Frames": frames}))
    return path


# A person of ASF bones that hang on the root, legs turned out by 30 degrees.
ASF_BONES = (
    ("lhip root 0.1 0 0", "rhip root -0.1 0 0", "back root 0 0.5 0", "head back 0 0.2 0"),
    ("lfemur lhip 0.25 -0.4330127 0 30 rx,ry,rz", "rfemur rhip -0.25 -0.4330127 0 -30 rx,ry,rz"),
    ("ltibia lfemur 0.25 -0.4330127 0 30 rx", "rtibia rfemur -0.25 -0.4330127 0 -30 rx"),
    ("lfoot ltibia 0 0 0.2 30 rx,rz", "rfoot rtibia 0 0 0.2 -30 rx,rz"),
    ("lhumerus back 0.3 0 0 0 rx,ry,rz", "rhumerus back -0.3 0 0 0 rx,ry,rz"),
    ("lradius lhumerus 0.3 0 0 0 rx", "rradius rhumerus -0.3 0 0 0 rx"),
)


def write_asf(path):
    bones = [bone.split() for row in ASF_BONES for bone in row]
    lines = [":version 1.10", ":units", "  mass 1.0", "  length 0.45", "  angle deg", ":root"]
    lines += ["  order TX TY TZ RX RY RZ", "  axis XYZ", "  position 0 0 0", "  orientation 0 0 0", ":bonedata"]
    for name, _, x, y, z, *more in bones:
        vector = np.array([x, y, z], float)
        length = np.linalg.norm(vector)
        lines += ["  begin", f"    name {name}", f"    direction {numbers(vector / length)}", f"    length {length}"]
        lines += [f"    axis 0 0 {more[0] if more else 0} XYZ"]
        lines += [f"    dof {more[1].replace(',', ' ')}", "    limits (-160 20)", "           (0 1)"] if more else []
        lines += ["  end"]
    lines += [":hierarchy", "  begin", *(f"    {above} {name}" for name, above, *_ in bones), "  end"]
    path.write_text("\n".join(lines))
    return path


def write_amc(path, frames=5, **values):
    """Frames that are all alike: the root at (1, 2, 3), bones turned as said, else not."""
    lines = ["#!OML:ASF", ":FULLY-SPECIFIED", ":DEGREES"]
    moving = {"root": 6} | {
        bone.split()[0]: len(bone.split()[6].split(",")) for row in ASF_BONES for bone in row if "r" in bone[-2:]
    }
    for frame in range(frames):
        lines += [str(frame + 1)]
        lines += [
            f"{bone} {numbers(values.get(bone, [1, 2, 3, 0, 0, 0][:count] if bone == 'root' else [0] * count))}"
            for bone, count in moving.items()
        ]
    path.write_text("\n".join(lines) + "\n")
    return path
