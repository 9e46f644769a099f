package bus

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Chunk is how large the chunks of a body are, bytes: what the Object Store of NATS uses.
const Chunk = 128 << 10

// Bodies is the name of the object store that keeps the bodies of named data.
const Bodies = "bodies"

// BodiesName returns the name of a fleet's object store in NATS.
func BodiesName(fleet string) string { return BucketName(fleet, Bodies) }

func bodiesStream(fleet string) string { return "OBJ_" + BodiesName(fleet) }

func chunkSubject(fleet, object string) string { return "$O." + BodiesName(fleet) + ".C." + object }

// Bodies opens the object store of bodies and makes it where it is missing.
func (b *Bus) Bodies(ctx context.Context) (jetstream.ObjectStore, error) {
	name := BodiesName(b.Fleet)
	store, err := b.JS.ObjectStore(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		cfg := jetstream.ObjectStoreConfig{Bucket: name, Description: "fleetbus: bodies of named data", Storage: jetstream.FileStorage, Replicas: b.count()}
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
func (b *Bus) NewUpload() (*Upload, error) {
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
	return &Upload{Object: nuid.Next(), b: b, js: b.chunks}, nil
}

// Write sends one chunk; data may be used again when it returns.
func (u *Upload) Write(ctx context.Context, data []byte) error {
	if len(u.acks) >= uploadWindow {
		if err := u.confirm(ctx); err != nil {
			return err
		}
	}
	f, err := u.js.PublishMsgAsync(&nats.Msg{Subject: chunkSubject(u.b.Fleet, u.Object), Data: data}, jetstream.WithExpectStream(bodiesStream(u.b.Fleet)))
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

// Finish waits for all chunks and writes down what they are, under the object's own name,
// as the Object Store of NATS wants it. digest is SHA-256.
func (u *Upload) Finish(ctx context.Context, size int64, digest []byte, name string) error {
	for len(u.acks) > 0 {
		if err := u.confirm(ctx); err != nil {
			return err
		}
	}
	info := jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: u.Object, Description: "fleetbus: data " + name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: Chunk}},
		Bucket:     BodiesName(u.b.Fleet), NUID: u.Object, Size: uint64(size), Chunks: u.chunks,
		Digest: "SHA-256=" + base64.URLEncoding.EncodeToString(digest),
	}
	data, err := json.Marshal(&info)
	if err != nil {
		return Explain(err, "describe an object")
	}
	m := nats.NewMsg("$O." + info.Bucket + ".M." + base64.URLEncoding.EncodeToString([]byte(u.Object)))
	m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
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
	s, err := u.b.JS.Stream(ctx, bodiesStream(u.b.Fleet))
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSubject(chunkSubject(u.b.Fleet, u.Object)))
	}
	return Explain(err, "remove chunks that are not wanted")
}

// Chunks calls use with up to most chunks of an object, the first of which has at least
// the sequence from. No chunk at all means that the object is gone, or that there is none
// from there on. The data is the callee's until it returns.
func (b *Bus) Chunks(ctx context.Context, object string, from uint64, most int, use func(seq uint64, data []byte) error) error {
	q := directQuestion{Seq: max(from, 1), Next: chunkSubject(b.Fleet, object), Batch: most, MaxBytes: most * Chunk}
	return b.direct(ctx, bodiesStream(b.Fleet), q, func(s Stored) error { return use(s.Seq, s.Data) })
}

// Lasts calls use with the newest entry of every key of a bucket that matches the pattern,
// deleted ones with no data. A server that is behind the others may answer. There may be
// 1,024 at most.
func (b *Bus) Lasts(ctx context.Context, bucket Bucket, pattern string, use func(key string, s Stored) error) error {
	prefix := BucketSubject(b.Fleet, bucket, "")
	return b.direct(ctx, "KV_"+BucketName(b.Fleet, bucket), directQuestion{MultiLast: []string{prefix + pattern}}, func(s Stored) error {
		return use(strings.TrimPrefix(s.Subject, prefix), s)
	})
}

// Entry returns the newest entry of a key, as the leader of the bucket has it: what was
// just written is seen. ok is false where there is none, or only the mark of a deletion.
func (b *Bus) Entry(ctx context.Context, bucket Bucket, key string) (s Stored, ok bool, err error) {
	s, ok, err = b.last(ctx, "KV_"+BucketName(b.Fleet, bucket), BucketSubject(b.Fleet, bucket, key), "read "+key+" of bucket "+BucketName(b.Fleet, bucket))
	return s, ok && len(s.Data) > 0, err
}

// last returns the last message of a subject, as the leader of the stream has it. ok is
// false where there is none.
func (b *Bus) last(ctx context.Context, stream, subject, tried string) (s Stored, ok bool, err error) {
	question, err := json.Marshal(map[string]string{"last_by_subj": subject})
	if err != nil {
		return s, false, Explain(err, tried)
	}
	m, err := b.Conn.RequestWithContext(ctx, b.api()+".STREAM.MSG.GET."+stream, question)
	if err != nil {
		return s, false, Explain(err, tried)
	}
	var answer struct {
		Message struct {
			Seq    uint64    `json:"seq"`
			Time   time.Time `json:"time"`
			Data   []byte    `json:"data"`
			Header []byte    `json:"hdrs"`
		} `json:"message"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return s, false, Explain(err, tried)
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return s, false, nil
	case answer.Error != nil:
		return s, false, Explain(answer.Error, tried)
	}
	return Stored{Subject: subject, Seq: answer.Message.Seq, Time: answer.Message.Time, Data: answer.Message.Data}, true, nil
}
