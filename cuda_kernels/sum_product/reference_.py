"""The definition of sum-product on a tree, message by message."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuda_kernels.limb_message import limb_message


def sum_product(tree, active, n, count_twice, backend) -> Any:  # type: ignore[no-untyped-def]
    """The fields of `Marginals`, or None; `backend` does the single messages."""
    message: dict[tuple[int, int], Any] = {}
    scale: dict[tuple[int, int], float] = {}

    def belief(joint: int, but: int | None) -> tuple[Any, float]:
        value, log_scale = active.value[active.rows(joint)].copy(), 0.0
        for neighbour in tree.neighbours(joint):
            if neighbour != but:
                value *= message[neighbour, joint]
                log_scale += scale[neighbour, joint]
        return value, log_scale

    order = list(tree.order)
    upward = [(joint, int(tree.parents[joint])) for joint in reversed(order[1:])]
    for sender, receiver in upward + [(parent, child) for child, parent in reversed(upward)]:
        downward = tree.parents[receiver] == sender
        value, log_scale = belief(sender, None if count_twice and downward else receiver)
        here, there = active.place[active.rows(sender)], active.place[active.rows(receiver)]
        told = limb_message(value, here, there, tree.shell(sender, receiver), n, backend)
        top = float(told.max(initial=0.0))
        if not top > 0:
            return None
        message[sender, receiver], scale[sender, receiver] = told / top, log_scale + float(np.log(top))
    marginals = []
    for joint in range(len(order)):
        value, log_scale = belief(joint, None)
        total = float(value.sum())
        if not total > 0:
            return None
        marginals.append(value / total)
        if joint == order[0]:
            log_evidence = log_scale + float(np.log(total))
    none = np.zeros(0)
    parents = [int(parent) for parent in tree.parents]
    up = [message.get((joint, parent), none) for joint, parent in enumerate(parents)]
    down = [message.get((parent, joint), none) for joint, parent in enumerate(parents)]
    up_scale = np.array([scale.get((joint, parent), 0.0) for joint, parent in enumerate(parents)])
    down_scale = np.array([scale.get((parent, joint), 0.0) for joint, parent in enumerate(parents)])
    return up, down, up_scale, down_scale, np.concatenate(marginals), log_evidence
