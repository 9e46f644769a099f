import sys
from types import SimpleNamespace

import rclpy


class Node:
    def __init__(self, name):
        self.name, self.logged = name, []

    def declare_parameter(self, name, default):
        value = rclpy.parameters.get(name, default)
        assert type(value) is type(default), (name, value)
        return SimpleNamespace(value=value)

    def get_logger(self):
        def say(text):
            self.logged.append(text)
            print(text, file=sys.stderr, flush=True)

        return SimpleNamespace(info=say, error=say)

    def destroy_node(self):
        pass
