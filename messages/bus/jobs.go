package bus

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// checkpointsTTL is how long a checkpoint is kept: as long as the record that names it.
const checkpointsTTL = jobsTTL

// CheckpointsName returns the name of the Object Store with the checkpoints of a fleet.
func CheckpointsName(fleet string) string { return "fb__" + fleet + "__checkpoints" }

// Checkpoints opens the Object Store with the checkpoints of jobs, and makes it where it is
// missing.
func (b *Bus) Checkpoints(ctx context.Context) (jetstream.ObjectStore, error) {
	cfg := jetstream.ObjectStoreConfig{
		Bucket: CheckpointsName(b.Fleet), Description: "fleetbus: checkpoints of jobs", TTL: checkpointsTTL, Storage: jetstream.FileStorage,
	}
	store, err := b.JS.ObjectStore(ctx, cfg.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		cfg.Replicas = b.count()
		store, err = b.JS.CreateObjectStore(ctx, cfg)
		if b.replicas == 0 && cfg.Replicas > 1 && tooFewPeers(err) {
			cfg.Replicas = 1
			store, err = b.JS.CreateObjectStore(ctx, cfg)
		}
		if errors.Is(err, jetstream.ErrBucketExists) {
			store, err = b.JS.ObjectStore(ctx, cfg.Bucket)
		}
	}
	return store, Explain(err, "open the object store "+cfg.Bucket)
}

// CheckpointThere asks the leader of the store whether a checkpoint is there: any other
// server may be behind, and a checkpoint that is said to be gone costs a job all its work.
// The code of the error is unavailable where there is no leader.
func (b *Bus) CheckpointThere(ctx context.Context, name string) (bool, error) {
	store := CheckpointsName(b.Fleet)
	tried := "look for checkpoint " + name
	// The Object Store encodes names, and leaves a mark of what was deleted.
	s, ok, err := b.last(ctx, "OBJ_"+store, "$O."+store+".M."+base64.URLEncoding.EncodeToString([]byte(name)), tried)
	if err != nil || !ok {
		return false, err
	}
	var meta struct {
		Deleted bool `json:"deleted"`
	}
	if err := json.Unmarshal(s.Data, &meta); err != nil {
		return false, Explain(err, tried)
	}
	return !meta.Deleted, nil
}

// Entry is an entry of a bucket as it was read, with its revision.
type Entry struct {
	Value []byte
	Rev   uint64
}

// manyMost is how many entries are asked for at once: with the largest results they stay
// below what the server sends in one go (its max_pending, 64 MiB by default).
const manyMost = 64

// Records reads the entries of several keys of the jobs bucket at once, from whatever
// server has a copy; keys without an entry are absent, at most 64 may be asked for. An
// error, code unavailable, says that some are not known.
func (b *Bus) Records(ctx context.Context, keys []string) (map[string]Entry, error) {
	found := make(map[string]Entry, len(keys))
	if len(keys) == 0 {
		return found, nil
	}
	if len(keys) > manyMost {
		return nil, messages.Errorf(messages.CodeBadRequest, "read %d records at once; allowed are %d", len(keys), manyMost)
	}
	const what = "read the records of jobs"
	prefix := BucketSubject(b.Fleet, Jobs, "")
	ask := struct {
		Last []string `json:"multi_last"`
	}{make([]string, len(keys))}
	for i, k := range keys {
		ask.Last[i] = prefix + k
	}
	data, err := json.Marshal(ask)
	if err != nil {
		return nil, Explain(err, what)
	}
	inbox := b.Conn.NewInbox()
	sub, err := b.Conn.SubscribeSync(inbox)
	if err != nil {
		return nil, Explain(err, what)
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only where the connection is closed
	if err := b.Conn.PublishRequest(b.api()+".DIRECT.GET.KV_"+BucketName(b.Fleet, Jobs), inbox, data); err != nil {
		return nil, Explain(err, what)
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, Explain(err, what)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204", "404": // the end; none of them
			if left := m.Header.Get("Nats-Num-Pending"); status == "204" && left != "0" && left != "" {
				return nil, messages.Errorf(messages.CodeUnavailable, "%s: the server kept %s back", what, left)
			}
			return found, nil
		default:
			if noResponders(m) {
				err = nats.ErrNoResponders
			} else {
				err = errors.New("status " + status + " " + m.Header.Get("Description"))
			}
			return nil, messages.AsError(Explain(err, what), messages.CodeUnavailable)
		}
		subject := m.Header.Get("Nats-Subject")
		seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
		if err != nil || len(subject) <= len(prefix) {
			return nil, messages.Errorf(messages.CodeInternal, "%s: the server's answer names subject %q and sequence %q", what, subject, m.Header.Get("Nats-Sequence"))
		}
		if m.Header.Get("KV-Operation") == "" { // else it was deleted
			found[subject[len(prefix):]] = Entry{m.Data, seq}
		}
	}
}

