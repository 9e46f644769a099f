package mail_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/exchange/mail"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// A message reaches who is there at once, waits for who is away, and its sender learns both.
func TestStraightAndWaiting(t *testing.T) {
	s := natstest.Start(t)
	own := newBus(t, s)
	register(t, own, "r2", messages.DefaultSite)
	r1 := start(t, s, "r1", nil, nil)
	var b box
	r2 := start(t, s, "r2", &b, nil)
	if r := r1.send(t, "r2", "one"); r.State != messages.MailDelivered || r.Site != messages.DefaultSite {
		t.Errorf("%+v", r)
	}
	r2.end()
	var waiting []mail.Receipt
	for _, body := range []string{"two", "three"} {
		r := r1.send(t, "r2", body)
		if r.State != messages.MailWaiting {
			t.Errorf("to who is away: %+v", r)
		}
		waiting = append(waiting, r)
	}
	if r, err := r1.Status(within(t), waiting[0]); err != nil || r.State != messages.MailWaiting {
		t.Errorf("%+v %v", r, err)
	}
	s.Restart(t)
	start(t, s, "r2", &b, nil)
	for _, w := range waiting {
		if r, err := r1.Wait(within(t), w); err != nil || r.State != messages.MailDelivered {
			t.Errorf("%+v %v", r, err)
		}
	}
	// It is known to another process of the sender, too.
	r1.end()
	r1 = start(t, s, "r1", nil, nil)
	if r, err := r1.Wait(within(t), waiting[1]); err != nil || r.State != messages.MailDelivered {
		t.Errorf("%+v %v", r, err)
	}
	// A message is known to be handled a moment before it is out of the box.
	natstest.Eventually(t, patience, "it to go straight again", func() bool {
		_, n, err := own.MailWaiting(within(t), messages.DefaultSite, "r2", "")
		return err == nil && n == 0
	})
	if r := r1.send(t, "r2", "four"); r.State != messages.MailDelivered {
		t.Errorf("when nothing waits any more: %+v", r)
	}
	if got := b.all(); !slices.Equal(got, []string{"one", "two", "three", "four"}) {
		t.Errorf("handled %q", got)
	}
}

// Nothing overtakes and nothing comes twice, whatever comes and goes: the receiver and the
// sender are ended and begun anew, and links break, while messages flow.
func TestOrder(t *testing.T) {
	s := natstest.Start(t)
	register(t, newBus(t, s), "r2", messages.DefaultSite)
	var b box
	link := s.Link("r2")
	r2 := start(t, s, "r2", &b, nil, link.Dial())
	r1 := start(t, s, "r1", nil, nil)
	const n = 300
	straight, waited := 0, 0
	for i := range n {
		switch {
		case i%90 == 30:
			r2.end()
		case i%90 == 40:
			r2 = start(t, s, "r2", &b, nil, link.Dial())
		case i%90 == 60:
			r1.end()
			r1 = start(t, s, "r1", nil, nil)
		case i%90 == 70:
			link.Break()
		case i%90 == 75:
			link.Mend()
		case i%90 == 85:
			b.wait(t, i) // so that it goes straight again
		}
		id := fmt.Sprintf("m-%d", i)
		r, err := r1.Send(within(t), mail.Letter{To: "r2", Body: []byte(id), ID: id})
		must(t, err)
		switch r.State {
		case messages.MailDelivered:
			straight++
		case messages.MailWaiting:
			waited++
		}
	}
	link.Mend()
	got := b.wait(t, n)
	for i, body := range got {
		if want := fmt.Sprintf("m-%d", i); body != want {
			t.Fatalf("%d is %q, want %q; all: %q", i, body, want, got)
		}
	}
	if len(got) != n || straight == 0 || waited == 0 {
		t.Errorf("%d handled, %d straight, %d waited", len(got), straight, waited)
	}
}

