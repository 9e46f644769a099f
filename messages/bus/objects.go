package bus

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Chunk is how large the chunks of a body are, bytes: what the Object Store of NATS uses.
const Chunk = 128 << 10

// Objects is one of our object stores.
type Objects string

// The object stores of a fleet, beside that of checkpoints.
const (
	Bodies    Objects = "bodies"    // bodies of named data, under names of their own
	Artifacts Objects = "artifacts" // what tasks run, under their SHA-256 in hex
)

var objectsOf = map[Objects]string{Bodies: "bodies of named data", Artifacts: "what tasks run"}

// ObjectsName returns the name of a fleet's object store in NATS.
func ObjectsName(fleet string, o Objects) string { return BucketName(fleet, Bucket(o)) }

// ObjectStream returns the name of the stream behind an object store.
func ObjectStream(fleet string, o Objects) string { return "OBJ_" + ObjectsName(fleet, o) }

// BodiesName returns the name of the object store of bodies.
func BodiesName(fleet string) string { return ObjectsName(fleet, Bodies) }

func chunkSubject(fleet string, o Objects, object string) string {
	return "$O." + ObjectsName(fleet, o) + ".C." + object
}

func metaSubject(fleet string, o Objects, name string) string {
	return "$O." + ObjectsName(fleet, o) + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}

// Bodies opens the object store of bodies and makes it where it is missing.
func (b *Bus) Bodies(ctx context.Context) (jetstream.ObjectStore, error) {
	return b.Objects(ctx, Bodies)
}

// Objects opens an object store and makes it where it is missing.
func (b *Bus) Objects(ctx context.Context, o Objects) (jetstream.ObjectStore, error) {
	name := ObjectsName(b.Fleet, o)
	store, err := b.JS.ObjectStore(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		cfg := jetstream.ObjectStoreConfig{Bucket: name, Description: "fleetbus: " + objectsOf[o], Storage: jetstream.FileStorage, Replicas: b.count()}
		store, err = b.JS.CreateObjectStore(ctx, cfg)
		if b.replicas == 0 && cfg.Replicas > 1 && tooFewPeers(err) {
			cfg.Replicas = 1
			store, err = b.JS.CreateObjectStore(ctx, cfg)
		}
		if errors.Is(err, jetstream.ErrBucketExists) {
			store, err = b.JS.ObjectStore(ctx, name)
		}
	}
	return store, Explain(err, "open object store "+name)
}

// Upload puts a body into the object store, chunk by chunk, so that only its creator knows
// of it until Finish has been called. One goroutine may use it.
//
// The client library's own Put keeps up to 4,000 chunks on their way, which time out behind
// one another on a slow uplink; here it is uploadWindow.
type Upload struct {
	Object string // last token of the subject of the chunks
	First  uint64 // sequence of the first one, after it was acknowledged

	b      *Bus
	store  Objects
	js     jetstream.JetStream
	acks   []jetstream.PubAckFuture
	chunks uint32
}

// uploadWindow is how many chunks are on their way at once: 2 MiB, that is 100 MB/s over a
// round trip of 20 ms.
const uploadWindow = 16

// chunkTime bounds the wait for the acknowledgement of one chunk. It is longer than a raft
// group takes to elect a leader (4 to 9 s).
const chunkTime = 15 * time.Second

// uploads is how many bodies may be on their way on one connection at once.
const uploads = 64

// NewUpload begins a body. The store must be there.
func (b *Bus) NewUpload(store Objects) (*Upload, error) {
	// One context for all uploads of the connection: each keeps a subscription and two
	// goroutines for as long as the connection lives. It is not b.JS, whose publishes may take
	// another time.
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.chunks == nil {
		js, err := jetstream.New(b.Conn, jetstream.WithPublishAsyncTimeout(chunkTime), jetstream.WithPublishAsyncMaxPending(uploads*uploadWindow))
		if err != nil {
			return nil, Explain(err, "open JetStream")
		}
		b.chunks = js
	}
	return &Upload{Object: nuid.Next(), b: b, store: store, js: b.chunks}, nil
}

// Write sends one chunk; data may be used again when it returns.
func (u *Upload) Write(ctx context.Context, data []byte) error {
	if len(u.acks) >= uploadWindow {
		if err := u.confirm(ctx); err != nil {
			return err
		}
	}
	f, err := u.js.PublishMsgAsync(&nats.Msg{Subject: chunkSubject(u.b.Fleet, u.store, u.Object), Data: data}, jetstream.WithExpectStream(ObjectStream(u.b.Fleet, u.store)))
	if err != nil {
		return Explain(err, "store a chunk")
	}
	u.acks = append(u.acks, f)
	u.chunks++
	return nil
}

