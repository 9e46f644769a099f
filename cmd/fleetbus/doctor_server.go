package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// What a server must have. Prioritized pulls came with 2.12; what was mended up to 2.12.7
// lets strangers in (leaf and route connections, TLS names) and must not stay open.
var (
	needVersion = [3]int{2, 12, 0}
	safeVersion = [3]int{2, 12, 7}
)

// Sizes of one observation of a robot of the DROID data set: two cameras, three cameras.
// They are what inference requests weigh in practice.
const (
	twoCameras   = 301_436
	threeCameras = 602_540
)

func (d *doctor) versions(_ context.Context, b *bus.Bus) {
	found := "nats-server " + b.Conn.ConnectedServerVersion()
	var v [3]int
	if n, _ := fmt.Sscanf(b.Conn.ConnectedServerVersion(), "%d.%d.%d", &v[0], &v[1], &v[2]); n < 3 {
		d.add("version", warn, found+": not a version that we can read", "2.12.7 or newer is needed")
		return
	}
	switch {
	case less(v, needVersion):
		d.add("version", bad, found+" has no prioritized pulls", "install 2.12.7 or newer")
	case less(v, safeVersion):
		d.add("version", warn, found+" has known security holes", "install 2.12.7 or newer")
	default:
		d.add("version", good, found, "")
	}
}

func less(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func (d *doctor) payload(_ context.Context, b *bus.Bus) {
	limit := b.Conn.MaxPayload()
	found := fmt.Sprintf("max_payload is %d bytes", limit)
	const do = "set max_payload: 8MB on every server"
	switch {
	case limit < twoCameras:
		d.add("payload", bad, fmt.Sprintf("%s: an observation of two cameras (%d) does not fit", found, twoCameras), do)
	case limit < threeCameras:
		d.add("payload", warn, fmt.Sprintf("%s: an observation of three cameras (%d) does not fit", found, threeCameras), do)
	case limit < messages.MaxControl:
		d.add("payload", warn, fmt.Sprintf("%s: the placement of a large agent (up to %d) may not fit", found, messages.MaxControl), do)
	default:
		d.add("payload", good, fmt.Sprintf("%s: observations of three cameras (%d) fit", found, threeCameras), "")
	}
}

// permissions subscribes to a subject of the fleet and publishes on it, and so finds a
// user that may not. What other subjects need is in docs/protocol.md.
func (d *doctor) permissions(ctx context.Context, b *bus.Bus) {
	const do = "give the user publish and subscribe on fb.<fleet>.>, $JS.API.> and _INBOX.>, or the rights that docs/protocol.md lists"
	if err := probe(ctx, b); err != nil {
		d.add("permissions", bad, err.Error(), do)
		return
	}
	d.add("permissions", good, "may publish and subscribe on "+messages.Root+"."+b.Fleet+"…"+d.user(ctx, b), "")
}

func probe(ctx context.Context, b *bus.Bus) error {
	// Every answer comes to an inbox; nothing is sent to this one.
	if _, err := b.Conn.SubscribeSync(b.Conn.NewInbox()); err != nil {
		return fmt.Errorf("subscribe to an inbox: %w", err)
	}
	subject := b.Subject(messages.KindControl, messages.FleetSite)
	subject.ID = "doctor-" + nuid.Next()
	sub, err := b.Conn.SubscribeSync(subject.String())
	if err == nil {
		err = b.Conn.Publish(subject.String(), nil)
	}
	if err == nil {
		err = b.Conn.FlushWithContext(ctx)
	}
	if err != nil {
		return fmt.Errorf("probe %s: %w", subject, err)
	}
	// The flush has brought the message back, and any refusal before it.
	if err := b.Conn.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		return err
	}
	// A second is far more than handing the message over takes.
	if _, err := sub.NextMsg(time.Second); err != nil {
		return fmt.Errorf("a probe on %s did not come back: %w", subject, err)
	}
	return nil
}