// Many senders write to one receiver at once, each from many goroutines.
func TestManySenders(t *testing.T) {
	s := natstest.Start(t)
	register(t, newBus(t, s), "r0", messages.DefaultSite)
	var b box
	start(t, s, "r0", &b, nil)
	const senders, each = 5, 40
	var wg sync.WaitGroup
	for i := range senders {
		p := start(t, s, fmt.Sprintf("s%d", i), nil, nil)
		for range 4 {
			wg.Go(func() {
				for range each / 4 {
					if _, err := p.Send(within(t), mail.Letter{To: "r0", Body: []byte("x")}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	b.wait(t, senders*each)
	count := map[string]int{}
	for _, f := range b.from {
		count[f]++
	}
	for i := range senders {
		if count[fmt.Sprintf("s%d", i)] != each {
			t.Errorf("by sender: %v", count)
		}
	}
}

// What a handler says reaches the sender: not now, never, or a panic.
func TestHandlerSays(t *testing.T) {
	s := natstest.Start(t)
	register(t, newBus(t, s), "r2", messages.DefaultSite)
	var b box
	busy := true
	b.fail = func(m *mail.Message) error {
		switch string(m.Body) {
		case "bad":
			return messages.Errorf(messages.CodeBadRequest, "no such hall")
		case "error":
			return errors.New("it broke")
		case "panic":
			panic("at the disco")
		case "later":
			if busy {
				return messages.Errorf(messages.CodeBusy, "not now")
			}
		}
		return nil
	}
	start(t, s, "r2", &b, nil)
	r1 := start(t, s, "r1", nil, nil)
	for body, code := range map[string]messages.Code{"bad": messages.CodeBadRequest, "error": messages.CodeBackendFailed, "panic": messages.CodeBackendFailed} {
		for range 2 { // the second copy has the first one's answer
			r, err := r1.Send(within(t), mail.Letter{To: "r2", Body: []byte(body), ID: body})
			if r.State != messages.MailRefused || messages.CodeOf(err) != code {
				t.Errorf("%s: %+v %v", body, r, err)
			}
		}
	}
	later := r1.send(t, "r2", "later")
	behind := r1.send(t, "r2", "behind")
	if later.State != messages.MailWaiting || behind.State != messages.MailWaiting {
		t.Errorf("%+v %+v", later, behind)
	}
	other := start(t, s, "r3", nil, nil)
	if r := other.send(t, "r2", "of another"); r.State != messages.MailDelivered {
		t.Errorf("others wait for what is not theirs: %+v", r)
	}
	refused := r1.send(t, "r2", "bad")
	b.mu.Lock()
	busy = false
	b.mu.Unlock()
	if r, err := r1.Wait(within(t), refused); r.State != messages.MailRefused || messages.CodeOf(err) != messages.CodeBadRequest || !strings.Contains(err.Error(), "no such hall") {
		t.Errorf("%+v %v", r, err)
	}
	if got := b.all(); !slices.Equal(got, []string{"of another", "later", "behind"}) {
		t.Errorf("handled %q", got)
	}
}

// The same id is handled once, straight and waiting.
func TestSameID(t *testing.T) {
	s := natstest.Start(t)
	register(t, newBus(t, s), "r2", messages.DefaultSite)
	var b box
	r1, r2 := start(t, s, "r1", nil, nil), start(t, s, "r2", &b, nil)
	send := func(id string) messages.MailState {
		t.Helper()
		r, err := r1.Send(within(t), mail.Letter{To: "r2", Body: []byte(id), ID: id})
		must(t, err)
		return r.State
	}
	if a, b := send("a"), send("a"); a != messages.MailDelivered || b != messages.MailDelivered {
		t.Errorf("%s %s", a, b)
	}
	r2.end()
	if a, b := send("b"), send("b"); a != messages.MailWaiting || b != messages.MailWaiting {
		t.Errorf("%s %s", a, b)
	}
	start(t, s, "r2", &b, nil)
	b.wait(t, 2)
	if r := r1.send(t, "r2", "c"); r.State == "" {
		t.Error(r)
	}
	if got := b.wait(t, 3); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("handled %q", got)
	}
}

// A box that is full says so, and takes mail again when it was read.
func TestFullBox(t *testing.T) {
	s := natstest.Start(t)
	register(t, newBus(t, s), "r2", messages.DefaultSite)
	r1 := start(t, s, "r1", nil, nil)
	for i := range bus.MailMost {
		if r := r1.send(t, "r2", fmt.Sprint(i)); r.State != messages.MailWaiting {
			t.Fatalf("%d: %+v", i, r)
		}
	}
	_, err := r1.Send(within(t), mail.Letter{To: "r2", Body: []byte("one too many")})
	if messages.CodeOf(err) != messages.CodeBusy || !strings.Contains(err.Error(), "full") {
		t.Errorf("%v", err)
	}
	var b box
	start(t, s, "r2", &b, nil)
	got := b.wait(t, bus.MailMost)
	for i := range got {
		if got[i] != fmt.Sprint(i) {
			t.Fatalf("%d is %q", i, got[i])
		}
	}
	r1.send(t, "r2", "again")
	b.wait(t, bus.MailMost+1)
}

// Of two receivers of a name the newer one wins, also where the older one was away when it
// began; nothing is lost.
func TestSecondReceiver(t *testing.T) {
	s := natstest.Start(t)
	register(t, newBus(t, s), "r2", messages.DefaultSite)
	r1 := start(t, s, "r1", nil, nil)
	var b box
	wantConflict := func(r *running) {
		t.Helper()
		select {
		case err := <-r.ended:
			if messages.CodeOf(err) != messages.CodeConflict || !strings.Contains(err.Error(), "r2") {
				t.Errorf("%v", err)
			}
		case <-time.After(patience):
			t.Fatal("the older one goes on")
		}
	}
	first := start(t, s, "r2", &b, nil)
	r1.send(t, "r2", "0")
	link := s.Link("second")
	second := start(t, s, "r2", &b, nil, link.Dial())
	wantConflict(first)
	r1.send(t, "r2", "1")
	link.Break()
	start(t, s, "r2", &b, nil)
	r1.send(t, "r2", "2")
	link.Mend()
	wantConflict(second)
	r1.send(t, "r2", "3")
	if got := b.wait(t, 4); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
		t.Errorf("handled %q", got)
	}
}

// Two robots of a site write to one another although nothing else of the fleet is there:
// no coordinator, no registration. Another site's mail is kept apart.
func TestSites(t *testing.T) {
	s := natstest.Start(t)
	at := func(site string) func(*mail.Config) { return func(c *mail.Config) { c.Site = site } }
	var here, there box
	r1 := start(t, s, "r1", nil, at("hall-1"))
	r2 := start(t, s, "r2", &here, at("hall-1"))
	if r := r1.send(t, "r2", "near"); r.State != messages.MailDelivered || r.Site != "hall-1" {
		t.Errorf("%+v", r)
	}
	r2.end()
	r := r1.send(t, "r2", "later")
	if r.State != messages.MailWaiting || r.Site != "hall-1" {
		t.Errorf("%+v", r)
	}
	start(t, s, "r2", &here, at("hall-1"))
	here.wait(t, 2)
	_, err := r1.Send(within(t), mail.Letter{To: "r9", Body: []byte("x")})
	if messages.CodeOf(err) != messages.CodeNotFound || !strings.Contains(err.Error(), "r9") {
		t.Errorf("to nobody: %v", err)
	}
	register(t, newBus(t, s), "r9", "hall-2")
	if r := r1.send(t, "r9", "far"); r.State != messages.MailWaiting || r.Site != "hall-2" {
		t.Errorf("%+v", r)
	}
	start(t, s, "r9", &there, at("hall-2"))
	there.wait(t, 1)
	b := newBus(t, s)
	for _, site := range []string{"hall-1", "hall-2"} {
		natstest.Eventually(t, patience, "the box of "+site+" to be empty", func() bool {
			for _, name := range []string{"r2", "r9"} {
				if _, n, err := b.MailWaiting(within(t), site, name, ""); err != nil || n > 0 {
					return false
				}
			}
			return true
		})
	}
}

// Programs that know nothing but NATS write and read through their agent.
func TestPrograms(t *testing.T) {
	s := natstest.Start(t)
	b := newBus(t, s)
	register(t, b, "r1", messages.DefaultSite)
	register(t, b, "r2", messages.DefaultSite)
	programs := func(c *mail.Config) { c.Programs = true }
	start(t, s, "r1", nil, programs)
	start(t, s, "r2", nil, programs)
	nc := s.Connect(t)
	post := func(body string, h nats.Header) *nats.Msg {
		t.Helper()
		m, err := nc.RequestMsgWithContext(within(t), &nats.Msg{Subject: "fb.demo.main.mail.post.r1.r2", Data: []byte(body), Header: h})
		must(t, err)
		return m
	}
	if m := post("nobody reads yet", nil); m.Header.Get("Fb-Kind") != "waiting" || m.Header.Get("Fb-Id") == "" {
		t.Errorf("%v", m.Header)
	}
	got := make(chan *nats.Msg, 10)
	_, err := nc.ChanSubscribe("fb.demo.main.mail.read.r2.*", got)
	must(t, err)
	must(t, nc.Flush())
	read := func(want string, answer nats.Header) {
		t.Helper()
		select {
		case m := <-got:
			if string(m.Data) != want || m.Subject != "fb.demo.main.mail.read.r2.r1" || m.Header.Get("Fb-Id") == "" {
				t.Errorf("%s %v %q", m.Subject, m.Header, m.Data)
			}
			must(t, m.RespondMsg(&nats.Msg{Header: answer}))
		case <-time.After(patience):
			t.Fatalf("%q does not come", want)
		}
	}
	read("nobody reads yet", nil)
	go func() { read("now", nil) }()
	natstest.Eventually(t, patience, "it to go straight again", func() bool {
		_, n, err := b.MailWaiting(within(t), messages.DefaultSite, "r2", "")
		return err == nil && n == 0
	})
	if m := post("now", nats.Header{"Fb-Id": {"my-1"}, "Fb-Left-Ms": {"20000"}}); m.Header.Get("Fb-Id") != "my-1" || m.Header.Get("Fb-Error") != "" {
		t.Errorf("%v", m.Header)
	}
	for _, h := range []nats.Header{{"Fb-Id": {"not a name"}}, {"Fb-Left-Ms": {"1"}}, {"Fb-Left-Ms": {"x"}}} {
		if m := post("bad", h); m.Header.Get("Fb-Error") != "bad_request" {
			t.Errorf("%v: %v", h, m.Header)
		}
	}
	// Garbage is nobody's death.
	for _, subject := range []string{"fb.demo.main.mail.now.r2.r1", "fb.demo.main.mail.box.r2.r1", "fb.demo.main.mail.done.r1.r2.x"} {
		must(t, nc.PublishMsg(&nats.Msg{Subject: subject, Header: nats.Header{"Fb-Id": {"a", "b"}}, Data: []byte("junk")}))
	}
	// The simplest client of all: a request, and no headers but an id.
	go func() { read("simple", nil) }()
	m, err := nc.RequestMsgWithContext(within(t), &nats.Msg{Subject: "fb.demo.main.mail.now.r2.r1", Header: nats.Header{"Fb-Id": {"s-1"}}, Data: []byte("simple")})
	if err != nil || m.Header.Get("Fb-Kind") != "delivered" {
		t.Errorf("%v %v", m, err)
	}
}

func TestBadInput(t *testing.T) {
	s := natstest.Start(t)
	r1 := start(t, s, "r1", nil, nil)
	for _, tt := range []struct {
		l    mail.Letter
		code messages.Code
	}{
		{mail.Letter{}, messages.CodeBadRequest},
		{mail.Letter{To: "a.b"}, messages.CodeBadRequest},
		{mail.Letter{To: "r2", ID: "*"}, messages.CodeBadRequest},
		{mail.Letter{To: "r2", Site: "a b"}, messages.CodeBadRequest},
		{mail.Letter{To: "r2", Expires: time.Millisecond}, messages.CodeBadRequest},
		{mail.Letter{To: "r2", Expires: -time.Second}, messages.CodeBadRequest},
		{mail.Letter{To: "r2", Body: make([]byte, bus.MailBody+1)}, messages.CodePayloadTooLarge},
		{mail.Letter{To: "r2"}, messages.CodeNotFound},
	} {
		if _, err := r1.Send(within(t), tt.l); messages.CodeOf(err) != tt.code {
			t.Errorf("%+v: %v, want %s", tt.l.To, err, tt.code)
		}
	}
	if err := mail.New(nil, mail.Config{Fleet: fleet}).Run(within(t)); messages.CodeOf(err) != messages.CodeBadRequest {
		t.Errorf("without a name: %v", err)
	}
	if err := r1.Run(within(t)); messages.CodeOf(err) != messages.CodeConflict {
		t.Errorf("run twice: %v", err)
	}
	r1.end()
	if _, err := r1.Send(within(t), mail.Letter{To: "r2"}); err == nil {
		t.Error("a peer that has ended sends")
	}
	nc := s.Connect(t)
	nc.Close()
	if err := mail.New(nc, mail.Config{Fleet: fleet, Name: "r1", Logger: silent}).Run(within(t)); messages.CodeOf(err) != messages.CodeUnavailable {
		t.Errorf("on a closed connection: %v", err)
	}
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	if err := mail.New(s.Connect(t), mail.Config{Fleet: fleet, Name: "r1", Logger: silent}).Run(ctx); err != nil {
		t.Errorf("told to stop at once: %v", err)
	}
}
