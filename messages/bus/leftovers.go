package bus

import (
	"context"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go/jetstream"
)

// Leftover are chunks that no object has: of an upload that is under way, or whose process
// has died in the midst.
type Leftover struct {
	Object string
	Bytes  int64         // at most
	Idle   time.Duration // since its last chunk, on the server's clock
}

// Leftovers returns the chunks of a store that no object has.
func (b *Bus) Leftovers(ctx context.Context, store Objects) (list []Leftover, err error) {
	const what = "look for uploads that did not end"
	s, err := b.JS.Stream(ctx, ObjectStream(b.Fleet, store))
	if err != nil {
		return nil, Explain(err, what)
	}
	prefix := chunkSubject(b.Fleet, store, "")
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(prefix+"*"))
	if err != nil {
		return nil, Explain(err, what)
	}
	// After the chunks: one that has ended meanwhile is an object now.
	objects, err := b.ObjectList(ctx, store)
	if err != nil {
		return nil, err
	}
	whole := make(map[string]bool)
	for _, o := range objects {
		whole[o.NUID] = true
	}
	for subject, chunks := range info.State.Subjects {
		object := strings.TrimPrefix(subject, prefix)
		if whole[object] || messages.CheckName("object", object) != nil {
			continue
		}
		left := Leftover{Object: object, Bytes: int64(chunks) * Chunk}
		err := b.direct(ctx, ObjectStream(b.Fleet, store), directQuestion{MultiLast: []string{subject}}, func(s Stored) error {
			left.Idle = max(0, info.TimeStamp.Sub(s.Time)) // a chunk may have come since
			return nil
		})
		if err != nil {
			return list, err
		}
		list = append(list, left)
	}
	return list, nil
}

// DropLeftover removes the chunks of an upload that will not end.
func (b *Bus) DropLeftover(ctx context.Context, store Objects, object string) error {
	return b.purge(ctx, store, chunkSubject(b.Fleet, store, object))
}