func noResponders(m *nats.Msg) bool {
	return len(m.Data) == 0 && m.Header.Get("Status") == "503"
}

// Work is a job as it stands in its stream.
type Work struct {
	Site     string
	Task     string
	Origin   string
	ID       string
	Priority messages.Priority
	Subject  string
	Seq      uint64
	Stored   time.Time // on the server's clock
	Header   nats.Header
	Body     []byte // nil where it was not asked for
}

// Record is how a job reads that nobody has begun.
func (w Work) Record() messages.Job {
	job := messages.Job{ID: w.ID, Task: w.Task, Origin: w.Origin, Site: w.Site, State: messages.GoalAccepted, Created: w.Stored.UTC()}
	if w.Priority != messages.Normal {
		job.Priority = w.Priority
	}
	return job
}

// ParseWork reads what stands in a jobs stream.
func ParseWork(subject string, seq uint64, stored time.Time, header nats.Header, body []byte) (Work, error) {
	s, err := messages.ParseSubject(subject)
	if err != nil {
		return Work{}, err
	}
	if s.Kind != messages.KindJob {
		return Work{}, messages.Errorf(messages.CodeBadRequest, "subject %q is not that of a job", subject)
	}
	return Work{s.Site, s.Task, s.Origin, s.ID, s.Priority, subject, seq, stored, header, body}, nil
}

// JobSites returns the sites that have a jobs stream.
func (b *Bus) JobSites(ctx context.Context) (sites []string, err error) {
	list := b.JS.StreamNames(ctx, jetstream.WithStreamListSubject(messages.JobPattern(b.Fleet, "*", "", "")))
	first, last := "FB__"+b.Fleet+"__", "__jobs"
	for name := range list.Name() {
		if len(name) > len(first)+len(last) && name[:len(first)] == first && name[len(name)-len(last):] == last {
			sites = append(sites, name[len(first):len(name)-len(last)])
		}
	}
	return sites, Explain(list.Err(), "list the streams with jobs")
}

// Find returns the work of a job in the stream of a site; code not_found where it is not
// there. Its subject may have "*" in it.
func (b *Bus) Find(ctx context.Context, s messages.Subject) (Work, error) {
	name := StreamName(b.Fleet, s.Site, messages.Training)
	stream, err := b.JS.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return Work{}, messages.Errorf(messages.CodeNotFound, "job %s is not in the queue of site %s", s.ID, s.Site)
	}
	if err != nil {
		return Work{}, Explain(err, "look for job "+s.ID+" in stream "+name)
	}
	m, err := stream.GetLastMsgForSubject(ctx, s.String())
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Work{}, messages.Errorf(messages.CodeNotFound, "job %s is not in the queue of site %s", s.ID, s.Site)
	}
	if err != nil {
		return Work{}, Explain(err, "look for job "+s.ID+" in stream "+name)
	}
	return ParseWork(m.Subject, m.Sequence, m.Time, m.Header, m.Data)
}

