package data

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data/drift"
	"github.com/fleetbus/fleetbus/internal/bodyfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// What users need of package drift.
type (
	Record = drift.Record
	Line   = drift.Line
)

// cleanTime bounds what is tidied up after a write that failed or succeeded, when the
// caller's own time may be over.
const cleanTime = 5 * time.Second

// Store reads and writes named bodies, for programs and people. Its methods may be called
// from many goroutines. Errors are [*messages.Error]s.
type Store struct{ b *bus.Bus }

// NewStore makes a store. It sends nothing.
func NewStore(b *bus.Bus) *Store { return &Store{b: b} }

// Body is what is to be held, by whom.
type Body struct {
	Name string
	For  messages.Audience // the zero value: everybody
	Type string            // content type, for who reads it
	By   string            // who writes it, for people

	// Expect is the revision that this write is to replace, 0 where there is to be none. nil:
	// whatever is there when Put begins.
	Expect *uint64
}

// Put stores a body, to its end, and makes its record: from then on the audience is to hold
// it. Persist, then say so: the record is written when the body is stored whole, and
// agents are told when the record is. A body that the record has already is not sent again,
// where r can be read twice (it is an [io.Seeker]).
//
// An error with code conflict says that somebody else wrote first, and that nothing was
// changed.
func (s *Store) Put(ctx context.Context, body Body, r io.Reader) (Record, error) {
	if err := messages.CheckName("data", body.Name); err != nil {
		return Record{}, err
	}
	if err := body.For.Check(); err != nil {
		return Record{}, err
	}
	before, err := s.expect(ctx, body.Name, body.Expect)
	if err != nil {
		return Record{}, err
	}
	next := before.Data
	next.Name, next.Rev, next.For, next.Type, next.By, next.Removed = body.Name, before.Rev+1, body.For, body.Type, body.By, false
	same, err := sameBody(r, before.Data)
	if err != nil {
		return Record{}, err
	}
	if same {
		return s.write(ctx, before, next)
	}
	u, err := s.upload(ctx, &next, r)
	if err != nil {
		return Record{}, err
	}
	written, err := s.write(ctx, before, next)
	switch {
	case messages.CodeOf(err) == messages.CodeConflict:
		s.drop(ctx, u.Object)
	case err == nil && before.Object != "" && before.Object != next.Object:
		s.drop(ctx, before.Object) // who is in the midst of it finds it gone, and the new record
	}
	return written, err
}

// Remove makes the record say that nobody is to hold a body any more: holders delete it.
func (s *Store) Remove(ctx context.Context, name string, expect *uint64, by string) (Record, error) {
	if err := messages.CheckName("data", name); err != nil {
		return Record{}, err
	}
	before, err := s.expect(ctx, name, expect)
	if err != nil {
		return Record{}, err
	}
	if before.Rev == 0 || before.Removed {
		return Record{}, messages.Errorf(messages.CodeNotFound, "there is no data %q; `fleetbus sync ls` lists what there is", name)
	}
	written, err := s.write(ctx, before, messages.Data{Name: name, Rev: before.Rev + 1, By: by, Removed: true})
	if err == nil && before.Object != "" {
		s.drop(ctx, before.Object)
	}
	return written, err
}

// expect reads the record as it is, and refuses one that is not of the revision expected.
func (s *Store) expect(ctx context.Context, name string, want *uint64) (Record, error) {
	if _, err := s.b.KV(ctx, bus.DataKV); err != nil { // makes it where it is missing
		return Record{}, err
	}
	r, err := s.record(ctx, name)
	if err != nil {
		return r, err
	}
	found := r.Rev
	if r.Removed {
		found = 0
	}
	if want != nil && *want != found && *want != r.Rev {
		return r, conflict(name, r.Rev, fmt.Sprintf("this write was to replace revision %d", *want))
	}
	return r, nil
}

