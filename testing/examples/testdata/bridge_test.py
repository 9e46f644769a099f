"""Plays an action client against the bridge of examples/ros2, with the stand-in for rclpy.
Run by ros2_test.go, with the server's URL in NATS_URL, and the processes of server and robot
in SERVER and ROBOT."""

import math
import os
import signal
import time
import unittest

import rclpy
from control_msgs.action import FollowJointTrajectory, point
from fleetbus_action_bridge import bridge, goals, wire


def goal(*points):
    g = FollowJointTrajectory.Goal()
    g.trajectory.joint_names = ["elbow"]
    for t, position in points:
        p = point()
        p.time_from_start.sec, p.time_from_start.nanosec, p.positions = int(t), int(t % 1 * 1e9), [position]
        g.trajectory.points.append(p)
    return g


def freeze(pid):
    """SIGSTOP, and waits until every thread has stopped: on a busy machine that takes a while."""
    os.kill(pid, signal.SIGSTOP)

    def state(task):
        with open(f"/proc/{pid}/task/{task}/stat") as f:
            return f.read().rpartition(")")[2].split()[0]

    while {state(task) for task in os.listdir(f"/proc/{pid}/task")} != {"T"}:
        time.sleep(0.01)


class Goals(unittest.TestCase):
    def test_body(self):
        g = goal((0.5, 1.0))
        self.assertEqual(goals.to_body(g, 30), b'{"joint_names": ["elbow"], "points": [{"t": 0.5, "positions": [1.0]}]}')
        g.trajectory.points[0].velocities = [2.0]
        self.assertIn(b'"velocities": [2.0]', goals.to_body(g, 30))

    def test_bad_goals(self):
        stamped, multi, nan, short = goal((1, 1.0)), goal((1, 1.0)), goal((1, math.nan)), goal((1, 1.0))
        stamped.trajectory.header.stamp.sec = 5
        multi.multi_dof_trajectory.points = [None]
        short.trajectory.points[0].positions = []
        for g, why in [(stamped, "stamp"), (multi, "multi_dof"), (nan, "not a number"), (short, "positions: found 0"), (goal(), "0 points"), (goal((30, 1.0)), "deadline_s")]:
            with self.assertRaisesRegex(ValueError, why):
                goals.to_body(g, 30)

    def test_end(self):
        unknown, busy = wire.FleetError("unknown_outcome", "x"), wire.FleetError("busy", "x")
        self.assertEqual(goals.end(None, False), ("succeed", 0, ""))
        self.assertEqual(goals.end(unknown, False), ("abort", goals.UNKNOWN_OUTCOME, "unknown_outcome: x"))
        self.assertEqual(goals.end(unknown, True)[:2], ("canceled", goals.UNKNOWN_OUTCOME))
        self.assertEqual(goals.end(busy, True)[:2], ("abort", goals.FAILED))
        self.assertEqual(goals.end(wire.FleetError("bad_request", "x"), False)[:2], ("abort", goals.INVALID_GOAL))
        self.assertEqual([goals.refused(e) for e in (None, unknown, busy, wire.FleetError("backend_failed", ""), RuntimeError())], [False, False, True, False, False])

    def test_positions(self):
        self.assertEqual(goals.positions_of(b'{"positions": [1, 2]}'), [1.0, 2.0])
        for part in (b"", b"\xff", b"{}", b"3", b'{"positions": 3}'):
            self.assertIsNone(goals.positions_of(part))


class Bridge(unittest.TestCase):
    def play(self, scenario, **parameters):
        rclpy.parameters = {"server": os.environ["NATS_URL"], **parameters}
        rclpy.scenario = scenario
        bridge.main()

    def test_parameters(self):
        for parameters, why in [({"robot": "a.b"}, "robot: found 'a.b'"), ({"deadline_s": -1.0}, "deadline: found"), ({"server": "nats://127.0.0.1:1"}, "no NATS server answers")]:
            with self.assertRaisesRegex(SystemExit, why):
                self.play(None, **parameters)

    def rejected(self, node, goal, why):
        self.assertIsNone(node.server.send(goal))
        self.assertIn(why, node.logged[-1])

    def test_absent_robot(self):
        self.play(lambda node: self.rejected(node, goal((0.1, 1.0)), "goal rejected: not_connected: "), robot="robot-9")

    def test_link(self):
        """A goal that comes while the server is silent is not kept for later."""

        def scenario(node):
            try:
                freeze(int(os.environ["SERVER"]))
                self.rejected(node, goal((0.1, 1.0)), "the link to the server is down; nothing was sent")
            finally:
                os.kill(int(os.environ["SERVER"]), signal.SIGCONT)

        self.play(scenario, refusal_wait_s=10.0)

    def test_end_with_a_goal_under_way(self):
        left = []
        self.play(lambda node: left.append(node.server.send(goal((0.1, 0.2), (20, 0.5)))))
        self.assertEqual((left[0].wait(20).status, left[0].result.error_code), ("aborted", goals.UNKNOWN_OUTCOME))
        # The robot was told: it takes the next goal at once.
        self.play(lambda node: self.assertEqual(node.server.send(goal((0.1, 0.2))).wait(20).status, "succeeded"))

    def test_goals(self):
        self.play(self.goals)

    def goals(self, node):
        send = node.server.send
        done = send(goal((0.1, 0.2), (0.3, 0.5))).wait(20)
        self.assertEqual((done.status, done.result.error_code, done.result.error_string), ("succeeded", 0, ""))
        self.assertEqual([f.actual.positions for f in done.feedback], [[0.2], [0.5]])
        self.assertEqual(done.feedback[0].joint_names, ["elbow"])

        self.rejected(node, goal((1, 1.0), (0.5, 1.0)), "goal rejected: bad_request: points[1].t: ")  # by the robot
        self.rejected(node, goal(), "goal rejected: trajectory: ")  # by the bridge

        long = send(goal((0.1, 0.2), (20, 0.5)))
        self.rejected(node, goal((0.1, 0.2)), "works on another one")
        long.cancel()
        long.wait(20)
        self.assertEqual((long.status, long.result.error_code), ("canceled", goals.UNKNOWN_OUTCOME))
        self.assertIn("its caller gave it up", long.result.error_string)

        self.assertEqual(send(goal((0.1, 0.2))).wait(20).status, "succeeded")

        # The robot is lost while it moves.
        lost = send(goal((0.1, 0.2), (20, 0.5)))
        while not lost.feedback:
            time.sleep(0.01)
        os.kill(int(os.environ["ROBOT"]), signal.SIGKILL)
        lost.wait(20)
        self.assertEqual((lost.status, lost.result.error_code), ("aborted", goals.UNKNOWN_OUTCOME))
        self.assertIn("unknown_outcome: ", lost.result.error_string)


if __name__ == "__main__":
    unittest.main(verbosity=2)
