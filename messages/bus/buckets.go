package bus

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Bucket is one of our KV buckets.
type Bucket string

// The buckets of a fleet.
const (
	Desired    Bucket = "desired"    // task.<name>: TaskEntry; drain.<agent>: DrainEntry; settings: Settings
	Agents     Bucket = "agents"     // <agent>: Registration; the revision is the agent's incarnation
	Placements Bucket = "placements" // <agent>: Placement
	LeaseKV    Bucket = "lease"      // leader: Lease; the revision is the coordinator's term
	RoutesKV   Bucket = "routes"     // routes: Routes
	Jobs       Bucket = "jobs"       // <job>: Job
	Safety     Bucket = "safety"     // robot.<robot>, all: StopOrder; latch.<robot>: Latch
	DataKV     Bucket = "data"       // <name>: Data
	Acks       Bucket = "acks"       // <agent>.<name>: DataAck
)

// The keys of the buckets that do not use a name.
const (
	KeyTask     = "task."
	KeyDrain    = "drain."
	KeySettings = "settings"
	KeyLeader   = "leader"
	KeyRoutes   = "routes"
	KeyRobot    = "robot."
	KeyAll      = "all"
	KeyLatch    = "latch."
)

// Buckets lists all buckets.
func Buckets() []Bucket {
	return []Bucket{Desired, Agents, Placements, LeaseKV, RoutesKV, Jobs, Safety, DataKV, Acks}
}

// BucketName returns the name of a bucket in NATS.
func BucketName(fleet string, b Bucket) string { return "fb__" + fleet + "__" + string(b) }

// jobsTTL is how long the record of a job is kept after its last change. A job whose
// record is gone counts as withdrawn, so it is longer than anything waits that is still
// wanted.
const jobsTTL = 30 * 24 * time.Hour

// markerTTL is how long the lease bucket keeps the mark of an expired lease; a second
// is the least, and long enough: followers ask for the key itself, not for its end.
const markerTTL = time.Second

func bucketConfig(fleet string, b Bucket) jetstream.KeyValueConfig {
	cfg := jetstream.KeyValueConfig{
		Bucket:      BucketName(fleet, b),
		Description: "fleetbus: " + string(b),
		History:     1,
		Storage:     jetstream.FileStorage,
	}
	switch b {
	case Desired, Safety, DataKV:
		cfg.History = 10 // who changed what, for people
	case LeaseKV:
		cfg.LimitMarkerTTL = markerTTL
	case Jobs:
		cfg.TTL = jobsTTL
	}
	return cfg
}

// KV is a bucket with the time of its creation, which is the epoch of every fence that
// comes from its revisions.
type KV struct {
	jetstream.KeyValue
	Epoch int64 // Unix nanoseconds on the server's clock
}

// KV opens a bucket and makes it where it is missing.
func (b *Bus) KV(ctx context.Context, bucket Bucket) (KV, error) {
	cfg := bucketConfig(b.Fleet, bucket)
	kv, err := b.JS.KeyValue(ctx, cfg.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		cfg.Replicas = b.count()
		kv, err = b.JS.CreateKeyValue(ctx, cfg)
		if b.replicas == 0 && cfg.Replicas > 1 && tooFewPeers(err) {
			cfg.Replicas = 1
			kv, err = b.JS.CreateKeyValue(ctx, cfg)
		}
		if errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = b.JS.KeyValue(ctx, cfg.Bucket)
		}
	}
	if err != nil {
		return KV{}, Explain(err, "open bucket "+cfg.Bucket)
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return KV{}, Explain(err, "read the state of bucket "+cfg.Bucket)
	}
	s, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return KV{}, Explain(errors.New("the client returned no stream info"), "read the state of bucket "+cfg.Bucket)
	}
	return KV{KeyValue: kv, Epoch: s.StreamInfo().Created.UnixNano()}, nil
}

// Last returns the revision that was written last, of whatever key, also where its entry is
// gone again.
func (kv KV) Last(ctx context.Context) (uint64, error) {
	status, err := kv.Status(ctx)
	if err != nil {
		return 0, Explain(err, "read the state of bucket "+kv.Bucket())
	}
	s, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return 0, Explain(errors.New("the client returned no stream info"), "read the state of bucket "+kv.Bucket())
	}
	return s.StreamInfo().State.LastSeq, nil
}

// Newest returns the newest revision that is still there, of whatever key, the mark of a
// deleted one included; 0 for an empty bucket. The leader of the bucket's stream answers: a
// list, or a get, may come from a server that is behind it. Where there is no leader the
// error has code unavailable.
func (b *Bus) Newest(ctx context.Context, bucket Bucket) (uint64, error) {
	stream := "KV_" + BucketName(b.Fleet, bucket)
	// The client library would ask any server that has a copy.
	m, err := b.Conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, []byte(`{"last_by_subj":"`+BucketSubject(b.Fleet, bucket, ">")+`"}`))
	if err != nil {
		return 0, Explain(err, "ask for the newest entry of bucket "+BucketName(b.Fleet, bucket))
	}
	var answer struct {
		Message struct {
			Seq uint64 `json:"seq"`
		} `json:"message"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return 0, Explain(err, "read what the server says of bucket "+BucketName(b.Fleet, bucket))
	}
	switch {
	case answer.Error == nil:
		return answer.Message.Seq, nil
	case answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return 0, nil
	}
	return 0, Explain(answer.Error, "ask for the newest entry of bucket "+BucketName(b.Fleet, bucket))
}

// BucketSubject returns the subject on which a key of a bucket is stored. The lease
// needs it: only a publish there can renew a key and its TTL in one step.
func BucketSubject(fleet string, b Bucket, key string) string {
	return "$KV." + BucketName(fleet, b) + "." + key
}
