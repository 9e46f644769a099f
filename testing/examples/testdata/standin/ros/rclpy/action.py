import threading
from enum import Enum

GoalResponse = Enum("GoalResponse", "REJECT ACCEPT")
CancelResponse = Enum("CancelResponse", "REJECT ACCEPT")


class GoalHandle:
    """What the server and the scenario see of one goal."""

    def __init__(self, server, goal):
        self._server, self.request, self.feedback, self.status = server, goal, [], "executing"
        self.is_cancel_requested, self.result = False, None
        self._thread = threading.Thread(target=self._execute)
        self._thread.start()

    def _execute(self):
        self.result = self._server.execute_callback(self)

    def publish_feedback(self, feedback):
        self.feedback.append(feedback)

    def succeed(self):
        self.status = "succeeded"

    def abort(self):
        self.status = "aborted"

    def canceled(self):
        assert self.is_cancel_requested
        self.status = "canceled"

    # The client's side.
    def cancel(self):
        assert self._server.cancel_callback(self) == CancelResponse.ACCEPT
        self.is_cancel_requested = True

    def wait(self, seconds):
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the goal did not end"
        return self


class ActionServer:
    def __init__(self, node, action_type, name, execute_callback, *, callback_group, goal_callback, cancel_callback):
        self.execute_callback, self.goal_callback, self.cancel_callback = execute_callback, goal_callback, cancel_callback

    def send(self, goal):
        """A client's goal: its handle where it is accepted, else None."""
        return GoalHandle(self, goal) if self.goal_callback(goal) == GoalResponse.ACCEPT else None