// Waiting calls use with every job in the stream of a site, the oldest first and without
// its body, until use returns false.
func (b *Bus) Waiting(ctx context.Context, site string, use func(Work) bool) error {
	name := StreamName(b.Fleet, site, messages.Training)
	what := "list the jobs in stream " + name
	c, err := b.JS.CreateConsumer(ctx, name, jetstream.ConsumerConfig{
		Description: "fleetbus: a list of jobs", AckPolicy: jetstream.AckNonePolicy, HeadersOnly: true,
		InactiveThreshold: queuedLinger, MemoryStorage: true, Replicas: 1, // who reads begins again
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return Explain(err, what)
	}
	defer func() { _ = b.JS.DeleteConsumer(context.WithoutCancel(ctx), name, c.CachedInfo().Name) }() // else it goes by itself
	for left := int(c.CachedInfo().NumPending); left > 0; {
		batch, err := c.Fetch(min(left, listBatch), jetstream.FetchMaxWait(queuedFetch))
		if err != nil {
			return Explain(err, what)
		}
		n := 0
		for m := range batch.Messages() {
			n++
			meta, err := m.Metadata()
			if err != nil {
				continue
			}
			if w, err := ParseWork(m.Subject(), meta.Sequence.Stream, meta.Timestamp, m.Headers(), nil); err == nil && !use(w) {
				return nil
			}
		}
		if left -= n; n == 0 && left > 0 {
			if ctx.Err() == nil {
				return nil // the last ones have left the queue meanwhile
			}
			return Explain(ctx.Err(), what)
		}
	}
	return nil
}

// listBatch is how many jobs are asked for at once.
const listBatch = 256

// Remove takes the work of a job out of its stream. That it is not there is no error.
func (b *Bus) Remove(ctx context.Context, w Work) error {
	what := "remove job " + w.ID
	// The client library asks for the stream's state first, which for a long queue costs more
	// than the deletion.
	ask := []byte(`{"seq":` + strconv.FormatUint(w.Seq, 10) + `,"no_erase":true}`)
	m, err := b.Conn.RequestWithContext(ctx, b.api()+".STREAM.MSG.DELETE."+StreamName(b.Fleet, w.Site, messages.Training), ask)
	if err != nil {
		return Explain(err, what)
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return messages.Errorf(messages.CodeUnavailable, "%s: the server's answer cannot be read: %v", what, err)
	}
	// The server has no code of its own for a message that is gone.
	if answer.Error == nil || strings.Contains(answer.Error.Description, "no message found") {
		return nil
	}
	return Explain(answer.Error, what)
}

// Renew puts the work of a job into its queue again, behind those that wait: it was
// acknowledged by somebody though the job has not ended, or it is to run once more. The
// code is conflict where somebody else has renewed or removed it first.
func (b *Bus) Renew(ctx context.Context, w Work, attempt int) error {
	m := &nats.Msg{Subject: w.Subject, Header: nats.Header{}, Data: w.Body}
	for k, v := range w.Header {
		if !strings.HasPrefix(k, "Nats-") { // what the client library or the server has set
			m.Header[k] = v
		}
	}
	m.Header[messages.HeaderAttempt] = []string{strconv.Itoa(attempt)}
	_, err := b.JS.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(w.Seq), jetstream.WithRetryAttempts(0))
	return Explain(err, "queue job "+w.ID+" again")
}

// MostRecords is how many keys [Bus.Records] takes.
const MostRecords = manyMost

// Release makes the consumer of a task give a job that it has delivered to somebody who is
// gone to somebody else, when pause is over. Where nobody has it, nothing happens.
func (b *Bus) Release(c *jetstream.ConsumerInfo, seq uint64, pause time.Duration) error {
	// The server looks at the stream's sequence, and wants a delivery that it has made.
	subject := "$JS.ACK." + c.Stream + "." + c.Name + ".1." + strconv.FormatUint(seq, 10) + "." + strconv.FormatUint(c.Delivered.Consumer, 10) + ".0.0"
	word := Nak
	if pause > 0 {
		word = NakDelay(pause)
	}
	return Explain(b.Conn.Publish(subject, word), "give a job to another executor")
}