// confirm waits for the oldest acknowledgement.
func (u *Upload) confirm(ctx context.Context) error {
	f := u.acks[0]
	u.acks = u.acks[1:]
	select {
	case ack := <-f.Ok():
		if u.First == 0 {
			u.First = ack.Sequence
		}
		return nil
	case err := <-f.Err():
		return Explain(err, "store a chunk")
	case <-ctx.Done():
		return Explain(ctx.Err(), "store a chunk")
	}
}

// Described is what an object store is told of an object when it is whole.
type Described struct {
	Name        string // "": the one that its chunks have
	Description string
	Size        int64
	Digest      []byte // SHA-256
	Metadata    map[string]string

	// New makes Finish fail with code conflict where the store has an object of that name.
	New bool
}

// Finish waits for all chunks and writes down what they are, as the Object Store of NATS
// wants it: from then on the object is there.
func (u *Upload) Finish(ctx context.Context, d Described) error {
	for len(u.acks) > 0 {
		if err := u.confirm(ctx); err != nil {
			return err
		}
	}
	if d.Name == "" {
		d.Name = u.Object
	}
	info := jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: d.Name, Description: d.Description, Metadata: d.Metadata, Opts: &jetstream.ObjectMetaOptions{ChunkSize: Chunk}},
		Bucket:     ObjectsName(u.b.Fleet, u.store), NUID: u.Object, Size: uint64(d.Size), Chunks: u.chunks,
		Digest: "SHA-256=" + base64.URLEncoding.EncodeToString(d.Digest),
	}
	data, err := json.Marshal(&info)
	if err != nil {
		return Explain(err, "describe an object")
	}
	m := nats.NewMsg(metaSubject(u.b.Fleet, u.store, d.Name))
	if d.New {
		m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.Itoa(0))
	} else {
		m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	}
	m.Data = data
	_, err = u.js.PublishMsg(ctx, m)
	return Explain(err, "store what an object is")
}

// Drop removes the chunks of a body that was begun and is not wanted.
func (u *Upload) Drop(ctx context.Context) error {
	// First those on their way: the server may store one after it has removed the others.
	for len(u.acks) > 0 && ctx.Err() == nil {
		_ = u.confirm(ctx) // what was not stored need not be removed
	}
	return u.b.purge(ctx, u.store, chunkSubject(u.b.Fleet, u.store, u.Object))
}

func (b *Bus) purge(ctx context.Context, store Objects, subject string) error {
	s, err := b.JS.Stream(ctx, ObjectStream(b.Fleet, store))
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSubject(subject))
	}
	return Explain(err, "remove what is not wanted from the object store")
}

// Chunks calls use with up to most chunks of an object, the first of which has at least
// the sequence from. No chunk at all means that the object is gone, or that there is none
// from there on. The data is the callee's until it returns.
func (b *Bus) Chunks(ctx context.Context, store Objects, object string, from uint64, most int, use func(seq uint64, data []byte) error) error {
	q := directQuestion{Seq: max(from, 1), Next: chunkSubject(b.Fleet, store, object), Batch: most, MaxBytes: most * Chunk}
	return b.direct(ctx, ObjectStream(b.Fleet, store), q, func(s Stored) error { return use(s.Seq, s.Data) })
}

// Object returns what a store says of the object of a name; ok is false where it has none.
// A server that is behind the others may answer.
func (b *Bus) Object(ctx context.Context, store Objects, name string) (info jetstream.ObjectInfo, ok bool, err error) {
	err = b.objects(ctx, store, metaSubject(b.Fleet, store, name), func(i jetstream.ObjectInfo) { info, ok = i, true })
	return info, ok, err
}

// ObjectList returns what a store says of all its objects, 1,024 at most.
func (b *Bus) ObjectList(ctx context.Context, store Objects) (list []jetstream.ObjectInfo, err error) {
	err = b.objects(ctx, store, "$O."+ObjectsName(b.Fleet, store)+".M.>", func(i jetstream.ObjectInfo) { list = append(list, i) })
	return list, err
}

func (b *Bus) objects(ctx context.Context, store Objects, subject string, use func(jetstream.ObjectInfo)) error {
	return b.direct(ctx, ObjectStream(b.Fleet, store), directQuestion{MultiLast: []string{subject}}, func(s Stored) error {
		var info jetstream.ObjectInfo
		// Nonsense under one name must not hide the others.
		if json.Unmarshal(s.Data, &info) == nil && !info.Deleted {
			info.ModTime = s.Time
			use(info)
		}
		return nil
	})
}

// RemoveObject removes an object: first its name, so that whoever looks for it finds
// nothing, then its chunks. Nothing of it is left, no mark either.
func (b *Bus) RemoveObject(ctx context.Context, store Objects, info jetstream.ObjectInfo) error {
	if err := b.purge(ctx, store, metaSubject(b.Fleet, store, info.Name)); err != nil {
		return err
	}
	return b.purge(ctx, store, chunkSubject(b.Fleet, store, info.NUID))
}