func conflict(name string, rev uint64, why string) error {
	return messages.Errorf(messages.CodeConflict, "data %q has revision %d, %s; nothing was changed: read it again, and write again if yours is still wanted", name, rev, why)
}

// record returns the record as its leader has it; revision 0 where there is none.
func (s *Store) record(ctx context.Context, name string) (Record, error) {
	e, ok, err := s.b.Entry(ctx, bus.DataKV, name)
	if err != nil || !ok {
		return Record{Fence: messages.Fence{Revision: e.Seq}}, err
	}
	return decode(e, 0)
}

func decode(e bus.Stored, epoch int64) (Record, error) {
	r := Record{Fence: messages.Fence{Epoch: epoch, Revision: e.Seq}}
	err := messages.Decode(e.Data, &r.Data)
	return r, err
}

// sameBody reports whether r has the body of a record, and leaves it at its beginning.
func sameBody(r io.Reader, before messages.Data) (bool, error) {
	seeker, ok := r.(io.Seeker)
	if !ok || before.Digest == "" {
		return false, nil
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return false, nil //nolint:nilerr // a pipe behind a file's interface: it is read once, below
	}
	digest, size, err := bodyfile.Digest(r)
	if err == nil {
		_, err = seeker.Seek(start, io.SeekStart)
	}
	if err != nil {
		return false, readFault(before.Name, err)
	}
	return size == before.Size && digest == before.Digest, nil
}

func readFault(name string, err error) error {
	return messages.Errorf(messages.CodeBadRequest, "read the body of data %q: %v", name, err)
}

// upload stores a body and fills in what the record says of it.
func (s *Store) upload(ctx context.Context, next *messages.Data, r io.Reader) (*bus.Upload, error) {
	if _, err := s.b.Bodies(ctx); err != nil {
		return nil, err
	}
	u, err := s.b.NewUpload(bus.Bodies)
	if err != nil {
		return nil, err
	}
	digest, size, err := bodyfile.Send(ctx, u, r, nil)
	var unread *bodyfile.ReadError
	if errors.As(err, &unread) {
		err = readFault(next.Name, unread.Err)
	}
	if err == nil {
		err = u.Finish(ctx, bus.Described{Description: "fleetbus: data " + next.Name, Size: size, Digest: digest})
	}
	if err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		_ = u.Drop(clean) // what stays is known to nobody, and takes room: the first error says why
		return nil, err
	}
	next.Size, next.Digest, next.Object, next.First = size, hex.EncodeToString(digest), u.Object, u.First
	return u, nil
}

// drop removes a body that no record names. That it may fail costs room and nothing else.
func (s *Store) drop(ctx context.Context, object string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	if store, err := s.b.Bodies(ctx); err == nil {
		_ = store.Delete(ctx, object)
	}
}

// write replaces a record and tells the agents.
func (s *Store) write(ctx context.Context, before Record, next messages.Data) (Record, error) {
	data, err := messages.Encode(&next)
	if err != nil {
		return Record{}, err
	}
	if before.Rev == 0 {
		if err := s.room(ctx, next.Name); err != nil {
			return Record{}, err
		}
	}
	kv, err := s.b.KV(ctx, bus.DataKV)
	if err != nil {
		return Record{}, err
	}
	rev, err := kv.Update(ctx, next.Name, data, before.Fence.Revision)
	if err != nil {
		if err = bus.Explain(err, "write the record of data "+next.Name); messages.CodeOf(err) != messages.CodeConflict {
			return Record{}, err
		}
		now, rerr := s.record(ctx, next.Name)
		if rerr != nil {
			return Record{}, err
		}
		return Record{}, conflict(next.Name, now.Rev, fmt.Sprintf("somebody%s wrote it while this write of revision %d was under way", by(now.By), next.Rev))
	}
	// A word that is lost costs time, not the truth: holders look by themselves.
	_ = s.b.Conn.Publish(s.b.Subject(messages.KindData, messages.FleetSite).String(), nil)
	return Record{Data: next, Fence: messages.Fence{Epoch: kv.Epoch, Revision: rev}}, nil
}

