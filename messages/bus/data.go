package bus

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

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
