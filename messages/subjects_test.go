package messages

import (
	"strings"
	"testing"
)

// subjectOf is a subject of a kind with every field that it has.
func subjectOf(kind Kind) Subject {
	s := Subject{Kind: kind, Fleet: "demo", Site: DefaultSite}
	for _, t := range layout(kind) {
		if f := s.field(t); f != nil {
			*f = map[string]string{"{agent}": "edge-1", "{origin}": "lab", "{class}": "inference", "{task}": "detect", "{id}": "a1", "{priority}": "high"}[t]
		}
	}
	return s
}

func kinds() []Kind {
	var list []Kind
	for _, l := range layouts {
		list = append(list, l.kind)
	}
	return list
}

// The layouts are a promise to every client that is not ours.
func TestSubjectLayouts(t *testing.T) {
	want := map[Kind]string{
		KindHeartbeat: "fb.demo.main.hb.edge-1",
		KindGoodbye:   "fb.demo.main.bye.edge-1",
		KindUnreached: "fb.demo.main.unreached.edge-1.lab",
		KindClaim:     "fb.demo.main.claim.edge-1",
		KindPlace:     "fb.demo.main.place.edge-1",
		KindDo:        "fb.demo.main.do.edge-1.lab.detect",
		KindProbe:     "fb.demo.main.probe.edge-1.lab",
		KindCancel:    "fb.demo.main.cancel.edge-1.lab",
		KindReply:     "fb.demo.main.res.edge-1.lab.a1",
		KindRequest:   "fb.demo.main.req.inference.lab.detect",
		KindAct:       "fb.demo.main.req.action.lab.edge-1.detect",
		KindWork:      "fb.demo.main.q.inference.detect.lab.a1",
		KindJob:       "fb.demo.main.jobs.high.detect.lab.a1",
		KindJobLog:    "fb.demo.main.joblog.edge-1.a1",
		KindTaskLog:   "fb.demo.main.tasklog.edge-1.detect.a1",
		KindIntent:    "fb.demo.main.journal.intent.edge-1.lab.a1",
		KindOutcome:   "fb.demo.main.journal.outcome.edge-1.lab.a1",
		KindQueued:    "fb.demo.main.journal.queued.edge-1.lab.a1",
		KindWake:      "fb.demo.main.wake.edge-1.lab",
		KindProgress:  "fb.demo.main.job.edge-1.a1",
		KindRoutes:    "fb.demo.main.routes",
		KindEvent:     "fb.demo.main.events.a1",
		KindControl:   "fb.demo.main.ctl.a1",

		KindStop:       "fb.demo.main.stop.edge-1",
		KindStopAll:    "fb.demo.main.stop",
		KindRelease:    "fb.demo.main.release.edge-1",
		KindReleaseAll: "fb.demo.main.release",
		KindStopAck:    "fb.demo.main.stopack.edge-1.a1",

		KindData:     "fb.demo.main.data",
		KindMail:     "fb.demo.main.mail.now.edge-1.lab",
		KindMailBox:  "fb.demo.main.mail.box.edge-1.lab",
		KindMailWake: "fb.demo.main.mail.wake.edge-1.lab",
		KindMailDone: "fb.demo.main.mail.done.edge-1.lab.a1",
		KindMailLife: "fb.demo.main.mail.life.lab",
		KindMailPost: "fb.demo.main.mail.post.lab.edge-1",
		KindMailRead: "fb.demo.main.mail.read.edge-1.lab",
	}
	for _, k := range kinds() {
		s := subjectOf(k)
		if s.String() != want[k] {
			t.Errorf("%s: %s, want %s", k, s, want[k])
		}
		if err := s.Check(); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		if got, err := ParseSubject(s.String()); err != nil || got != s {
			t.Errorf("ParseSubject(%s) = %+v, %v", s, got, err)
		}
		delete(want, k)
	}
	if len(want) > 0 {
		t.Errorf("kinds without a layout: %v", want)
	}
}

// No subject of one kind may look like one of another, or a permission would open both.
func TestSubjectsAreDistinct(t *testing.T) {
	matches := func(pattern, subject string) bool {
		p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
		if len(p) != len(s) {
			return false
		}
		for i := range p {
			if p[i] != "*" && p[i] != s[i] {
				return false
			}
		}
		return true
	}
	for _, a := range kinds() {
		pattern := Subject{Kind: a}.String()
		for _, b := range kinds() {
			// The four tokens of req.{class}… never are an action: Check sees to it.
			if subject := subjectOf(b).String(); matches(pattern, subject) != (a == b) {
				t.Errorf("%s matches %s", pattern, subject)
			}
		}
	}
}

func TestSubjectPatterns(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{Subject{Kind: KindHeartbeat, Fleet: "demo"}.String(), "fb.demo.*.hb.*"},
		{Subject{Kind: KindReply, Fleet: "demo", Origin: "lab", ID: "x1"}.String(), "fb.demo.*.res.*.lab.x1"},
		{Subject{Kind: KindDo, Fleet: "demo", Site: "main", Agent: "r1"}.String(), "fb.demo.main.do.r1.*.*"},
		{WorkPattern("demo", "main", Inference, ""), "fb.demo.main.q.inference.>"},
		{WorkPattern("demo", "main", Inference, "detect"), "fb.demo.main.q.inference.detect.>"},
		{JournalPattern("demo", "main"), "fb.demo.main.journal.>"},
	} {
		if tc.got != tc.want {
			t.Errorf("got %s, want %s", tc.got, tc.want)
		}
	}
}

func TestParseSubjectRefuses(t *testing.T) {
	for _, s := range []string{
		"", "fb", "fb.demo.main", "fb.demo.main.hb", "fb.demo.main.hb.", "fb.demo.main.hb.a.b", "fb.demo.main.what.a",
		"xx.demo.main.hb.a", "fb..main.hb.a", "fb.demo..hb.a", "fb.demo.main.hb.*", "fb.demo.main.hb.>", "fb.demo.*.hb.a",
		"fb.demo.main.hb.a b", "fb.demo.main.hb._a", "fb.demo._other.hb.a", "fb.demo.main.req.dreaming.lab.detect",
		"fb.demo.main.req.action.lab.hold", // an action without its robot
		"fb.demo.main.req.inference.lab.r1.hold", "fb.demo.main.q.inference.detect.lab", "fb.demo.main.hb.é",
		strings.Repeat("fb.", 1000), "fb.demo.main.hb." + strings.Repeat("a", 65), "FB.demo.main.hb.a", "fb.demo.main.HB.a",
	} {
		got, err := ParseSubject(s)
		if CodeOf(err) != CodeBadRequest || got != (Subject{}) {
			t.Errorf("ParseSubject(%q) = %+v, %v", shorten(s), got, err)
		} else if len(err.Error()) > 700 || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("not one short line: %q", err)
		}
	}
	if err := (Subject{Kind: "what", Fleet: "demo", Site: "main"}).Check(); err == nil {
		t.Error("an unknown kind passes")
	}
	if err := (Subject{Kind: KindRoutes, Fleet: "demo", Site: FleetSite}).Check(); err != nil {
		t.Error(err)
	}
}