// serverInfo is the part that we read of the server's answer about the user.
type serverInfo struct {
	Server struct {
		Time time.Time `json:"time"`
	} `json:"server"`
	Data struct {
		User    string `json:"user"`
		Account string `json:"account"`
	} `json:"data"`
}

// userInfo asks the server who we are; any user may. sent is when the question went out.
func userInfo(ctx context.Context, nc *nats.Conn) (info serverInfo, sent time.Time, err error) {
	sent = time.Now()
	msg, err := nc.RequestWithContext(ctx, "$SYS.REQ.USER.INFO", nil)
	if err != nil {
		return info, sent, err
	}
	return info, sent, json.Unmarshal(msg.Data, &info)
}

func (d *doctor) user(ctx context.Context, b *bus.Bus) string {
	info, _, err := userInfo(ctx, b.Conn)
	if err != nil || info.Data.Account == "" {
		return ""
	}
	if info.Data.User == "" {
		return " (account " + info.Data.Account + ")"
	}
	return " (user " + info.Data.User + ", account " + info.Data.Account + ")"
}

// clock compares this host's clock with the server's. fleetbus never relies on it: it is
// told because logs, TLS and the expiry of credentials do.
func (d *doctor) clock(ctx context.Context, b *bus.Bus) {
	info, sent, err := userInfo(ctx, b.Conn)
	if err != nil || info.Server.Time.IsZero() {
		d.add("clock", warn, "the server does not tell its time", "")
		return
	}
	// The server read its clock somewhere between question and answer.
	middle := sent.Add(time.Since(sent) / 2)
	offset := info.Server.Time.Sub(middle).Round(time.Millisecond)
	off := offset.Abs().String()
	if offset == 0 {
		off = "less than 1ms"
	}
	found := fmt.Sprintf("the server's clock is %s off this one; requests do not depend on it", off)
	if offset.Abs() > 5*time.Second {
		d.add("clock", warn, found, "run NTP on both: TLS, expiring credentials and the times in logs need it")
		return
	}
	d.add("clock", good, found, "")
}

// jetstream looks at the account's limits.
func (d *doctor) jetstream(ctx context.Context, b *bus.Bus) {
	account, err := b.JS.AccountInfo(ctx)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		d.off = true
		d.add("jetstream", bad, "it is off on this server", "enable it: jetstream {} in the configuration, or `nats-server -js`")
		return
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		d.off = true
		d.add("jetstream", bad, "it is off for this account", "give the account JetStream limits")
		return
	case err != nil:
		d.off = true
		found, do := advice(bus.Explain(err, "ask for the account's limits"))
		d.add("jetstream", bad, found, do)
		return
	}
	l := account.Limits
	found := fmt.Sprintf("on; memory %s bytes, storage %s bytes, streams %s, consumers %s",
		limit(int64(account.Memory), l.MaxMemory), limit(int64(account.Store), l.MaxStore),
		limit(int64(account.Streams), int64(l.MaxStreams)), limit(int64(account.Consumers), int64(l.MaxConsumers)))
	switch {
	// Five streams a site; for the fleet events, bodies, checkpoints and what jobs say; and the buckets.
	case l.MaxStreams > 0 && l.MaxStreams < 9+len(bus.Buckets()):
		d.add("jetstream", bad, found+": too few streams", fmt.Sprintf("allow the account %d streams and 5 more a site", 9+len(bus.Buckets())))
	case l.MaxMemory == 0 || l.MaxStore == 0:
		d.add("jetstream", bad, found+": inference needs memory, everything else storage", "raise the account's limits")
	case l.MaxConsumers > 0 && l.MaxConsumers < 1000:
		d.add("jetstream", warn, found+": few consumers", "allow one consumer for each task and site, and one for each coordinator and router per bucket")
	default:
		d.add("jetstream", good, found, "")
	}
}

// limit writes "used/limit"; a limit below 0 is none.
func limit(used, most int64) string {
	if most < 0 {
		return fmt.Sprintf("%d/unlimited", used)
	}
	return fmt.Sprintf("%d/%d", used, most)
}
