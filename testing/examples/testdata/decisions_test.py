"""Tests of what decides in the Python examples. Run by python_test.go."""

import threading
import unittest

import camera
import move
import wire


class Wire(unittest.TestCase):
    def test_subject(self):
        self.assertEqual(wire.subject("inference", "fleet", "main", "me", "detect"), "fb.fleet.main.req.inference.me.detect")
        self.assertEqual(wire.subject("action", "fleet", "hall-2", "me", "robot-1", "move"), "fb.fleet.hall-2.req.action.me.robot-1.move")
        for names in [(), ("a.b",), ("a b",), ("",), ("x" * 65,), ("-x",), ("a__b",), ("é",), ("a\n",), ("a", "b")]:
            with self.assertRaises(ValueError):
                wire.subject("training", "fleet", "main", "me", *names)

    def test_headers(self):
        got = wire.headers(left_ms=200, key="cam", content_type="image/raw", episode=None, id="a1")
        self.assertEqual(got, {"Fb-Left-Ms": "200", "Fb-Key": "cam", "Content-Type": "image/raw", "Fb-Id": "a1"})
        self.assertNotEqual(wire.headers()["Fb-Id"], wire.headers()["Fb-Id"])

    def test_deadline(self):
        now = [100.0]
        d = wire.Deadline(500, clock=lambda: now[0])
        self.assertEqual(d.left_ms(), 500)
        now[0] = 100.2504
        self.assertEqual(d.left_ms(), 249)
        now[0] = 101
        self.assertEqual(d.left_ms(), 0)
        for ms in (0, -1, 86_400_001):
            with self.assertRaises(ValueError):
                wire.Deadline(ms)

    def test_errors(self):
        self.assertIsNone(wire.error_of(None))
        self.assertIsNone(wire.error_of({"Fb-Kind": "result"}))
        err = wire.error_of({"Fb-Error": "busy", "Fb-Error-Message": "full", "Fb-Retry-After-Ms": "120"})
        self.assertEqual((err.code, err.message, err.retry_after_ms), ("busy", "full", 120))
        self.assertEqual(wire.error_of({"Status": "503"}).code, "unavailable")
        self.assertEqual(wire.lost("action").code, "unknown_outcome")
        self.assertEqual(wire.lost("inference").code, "unavailable")

    def test_pause(self):
        pause = lambda code, tries=1, left=10_000, after=None: wire.pause_ms(wire.FleetError(code, "", after), tries, left)
        self.assertEqual(pause("busy", after=120), 120)
        self.assertEqual(pause("busy", after=0), 0)
        self.assertIsNone(pause("busy", after=120, left=129))
        self.assertEqual(pause("busy", after=120, left=130), 120)
        self.assertEqual([pause("not_placed", tries=n) for n in (1, 2, 3, 7, 99)], [50, 100, 200, 2000, 2000])
        for code in ("unknown_outcome", "superseded", "backend_failed", "draining", "stale", "stopped", "expired", "deadline_exceeded", "a_new_one"):
            self.assertIsNone(pause(code), code)

    def test_episode(self):
        e = wire.Episode()
        self.assertEqual([e.next(), e.next()], [1, 2])
        self.assertNotEqual(e.name, wire.Episode().name)

    def test_parts(self):
        p = wire.Parts()
        take = lambda attempt, part, body: p.take({"Fb-Attempt": str(attempt), "Fb-Part": str(part)}, body)
        self.assertTrue(take(1, 1, b"a") and take(1, 2, b"b"))
        self.assertFalse(take(1, 2, b"b"))
        self.assertTrue(take(2, 1, b"A"))
        self.assertFalse(take(1, 3, b"c"))
        self.assertTrue(p.take({"Fb-Attempt": "2", "Fb-Done": "500"}, b""))
        self.assertEqual(p.bodies, {1: b"A"})

    def test_cancel(self):
        self.assertEqual(wire.cancel_body("ab"), bytes([0x82, 0xA1]) + b"v" + bytes([1, 0xA3]) + b"ids" + bytes([0x91, 0xD9, 2]) + b"ab")
        self.assertEqual(wire.cancel_subject("fleet", "main", "robot-1", "me"), "fb.fleet.main.cancel.robot-1.me")
        with self.assertRaises(ValueError):
            wire.cancel_body("a b")


class Camera(unittest.TestCase):
    def test_newest(self):
        n = camera.Newest()
        self.assertTrue(n.answer(3, 0.02))
        self.assertFalse(n.answer(2, 0.05))
        self.assertTrue(n.answer(4, 0.03))
        n.error(wire.FleetError("superseded", ""), 10.0)
        self.assertEqual(n.quiet_until, 0.0)
        n.error(wire.FleetError("busy", "", 250), 10.0)
        n.error(wire.FleetError("busy", "", 100), 10.0)
        self.assertEqual(n.quiet_until, 10.25)
        self.assertEqual(n.summary(6, 1), "sent 6, skipped 1, busy 2, older than one that was used 1, superseded 1, used 2; age of an answer: median 30.0 ms, worst 30.0 ms")


class Move(unittest.TestCase):
    def test_parse(self):
        self.assertEqual(move.parse(b'{"joint_names": ["a"], "points": [{"t": 0.5, "positions": [1]}]}'), [(0.5, [1.0])])
        for body in [b"", b"[]", b"\xff", b"{}", b'{"joint_names": ["a"], "points": []}',
                     b'{"joint_names": ["a"], "points": [{"t": 0.5, "positions": []}]}',
                     b'{"joint_names": ["a"], "points": [{"t": NaN, "positions": [1]}]}',
                     b'{"joint_names": ["a"], "points": [{"t": 2, "positions": [1]}, {"t": 1, "positions": [1]}]}']:
            with self.assertRaises(move.Refused):
                move.parse(body)

    def test_execute(self):
        told, arm, stop = [], move.Arm(), threading.Event()
        self.assertEqual(move.execute(arm, [(0, [1.0]), (0.01, [2.0])], None, stop, lambda done, at: told.append((done, at))), "done")
        self.assertEqual((told, arm.positions), ([(0.5, [1.0]), (1.0, [2.0])], [2.0]))
        self.assertEqual(move.execute(arm, [(0.5, [3.0])], 0.01, stop, None), "late")
        stop.set()
        self.assertEqual(move.execute(arm, [(30, [3.0])], None, stop, None), "canceled")
        self.assertEqual(arm.positions, [2.0])


unittest.main()
