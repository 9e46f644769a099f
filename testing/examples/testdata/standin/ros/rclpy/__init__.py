"""A stand-in for rclpy, for tests only: it has no middleware, and an action client's part is
played by rclpy.action.ActionServer.send. What the bridge of examples/ros2 does not use is
not here."""

parameters = {}  # what ros2 run would have set
scenario = None  # what happens while the executor spins; it is given the node


def init(args=None):
    pass


def try_shutdown():
    pass
