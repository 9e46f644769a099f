"""Goals and their ends, as ROS and as the fleet say them. Neither ROS nor NATS is needed."""

import json

# What stands in error_code of a result, beside control_msgs' own 0 (SUCCESSFUL) and
# -1 (INVALID_GOAL). error_string always has fleetbus' code and its text.
SUCCESSFUL = 0
INVALID_GOAL = -1
UNKNOWN_OUTCOME = -100  # it may have moved: look before the next goal
FAILED = -101

# Errors of an action that do not say that it never began.
MAY_HAVE_RUN = {"unknown_outcome", "backend_failed", "internal"}


def to_body(goal, deadline_s):
    """Returns the JSON for the robot (examples/exec-python/move.py reads it); ValueError
    says why a goal cannot be forwarded. goal is a FollowJointTrajectory.Goal."""
    trajectory = goal.trajectory
    if trajectory.header.stamp.sec or trajectory.header.stamp.nanosec:
        raise ValueError("trajectory.header.stamp: found a time, allowed is 0 (begin at once): the clocks of two machines are not compared")
    multi = getattr(goal, "multi_dof_trajectory", None)
    if multi is not None and multi.points:
        raise ValueError(f"multi_dof_trajectory: found {len(multi.points)} points, allowed are none")
    names = list(trajectory.joint_names)
    if not names or not trajectory.points:
        raise ValueError(f"trajectory: found {len(names)} joint_names and {len(trajectory.points)} points, expected at least one of each")
    points = []
    for i, p in enumerate(trajectory.points):
        if len(p.positions) != len(names):
            raise ValueError(f"trajectory.points[{i}].positions: found {len(p.positions)}, expected one for each of {len(names)} joints")
        point = {"t": p.time_from_start.sec + p.time_from_start.nanosec / 1e9, "positions": [float(x) for x in p.positions]}
        if len(p.velocities):
            point["velocities"] = [float(x) for x in p.velocities]
        points.append(point)
    if points[-1]["t"] >= deadline_s:
        raise ValueError(f"trajectory: it takes {points[-1]['t']:g} s, and the parameter deadline_s is {deadline_s:g}: raise it")
    try:
        return json.dumps({"joint_names": names, "points": points}, allow_nan=False).encode()
    except ValueError:
        raise ValueError("trajectory: found a position or velocity that is not a number") from None


def positions_of(part):
    """The positions in a partial result of the robot, or None where it has none."""
    try:
        return [float(x) for x in json.loads(part)["positions"]]
    except (ValueError, KeyError, TypeError):
        return None


def refused(err):
    """Whether an error says that the goal did not run, so that it can still be rejected."""
    return err is not None and getattr(err, "code", "internal") not in MAY_HAVE_RUN


def end(err, told_to_stop):
    """How a goal ends: what to call on its handle, error_code, error_string.

    err is None or the error of the request. told_to_stop says that the robot has confirmed a
    cancellation: what is unknown then is only how far it had come."""
    if err is None:
        return "succeed", SUCCESSFUL, ""
    code = getattr(err, "code", "internal")
    if told_to_stop and code in {"unknown_outcome", "canceled"}:
        return "canceled", UNKNOWN_OUTCOME, f"canceled on its way; {err}"
    return "abort", {"unknown_outcome": UNKNOWN_OUTCOME, "bad_request": INVALID_GOAL}.get(code, FAILED), str(err)