func by(who string) string {
	if who == "" {
		return " else"
	}
	return " else (" + who + ")"
}

// room refuses a name too many.
func (s *Store) room(ctx context.Context, name string) error {
	n := 0
	err := s.b.Lasts(ctx, bus.DataKV, ">", func(string, bus.Stored) error { n++; return nil })
	if err == nil && n >= messages.MaxData {
		err = messages.Errorf(messages.CodeBadRequest, "data %q: the fleet has %d named data, removed ones counted, allowed are %d; use a name that there is", name, n, messages.MaxData)
	}
	return err
}

// List returns all records, removed ones too, sorted by name.
func (s *Store) List(ctx context.Context) ([]Record, error) {
	return list(ctx, s.b)
}

// list reads all records. A server that is behind the others may answer.
func list(ctx context.Context, b *bus.Bus) ([]Record, error) {
	kv, err := b.KV(ctx, bus.DataKV)
	if err != nil {
		return nil, err
	}
	now, err := serverTime(ctx, kv)
	if err != nil {
		return nil, err
	}
	var all []Record
	err = b.Lasts(ctx, bus.DataKV, ">", func(key string, e bus.Stored) error {
		r, err := decode(e, kv.Epoch)
		if err != nil || r.Name != key {
			return nil //nolint:nilerr // nonsense under one name must not hide the others; who writes there finds it
		}
		r.Age = max(0, now.Sub(e.Time))
		all = append(all, r)
		return nil
	})
	slices.SortFunc(all, func(a, b Record) int { return strings.Compare(a.Name, b.Name) })
	return all, err
}

// serverTime is the server's clock, a little before now.
func serverTime(ctx context.Context, kv bus.KV) (time.Time, error) {
	status, err := kv.Status(ctx)
	if err != nil {
		return time.Time{}, bus.Explain(err, "read the server's clock")
	}
	s, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return time.Time{}, messages.Errorf(messages.CodeInternal, "the client returned no stream info")
	}
	return s.StreamInfo().TimeStamp, nil
}

// Record returns the record of a body as the leader of the bucket has it: what was just
// written is seen. One that there is not, or that was removed, is an error with code
// not_found.
func (s *Store) Record(ctx context.Context, name string) (Record, error) {
	if err := messages.CheckName("data", name); err != nil {
		return Record{}, err
	}
	if _, err := s.b.KV(ctx, bus.DataKV); err != nil {
		return Record{}, err
	}
	r, err := s.record(ctx, name)
	if err == nil && (r.Rev == 0 || r.Removed) {
		err = messages.Errorf(messages.CodeNotFound, "there is no data %q; `fleetbus sync ls` lists what there is", name)
	}
	return r, err
}

// Get writes a body to w, verified: an error says that what w got is not the body.
func (s *Store) Get(ctx context.Context, name string, w io.Writer) (Record, error) {
	r, err := s.Record(ctx, name)
	if err != nil {
		return r, err
	}
	sum, next, have := sha256.New(), r.First, int64(0)
	for have < r.Size {
		ask, cancel := context.WithTimeout(ctx, askTime)
		n := 0
		err := s.b.Chunks(ask, bus.Bodies, r.Object, next, bodyfile.MostChunks, func(seq uint64, data []byte) error {
			n, next, have = n+1, seq+1, have+int64(len(data))
			sum.Write(data)
			_, err := w.Write(data)
			return err
		})
		cancel()
		if err != nil {
			return r, err
		}
		if n == 0 {
			return r, messages.Errorf(messages.CodeConflict, "data %q: its body ended after %d of %d bytes, or was replaced meanwhile; read it again", name, have, r.Size)
		}
	}
	if hex.EncodeToString(sum.Sum(nil)) != r.Digest {
		return r, messages.Errorf(messages.CodeInternal, "data %q: the body in the store is not that of its record; put it again", name)
	}
	return r, nil
}
