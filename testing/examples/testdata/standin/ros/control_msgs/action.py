"""A stand-in for control_msgs: the fields that the bridge reads and writes."""

from types import SimpleNamespace


def point():
    return SimpleNamespace(positions=[], velocities=[], time_from_start=SimpleNamespace(sec=0, nanosec=0))


class FollowJointTrajectory:
    class Goal:
        def __init__(self):
            header = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0))
            self.trajectory = SimpleNamespace(header=header, joint_names=[], points=[])
            self.multi_dof_trajectory = SimpleNamespace(points=[])

    class Feedback:
        def __init__(self):
            self.joint_names, self.actual = [], point()

    class Result:
        def __init__(self):
            self.error_code, self.error_string = 0, ""
