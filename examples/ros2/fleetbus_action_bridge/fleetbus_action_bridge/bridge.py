"""A ROS 2 action server whose goals are executed by a robot of a fleet.

An action client (MoveIt, your planner) sends its FollowJointTrajectory goals here as it would
to a controller; each becomes an action of fleetbus, delivered to the robot at most once.

Two threads meet in Flight: ROS' callbacks, which may block because the executor has others,
and an asyncio loop, which has the NATS connection to itself.
"""

import asyncio
import concurrent.futures
import queue
import threading
import uuid
from types import SimpleNamespace

import rclpy
from control_msgs.action import FollowJointTrajectory
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

from . import ask, goals, wire


class Flight:
    """One goal on its way to the robot and back."""

    def __init__(self):
        self.request_id = uuid.uuid4().hex
        self.news = queue.Queue()  # partial results, and None at the end
        self.heard = threading.Event()  # a first sign: the robot is at it, or it has ended
        self.future = None  # the answer, or the error
        self.told_to_stop = False  # the robot has confirmed that


class Bridge(Node):
    def __init__(self):
        super().__init__("fleetbus_action_bridge")
        text = {"server": "nats://127.0.0.1:4222", "creds": "", "fleet": "fleet", "site": "main", "origin": "ros2-bridge", "robot": "robot-1", "task": "move", "action": "follow_joint_trajectory"}
        self.to = SimpleNamespace(**{name: self.declare_parameter(name, default).value for name, default in text.items()})
        # From the goal's arrival to its end, the movement included.
        self.deadline_s = self.declare_parameter("deadline_s", 30.0).value
        # A refusal comes within tens of milliseconds; a goal of which nothing was heard for
        # this long is accepted, and aborted if it is refused after all.
        self.refusal_wait_s = self.declare_parameter("refusal_wait_s", 0.5).value
        wire.Deadline(self.deadline_s * 1000)  # wrong parameters are found now
        wire.subject("action", self.to.fleet, self.to.site, self.to.origin, self.to.robot, self.to.task)

        self.episode = wire.Episode()  # of this run of the node
        self.lock, self.flight = threading.Lock(), None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        try:
            self.nc = self.wait_for(ask.connect(self.to.server, self.to.origin, self.to.creds or None), 10)
        except Exception:
            self.stop_loop()
            raise
        self.server = ActionServer(
            self, FollowJointTrajectory, self.to.action, self.execute, callback_group=ReentrantCallbackGroup(),
            goal_callback=self.on_goal, cancel_callback=self.on_cancel,
        )
        self.get_logger().info(f"goals of {self.to.action} go to {self.to.robot}, task {self.to.task}")

    def spawn(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def wait_for(self, coroutine, seconds):
        return self.spawn(coroutine).result(seconds)

    def on_goal(self, goal):
        """Sends the goal, and accepts it unless it is refused."""
        try:
            body = goals.to_body(goal, self.deadline_s)
        except ValueError as err:
            self.get_logger().error(f"goal rejected: {err}")
            return GoalResponse.REJECT
        with self.lock:
            if self.flight is not None and not self.flight.future.done():
                self.get_logger().error(f"goal rejected: {self.to.robot} works on another one; cancel that first")
                return GoalResponse.REJECT
            flight = self.flight = Flight()
            flight.future = self.spawn(self.send(flight, body))
        flight.future.add_done_callback(lambda _: (flight.news.put(None), flight.heard.set()))
        flight.heard.wait(self.refusal_wait_s)
        if flight.future.done() and goals.refused(flight.future.exception()):
            self.get_logger().error(f"goal rejected: {flight.future.exception()}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    async def send(self, flight, body):
        def progress(headers, part):
            if "Fb-Part" in headers:
                flight.news.put(part)
            flight.heard.set()

        # With an id of ours, so that it can be canceled; it is sent once.
        return await ask.act(
            self.nc, self.to.fleet, self.to.site, self.to.origin, self.to.robot, self.to.task, body,
            wire.Deadline(self.deadline_s * 1000), self.episode, progress, flight.request_id,
        )

    def on_cancel(self, goal_handle):
        """execute() passes it on, for as long as the goal runs."""
        return CancelResponse.ACCEPT

    def execute(self, goal_handle):
        flight = self.flight
        while True:
            if goal_handle.is_cancel_requested and not flight.told_to_stop:
                self.cancel(flight)  # again, where the robot did not have it yet
            try:
                part = flight.news.get(timeout=0.1)
            except queue.Empty:
                continue
            if part is None:
                break
            positions = goals.positions_of(part)
            if positions is not None:
                feedback = FollowJointTrajectory.Feedback()
                feedback.joint_names = list(goal_handle.request.trajectory.joint_names)
                feedback.actual.positions = positions
                goal_handle.publish_feedback(feedback)
        err = wire.lost("action") if flight.future.cancelled() else flight.future.exception()
        how, code, why = goals.end(err, flight.told_to_stop and goal_handle.is_cancel_requested)
        getattr(goal_handle, how)()
        if why:
            self.get_logger().error(f"goal {how}: {why}")
        result = FollowJointTrajectory.Result()
        result.error_code, result.error_string = code, why
        return result

    def cancel(self, flight):
        """Tells the robot to stop what it does for this flight."""
        try:
            heard = self.wait_for(ask.cancel(self.nc, self.to.fleet, self.to.site, self.to.robot, self.to.origin, flight.request_id), 3)
            flight.told_to_stop = flight.told_to_stop or bool(heard)
        except Exception as err:  # the goal's own end tells the rest
            self.get_logger().error(f"the cancellation could not be sent: {err}")

    def close(self):
        """Ends the node. A goal that still runs is canceled: nobody would watch it."""
        if self.flight is not None and not self.flight.future.done():
            self.cancel(self.flight)
            concurrent.futures.wait([self.flight.future], 2)
            self.flight.future.cancel()  # where nothing came: execute() must end all the same
        self.wait_for(self.nc.close(), 3)
        self.stop_loop()

    def stop_loop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(3)


def main(args=None):
    rclpy.init(args=args)
    try:
        bridge = Bridge()
    except (wire.FleetError, ValueError) as err:
        rclpy.try_shutdown()
        raise SystemExit(f"fleetbus_action_bridge: {err}") from None
    executor = MultiThreadedExecutor(num_threads=4)  # a goal, its cancellation, and the next one that is rejected
    executor.add_node(bridge)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        bridge.close()
        bridge.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
