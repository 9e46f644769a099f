import rclpy


class ExternalShutdownException(Exception):
    pass


class MultiThreadedExecutor:
    def __init__(self, num_threads):
        pass

    def add_node(self, node):
        self.node = node

    def spin(self):
        rclpy.scenario(self.node)
        raise KeyboardInterrupt
